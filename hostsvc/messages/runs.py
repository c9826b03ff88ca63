"""What the host service may be asked about runs."""

from __future__ import annotations

import attrs

from hostsvc import shapes
from hostsvc.kinds import LISTED
from hostsvc.messages.declare import method
from ptyd.protocol.errors import Code
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import SESSION_ID, integer
from ptyd.protocol.results import PID

MAX_DEADLINE_S = 365 * 86_400


@method("run.start", shapes.Run, Code.EXISTS, Code.DESTROYED, Code.NOT_FOUND)
@attrs.frozen(kw_only=True)
class RunStart:
    """Begin a run: a label under which sessions, workspaces and containers end together."""

    id: str | None = attrs.field(
        default=None, metadata=spec(SESSION_ID, "its id, which serves once", "a new random one")
    )
    holder_pid: int | None = attrs.field(
        default=None, metadata=spec(PID, "the process that it is for: without it the run is given up", "none")
    )
    deadline_s: int | None = attrs.field(
        default=None, metadata=spec(integer(1, MAX_DEADLINE_S), "given up after so many seconds", "never")
    )


@method("run.list", shapes.RunListResult)
@attrs.frozen(kw_only=True)
class RunList:
    """List runs."""

    limit: int = attrs.field(default=20, metadata=spec(LISTED, "how many at most"))


@method("run.get", shapes.Run, Code.NOT_FOUND)
@attrs.frozen(kw_only=True)
class RunGet:
    """Look at one run."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "which"))


@method("run.end", shapes.RunEndResult, Code.NOT_FOUND)
@attrs.frozen(kw_only=True)
class RunEnd:
    """End everything of exactly one run and wait for it. Ending what has ended is done at once."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "which"))
