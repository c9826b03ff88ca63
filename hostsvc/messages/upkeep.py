"""What the host service may be asked about its reaper and its health."""

from __future__ import annotations

from typing import Final

import attrs

from hostsvc import shapes
from hostsvc.kinds import LISTED
from hostsvc.messages.declare import method
from ptyd.protocol.errors import Code
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import BOOL, TOKEN, array, choice

KINDS: Final = ("sagas", "rows", "sessions", "idle", "runs", "worktrees", "triples", "trash")
"""What the reaper looks for, in the order in which it does."""


@method("reap", shapes.Pass, Code.PLAN_CHANGED)
@attrs.frozen(kw_only=True)
class Reap:
    """Run a pass of the reaper and wait for it."""

    dry_run: bool = attrs.field(default=False, metadata=spec(BOOL, "only say what would be done"))
    kinds: list[str] | None = attrs.field(
        default=None, metadata=spec(array(choice(*KINDS), 1, len(KINDS)), "what to look for", "everything")
    )
    accept: str | None = attrs.field(
        default=None, metadata=spec(TOKEN, "the `plan_hash` of a refused pass: do exactly that", "nothing")
    )


@method("passes", shapes.PassesResult)
@attrs.frozen(kw_only=True)
class Passes:
    """List passes of the reaper."""

    limit: int = attrs.field(default=20, metadata=spec(LISTED, "how many at most"))


@method("health", shapes.HealthResult)
@attrs.frozen(kw_only=True)
class Health:
    """Tell whether somebody should look."""


@method("health.reset", shapes.HealthResult)
@attrs.frozen(kw_only=True)
class HealthReset:
    """Let ptyd be restarted again, after restarts that did not help."""
