"""Parameters that several commands take: workspaces and sessions, with their completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ptyd.protocol.errors import PtydError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMPLETION_DEADLINE_S: Final = 1.0


def _ask(context: click.Context, method: str, name: str) -> list[dict[str, Any]]:
    """Ask a running service; completion says nothing when it cannot know."""
    from hostsvc.cli.group import Settings
    from hostsvc.client import open_client

    try:
        place = context.ensure_object(Settings).place()
        with open_client(place, deadline_s=_COMPLETION_DEADLINE_S) as client:
            found: list[dict[str, Any]] = client.call(method)[name]
    except (PtydError, click.ClickException):
        return []
    return found


def _items(words: list[tuple[str | None, str]], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(word, help=hint) for word, hint in words if word and word.startswith(incomplete)]


def complete_trash(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete an entry of the trash."""
    found = _ask(context, "trash.list", "entries")
    return _items([(one["id"], one["path"]) for one in found], incomplete)


def complete_workspace(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the id or the name of a workspace."""
    found = _ask(context, "workspace.list", "workspaces")
    words = [(word, one["path"]) for one in found for word in (one["name"], one["id"])]
    return _items(words, incomplete)


def complete_session(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the id or the name of a session that is not over."""
    found = [one for one in _ask(context, "session.list", "sessions") if one["ended_at_ms"] is None]
    words = [(word, " ".join(one["argv"])) for one in found for word in (one["name"], one["id"])]
    return _items(words, incomplete)


def complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a run that is not over."""
    found = [one for one in _ask(context, "run.list", "runs") if one["state"] != "ended"]
    return _items([(one["id"], f"{one['sessions']} sessions") for one in found], incomplete)


workspace_argument: Final = click.argument("workspace", shell_complete=complete_workspace)
session_argument: Final = click.argument("session", shell_complete=complete_session)
sessions_argument: Final = click.argument(
    "sessions", nargs=-1, required=True, shell_complete=complete_session
)
limit_option: Final = click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many."
)
