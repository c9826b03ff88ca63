"""What the host service may be asked: one class a method, as in `ptyd.protocol.messages`.

One module for each thing that can be asked about; importing them fills the tables in `declare`.
"""

from typing import Final

from hostsvc.messages import reconcile as reconcile
from hostsvc.messages import runs, sagas, sessions, trash, upkeep, workspaces
from hostsvc.messages.declare import ERRORS, METHODS, RESULTS
from hostsvc.messages.upkeep import KINDS
from ptyd.protocol.messages import EventsSubscribe, Hello

LONG_ANSWERS: Final = (
    workspaces.WorkspaceList,
    sessions.SessionList,
    sagas.SagaList,
    runs.RunList,
    upkeep.Passes,
    trash.TrashList,
)
"""Of these a connection gets one after the other: whoever does not read costs the memory of one."""

__all__ = [
    "ERRORS",
    "KINDS",
    "LONG_ANSWERS",
    "METHODS",
    "RESULTS",
    "EventsSubscribe",
    "Hello",
]
