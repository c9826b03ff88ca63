"""What the host service answers about its reaper and its health."""

from __future__ import annotations

from typing import Any, Final

import attrs

from hostsvc.shapes.common import STRINGS
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import ANY_MAP, ANY_STRING, BOOL, COUNT, array, choice, shape
from ptyd.protocol.results import PID

HEALTH: Final = ("green", "yellow", "red")
PASS_STATES: Final = ("running", "ok", "partial", "refused", "error", "interrupted")


@attrs.frozen(kw_only=True)
class Pass:
    """A pass of the reaper."""

    id: int = attrs.field(metadata=spec(COUNT, "counts them"))
    origin: str = attrs.field(metadata=spec(choice("startup", "interval", "manual"), "why it ran"))
    state: str = attrs.field(metadata=spec(choice(*PASS_STATES), "see The reaper"))
    dry_run: bool = attrs.field(metadata=spec(BOOL, "nothing was to be changed"))
    kinds: list[str] = attrs.field(metadata=spec(STRINGS, "what was looked for"))
    started_at_ms: int = attrs.field(metadata=spec(COUNT, "when"))
    finished_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when it was recorded"))
    plan_hash: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "what to accept, when it was refused")
    )
    counts: dict[str, int] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "seen, kept, observed, and how many acts had which outcome")
    )
    kept: dict[str, Any] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "for each kind: why what was left alone was left alone")
    )
    acts: list[dict[str, Any]] | None = attrs.field(
        default=None,
        metadata=spec(array(ANY_MAP), "kind, subject, action, basis, reason, outcome; 500 at most"),
    )
    errors: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "the kinds that could not see, and why")
    )
    refusals: list[str] | None = attrs.field(
        default=None, metadata=spec(STRINGS, "why what rests on absence was not done")
    )


PASS: Final = shape(Pass, "pass")


@attrs.frozen(kw_only=True)
class PassesResult:
    """Passes, newest first."""

    passes: list[Pass] = attrs.field(metadata=spec(array(PASS), "the newest"))


@attrs.frozen(kw_only=True)
class HealthResult:
    """Whether somebody should look."""

    status: str = attrs.field(metadata=spec(choice(*HEALTH), "`red`: something does not work"))
    reasons: list[str] = attrs.field(metadata=spec(STRINGS, "why it is not green"))
    ptyd: dict[str, Any] = attrs.field(metadata=spec(ANY_MAP, "`reachable`, who it is, and its `watch`"))
    reaper: dict[str, Any] = attrs.field(
        metadata=spec(ANY_MAP, "`last` pass, `missed` intervals, `running`, `interval_s`")
    )
    sagas: dict[str, int] = attrs.field(metadata=spec(ANY_MAP, "`open` and `stuck`"))
    sessions: dict[str, int] = attrs.field(
        metadata=spec(ANY_MAP, "how many of each status, `unwanted` and `stuck`")
    )
    index: dict[str, Any] = attrs.field(metadata=spec(ANY_MAP, "`id` and `path`"))
    pid: int = attrs.field(metadata=spec(PID, "the host service's"))
    uptime_ms: int = attrs.field(metadata=spec(COUNT, "of this process"))
