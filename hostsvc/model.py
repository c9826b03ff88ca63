"""What the host service knows, as values: facts that may be unknown, rows, what ptyd sees, decisions.

Owns no rule (those are in `policy` and `saga`), no clock and no I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import attrs

from hostsvc.states import ENDED, SagaState, SessionStatus, WorkspaceState

T = TypeVar("T")

OWNER_LABEL: Final = "hostsvc.owner"
"""The label that says whose index a session belongs to: the index's id."""
WORKSPACE_LABEL: Final = "hostsvc.workspace"
RUN_LABEL: Final = "run"
"""The label that says to which run something belongs; containers and others carry it too."""
RESERVED_LABELS: Final = "hostsvc."
"""Labels that begin so are ours; nobody else may set them through us."""

# --- facts ---------------------------------------------------------------------------------------


@attrs.frozen
class Known(Generic[T]):
    """It was looked for and is there."""

    value: T


@attrs.frozen
class Absent:
    """It was looked for where it would have to be, the look was complete, and it is not there."""


@attrs.frozen
class Unknown:
    """Nobody could tell. Never the same as absent."""

    why: str


Fact = Known[T] | Absent | Unknown
ABSENT: Final = Absent()

# --- rows ----------------------------------------------------------------------------------------

Key = tuple[str, int]
"""A session's id and generation."""


@attrs.frozen(kw_only=True)
class Workspace:
    """A workspace's row. `is_ours`: we made the folder and may remove it; else it was only adopted."""

    id: str
    generation: int
    name: str | None
    path: str
    is_ours: bool
    state: WorkspaceState
    labels: Mapping[str, str]
    teardown: tuple[str, ...] | None = None
    is_protected: bool = False
    device: int | None = None
    inode: int | None = None
    common_dir: str | None = None
    """The repository of which its folder is a worktree; None for a plain folder."""
    branch: str | None = None
    run: str | None = None
    """The run that it belongs to."""
    is_ephemeral: bool = False
    """It goes with its run."""
    is_expendable: bool = False
    """It does so also when work in it is at risk."""
    plan: Mapping[str, Any] | None = None
    """What its provisioning is to do, until it is done."""
    created_at_ms: int
    deleted_at_ms: int | None = None


@attrs.frozen(kw_only=True)
class SessionRow:
    """A session's row. Its intent is `dispose_requested_at_ms`, never a status."""

    id: str
    generation: int
    workspace_id: str | None
    origin_workspace_id: str
    status: SessionStatus
    name: str | None
    labels: Mapping[str, str]
    argv: tuple[str, ...]
    cwd: str | None
    run_id: str
    """The host service's process that wrote the row before its spawn."""
    run: str | None = None
    """The run that it belongs to."""
    restart: str = "never"
    """Whether it is started again when it ends by itself; see `restart.Policy`."""
    restarts: int = 0
    """So many starts in a row before this one did not last."""
    instance_id: str | None = None
    """The ptyd (its runtime directory) that was asked for it."""
    boot_id: str | None = None
    shim_pid: int | None = None
    shim_start: int | None = None
    pid: int | None = None
    pid_start: int | None = None
    created_at_ms: int
    ended_at_ms: int | None = None
    dispose_requested_at_ms: int | None = None
    dispose_reason: str | None = None
    is_forced: bool = False
    attempts: int = 0
    next_attempt_at_ms: int | None = None
    last_error: str | None = None
    stuck_at_ms: int | None = None
    kill_evidence: Mapping[str, Any] | None = None
    exit: Mapping[str, int] | None = None

    @property
    def key(self) -> Key:
        return self.id, self.generation

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED

    @property
    def is_unwanted(self) -> bool:
        """Somebody has said that it is to go."""
        return self.dispose_requested_at_ms is not None


@attrs.frozen(kw_only=True)
class Saga:
    """A deletion's row. `lease`: the process that is at it."""

    id: str
    workspace_id: str
    generation: int
    state: SagaState
    is_forced: bool
    skips_teardown: bool
    lease: str | None
    lease_until_ms: int | None
    attempts: int
    next_attempt_at_ms: int | None
    last_error: str | None
    warnings: tuple[str, ...]
    created_at_ms: int
    finished_at_ms: int | None = None


@attrs.frozen(kw_only=True)
class Observation:
    """How often, and since when, something was seen that rests on absence."""

    kind: str
    subject: str
    first_at_ms: int
    last_at_ms: int
    count: int


# --- what ptyd sees ------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class LiveSession:
    """A session in ptyd's list."""

    id: str
    generation: int
    state: str
    owner: str | None
    workspace_id: str | None
    run: str | None = None
    created_at_ms: int
    ended_at_ms: int | None = None
    proof: str | None = None
    exit: Mapping[str, int] | None = None
    shim_pid: int | None = None
    shim_start: int | None = None
    boot_id: str | None = None
    pid: int | None = None
    pid_start: int | None = None

    @property
    def key(self) -> Key:
        return self.id, self.generation

    @property
    def is_alive(self) -> bool:
        """Anything but proven dead counts as alive."""
        return self.state != "exited" or self.proof is None

    @property
    def evidence(self) -> dict[str, Any]:
        """How its end is known, as a row keeps it."""
        return {"proof": self.proof, "at_ms": self.ended_at_ms, "by": "ptyd"}


@attrs.frozen(kw_only=True)
class LiveView:
    """A complete list of ptyd's, of one instance."""

    instance_id: str
    sessions: Mapping[Key, LiveSession]


# --- decisions -----------------------------------------------------------------------------------


class Basis(enum.StrEnum):
    """What an act rests on: the weaker it is, the more stands before it."""

    INTENT = "intent"
    """Somebody asked for it."""
    ROW = "row"
    """A row says so: its session is to be gone, and lives."""
    ABSENCE = "absence"
    """Only that something is not there. Two observations, an age floor and the caps."""


class Action(enum.StrEnum):
    KILL = "kill"
    FENCE = "fence"
    """Forbid a spawn that was never answered; its row fails."""
    CONFIRM = "confirm"
    """Enter what ptyd says of a row that a crash left behind."""
    SETTLE = "settle"
    """Enter the end that ptyd has proven."""
    BURY = "bury"
    """Enter an end that only its processes' absence proves."""
    RESUME = "resume"
    ARCHIVE = "archive"
    PURGE = "purge"
    TRASH = "trash"
    """Move it to the trash, from where it can be restored."""
    QUARANTINE = "quarantine"
    """The same for something broken, whose work at risk nobody can tell; kept longer."""
    UNLINK = "unlink"
    """Remove a credential for good."""
    END = "end"
    """End something that a plug-in knows: everything that belongs to a run."""


@attrs.frozen
class Keep:
    """Leave it alone."""

    reason: str


@attrs.frozen
class Observe:
    """Leave it alone for now, and remember having seen it."""

    reason: str


@attrs.frozen
class Act:
    """Do something about it."""

    action: Action
    basis: Basis
    reason: str


Decision = Keep | Observe | Act


@attrs.frozen(kw_only=True)
class Candidate:
    """A decided act on one subject."""

    kind: str
    subject: str
    generation: int
    action: Action
    basis: Basis
    reason: str

    @property
    def key(self) -> Key:
        return self.subject, self.generation
