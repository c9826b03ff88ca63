"""`session`: start, list, attach to and end sessions."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from hostsvc.cli import EXIT_OK
from hostsvc.cli.group import NEXT_STEPS, Settings, command
from hostsvc.cli.params import complete_run, complete_workspace, session_argument, sessions_argument
from hostsvc.restart import Policy
from hostsvc.states import SessionStatus
from ptyd.blocking import BlockingClient
from ptyd.cli.enter import caller_env, login_shell, terminal_size
from ptyd.cli.output import (
    age,
    command_line,
    describe_exit,
    printable,
    put,
    put_json,
    put_table,
    say,
    tell_error,
)
from ptyd.cli.params import pair_option, pairs, parse_size
from ptyd.protocol.errors import Code, PtydError

workspace_option = click.option(
    "-w",
    "--workspace",
    metavar="WORKSPACE",
    shell_complete=complete_workspace,
    help="The workspace [default: the one that this directory is in].",
)


@command(context_settings={"allow_interspersed_args": False})
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@workspace_option
@click.option("--attach", "attaches", is_flag=True, help="Attach to it: show it on this terminal.")
@click.option("--name", metavar="NAME", help="A name, unique among living sessions.")
@pair_option("--label", "labels", "A label")
@click.option(
    "--run", metavar="RUN", shell_complete=complete_run, help="The run that it belongs to, and ends with."
)
@click.option("--cwd", metavar="DIR", help="Working directory [default: the workspace's folder].")
@pair_option("--env", "env", "A variable on top of your environment")
@click.option(
    "--size", type=parse_size, metavar="ROWSxCOLS", help="Window size, rows first [default: this terminal's]."
)
@click.option(
    "--on-leader-exit",
    type=click.Choice(["keep", "kill"]),
    help="What becomes of background processes when the program exits [default: keep].",
)
@click.option(
    "--restart",
    type=click.Choice([policy.value for policy in Policy]),
    help="Start it again when it ends by itself [default: never]; its environment is kept for that.",
)
@click.option(
    "--restart-limit",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="So many starts in a row that do not last [default: 5].",
)
def new(settings: Settings, workspace: str | None, attaches: bool, **asked: Any) -> int:
    """Start a program in a workspace and print its session's id.

    The program is your login shell by default. It gets your environment. Options of hostsvc come
    before it, its own after it.
    """
    if attaches and not (os.isatty(0) and os.isatty(1)):
        raise click.UsageError("--attach needs a terminal")
    with settings.connect() as client:
        place = workspace or _workspace_here(client)
        made = client.call("session.create", {"workspace": place, **_asked(**asked)})
    if attaches:
        _exec_attach(settings, made["id"])
    if settings.json:
        put_json(made)
    else:
        put(made["id"])
        if not settings.quiet:
            say(f"hostsvc: to attach: hostsvc session attach {made['id']}")
    return EXIT_OK


def _asked(
    argv: tuple[str, ...],
    name: str | None,
    labels: tuple[tuple[str, str], ...],
    run: str | None,
    cwd: str | None,
    env: tuple[tuple[str, str], ...],
    size: tuple[int, int] | None,
    on_leader_exit: str | None,
    restart: str | None,
    restart_limit: int | None,
) -> dict[str, Any]:
    rows, cols = size or terminal_size() or (None, None)
    asked: dict[str, Any] = {
        "argv": list(argv) or login_shell(),
        "env": caller_env() | pairs(env),
        "name": name,
        "labels": pairs(labels),
        "run": run,
        "cwd": os.path.abspath(cwd) if cwd else None,
        "rows": rows,
        "cols": cols,
        "on_leader_exit": on_leader_exit,
        "restart": restart,
        "restart_limit": restart_limit,
    }
    return {key: value for key, value in asked.items() if value is not None}


def _workspace_here(client: BlockingClient) -> str:
    here = Path.cwd()
    around = [one for one in client.call("workspace.list")["workspaces"] if here.is_relative_to(one["path"])]
    if not around:
        raise click.UsageError("this directory is in no workspace; give -w WORKSPACE")
    found: str = max(around, key=lambda one: len(one["path"]))["id"]
    return found


def _exec_attach(settings: Settings, session: str) -> None:
    """Become `ptyd attach`: no byte of output passes through the host service."""
    sys.stdout.flush()
    sys.stderr.flush()
    quiet = ["--quiet"] if settings.quiet else []
    arguments = ["-P", "-m", "ptyd.cli", "attach", "--runtime-dir", settings.place(), *quiet, session]
    os.execv(sys.executable, [sys.executable, *arguments])


@command()
@workspace_option
@click.option(
    "--status", type=click.Choice([status.value for status in SessionStatus]), help="Only in this status."
)
@click.option("-a", "--all", "show_all", is_flag=True, help="Those that are over too.")
def ls(settings: Settings, workspace: str | None, status: str | None, show_all: bool) -> int:
    """List sessions, and what ptyd says of each.

    Living sessions in ptyd that are not this index's are listed apart; they are left alone.
    With -q only ids.
    """
    with settings.connect() as client:
        answer = client.call("session.list", {"workspace": workspace, "status": status})
        names = {one["id"]: one["name"] for one in client.call("workspace.list")["workspaces"]}
    shown = [row for row in answer["sessions"] if show_all or status or _matters(row)]
    if settings.json:
        put_json({**answer, "sessions": shown})
    elif settings.quiet:
        for row in shown:
            put(row["id"])
    else:
        _put_sessions(shown, names)
        _put_foreign(answer["foreign"])
    return EXIT_OK


def _matters(row: dict[str, Any]) -> bool:
    """Tell whether a row is of a session that is not over, by the index or by ptyd."""
    return row["ended_at_ms"] is None or bool(row["live"] and row["live"]["proof"] is None)


def _put_sessions(rows: list[dict[str, Any]], names: dict[str, str | None]) -> None:
    columns = ["ID", "NAME", "WORKSPACE", "STATUS", "LIVE", "PID", "AGE", "ATTACHED", "COMMAND"]
    put_table(columns, (_cells(row, names) for row in rows), states=3)


def _cells(row: dict[str, Any], names: dict[str, str | None]) -> list[str]:
    live = row["live"] or {}
    place = row["workspace_id"]
    return [
        row["id"],
        row["name"] or "-",
        (names.get(place) or place) if place else "-",
        row["status"],
        live.get("state") or ("?" if row["live_unknown"] else "-"),
        str(live.get("pid") or "-"),
        age(time.time() * 1000 - row["created_at_ms"]),
        str(live.get("attached", "-")),
        command_line(row["argv"]) + _note(row),
    ]


def _note(row: dict[str, Any]) -> str:
    """What is not as it should be, or how it ended."""
    restarts = f"; started again {row['restarts']} times" if row.get("restarts") else ""
    if row["ended_at_ms"] is not None:
        proof = (row["kill_evidence"] or {}).get("proof", "none")
        return f" ({describe_exit(row['exit'])}; proof {proof}{restarts})"
    notes = []
    if row["restarts"]:
        notes.append(f"started again {row['restarts']} times")
    if row["dispose_requested_at_ms"] is not None:
        notes.append("to be ended")
    if row["attempts"]:
        notes.append(f"{row['attempts']} attempts, last: {row['last_error']}")
    if row["live_unknown"]:
        notes.append(row["live_unknown"])
    return f" ({'; '.join(notes)})" if notes else ""


def _put_foreign(foreign: list[dict[str, Any]]) -> None:
    if not foreign:
        return
    put("")
    put("alive in ptyd, without a row here:")
    put_table(
        ["ID", "STATE", "OWNER"], [[one["id"], one["state"], one["owner"] or "-"] for one in foreign], 1
    )


@command(with_json=False)
@session_argument
def attach(settings: Settings, session: str) -> int:
    """Show a session on this terminal.

    The same as `ptyd attach`, which it becomes: ctrl-\\ leaves. Returns the program's exit code,
    128 + N for signal N, and 0 after leaving.
    """
    _exec_attach(settings, _resolve(settings, session))
    return EXIT_OK


def _resolve(settings: Settings, session: str) -> str:
    """Return the id of a session; what ptyd may know it by when the service cannot be asked."""
    try:
        with settings.connect() as client:
            rows = client.call("session.list")["sessions"]
    except PtydError as error:
        if error.code is not Code.UNREACHABLE:
            raise
        return session
    named = [row["id"] for row in rows if row["name"] == session and row["ended_at_ms"] is None]
    if not named and not any(row["id"] == session for row in rows):
        raise PtydError(Code.NOT_FOUND, f"no session {session}; see: hostsvc session ls")
    return str(named[0]) if named else session


@command()
@sessions_argument
@click.option("--force", is_flag=True, help="SIGKILL at once, instead of a hang-up and two graces.")
def dispose(settings: Settings, sessions: tuple[str, ...], force: bool) -> int:
    """End sessions, with proof.

    A session is disposed of when every process of it is proven dead. Exits with 4 and lists the
    survivors when that could not be proven: its row stays active, and the reaper goes on.
    """
    failed = EXIT_OK
    with settings.connect() as client:
        answers = client.call_each("session.dispose", ({"id": one, "force": force} for one in sessions))
        for session, answer in zip(sessions, answers, strict=True):
            if isinstance(answer, PtydError):
                failed = failed or answer.exit_status
                if session not in answer.message:
                    answer.message = f"{session}: {answer.message}"
                tell_error(answer, "hostsvc", NEXT_STEPS)
            elif settings.json:
                put_json(answer)
            elif not settings.quiet:
                put(printable(f"{session} {answer['status']}{_note(answer)}"))
    return failed
