"""`ls`, `inspect` and `status`: looking, without touching anything."""

from __future__ import annotations

from typing import Any

import click

from ptyd.cli.group import Settings, command
from ptyd.cli.output import age, command_line, describe_exit, put, put_fields, put_json, put_table, say
from ptyd.cli.params import pair_option, pairs, sessions_argument

_STATES = ["starting", "running", "lingering", "killing", "exited", "unsupervised"]


@command()
@click.option("-a", "--all", "show_all", is_flag=True, help="Ended sessions too, while remembered.")
@click.option("-l", "--detail", is_flag=True, help="Also foreground, busy and processes: a look at each.")
@pair_option("--label", "labels", "Only with this label")
@click.option("--state", type=click.Choice(_STATES), help="Only in this state.")
def ls(
    settings: Settings,
    show_all: bool,
    detail: bool,
    labels: tuple[tuple[str, str], ...],
    state: str | None,
) -> int:
    """List sessions. With -q only their ids."""
    asked = {"labels": pairs(labels) or None, "state": state, "detail": detail}
    with settings.connect() as client:
        answer = client.call("session.list", asked)
    shown = [s for s in answer["sessions"] if show_all or state or s["state"] != "exited"]
    if settings.json:
        put_json({**answer, "sessions": shown})
    elif settings.quiet:
        for session in shown:
            put(session["id"])
    else:
        _put_sessions(shown, detail)
    if not answer["complete"]:
        say("ptyd: the list is not complete: some records could not be resolved; see: ptyd doctor")
    return 0


def _put_sessions(sessions: list[dict[str, Any]], detail: bool) -> None:
    columns = ["ID", "NAME", "STATE", "PID", "AGE", "SIZE", "ATTACHED"]
    columns += ["BUSY", "PROCS", "FOREGROUND"] if detail else []
    rows = (_row(session, detail) for session in sessions)
    put_table([*columns, "COMMAND"], rows, states=2)


def _row(session: dict[str, Any], detail: bool) -> list[str]:
    size = f"{session['rows']}x{session['cols']}"
    row = [session["id"], session["name"] or "-", session["state"], str(session["pid"] or "-")]
    row += [age(session["age_ms"]), size, str(session["attached"])]
    if detail:
        foreground = session["foreground"] or {}
        row += [{True: "yes", False: "no", None: "?"}[session["busy"]], str(session["processes"] or 0)]
        row += [foreground.get("command") or "-"]
    ended = f" ({describe_exit(session['exit'])})" if session["exit"] else ""
    return [*row, command_line(session["argv"]) + ended]


@command()
@sessions_argument
def inspect(settings: Settings, sessions: tuple[str, ...]) -> int:
    """Show everything about sessions.

    With --json one object on each line.
    """
    with settings.connect() as client:
        for number, session in enumerate(sessions):
            found = client.call("session.get", {"id": session})
            if settings.json:
                put_json(found)
                continue
            if number:
                put("")
            put_fields(found)
    return 0


@command()
def status(settings: Settings) -> int:
    """Show the running daemon.

    Exits with 69 when none runs; never starts one.
    """
    with settings.connect(start=False) as client:
        stats = client.call("daemon.stats")
    if settings.json:
        put_json(stats)
        return 0
    if settings.quiet:
        return 0
    counts = ", ".join(f"{count} {state}" for state, count in sorted(stats["sessions"].items()))
    put_fields(
        {
            "daemon": f"pid {stats['pid']}, version {stats['version']}",
            "uptime": age(stats["uptime_ms"]),
            "sessions": counts or "none",
            "complete": "yes" if stats["complete"] else "no; see: ptyd doctor",
            "clients": str(stats["clients"]),
            "attachments": str(stats["attachments"]),
            "instance": stats["instance_id"],
        }
    )
    return 0
