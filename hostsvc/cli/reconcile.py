"""`workspace reconcile`: what a control plane has, against what is here."""

from __future__ import annotations

import json
from typing import Any, TextIO

import click

from hostsvc.cli import EXIT_OK, EXIT_PARTIAL, EXIT_REFUSED
from hostsvc.cli.group import Refused, Settings, command
from ptyd.cli.output import printable, put, put_json, say


@command()
@click.option(
    "--live",
    "file",
    metavar="FILE",
    type=click.File("r"),
    required=True,
    help='What is live there, as JSON: {"live": ["id", …], "complete": true}; - for standard input.',
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
def reconcile(settings: Settings, file: TextIO, dry_run: bool) -> int:
    """Drop idle workspaces that are not live any more elsewhere.

    Only a list that is complete leads to anything; what is in use, at risk or just made is kept.
    Returns 0 when all that differs was dealt with, 5 when something was kept, and 4 when the list
    was refused, and nothing was done.
    """
    asked = _read(file)
    with settings.connect() as client:
        found = client.call("workspace.reconcile", {**asked, "dry_run": dry_run})
    if settings.json:
        put_json(found)
    elif not settings.quiet:
        _put(found)
    if found["refused"] is not None:
        say(f"hostsvc: refused, and nothing was done: {printable(found['refused'])}")
        return EXIT_REFUSED
    return EXIT_PARTIAL if found["kept"] or found["kept_busy"] else EXIT_OK


def _read(file: TextIO) -> dict[str, Any]:
    try:
        found = json.load(file)
    except (ValueError, OSError) as error:
        raise Refused(f"the list is no JSON, and nothing was done: {error}", EXIT_REFUSED) from error
    if not isinstance(found, dict):
        text = 'the list is no map, and nothing was done; it looks so: {"live": ["id"], "complete": true}'
        raise Refused(text, EXIT_REFUSED)
    return {name: found[name] for name in ("live", "complete") if name in found}


def _put(found: dict[str, Any]) -> None:
    would = "would be " if found["dry_run"] else ""
    for id_ in found["dropped"]:
        put(f"{id_} {would}dropped")
    for id_ in found["healed"]:
        put(f"{id_} {would}healed: it can be used again")
    for id_ in found["kept_busy"]:
        put(f"{id_} kept: it is in use, or may be")
    for id_, why in found["kept"].items():
        put(printable(f"{id_} kept: {why}"))
    for id_ in found["gone"]:
        put(f"{id_} is live there and was destroyed here")
