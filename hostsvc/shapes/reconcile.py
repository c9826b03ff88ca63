"""What the host service answers to a control plane."""

from __future__ import annotations

import attrs

from hostsvc.shapes.common import STRINGS
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import ANY_MAP, ANY_STRING, BOOL


@attrs.frozen(kw_only=True)
class WorkspaceReconcileResult:
    """What was done about each workspace that differs."""

    dropped: list[str] = attrs.field(metadata=spec(STRINGS, "not live there, idle here: deleted"))
    kept_busy: list[str] = attrs.field(
        metadata=spec(STRINGS, "not live there, and in use here, or nobody could tell: left alone")
    )
    healed: list[str] = attrs.field(
        metadata=spec(STRINGS, "live there, and half deleted here: can be used again")
    )
    gone: list[str] = attrs.field(
        metadata=spec(STRINGS, "live there, and destroyed here for good: nothing is revived")
    )
    kept: dict[str, str] = attrs.field(
        metadata=spec(ANY_MAP, "what was to be dropped or healed and was not: id → why")
    )
    refused: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "why nothing was done at all"))
    dry_run: bool = attrs.field(metadata=spec(BOOL, "nothing was done, only planned"))
