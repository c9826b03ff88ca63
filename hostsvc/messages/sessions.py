"""What the host service may be asked about sessions."""

from __future__ import annotations

import attrs

from hostsvc import shapes
from hostsvc.kinds import OWN_LABELS
from hostsvc.messages.declare import WHICH, method
from hostsvc.restart import Policy
from hostsvc.states import SessionStatus
from ptyd.protocol import limits
from ptyd.protocol.errors import Code
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import (
    ARGV,
    BOOL,
    CWD,
    DIMENSION,
    ENV,
    GENERATION,
    ID_OR_NAME,
    NAME,
    SESSION_ID,
    TOKEN,
    choice,
    integer,
)


@method(
    "session.create",
    shapes.SessionRow,
    Code.NOT_FOUND,
    Code.DESTROYED,
    Code.BEING_DELETED,
    Code.NAME_TAKEN,
    Code.PROGRAM_NOT_FOUND,
    Code.PROGRAM_NOT_EXECUTABLE,
    Code.CWD_UNAVAILABLE,
    Code.SPAWN_FAILED,
    Code.WRONG_INSTANCE,
    Code.TOO_MANY_SESSIONS,
    Code.NO_PTYD,
)
@attrs.frozen(kw_only=True)
class SessionCreate:
    """Start a session in a workspace. Attach to it at ptyd, under the id that is answered."""

    workspace: str = attrs.field(metadata=spec(ID_OR_NAME, WHICH))
    argv: list[bytes] = attrs.field(
        metadata=spec(ARGV, "the program, looked up on the session's PATH, and its arguments")
    )
    cwd: bytes | None = attrs.field(
        default=None, metadata=spec(CWD, "working directory", "the workspace's folder")
    )
    env: dict[bytes, bytes] = attrs.field(
        factory=dict, metadata=spec(ENV, "laid over a minimal login environment", "nothing more")
    )
    rows: int = attrs.field(default=limits.DEFAULT_ROWS, metadata=spec(DIMENSION, "window size"))
    cols: int = attrs.field(default=limits.DEFAULT_COLS, metadata=spec(DIMENSION, "window size"))
    name: str | None = attrs.field(
        default=None, metadata=spec(NAME, "another way to refer to it, while it lives")
    )
    labels: dict[str, str] = attrs.field(
        factory=dict, metadata=spec(OWN_LABELS, "for selecting it", "no labels")
    )
    run: str | None = attrs.field(
        default=None, metadata=spec(SESSION_ID, "the run that it belongs to, and ends with", "none")
    )
    on_leader_exit: str = attrs.field(
        default="keep", metadata=spec(choice("keep", "kill"), "what becomes of the others when it exits")
    )
    restart: str = attrs.field(
        default="never", metadata=spec(choice(*Policy), "whether it is started again when it ends by itself")
    )
    restart_limit: int = attrs.field(
        default=5, metadata=spec(integer(1, 1000), "so many starts in a row that do not last")
    )


@method("session.list", shapes.SessionListResult, Code.NOT_FOUND, Code.DESTROYED)
@attrs.frozen(kw_only=True)
class SessionList:
    """List rows of sessions, with what ptyd says of each."""

    workspace: str | None = attrs.field(default=None, metadata=spec(ID_OR_NAME, "only of this one", "all"))
    status: str | None = attrs.field(
        default=None, metadata=spec(choice(*SessionStatus), "only those in it", "all")
    )


@method(
    "session.dispose",
    shapes.SessionRow,
    Code.NOT_FOUND,
    Code.KILL_UNCONFIRMED,
    Code.WRONG_INSTANCE,
    Code.NO_PTYD,
)
@attrs.frozen(kw_only=True)
class SessionDispose:
    """End a session. Answered with its row once its death is proven; the intent stands in any case."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, "which session"))
    generation: int | None = attrs.field(
        default=None, metadata=spec(GENERATION, "which of its generations", "the newest")
    )
    force: bool = attrs.field(default=False, metadata=spec(BOOL, "no graces: KILL at once"))


@method(
    "session.adopt",
    shapes.SessionAdoptResult,
    Code.NOT_FOUND,
    Code.DESTROYED,
    Code.BEING_DELETED,
    Code.NO_PTYD,
)
@attrs.frozen(kw_only=True)
class SessionAdopt:
    """Take over living sessions that have no row: those of an index that was lost, or of a newer one."""

    owner: str = attrs.field(metadata=spec(TOKEN, "the id of that index, as `foreign` shows it"))
    workspace: str = attrs.field(metadata=spec(ID_OR_NAME, "the workspace that they shall belong to"))
    dry_run: bool = attrs.field(default=False, metadata=spec(BOOL, "only show them"))
