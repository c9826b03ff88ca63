"""The state machines of a workspace, a session's row, a saga and a run, as tables.

Owns which change may follow which. Holds no state and does no I/O; the schema's triggers are made from
these tables (see `migrations`), so that not even a mistake of ours can write what they forbid.
"""

from __future__ import annotations

import enum
from typing import Final


class WorkspaceState(enum.StrEnum):
    PROVISIONING = "provisioning"
    """Its row is written, its folder may not be there yet."""
    ACTIVE = "active"
    DELETING = "deleting"
    """A saga is at work: it takes nothing new."""
    DELETED = "deleted"
    """Gone for good; its tombstone refuses what comes late. Absorbing."""


class SessionStatus(enum.StrEnum):
    SPAWNING = "spawning"
    """Its row is written, ptyd has not said yet that it runs."""
    ACTIVE = "active"
    """ptyd said that it ran, and nobody has proven its end."""
    EXITED = "exited"
    """It ended by itself, with proof. Absorbing."""
    DISPOSED = "disposed"
    """It was to end and did, with proof. Absorbing."""
    LOST = "lost"
    """It is gone, and how it ended was not recorded. Absorbing."""
    FAILED = "failed"
    """It never ran. Absorbing."""


class RunState(enum.StrEnum):
    OPEN = "open"
    ENDING = "ending"
    """Somebody asked for its end: it takes nothing new, and what it has is being ended."""
    ENDED = "ended"
    """Nothing of it is left. Absorbing."""


class SagaState(enum.StrEnum):
    OPEN = "open"
    STUCK = "stuck"
    """Open, but so many attempts have failed that a person should look; it is retried all the same."""
    DONE = "done"
    """Absorbing."""
    COMPENSATED = "compensated"
    """Undone before its point of no return. Absorbing."""


_W, _S, _G, _R = WorkspaceState, SessionStatus, SagaState, RunState

WORKSPACE_MOVES: Final[frozenset[tuple[WorkspaceState, WorkspaceState]]] = frozenset(
    {
        (_W.PROVISIONING, _W.ACTIVE),
        (_W.PROVISIONING, _W.DELETING),
        (_W.ACTIVE, _W.DELETING),
        (_W.DELETING, _W.ACTIVE),  # compensated, before the point of no return
        (_W.DELETING, _W.DELETED),
    }
)

SESSION_MOVES: Final[frozenset[tuple[SessionStatus, SessionStatus]]] = frozenset(
    {
        (_S.SPAWNING, _S.ACTIVE),
        (_S.SPAWNING, _S.EXITED),
        (_S.SPAWNING, _S.DISPOSED),
        (_S.SPAWNING, _S.LOST),
        (_S.SPAWNING, _S.FAILED),
        (_S.ACTIVE, _S.EXITED),
        (_S.ACTIVE, _S.DISPOSED),
        (_S.ACTIVE, _S.LOST),
    }
)

SAGA_MOVES: Final[frozenset[tuple[SagaState, SagaState]]] = frozenset(
    {
        (_G.OPEN, _G.STUCK),
        (_G.STUCK, _G.OPEN),
        (_G.OPEN, _G.DONE),
        (_G.STUCK, _G.DONE),
        (_G.OPEN, _G.COMPENSATED),
        (_G.STUCK, _G.COMPENSATED),
    }
)

RUN_MOVES: Final[frozenset[tuple[RunState, RunState]]] = frozenset(
    {
        (_R.OPEN, _R.ENDING),
        (_R.ENDING, _R.ENDED),
    }
)

ENDED: Final = frozenset({_S.EXITED, _S.DISPOSED, _S.LOST, _S.FAILED})
"""The statuses that nothing leaves."""
PROVEN: Final = frozenset({_S.EXITED, _S.DISPOSED, _S.FAILED})
"""Those among them in which nothing of the session can be alive."""
