"""`run`: begin and end what belongs together, and sweep what nobody holds any more."""

from __future__ import annotations

import time
from typing import Any

import click

from hostsvc.cli import EXIT_OK, EXIT_PARTIAL
from hostsvc.cli.group import NEXT_STEPS, Settings, command
from hostsvc.cli.params import complete_run, limit_option
from hostsvc.cli.reaper import accept_option, dry_run_option, run_pass
from ptyd.cli.output import age, printable, put, put_json, put_table, say, tell_error
from ptyd.protocol.errors import PtydError

Run = dict[str, Any]


@command()
@click.argument("id_", metavar="[ID]", required=False)
@click.option(
    "--holder",
    "holder_pid",
    type=click.IntRange(1),
    metavar="PID",
    help="The process that it is for; when that is gone, the run is given up. In a shell: $$.",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="Give it up after so long, whoever holds it.",
)
def start(settings: Settings, id_: str | None, holder_pid: int | None, deadline_s: int | None) -> int:
    """Begin a run and print its id.

    Sessions join it with `session new --run ID`, containers by the labels run=ID and
    hostsvc.owner=INDEX (in a session of the run: $HOSTSVC_RUN, $HOSTSVC_OWNER). An id serves once.
    """
    asked = {"id": id_, "holder_pid": holder_pid, "deadline_s": deadline_s}
    with settings.connect() as client:
        run = client.call("run.start", {key: value for key, value in asked.items() if value is not None})
    if settings.json:
        put_json(run)
    else:
        put(run["id"])
    return EXIT_OK


@command()
@limit_option
def ls(settings: Settings, limit: int) -> int:
    """List runs, those first that are not over. With -q only ids."""
    with settings.connect() as client:
        answer = client.call("run.list", {"limit": limit})
    if settings.json:
        put_json(answer)
    elif settings.quiet:
        for run in answer["runs"]:
            put(run["id"])
    else:
        put_table(["ID", "STATE", "SESSIONS", "AGE", "HOLDER", "NOTES"], map(_row, answer["runs"]), states=1)
    return EXIT_OK


def _row(run: Run) -> list[str]:
    notes = []
    if run["state"] == "ending" and run["end_requested_at_ms"] is None:
        notes.append("given up")
    if run["last_error"]:
        notes.append(run["last_error"])
    return [
        run["id"],
        run["state"],
        str(run["sessions"]),
        age(time.time() * 1000 - run["created_at_ms"]),
        str(run["holder_pid"] or "-"),
        "; ".join(notes) or "-",
    ]


@command()
@click.argument("runs", nargs=-1, required=True, shell_complete=complete_run)
def end(settings: Settings, runs: tuple[str, ...]) -> int:
    """End everything of these runs, and nothing else.

    Late sessions of them are refused from this moment on. Returns 5 when something of one is not
    proven to be gone: it is listed, and the reaper goes on.
    """
    status = EXIT_OK
    with settings.connect() as client:
        for id_ in runs:
            try:
                answer = client.call("run.end", {"id": id_})
            except PtydError as error:
                status = status or error.exit_status
                tell_error(error, "hostsvc", NEXT_STEPS)
                continue
            status = status or (EXIT_PARTIAL if answer["state"] == "partial" else EXIT_OK)
            if settings.json:
                put_json(answer)
            else:
                tell_end(settings, answer)
    return status


def tell_end(settings: Settings, answer: dict[str, Any]) -> None:
    """Say how far the end of a run has come."""
    id_ = answer["run"]["id"]
    for warning in answer["warnings"]:
        say(f"hostsvc: run {id_}: {printable(warning)}")
    if answer["state"] == "partial":
        say(f"  {answer['ended']} ended, {answer['failed']} are left to the reaper; see: hostsvc run ls")
    elif not settings.quiet:
        say(f"hostsvc: run {id_} has ended; {answer['ended']} of it ended with it")


@command()
@dry_run_option
@accept_option
def sweep(settings: Settings, dry_run: bool, accept: str | None) -> int:
    """End what belongs to runs that nobody holds.

    The same as `hostsvc reap --kind runs`, with its exit statuses: 5 in part, 4 refused, 1 when not
    everything could be seen.
    """
    return run_pass(settings, "hostsvc run sweep", dry_run=dry_run, kinds=["runs"], accept=accept)
