"""What the host service may be asked by a control plane: to compare what is here with what is live there."""

from __future__ import annotations

import attrs

from hostsvc import shapes
from hostsvc.kinds import ANYTHING
from hostsvc.messages.declare import method
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import BOOL


@method("workspace.reconcile", shapes.WorkspaceReconcileResult)
@attrs.frozen(kw_only=True)
class WorkspaceReconcile:
    """Drop the idle workspaces that a control plane does not have any more, and tell what differs."""

    live: object = attrs.field(
        default=None, metadata=spec(ANYTHING, "the ids that are live there: an array of strings", "no list")
    )
    complete: object = attrs.field(
        default=None, metadata=spec(ANYTHING, "true if those are all; a boolean", "nobody knows")
    )
    dry_run: bool = attrs.field(default=False, metadata=spec(BOOL, "only say what would be done"))
