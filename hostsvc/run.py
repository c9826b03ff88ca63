"""A run, as its row has it. What it has is found by the plug-ins of `hostsvc.runs`."""

from __future__ import annotations

from typing import Any, Final

import attrs

from hostsvc.states import RunState


@attrs.frozen(kw_only=True)
class Run:
    """A run's row. One that is over stays: it refuses what comes late."""

    id: str
    state: RunState
    holder_pid: int | None
    """The process that the run is for; it is known by this, its start time and its boot."""
    holder_start: int | None
    boot_id: str | None
    created_at_ms: int
    deadline_at_ms: int | None
    end_requested_at_ms: int | None = None
    """When somebody asked for its end. One that was only given up, as its holder is gone, has none."""
    ended_at_ms: int | None = None
    last_error: str | None = None


@attrs.frozen(kw_only=True)
class Membership:
    """What a workspace has to do with a run; see `hostsvc.model.Workspace`."""

    run: str | None = None
    is_ephemeral: bool = False
    is_expendable: bool = False

    @property
    def columns(self) -> dict[str, Any]:
        return attrs.asdict(self)


OF_NO_RUN: Final = Membership()
