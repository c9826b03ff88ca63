"""What a client may ask: one class a method, with every field's type, bound, default and meaning.

`METHODS` is the list of methods. `parse_params` is the way from the wire to these classes, and the
daemon's handlers get nothing else. A method is declared once, here: its params, its result (from
`results`) and the errors that are its own. protocol.md is held to all three.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

import attrs

from ptyd.protocol import limits
from ptyd.protocol.codec import Unacceptable, valid_utf8
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.fields import Refusal, parse_map, spec
from ptyd.protocol.kinds import (
    ARGV,
    BOOL,
    COUNT,
    CWD,
    DIMENSION,
    ENV,
    GENERATION,
    ID_OR_NAME,
    LABELS,
    NAME,
    NEW_NAME,
    OFFSET,
    SELECTOR,
    SESSION_ID,
    TOKEN,
    WAIT_MS,
    as_map,
    choice,
    data,
    integer,
    string,
)
from ptyd.protocol.notifications import NOTIFICATIONS as NOTIFICATIONS
from ptyd.protocol.results import (
    STATE,
    DaemonStatsResult,
    DaemonStopResult,
    EventsSubscribeResult,
    HelloResult,
    Nothing,
    Session,
    SessionAttachResult,
    SessionDetachResult,
    SessionInputResult,
    SessionKillResult,
    SessionListResult,
    SessionReadResult,
    SessionSignalResult,
    SessionWaitResult,
)
from ptyd.protocol.unions import EVENTS_SINCE, PROTOCOLS, SIGNAL, SINCE, WAIT_FOR, EventsSince

_T = TypeVar("_T")

METHODS: Final[dict[str, type]] = {}
RESULTS: Final[dict[str, type]] = {}
ERRORS: Final[dict[str, tuple[Code, ...]]] = {}
"""The errors that are a method's own, besides ANY_METHOD_ERRORS."""

ANY_METHOD_ERRORS: Final = (
    Code.BAD_REQUEST,
    Code.INVALID_PARAMS,
    Code.TOO_MANY_REQUESTS,
    Code.BUSY,
    Code.STOPPING,
    Code.INTERNAL,
)


def _method(name: str, result: type, *errors: Code) -> Callable[[type[_T]], type[_T]]:
    def declare(cls: type[_T]) -> type[_T]:
        METHODS[name] = cls
        RESULTS[name] = result
        ERRORS[name] = errors
        return cls

    return declare


_WHICH: Final = "which session"
_SCROLLBACK: Final = integer(limits.SCROLLBACK_MIN_BYTES, limits.SCROLLBACK_MAX_BYTES)

# --- methods -------------------------------------------------------------------------------------


@_method("hello", HelloResult)
@attrs.frozen(kw_only=True)
class Hello:
    """Say who speaks, and choose the form of errors. Optional; if at all, the first message."""

    client: str = attrs.field(
        metadata=spec(string(limits.MAX_CLIENT_NAME_CHARS), "name and version, for the log")
    )
    protocols: list[int] = attrs.field(metadata=spec(PROTOCOLS, "the versions it can speak"))
    errors: Literal["string", "map"] = attrs.field(
        default="string", metadata=spec(choice("string", "map"), "the form that errors will have")
    )


@_method(
    "session.spawn",
    Session,
    Code.EXISTS,
    Code.NAME_TAKEN,
    Code.FENCED,
    Code.PROGRAM_NOT_FOUND,
    Code.PROGRAM_NOT_EXECUTABLE,
    Code.CWD_UNAVAILABLE,
    Code.SPAWN_FAILED,
    Code.WRONG_INSTANCE,
    Code.TOO_MANY_SESSIONS,
    Code.NO_SPACE,
)
@attrs.frozen(kw_only=True)
class SessionSpawn:
    """Start a session. Answered once its program runs, or is known not to."""

    id: str | None = attrs.field(default=None, metadata=spec(SESSION_ID, "its id", "a new random one"))
    generation: int = attrs.field(default=1, metadata=spec(GENERATION, "counts the sessions of this id"))
    argv: list[bytes] = attrs.field(
        metadata=spec(ARGV, "the program, looked up on the session's PATH, and its arguments")
    )
    cwd: bytes | None = attrs.field(
        default=None, metadata=spec(CWD, "working directory", "the home directory")
    )
    env: dict[bytes, bytes] = attrs.field(
        factory=dict,
        metadata=spec(ENV, "laid over a minimal login environment", "nothing more"),
    )
    rows: int = attrs.field(
        default=limits.DEFAULT_ROWS, metadata=spec(DIMENSION, "window size to start with")
    )
    cols: int = attrs.field(
        default=limits.DEFAULT_COLS, metadata=spec(DIMENSION, "window size to start with")
    )
    name: str | None = attrs.field(
        default=None, metadata=spec(NAME, "another way to refer to it, while it lives")
    )
    labels: dict[str, str] = attrs.field(factory=dict, metadata=spec(LABELS, "for selecting it", "no labels"))
    scrollback_bytes: int = attrs.field(
        default=limits.SCROLLBACK_DEFAULT_BYTES,
        metadata=spec(_SCROLLBACK, "how much output is kept"),
    )
    on_leader_exit: Literal["keep", "kill"] = attrs.field(
        default="keep",
        metadata=spec(choice("keep", "kill"), "what becomes of the others when the leader exits"),
    )
    expect_instance: str | None = attrs.field(
        default=None, metadata=spec(TOKEN, "refuse if this is another instance", "any")
    )


@_method("session.list", SessionListResult)
@attrs.frozen(kw_only=True)
class SessionList:
    """List sessions, ended ones too while their record is kept."""

    labels: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(SELECTOR, "only those with all of these", "all")
    )
    state: str | None = attrs.field(default=None, metadata=spec(STATE, "only those in this state", "all"))
    detail: bool = attrs.field(
        default=False,
        metadata=spec(BOOL, "with `foreground`, `busy` and `processes`, which cost a look each"),
    )


@_method("session.get", Session, Code.NOT_FOUND)
@attrs.frozen(kw_only=True)
class SessionGet:
    """Tell about one session, with detail."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))


@_method(
    "session.attach",
    SessionAttachResult,
    Code.NOT_FOUND,
    Code.ENDED,
    Code.UNSUPERVISED,
    Code.SELF_ATTACH,
    Code.NO_SHM,
    Code.NO_SPACE,
    Code.TOO_MANY_ATTACHMENTS,
)
@attrs.frozen(kw_only=True)
class SessionAttach:
    """Get a session's output as notifications, from an offset on."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    since: int | Literal["start", "live"] = attrs.field(
        default="live", metadata=spec(SINCE, "the first offset wanted; not beyond the output")
    )
    mode: Literal["rw", "ro"] = attrs.field(
        default="rw", metadata=spec(choice("rw", "ro"), "whether this connection will type")
    )
    flow: Literal["skip", "pace"] = attrs.field(
        default="skip", metadata=spec(choice("skip", "pace"), "what gives way if it reads slowly")
    )
    rows: int | None = attrs.field(default=None, metadata=spec(DIMENSION, "the client's window", "unchanged"))
    cols: int | None = attrs.field(default=None, metadata=spec(DIMENSION, "the client's window", "unchanged"))
    via: Literal["stream", "shm"] = attrs.field(
        default="stream", metadata=spec(choice("stream", "shm"), "how the bytes come; see Direct attach")
    )

    def __attrs_post_init__(self) -> None:
        if (self.rows is None) != (self.cols is None):
            raise Refusal("expected both of rows and cols, or neither")


@_method("session.detach", SessionDetachResult, Code.NOT_FOUND, Code.UNSUPERVISED, Code.ENDED)
@attrs.frozen(kw_only=True)
class SessionDetach:
    """End an attachment of this connection, or whoever's of a session."""

    attachment: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "as attach has answered", "all of the session's")
    )
    id: str | None = attrs.field(
        default=None, metadata=spec(ID_OR_NAME, _WHICH, "only an attachment of this connection")
    )

    def __attrs_post_init__(self) -> None:
        if self.attachment is None and self.id is None:
            raise Refusal("expected an attachment, an id, or both")


@_method(
    "session.input",
    SessionInputResult,
    Code.NOT_FOUND,
    Code.ENDED,
    Code.UNSUPERVISED,
    Code.READ_ONLY,
    Code.INPUT_FULL,
)
@attrs.frozen(kw_only=True)
class SessionInput:
    """Type into a session: all of the data or none. The one method that may be a notification."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    data: bytes = attrs.field(metadata=spec(data(0, limits.MAX_INPUT_BYTES), "what is typed"))
    wait_ms: int = attrs.field(
        default=0, metadata=spec(WAIT_MS, "how long to wait for room before `input_full`")
    )


@_method("session.resize", Nothing, Code.NOT_FOUND, Code.ENDED, Code.UNSUPERVISED)
@attrs.frozen(kw_only=True)
class SessionResize:
    """Set the window size; the foreground group gets SIGWINCH if it has changed."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    rows: int = attrs.field(metadata=spec(DIMENSION, "window size"))
    cols: int = attrs.field(metadata=spec(DIMENSION, "window size"))


@_method("session.read", SessionReadResult, Code.NOT_FOUND, Code.ENDED, Code.UNSUPERVISED)
@attrs.frozen(kw_only=True)
class SessionRead:
    """Read a piece of the output, for clients that only ask and get answers."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    offset: int = attrs.field(metadata=spec(OFFSET, "the first byte wanted"))
    max_bytes: int = attrs.field(
        default=limits.DEFAULT_READ_BYTES,
        metadata=spec(integer(1, limits.MAX_READ_BYTES), "at most so many"),
    )
    wait_ms: int = attrs.field(
        default=0, metadata=spec(WAIT_MS, "if there is nothing yet, how long to wait for some")
    )


@_method("session.signal", SessionSignalResult, Code.NOT_FOUND, Code.ENDED, Code.UNSUPERVISED)
@attrs.frozen(kw_only=True)
class SessionSignal:
    """Send a signal. For ending a session use kill: a signal sent is not a death."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    signal: int = attrs.field(metadata=spec(SIGNAL, "which signal"))
    to: Literal["foreground", "leader", "all"] = attrs.field(
        default="foreground",
        metadata=spec(
            choice("foreground", "leader", "all"),
            "the foreground group, the leader, or every process of the session",
        ),
    )


@_method(
    "session.kill",
    SessionKillResult,
    Code.NOT_FOUND,
    Code.KILL_UNCONFIRMED,
    Code.WRONG_INSTANCE,
    Code.NO_SPACE,
)
@attrs.frozen(kw_only=True)
class SessionKill:
    """End every process of a session, and answer with the proof."""

    id: str | None = attrs.field(default=None, metadata=spec(ID_OR_NAME, _WHICH, "`labels` is given"))
    labels: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(SELECTOR, "all living ones with these", "`id` is given")
    )
    grace_ms: int = attrs.field(
        default=limits.DEFAULT_GRACE_MS,
        metadata=spec(integer(0, limits.MAX_GRACE_MS), "time to obey, after the hang-up and after TERM"),
    )
    force: bool = attrs.field(default=False, metadata=spec(BOOL, "no graces: KILL at once"))
    generation: int | None = attrs.field(
        default=None,
        metadata=spec(GENERATION, "the one to end; with `id` only", "the one that lives, or 1"),
    )
    expect_instance: str | None = attrs.field(
        default=None, metadata=spec(TOKEN, "refuse if this is another instance", "any")
    )

    def __attrs_post_init__(self) -> None:
        if (self.id is None) == (self.labels is None):
            raise Refusal("expected exactly one of id and labels")
        if self.generation is not None and self.id is None:
            raise Refusal("expected id beside it: the sessions of a selector have many", "generation")


@_method(
    "session.wait",
    SessionWaitResult,
    Code.NOT_FOUND,
    Code.TIMEOUT,
    Code.ENDED,
    Code.UNSUPERVISED,
)
@attrs.frozen(kw_only=True)
class SessionWait:
    """Wait until something has happened in a session; at once if it has already."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    for_: str | bytes | int = attrs.field(default="end", metadata=spec(WAIT_FOR, "what to wait for"))
    since: int | Literal["start", "live"] = attrs.field(
        default="start", metadata=spec(SINCE, "for bytes: where to start looking")
    )
    timeout_ms: int | None = attrs.field(
        default=None, metadata=spec(WAIT_MS, "how long, before `timeout`", "no limit")
    )


@_method(
    "session.update",
    Session,
    Code.NOT_FOUND,
    Code.NAME_TAKEN,
    Code.ENDED,
    Code.UNSUPERVISED,
    Code.NO_SPACE,
)
@attrs.frozen(kw_only=True)
class SessionUpdate:
    """Change what a session is called."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))
    name: str | None = attrs.field(
        default=None, metadata=spec(NEW_NAME, "its new name; empty for none", "unchanged")
    )
    labels: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(LABELS, "replaces all of them", "unchanged")
    )


@_method("session.forget", Nothing, Code.NOT_FOUND, Code.STILL_RUNNING)
@attrs.frozen(kw_only=True)
class SessionForget:
    """Drop the record and the output of an ended session. Its fence stays."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, _WHICH))


@_method("events.subscribe", EventsSubscribeResult)
@attrs.frozen(kw_only=True)
class EventsSubscribe:
    """Get events as notifications, from a number on."""

    since: EventsSince | None = attrs.field(
        default=None, metadata=spec(EVENTS_SINCE, "the last one seen", "only new ones")
    )


@_method("daemon.stats", DaemonStatsResult)
@attrs.frozen(kw_only=True)
class DaemonStats:
    """Tell what the daemon counts."""


@_method("daemon.stop", DaemonStopResult, Code.KILL_UNCONFIRMED)
@attrs.frozen(kw_only=True)
class DaemonStop:
    """Stop the daemon. Sessions live on, and the next daemon takes them over."""

    kill: bool = attrs.field(
        default=False, metadata=spec(BOOL, "kill every session first; if one survives, go on")
    )


# --- from the wire -------------------------------------------------------------------------------


def parse_params(method: str, params: object, methods: Mapping[str, type] = METHODS) -> Any:
    """The instance of `methods[method]` that `params` stands for.

    Args:
        method: as it came.
        params: as the codec decoded it: an array of one map, an empty array, or `Unacceptable`.
        methods: which methods there are.

    Raises:
        PtydError: unknown_method, or invalid_params; `data.field` says where.
    """
    cls = methods.get(method)
    if cls is None:
        raise PtydError(
            Code.UNKNOWN_METHOD,
            f"no method {method[:64]!a}; protocol.md lists them",
            method=valid_utf8(method[:64]),
        )
    try:
        return parse_map(cls, _only_map(params))
    except Refusal as refusal:
        where = f"{refusal.path}: " if refusal.path else ""
        data = {"field": refusal.path} if refusal.path else {}
        raise PtydError(Code.INVALID_PARAMS, f"{method}: {where}{refusal.text}", **data) from None


def _only_map(params: object) -> dict[Any, Any]:
    match params:
        case Unacceptable(reason):
            raise Refusal(reason)
        case [raw]:
            return as_map(raw)
        case []:
            return {}
    raise Refusal("expected params to be an array of one map")
