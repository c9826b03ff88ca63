"""What the host service answers about runs."""

from __future__ import annotations

from typing import Final

import attrs

from hostsvc.shapes.common import STRINGS
from hostsvc.states import RunState
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import ANY_STRING, COUNT, SESSION_ID, array, choice, shape
from ptyd.protocol.results import PID


@attrs.frozen(kw_only=True)
class Run:
    """What belongs together and ends together."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "names it for good; the value of the label `run`"))
    state: str = attrs.field(metadata=spec(choice(*RunState), "see Runs"))
    sessions: int = attrs.field(metadata=spec(COUNT, "how many of its sessions are not over"))
    created_at_ms: int = attrs.field(metadata=spec(COUNT, "when, since the epoch"))
    deadline_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when it is given up"))
    holder_pid: int | None = attrs.field(
        default=None, metadata=spec(PID, "the process without which it is given up")
    )
    end_requested_at_ms: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "when its end was asked for; nil also for one that was given up")
    )
    ended_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when nothing was left of it"))
    last_error: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "why it is not over yet"))


RUN: Final = shape(Run, "run")


@attrs.frozen(kw_only=True)
class RunListResult:
    """Runs, those first that are not over, then the newest."""

    runs: list[Run] = attrs.field(metadata=spec(array(RUN), "the newest"))


@attrs.frozen(kw_only=True)
class RunEndResult:
    """How far the end of a run has come."""

    run: Run = attrs.field(metadata=spec(RUN, "as it is now"))
    state: str = attrs.field(
        metadata=spec(choice("complete", "partial"), "`partial`: something is left, and the reaper goes on")
    )
    ended: int = attrs.field(metadata=spec(COUNT, "how much of it was ended now"))
    failed: int = attrs.field(metadata=spec(COUNT, "how much is not proven to be gone, or could not be seen"))
    warnings: list[str] = attrs.field(metadata=spec(STRINGS, "what, and why"))
