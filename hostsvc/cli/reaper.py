"""`reap` and `passes`: the reaper by hand, and what it has done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import click

from hostsvc.cli import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL, EXIT_REFUSED
from hostsvc.cli.group import Settings, command
from hostsvc.cli.params import limit_option
from hostsvc.cli.progress import describe_pass, watch
from hostsvc.messages import KINDS
from ptyd.cli.output import age, printable, put, put_json, put_table, say

Pass = dict[str, Any]
STATUSES: Final = {"ok": EXIT_OK, "partial": EXIT_PARTIAL, "refused": EXIT_REFUSED}
COUNTS: Final = ("done", "failed", "skipped", "refused", "deferred", "planned", "observed", "kept")

dry_run_option: Final = click.option("--dry-run", is_flag=True, help="Only show what would be done.")
accept_option: Final = click.option(
    "--accept", metavar="HASH", help="Do exactly what a refused pass has shown under this hash."
)


@command()
@dry_run_option
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="What to look for [default: everything]; may be repeated.",
)
@accept_option
def reap(settings: Settings, dry_run: bool, kinds: tuple[str, ...], accept: str | None) -> int:
    """Run a pass of the reaper now.

    Returns 0 when all that was due is done, 5 when something failed or is left for the next pass,
    4 when the pass was refused because it looked wrong (it shows what it would have done, and the
    command that accepts exactly that), and 1 when it could not see everything.
    """
    command = " ".join(["hostsvc reap", *(f"--kind {kind}" for kind in kinds)])
    return run_pass(settings, command, dry_run=dry_run, kinds=kinds, accept=accept)


def run_pass(
    settings: Settings, command: str, *, dry_run: bool, kinds: Sequence[str], accept: str | None
) -> int:
    """Run a pass, show it, and return the exit status; `command` is what was typed for it."""
    asked = {"dry_run": dry_run, "kinds": list(kinds) or None, "accept": accept}
    with settings.connect() as client:
        if not dry_run:
            watch(client, settings, describe_pass)
        found = client.call("reap", asked)
    if settings.json:
        put_json(found)
    elif not settings.quiet:
        _put_pass(found)
    _tell_trouble(found, command)
    return STATUSES.get(found["state"], EXIT_FAILED)


def _put_pass(found: Pass) -> None:
    acts = found["acts"] or []
    if acts:
        put_table(["KIND", "SUBJECT", "ACTION", "BASIS", "OUTCOME", "WHY"], map(_act_row, acts), states=4)
    counts = found["counts"] or {}
    told = [f"{counts[name]} {name}" for name in COUNTS if counts.get(name)]
    put(f"pass {found['id']}: {found['state']}; {', '.join(told) or 'nothing to do'}")


def _act_row(act: dict[str, Any]) -> list[str]:
    why = f"{act['reason']}; {act['error']}" if act.get("error") else act["reason"]
    return [act["kind"], act["subject"], act["action"], act["basis"], act["outcome"], why]


def _tell_trouble(found: Pass, command: str) -> None:
    for kind, error in (found["errors"] or {}).items():
        say(f"hostsvc: {kind} could not be seen: {printable(error)}")
    for refusal in found["refusals"] or ():
        say(f"hostsvc: refused: {printable(refusal)}")
    if found["state"] == "refused":
        say("  if these are to go, this does exactly what is shown as refused:")
        say(f"  {command} --accept {found['plan_hash']}")


@command()
@limit_option
def passes(settings: Settings, limit: int) -> int:
    """List passes of the reaper, the newest first."""
    with settings.connect() as client:
        answer = client.call("passes", {"limit": limit})
    if settings.json:
        put_json(answer)
        return EXIT_OK
    columns = ["PASS", "STATE", "ORIGIN", "AGE", "TOOK", "SEEN", "DONE", "FAILED", "REFUSED", "NOTES"]
    put_table(columns, map(_pass_row, answer["passes"]), states=1)
    return EXIT_OK


def _pass_row(one: Pass) -> list[str]:
    counts = one["counts"] or {}
    finished = one["finished_at_ms"]
    errors = [f"{kind}: {error}" for kind, error in (one["errors"] or {}).items()]
    return [
        str(one["id"]),
        one["state"],
        one["origin"] + (" (dry)" if one["dry_run"] else ""),
        age(time.time() * 1000 - one["started_at_ms"]),
        "-" if finished is None else f"{finished - one['started_at_ms']} ms",
        *(str(counts.get(name, "-")) for name in ("seen", "done", "failed", "refused")),
        "; ".join([*errors, *(one["refusals"] or ())]) or "-",
    ]
