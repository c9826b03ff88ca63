"""What is told while a deletion or a pass is waited for: the service's own events, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hostsvc.cli.group import Settings
from hostsvc.saga import TEXT, Step
from ptyd.blocking import BlockingClient
from ptyd.cli.output import printable, say

Event = dict[str, Any]


def watch(client: BlockingClient, settings: Settings, describe: Callable[[Event], str | None]) -> None:
    """Say from now on what `describe` makes of each event, while the client waits for answers."""
    if settings.quiet:
        return

    def heed(method: str, params: Event) -> None:
        if method == "event" and (text := describe(params)):
            say(f"  {printable(text)}")

    client.heed = heed
    client.call("events.subscribe")


def describe_saga(workspace_id: str) -> Callable[[Event], str | None]:
    """Describe the steps of a workspace's deletion, and what its sessions say meanwhile."""

    def describe(event: Event) -> str | None:
        match event:
            case {"type": "saga.step", "id": found, "step": str(step)} if found == workspace_id:
                return f"{step}: {_text(step)}"
            case {"type": "saga.stuck", "id": found, "error": error} if found == workspace_id:
                return f"stuck: {error}"
        return None

    return describe


def describe_pass(event: Event) -> str | None:
    """Describe how far a pass is."""
    if event["type"] == "reaper.progress":
        return f"{event['done']} of {event['total']}"
    return None


def _text(step: str) -> str:
    return TEXT[Step(step)] if step in TEXT else "a step that this command does not know"
