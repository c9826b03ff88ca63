"""What the host service answers: the shape of every result, as declared fields.

The handlers build plain maps; tests hold them to these classes, and protocol.md's tables too.
"""

from typing import Final

from hostsvc.shapes.common import HelloResult
from hostsvc.shapes.reconcile import WorkspaceReconcileResult
from hostsvc.shapes.runs import Run, RunEndResult, RunListResult
from hostsvc.shapes.sagas import Saga, SagaGetResult, SagaListResult
from hostsvc.shapes.sessions import Foreign, SessionAdoptResult, SessionListResult, SessionRow
from hostsvc.shapes.trash import TrashEntry, TrashListResult
from hostsvc.shapes.upkeep import HEALTH, PASS_STATES, HealthResult, Pass, PassesResult
from hostsvc.shapes.workspaces import (
    Workspace,
    WorkspaceDeleteResult,
    WorkspaceListResult,
    WorkspaceRiskResult,
)

SHAPES: Final[dict[str, type]] = {
    "workspace": Workspace,
    "row": SessionRow,
    "foreign": Foreign,
    "saga": Saga,
    "run": Run,
    "pass": Pass,
    "entry": TrashEntry,
}
"""Those that other results hold, as protocol.md calls them."""

__all__ = [
    "HEALTH",
    "PASS_STATES",
    "SHAPES",
    "Foreign",
    "HealthResult",
    "HelloResult",
    "Pass",
    "PassesResult",
    "Run",
    "RunEndResult",
    "RunListResult",
    "Saga",
    "SagaGetResult",
    "SagaListResult",
    "SessionAdoptResult",
    "SessionListResult",
    "SessionRow",
    "TrashEntry",
    "TrashListResult",
    "Workspace",
    "WorkspaceDeleteResult",
    "WorkspaceListResult",
    "WorkspaceReconcileResult",
    "WorkspaceRiskResult",
]
