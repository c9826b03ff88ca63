"""`kill` and `forget`: ending sessions, with proof, and dropping what is remembered of them."""

from __future__ import annotations

from typing import Any

import click

from ptyd.blocking import BlockingClient
from ptyd.cli.group import Settings, command
from ptyd.cli.output import describe_exit, put, put_json, tell_error
from ptyd.cli.params import complete_session, pair_option, pairs, sessions_argument
from ptyd.protocol.errors import Code, PtydError

Outcome = tuple[str, dict[str, Any] | PtydError]


@command()
@click.argument("sessions", nargs=-1, shell_complete=complete_session)
@pair_option("--label", "labels", "All with this label")
@click.option("--force", is_flag=True, help="SIGKILL at once, instead of a hang-up and two graces.")
@click.option(
    "--grace",
    "grace_s",
    metavar="SECONDS",
    type=click.FloatRange(0, 60),
    help="Each of the two graces [default: 1].",
)
def kill(
    settings: Settings,
    sessions: tuple[str, ...],
    labels: tuple[tuple[str, str], ...],
    force: bool,
    grace_s: float | None,
) -> int:
    """End sessions, with proof.

    Every process that a session ever started is ended and proven dead.     Exits with 4 and lists
    the survivors when that could not be proven.
    """
    if bool(sessions) == bool(labels):
        raise click.UsageError("give sessions, or --label, and not both")
    how: dict[str, Any] = {"force": force}
    if grace_s is not None:
        how["grace_ms"] = round(grace_s * 1000)
    with settings.connect() as client:
        if labels:
            return _report(settings, _kill_labelled(client, pairs(labels), how))
        each = ({"id": session, **how} for session in sessions)
        answers = client.call_each("session.kill", each)
        return _report(settings, list(zip(sessions, answers, strict=True)))


def _kill_labelled(client: BlockingClient, labels: dict[str, str], how: dict[str, Any]) -> list[Outcome]:
    results = client.call("session.kill", {"labels": labels, **how})["results"]
    if not results:
        raise PtydError(Code.NOT_FOUND, "no living session has these labels; see: ptyd ls")
    return [
        (result["id"], PtydError.from_wire(result["error"]) if "error" in result else result)
        for result in results
    ]


def _report(settings: Settings, outcomes: list[Outcome]) -> int:
    """Write each outcome; return the status of the first failure."""
    failed = 0
    for session, outcome in outcomes:
        if isinstance(outcome, PtydError):
            failed = failed or outcome.exit_status
            if session not in outcome.message:
                outcome.message = f"{session}: {outcome.message}"
            tell_error(outcome)
        elif settings.json:
            put_json({"id": session, **outcome})
        elif not settings.quiet:
            put(f"{session} {_describe(outcome)}")
    return failed


def _describe(outcome: dict[str, Any]) -> str:
    if outcome["outcome"] == "already_exited":
        return f"had already ended ({describe_exit(outcome['exit'])}; proof {outcome['proof']})"
    needed = f"{outcome['phase']}, {outcome['duration_ms']} ms"
    return f"killed ({needed}; {describe_exit(outcome['exit'])}; proof {outcome['proof']})"


@command(with_json=False)
@sessions_argument
def forget(settings: Settings, sessions: tuple[str, ...]) -> int:
    """Drop the records of ended sessions. A living one is refused."""
    failed = 0
    with settings.connect() as client:
        answers = client.call_each("session.forget", ({"id": session} for session in sessions))
        for answer in answers:
            if isinstance(answer, PtydError):
                failed = failed or answer.exit_status
                tell_error(answer)
    return failed
