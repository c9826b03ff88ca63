"""`health` and `events`: should somebody look, and what happens."""

from __future__ import annotations

from typing import Any, Final

import click

from hostsvc.cli import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL
from hostsvc.cli.group import Settings, command
from ptyd.cli.output import age, put, put_fields, put_json
from ptyd.cli.stream import Follower

STATUSES: Final = {"green": EXIT_OK, "yellow": EXIT_PARTIAL}


@command()
@click.option("--reset", is_flag=True, help="Let ptyd be restarted again, after restarts that did not help.")
def health(settings: Settings, reset: bool) -> int:
    """Tell whether somebody should look.

    Returns 0 when all is green, 5 when it is yellow (works, and somebody should look), 1 when it is
    red (something does not work), 69 when the host service cannot be reached.
    """
    with settings.connect() as client:
        found = client.call("health.reset" if reset else "health")
    if settings.json:
        put_json(found)
    elif not settings.quiet:
        put(found["status"])
        for reason in found["reasons"]:
            put(f"  {reason}")
        put_fields(_fields(found))
    return STATUSES.get(found["status"], EXIT_FAILED)


def _fields(found: dict[str, Any]) -> dict[str, str]:
    ptyd, reaper, sagas = found["ptyd"], found["reaper"], found["sagas"]
    last = reaper["last"]
    running = reaper["running"]
    told = "none yet" if last is None else f"last pass {last['id']}: {last['state']}"
    if running is not None:
        told = f"{told}; pass {running['id']} is at {running['done']} of {running['total']}"
    counts = ", ".join(f"{count} {status}" for status, count in found["sessions"].items() if count)
    return {
        "service": f"pid {found['pid']}, up {age(found['uptime_ms'])}",
        "ptyd": f"pid {ptyd['pid']}, version {ptyd['version']}" if ptyd["reachable"] else "not reachable",
        "watch": _watch(ptyd["watch"]),
        "reaper": f"{told}; one every {reaper['interval_s']:g} s, {reaper['missed']} missed",
        "deletions": f"{sagas['open']} open, {sagas['stuck']} stuck",
        "sessions": counts or "none",
        "index": f"{found['index']['id']} in {found['index']['path']}",
    }


def _watch(watch: dict[str, Any]) -> str:
    told = [f"ptyd {watch['last'] or 'was not asked yet'}"]
    if watch["failures"]:
        told.append(f"{watch['failures']} times in a row without an answer")
    if watch["busy_ms"] is not None:
        told.append(f"busy for {age(watch['busy_ms'])}")
    told.append(f"{watch['restarts']} of {watch['most_restarts']} restarts spent")
    if watch["open_because"] is not None:
        told.append("given up")
    return ", ".join(told)


@command()
def events(settings: Settings) -> int:
    """Write what happens, as it happens."""
    Follower(settings, "hostsvc", "service.stopping").run()
