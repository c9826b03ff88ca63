"""`adopt`: take over the sessions of an index that was lost."""

from __future__ import annotations

import sys
from typing import Any

import click

from hostsvc.cli import EXIT_NOT_FOUND, EXIT_OK
from hostsvc.cli.group import Settings, command
from hostsvc.cli.params import complete_workspace
from ptyd.cli.output import printable, put_json, put_table, say


@command()
@click.option("--owner", metavar="ID", required=True, help="The lost index's id; see: hostsvc session ls.")
@click.option(
    "-w",
    "--workspace",
    metavar="WORKSPACE",
    required=True,
    shell_complete=complete_workspace,
    help="The workspace that they shall belong to.",
)
@click.option("--dry-run", is_flag=True, help="Only show them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt(settings: Settings, owner: str, workspace: str, dry_run: bool, yes: bool) -> int:
    """Take over the living sessions of a lost index.

    Shows them first and asks; without a terminal it wants --yes. From then on they are this
    index's: listed, disposed of with their workspace, and seen by the reaper. Returns 3 when that
    owner has none.
    """
    asked = {"owner": owner, "workspace": workspace}
    with settings.connect() as client:
        found = client.call("session.adopt", {**asked, "dry_run": True})
        if not found["sessions"]:
            say(f"hostsvc: no living session has the owner {printable(owner)}; see: hostsvc session ls")
            return EXIT_NOT_FOUND
        if not dry_run:
            _ask(found["sessions"], yes)
            found = client.call("session.adopt", asked)
    if settings.json:
        put_json(found)
    elif yes or dry_run:
        _show(found["sessions"])
    if not dry_run and not settings.quiet:
        say(f"hostsvc: {len(found['sessions'])} sessions belong to workspace {printable(workspace)} now")
    return EXIT_OK


def _ask(sessions: list[dict[str, Any]], yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("give --yes to take them over, or --dry-run to see them")
    _show(sessions)
    click.confirm(f"Take over these {len(sessions)} sessions?", abort=True, err=True)


def _show(sessions: list[dict[str, Any]]) -> None:
    put_table(["ID", "STATE", "OWNER"], [[one["id"], one["state"], one["owner"]] for one in sessions], 1)
