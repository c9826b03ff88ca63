"""`workspace`: make, look at, change and delete workspaces."""

from __future__ import annotations

import os
import shlex
import time
from typing import Any, BinaryIO

import click

from hostsvc.cli import EXIT_OK, EXIT_PARTIAL, EXIT_TRY_AGAIN
from hostsvc.cli.group import Settings, command
from hostsvc.cli.params import complete_run, complete_trash, complete_workspace, workspace_argument
from hostsvc.cli.progress import describe_saga, watch
from hostsvc.kinds import MAX_CREDENTIAL_BYTES
from ptyd.blocking import BlockingClient
from ptyd.cli.output import age, command_line, printable, put, put_fields, put_json, put_table, say
from ptyd.cli.params import pair_option, pairs
from ptyd.protocol.errors import Code, PtydError


def _parse_command(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no command: {error}") from error
    if not words:
        raise click.BadParameter("the command is empty")
    return words


@command()
@click.argument("name", required=False)
@click.option("--path", metavar="DIR", help="Adopt this folder, and never touch it [default: make one].")
@click.option("--repo", "repository", metavar="DIR", help="Make its folder a worktree of this repository.")
@click.option("--branch", metavar="BRANCH", help="To check out; made if it is not there [default: the name].")
@click.option("--start", metavar="COMMIT", help="Where to make the branch [default: HEAD].")
@click.option(
    "--credential",
    type=click.File("rb"),
    metavar="FILE",
    help="A credential helper for it, or - for standard input; unlinked with it, never shown.",
)
@click.option("--run", metavar="RUN", shell_complete=complete_run, help="The run that it belongs to.")
@click.option("--ephemeral", is_flag=True, help="It goes with its run.")
@click.option("--expendable", is_flag=True, help="It does so also when work in it is at risk.")
@pair_option("--label", "labels", "A label")
@click.option(
    "--teardown",
    metavar="COMMAND",
    type=_parse_command,
    help="To be run in it, without a shell, before it is deleted.",
)
@click.option("--protect", is_flag=True, help="Refuse to delete it.")
@click.option("--id", "id_", metavar="ID", help="Its id [default: a random one].")
@click.option(
    "--generation", type=click.IntRange(1), metavar="N", help="To make an id anew that was destroyed."
)
def create(
    settings: Settings,
    name: str | None,
    path: str | None,
    repository: str | None,
    branch: str | None,
    start: str | None,
    credential: BinaryIO | None,
    run: str | None,
    ephemeral: bool,
    expendable: bool,
    labels: tuple[tuple[str, str], ...],
    teardown: list[str] | None,
    protect: bool,
    id_: str | None,
    generation: int | None,
) -> int:
    """Make a workspace and print its id.

    Its folder is made below the base directory, and goes with it; with --repo it is a git worktree.
    Artifacts have a folder beside it. A folder that is there already (--path) is only remembered.
    """
    asked = {
        "name": name,
        "path": os.path.abspath(path) if path else None,
        "repository": os.path.realpath(repository) if repository else None,
        "branch": branch,
        "start": start,
        "credential": credential.read(MAX_CREDENTIAL_BYTES + 1) if credential else None,
        "run": run,
        "is_ephemeral": ephemeral,
        "is_expendable": expendable,
        "labels": pairs(labels),
        "teardown": teardown,
        "is_protected": protect,
        "id": id_,
        "generation": generation,
    }
    with settings.connect() as client:
        made = client.call("workspace.create", asked)
    if settings.json:
        put_json(made)
        return EXIT_OK
    put(made["id"])
    if not settings.quiet:
        say(f"hostsvc: workspace {made['name'] or made['id']} is {printable(made['path'])}")
    return EXIT_OK


@command()
@click.option("-a", "--all", "deleted", is_flag=True, help="Deleted ones too.")
@pair_option("--label", "labels", "Only with this label")
def ls(settings: Settings, deleted: bool, labels: tuple[tuple[str, str], ...]) -> int:
    """List workspaces. With -q only their ids."""
    with settings.connect() as client:
        answer = client.call("workspace.list", {"deleted": deleted, "labels": pairs(labels) or None})
    if settings.json:
        put_json(answer)
    elif settings.quiet:
        for workspace in answer["workspaces"]:
            put(workspace["id"])
    else:
        columns = ["ID", "NAME", "STATE", "SESSIONS", "AGE", "GIT", "PATH"]
        put_table(columns, map(_row, answer["workspaces"]), states=2)
    return EXIT_OK


def _row(workspace: dict[str, Any]) -> list[str]:
    notes = [
        text
        for is_so, text in (
            (workspace["branch"], f"on {workspace['branch']}"),
            (not workspace["is_ours"], "adopted"),
            (workspace["is_protected"], "protected"),
            (workspace["is_ephemeral"], "ephemeral"),
        )
        if is_so
    ]
    return [
        workspace["id"],
        workspace["name"] or "-",
        workspace["state"],
        str(workspace["sessions"]),
        age(time.time() * 1000 - workspace["created_at_ms"]),
        _git(workspace["git"]),
        workspace["path"] + (f" ({', '.join(notes)})" if notes else ""),
    ]


def _git(state: dict[str, Any] | None) -> str:
    """Its branch or commit, with how many files have changed; a mark when that is not known now."""
    if state is None:
        return "-"
    where = state["branch"] or (state["head"] or "")[:12]
    changed = f"*{state['changed']}" if state["changed"] else ""
    return where + changed + ("?" if state["unknown"] else "")


@command()
@click.argument("workspaces", nargs=-1, required=True, shell_complete=complete_workspace)
def show(settings: Settings, workspaces: tuple[str, ...]) -> int:
    """Show everything about workspaces.

    With --json one object on each line.
    """
    with settings.connect() as client:
        for number, workspace in enumerate(workspaces):
            _put(settings, client.call("workspace.get", {"id": workspace}), is_first=not number)
    return EXIT_OK


def _put(settings: Settings, workspace: dict[str, Any], *, is_first: bool = True) -> None:
    if settings.json:
        put_json(workspace)
        return
    if not is_first:
        put("")
    put_fields(workspace)


@command()
@workspace_argument
@click.option("--name", metavar="NAME", help="Its new name; '' for none. Its folder keeps its own.")
@pair_option("--label", "labels", "A label; those given replace all it has")
@click.option("--protect/--no-protect", default=None, help="Refuse to delete it, or allow it again.")
def update(
    settings: Settings,
    workspace: str,
    name: str | None,
    labels: tuple[tuple[str, str], ...],
    protect: bool | None,
) -> int:
    """Rename, label or protect a workspace."""
    if name is None and not labels and protect is None:
        raise click.UsageError("nothing to change: give --name, --label, --protect or --no-protect")
    asked = {"id": workspace, "name": name, "labels": pairs(labels) or None, "is_protected": protect}
    with settings.connect() as client:
        updated = client.call("workspace.update", asked)
    if not settings.quiet or settings.json:
        _put(settings, updated)
    return EXIT_OK


@command()
@workspace_argument
@click.option("--force", is_flag=True, help="Also when work is at risk.")
@click.option("--skip-teardown", is_flag=True, help="Without its teardown command; --force does not say so.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done, step by step.")
def rm(settings: Settings, workspace: str, force: bool, skip_teardown: bool, dry_run: bool) -> int:
    """Delete a workspace: end its sessions, trash its folder.

    Waits until it is done and tells each step. Leaving with ctrl-c stops nothing: the deletion goes
    on. Work at risk refuses it; see: hostsvc workspace risk. Returns 0 when it is gone (or was
    already), 5 when it is gone with warnings, such as a session that is not proven dead yet, and 75
    when a step has to be tried again, which the service does by itself.
    """
    asked = {"id": workspace, "force": force, "skip_teardown": skip_teardown, "dry_run": dry_run}
    with settings.connect() as client:
        found = _find(client, workspace)
        if found is not None and not dry_run:
            watch(client, settings, describe_saga(found["id"]))
        answer = client.call("workspace.delete", asked)
    if settings.json:
        put_json(answer)
    elif dry_run:
        _put_plan(answer["plan"])
    return _tell_deleted(settings, workspace, answer, was_there=found is not None)


def _find(client: BlockingClient, workspace: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.call("workspace.get", {"id": workspace})
    except PtydError as error:
        if error.code not in (Code.NOT_FOUND, Code.DESTROYED):
            raise
        return None
    return found


def _put_plan(plan: list[dict[str, Any]]) -> None:
    for step in plan:
        subjects = f": {command_line(step['subjects'])}" if step["subjects"] else ""
        put(f"{step['step']:<10} {printable(step['text'] + subjects)}")


def _tell_deleted(settings: Settings, workspace: str, answer: dict[str, Any], was_there: bool) -> int:
    for warning in answer["warnings"]:
        say(f"hostsvc: warning: {printable(warning)}")
    match answer["state"]:
        case "partial" | "deleting":
            hint = f"hostsvc saga show {answer['saga']}"
            say(f"hostsvc: {printable(workspace)} is not gone yet; the service tries again; see: {hint}")
            return EXIT_TRY_AGAIN
        case "deleted" if not settings.quiet:
            text = "is deleted" if was_there else "is not there (any more)"
            say(f"hostsvc: {printable(workspace)} {text}")
    return EXIT_PARTIAL if answer["warnings"] and was_there else EXIT_OK


@command()
@workspace_argument
def risk(settings: Settings, workspace: str) -> int:
    """Tell what would be lost with a workspace's folder.

    Looks for work that is nowhere else, and touches nothing. What cannot be told counts as at risk.
    Returns 0 when nothing would be lost, 5 when something may be.
    """
    with settings.connect() as client:
        found = client.call("workspace.risk", {"id": workspace})
    if settings.json:
        put_json(found)
    else:
        for reason in found["reasons"]:
            put(f"{reason['code']:<12} {printable(reason['text'])}")
        if found["safe"] and not settings.quiet:
            say(f"hostsvc: nothing of {printable(workspace)} would be lost")
    return EXIT_OK if found["safe"] else EXIT_PARTIAL


@command()
@click.argument("entry", shell_complete=complete_trash)
def restore(settings: Settings, entry: str) -> int:
    """Get a workspace back from the trash, and print its id.

    ENTRY is one of `hostsvc trash ls`, or the id or name of the workspace that was deleted. Its folder
    and artifacts are put back as they were; a worktree is registered again, on its branch if that is
    free and where it was, else at the same commit without one. Its sessions stay ended.
    """
    with settings.connect() as client:
        made = client.call("workspace.restore", {"id": entry})
    if settings.json:
        put_json(made)
        return EXIT_OK
    put(made["id"])
    if not settings.quiet:
        branch = f", on {made['branch']}" if made["branch"] else ""
        say(f"hostsvc: workspace {made['name'] or made['id']} is {printable(made['path'] + branch)}")
    return EXIT_OK
