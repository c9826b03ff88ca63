"""What the host service may be asked about deletions."""

from __future__ import annotations

import attrs

from hostsvc import shapes
from hostsvc.kinds import LISTED
from hostsvc.messages.declare import TEARDOWN, method
from ptyd.protocol.errors import Code
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import BOOL, SESSION_ID


@method("saga.list", shapes.SagaListResult)
@attrs.frozen(kw_only=True)
class SagaList:
    """List deletions."""

    limit: int = attrs.field(default=20, metadata=spec(LISTED, "how many at most"))


@method("saga.get", shapes.SagaGetResult, Code.NOT_FOUND)
@attrs.frozen(kw_only=True)
class SagaGet:
    """Look at one deletion and its journal."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "which"))


@method(
    "saga.resume",
    shapes.Saga,
    Code.NOT_FOUND,
    Code.STILL_RUNNING,
    Code.AT_RISK,
    Code.PATH_REFUSED,
    *TEARDOWN,
)
@attrs.frozen(kw_only=True)
class SagaResume:
    """Carry a deletion on at once, whenever it would be due."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "which"))
    leave_out: bool = attrs.field(
        default=False, metadata=spec(BOOL, "without the step that fails; what it leaves is recorded")
    )
