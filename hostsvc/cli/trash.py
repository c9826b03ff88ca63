"""`trash`: what was deleted and can be restored, and removing it for good."""

from __future__ import annotations

import time
from typing import Any

import click

from hostsvc.cli import EXIT_OK
from hostsvc.cli.group import Settings, command
from hostsvc.cli.params import complete_trash
from ptyd.cli.output import age, printable, put, put_json, put_table, say


@command()
def ls(settings: Settings) -> int:
    """List what is in the trash. With -q only its entries' ids.

    `hostsvc workspace restore ENTRY` gets one back. The last column is where it was, and why it is
    still there if its time is up.
    """
    with settings.connect() as client:
        answer = client.call("trash.list", {})
    if settings.json:
        put_json(answer)
    elif settings.quiet:
        for entry in answer["entries"]:
            put(entry["id"])
    else:
        columns = ["ENTRY", "WORKSPACE", "KIND", "AGE", "LEFT", "BYTES", "BRANCH", "PATH"]
        put_table(columns, map(_row, answer["entries"]))
    return EXIT_OK


def _row(entry: dict[str, Any]) -> list[str]:
    now_ms = time.time() * 1000
    size = entry["size_bytes"]
    return [
        entry["id"],
        entry["workspace_id"] or "-",
        entry["kind"],
        age(now_ms - entry["trashed_at_ms"]),
        age(max(0, entry["purge_at_ms"] - now_ms)),
        "many" if size is None else str(size),
        (entry["branch"] or "-").removeprefix("refs/heads/"),
        entry["path"] + (f" ({entry['last_error']})" if entry["last_error"] else ""),
    ]


@command()
@click.argument("entries", nargs=-1, required=True, metavar="ENTRY...", shell_complete=complete_trash)
def purge(settings: Settings, entries: tuple[str, ...]) -> int:
    """Remove entries of the trash for good, before their time.

    Never one with a process inside. The commits that only it had go with it.
    """
    with settings.connect() as client:
        for entry in entries:
            purged = client.call("trash.purge", {"id": entry})
            if settings.json:
                put_json(purged)
            elif not settings.quiet:
                say(f"hostsvc: {printable(entry)} is gone for good")
    return EXIT_OK
