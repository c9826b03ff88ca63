"""What the host service may be asked about its trash."""

from __future__ import annotations

import attrs

from hostsvc import shapes
from hostsvc.kinds import ENTRY
from hostsvc.messages.declare import method
from ptyd.protocol.errors import Code
from ptyd.protocol.fields import spec


@method("trash.list", shapes.TrashListResult)
@attrs.frozen(kw_only=True)
class TrashList:
    """List what is in the trash."""


@method("trash.purge", shapes.TrashEntry, Code.NOT_FOUND, Code.PATH_REFUSED)
@attrs.frozen(kw_only=True)
class TrashPurge:
    """Remove something from the trash for good, before its time. Never while a process is inside."""

    id: str = attrs.field(metadata=spec(ENTRY, "which entry"))
