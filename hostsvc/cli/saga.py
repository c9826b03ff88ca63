"""`saga`: deletions, how far they have come, and going on with one that is stuck."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from hostsvc.cli import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL, EXIT_TRY_AGAIN
from hostsvc.cli.group import Settings, command
from hostsvc.cli.params import limit_option
from hostsvc.cli.progress import describe_saga, watch
from ptyd.cli.output import age, printable, put, put_fields, put_json, put_table, say

Saga = dict[str, Any]
STATUSES: Final = {"done": EXIT_OK, "open": EXIT_TRY_AGAIN, "stuck": EXIT_TRY_AGAIN}

saga_argument = click.argument("saga")


@command()
@limit_option
def ls(settings: Settings, limit: int) -> int:
    """List deletions, open ones first."""
    with settings.connect() as client:
        answer = client.call("saga.list", {"limit": limit})
    if settings.json:
        put_json(answer)
    elif settings.quiet:
        for saga in answer["sagas"]:
            put(saga["id"])
    else:
        columns = ["ID", "WORKSPACE", "STATE", "ATTEMPTS", "AGE", "WARNINGS", "LAST ERROR"]
        put_table(columns, map(_row, answer["sagas"]), states=2)
    return EXIT_OK


def _row(saga: Saga) -> list[str]:
    return [
        saga["id"],
        saga["workspace_id"],
        saga["state"],
        str(saga["attempts"]),
        age(time.time() * 1000 - saga["created_at_ms"]),
        str(len(saga["warnings"])),
        saga["last_error"] or "-",
    ]


@command()
@saga_argument
def show(settings: Settings, saga: str) -> int:
    """Show a deletion and its journal."""
    with settings.connect() as client:
        answer = client.call("saga.get", {"id": saga})
    if settings.json:
        put_json(answer)
        return EXIT_OK
    put_fields(answer["saga"])
    put("")
    put_table(["STEP", "STATE", "TOOK", "DETAIL"], map(_step_row, answer["steps"]), states=1)
    return EXIT_OK


def _step_row(step: dict[str, Any]) -> list[str]:
    done = step["done_at_ms"]
    detail = ", ".join(f"{key} {value}" for key, value in (step["detail"] or {}).items())
    took = "-" if done is None else f"{done - step['begun_at_ms']} ms"
    return [step["step"], "begun" if done is None else "done", took, detail or "-"]


@command()
@saga_argument
@click.option(
    "--leave-out", is_flag=True, help="Without the step that fails; what it leaves behind is recorded."
)
def resume(settings: Settings, saga: str, leave_out: bool) -> int:
    """Carry a deletion on at once, and wait for it.

    Returns 0 when it is done, 5 when it is done with warnings, 75 when it has to be tried again.
    """
    with settings.connect() as client:
        before = client.call("saga.get", {"id": saga})["saga"]
        watch(client, settings, describe_saga(before["workspace_id"]))
        after = client.call("saga.resume", {"id": saga, "leave_out": leave_out})
    if settings.json:
        put_json(after)
    for warning in after["warnings"]:
        say(f"hostsvc: warning: {printable(warning)}")
    if after["state"] != "done":
        say(f"hostsvc: saga {after['id']} is {after['state']}: {printable(after['last_error'] or '-')}")
    elif after["warnings"]:
        return EXIT_PARTIAL
    return STATUSES.get(after["state"], EXIT_FAILED)
