"""What the host service may be asked: one class a method, as in `ptyd.protocol.messages`.

A method is declared once, here: its params, its result (from `shapes`) and the errors that are its own.
protocol.md is held to all three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import attrs

from hostsvc import shapes
from hostsvc.kinds import COMMAND, LISTED, OWN_LABELS, TEXT
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
    LABELS,
    NAME,
    NEW_NAME,
    SESSION_ID,
    TOKEN,
    array,
    choice,
)
from ptyd.protocol.messages import EventsSubscribe as EventsSubscribe
from ptyd.protocol.messages import Hello as Hello
from ptyd.protocol.results import EventsSubscribeResult

_T = TypeVar("_T")

METHODS: Final[dict[str, type]] = {"hello": Hello, "events.subscribe": EventsSubscribe}
RESULTS: Final[dict[str, type]] = {
    "hello": shapes.HelloResult,
    "events.subscribe": EventsSubscribeResult,
}
ERRORS: Final[dict[str, tuple[Code, ...]]] = {"hello": (), "events.subscribe": ()}
KINDS: Final = ("sagas", "rows", "sessions", "trash")
"""What the reaper looks for, in the order in which it does."""
_TEARDOWN: Final = (
    Code.PROGRAM_NOT_FOUND,
    Code.PROGRAM_NOT_EXECUTABLE,
    Code.CWD_UNAVAILABLE,
    Code.SPAWN_FAILED,
    Code.TIMEOUT,
    Code.KILL_UNCONFIRMED,
    Code.NO_PTYD,
)
"""Why a deletion was undone before its point of no return, besides work at risk."""
_WHICH: Final = "which workspace"
_WHICH_GENERATION: Final = "refuse if it is another by now"


def _method(name: str, result: type, *errors: Code) -> Callable[[type[_T]], type[_T]]:
    def declare(cls: type[_T]) -> type[_T]:
        METHODS[name] = cls
        RESULTS[name] = result
        ERRORS[name] = (*errors, Code.INDEX_FAILED, Code.NO_SPACE)
        return cls

    return declare


@_method(
    "workspace.create",
    shapes.Workspace,
    Code.EXISTS,
    Code.NAME_TAKEN,
    Code.DESTROYED,
    Code.PATH_REFUSED,
)
@attrs.frozen(kw_only=True)
class WorkspaceCreate:
    """Make a workspace: a new folder below the base directory, or one that is there already."""

    id: str | None = attrs.field(default=None, metadata=spec(SESSION_ID, "its id", "a new random one"))
    generation: int | None = attrs.field(
        default=None,
        metadata=spec(GENERATION, "counts the workspaces of this id; more than that of a destroyed one", "1"),
    )
    name: str | None = attrs.field(
        default=None, metadata=spec(NAME, "another way to refer to it; names the folder", "the id")
    )
    path: str | None = attrs.field(
        default=None, metadata=spec(TEXT, "adopt this folder; it is never removed", "make one")
    )
    labels: dict[str, str] = attrs.field(
        factory=dict, metadata=spec(OWN_LABELS, "for selecting it", "no labels")
    )
    teardown: list[str] | None = attrs.field(
        default=None, metadata=spec(COMMAND, "a command to run in it before it is deleted", "nothing")
    )
    is_protected: bool = attrs.field(default=False, metadata=spec(BOOL, "refuse to delete it"))


@_method("workspace.list", shapes.WorkspaceListResult)
@attrs.frozen(kw_only=True)
class WorkspaceList:
    """List workspaces."""

    labels: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(LABELS, "only those that have all of these", "all")
    )
    deleted: bool = attrs.field(default=False, metadata=spec(BOOL, "with those that are gone"))


@_method("workspace.get", shapes.Workspace, Code.NOT_FOUND, Code.DESTROYED)
@attrs.frozen(kw_only=True)
class WorkspaceGet:
    """Look at one workspace. Looking creates nothing."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))


@_method("workspace.update", shapes.Workspace, Code.NOT_FOUND, Code.DESTROYED, Code.NAME_TAKEN)
@attrs.frozen(kw_only=True)
class WorkspaceUpdate:
    """Change what a workspace is called, or protect it. Its folder keeps its name."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    name: str | None = attrs.field(
        default=None, metadata=spec(NEW_NAME, "its new name; empty for none", "unchanged")
    )
    labels: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(OWN_LABELS, "replaces all of them", "unchanged")
    )
    is_protected: bool | None = attrs.field(
        default=None, metadata=spec(BOOL, "refuse to delete it", "unchanged")
    )


@_method(
    "workspace.delete",
    shapes.WorkspaceDeleteResult,
    Code.PROTECTED,
    Code.AT_RISK,
    Code.NOT_FOUND,
    Code.DESTROYED,
    *_TEARDOWN,
)
@attrs.frozen(kw_only=True)
class WorkspaceDelete:
    """Delete a workspace and wait for it. Deleting what is gone, or never was, is done at once."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    generation: int | None = attrs.field(
        default=None, metadata=spec(GENERATION, _WHICH_GENERATION, "whichever lives")
    )
    force: bool = attrs.field(default=False, metadata=spec(BOOL, "also when work is at risk"))
    skip_teardown: bool = attrs.field(
        default=False, metadata=spec(BOOL, "without its teardown command; not part of force")
    )
    dry_run: bool = attrs.field(default=False, metadata=spec(BOOL, "only say what would be done"))


@_method(
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

    workspace: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
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
    on_leader_exit: str = attrs.field(
        default="keep", metadata=spec(choice("keep", "kill"), "what becomes of the others when it exits")
    )


@_method("session.list", shapes.SessionListResult, Code.NOT_FOUND, Code.DESTROYED)
@attrs.frozen(kw_only=True)
class SessionList:
    """List rows of sessions, with what ptyd says of each."""

    workspace: str | None = attrs.field(default=None, metadata=spec(ID_OR_NAME, "only of this one", "all"))
    status: str | None = attrs.field(
        default=None, metadata=spec(choice(*SessionStatus), "only those in it", "all")
    )


@_method(
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


@_method(
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


@_method("saga.list", shapes.SagaListResult)
@attrs.frozen(kw_only=True)
class SagaList:
    """List deletions."""

    limit: int = attrs.field(default=20, metadata=spec(LISTED, "how many at most"))


@_method("saga.get", shapes.SagaGetResult, Code.NOT_FOUND)
@attrs.frozen(kw_only=True)
class SagaGet:
    """Look at one deletion and its journal."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "which"))


@_method(
    "saga.resume",
    shapes.Saga,
    Code.NOT_FOUND,
    Code.STILL_RUNNING,
    Code.AT_RISK,
    *_TEARDOWN,
)
@attrs.frozen(kw_only=True)
class SagaResume:
    """Carry a deletion on at once, whenever it would be due."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "which"))
    leave_out: bool = attrs.field(
        default=False, metadata=spec(BOOL, "without the step that fails; what it leaves is recorded")
    )


@_method("reap", shapes.Pass, Code.PLAN_CHANGED)
@attrs.frozen(kw_only=True)
class Reap:
    """Run a pass of the reaper and wait for it."""

    dry_run: bool = attrs.field(default=False, metadata=spec(BOOL, "only say what would be done"))
    kinds: list[str] | None = attrs.field(
        default=None, metadata=spec(array(choice(*KINDS), 1, len(KINDS)), "what to look for", "everything")
    )
    accept: str | None = attrs.field(
        default=None, metadata=spec(TOKEN, "the `plan_hash` of a refused pass: do exactly that", "nothing")
    )


@_method("passes", shapes.PassesResult)
@attrs.frozen(kw_only=True)
class Passes:
    """List passes of the reaper."""

    limit: int = attrs.field(default=20, metadata=spec(LISTED, "how many at most"))


@_method("health", shapes.HealthResult)
@attrs.frozen(kw_only=True)
class Health:
    """Tell whether somebody should look."""


LONG_ANSWERS: Final = (WorkspaceList, SessionList, SagaList, Passes)
"""Of these a connection gets one after the other: whoever does not read costs the memory of one."""
