"""What the trio client returns and yields: frozen values, made from the wire's maps.

Unknown keys are ignored, as protocol.md asks of every client; a missing optional one is None. What has
no such shape at all is a `protocol_violation`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar

import attrs

from ptyd.protocol.errors import Code, PtydError

State = Literal["starting", "running", "lingering", "killing", "exited", "unsupervised"]
Value = TypeVar("Value")
P = ParamSpec("P")


@attrs.frozen(kw_only=True)
class Exit:
    """How a session's leader ended: exactly one of `code` and `signal`."""

    code: int | None = None
    signal: int | None = None

    @property
    def status(self) -> int:
        """What a shell would call it: the code, or 128 + the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


@attrs.frozen(kw_only=True)
class Session:
    """One session as the daemon last saw it. `foreground`, `busy`, `processes` come with detail
    only."""

    id: str
    generation: int
    name: str | None
    state: State
    argv: tuple[str, ...]
    cwd: str
    pid: int | None
    pid_start: int | None
    rows: int
    cols: int
    labels: Mapping[str, str]
    created_at_ms: int
    age_ms: int
    attached: int
    output_offset: int
    scrollback_start: int
    last_output_age_ms: int | None = None
    foreground: Mapping[str, Any] | None = None
    busy: bool | None = None
    processes: int | None = None
    exit: Exit | None = None
    proof: str | None = None
    ended_at_ms: int | None = None
    shim_pid: int | None = None
    shim_start: int | None = None
    boot_id: str | None = None

    @property
    def title(self) -> str:
        """The name if it has one, else the id."""
        return self.name or self.id


@attrs.frozen(kw_only=True)
class Listing:
    """The answer to a list. `complete` False says that some records could not be resolved."""

    instance_id: str
    complete: bool
    sessions: tuple[Session, ...]


@attrs.frozen(kw_only=True)
class Killed:
    """A confirmed kill: no process of the session is alive, and `proof` says how that is known."""

    id: str
    outcome: Literal["killed", "already_exited"]
    exit: Exit | None = None
    proof: str | None = None
    phase: Literal["hangup", "terminate", "kill"] | None = None
    stragglers: tuple[Mapping[str, Any], ...] = ()
    duration_ms: int | None = None


@attrs.frozen(kw_only=True)
class Happened:
    """What a wait ended with."""

    event: Literal["exit", "end", "match", "idle"]
    offset: int
    exit: Exit | None = None


@attrs.frozen(kw_only=True)
class Chunk:
    """The answer to a read. `offset` beyond the one asked for says that the bytes between are
    gone."""

    offset: int
    data: bytes
    next: int
    ended: bool


# --- what an attachment yields -------------------------------------------------------------------


@attrs.frozen
class Output:
    """Bytes of output, unedited. The next output begins at `offset + len(data)`, or a Gap says
    not."""

    offset: int
    data: bytes


@attrs.frozen
class Gap:
    """The bytes in [from_, to) are gone: they had left the scrollback before they could be read."""

    from_: int
    to: int


@attrs.frozen
class Exited:
    """The leader has exited, after all its output; others of its processes may live and write."""

    exit: Exit | None
    offset: int


@attrs.frozen
class Ended:
    """Every process of the session is dead. The last thing an attachment yields."""

    exit: Exit | None
    proof: str | None
    offset: int


@attrs.frozen
class Line:
    """One line without its end (LF or CRLF); `offset` is that of its first byte."""

    offset: int
    data: bytes


@attrs.frozen
class Found:
    """A match: everything consumed up to its end, and the offset behind it."""

    data: bytes
    offset: int


# --- what a subscription yields ------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened in the daemon. `fields` has what the type brings besides."""

    daemon_id: str
    seq: int
    type: str
    at_ms: int
    id: str | None
    fields: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Lost:
    """Events are missing here: look at a list. `count` is None when another daemon has taken
    over."""

    daemon_id: str
    count: int | None


# --- from the wire -------------------------------------------------------------------------------


def checked(parse: Callable[P, Value]) -> Callable[P, Value]:
    """Let a caller see one kind of error only, whatever the other end has made up."""

    @functools.wraps(parse)
    def parsed(*args: P.args, **kwargs: P.kwargs) -> Value:
        try:
            return parse(*args, **kwargs)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            text = f"the daemon's answer makes no sense ({type(error).__name__}: {error})"
            raise PtydError(Code.PROTOCOL_VIOLATION, text) from error

    return parsed


def parse_exit(fields: Mapping[str, Any] | None) -> Exit | None:
    """Read an exit; nil is None."""
    return None if fields is None else _build(Exit, fields)


@checked
def parse_session(fields: Mapping[str, Any]) -> Session:
    """Read a session object."""
    return _build(Session, {**fields, "argv": tuple(fields["argv"]), "exit": parse_exit(fields.get("exit"))})


@checked
def parse_listing(fields: Mapping[str, Any]) -> Listing:
    """Read the answer to `session.list`."""
    return _build(Listing, {**fields, "sessions": tuple(map(parse_session, fields["sessions"]))})


@checked
def parse_killed(session_id: str, fields: Mapping[str, Any]) -> Killed:
    """Read the answer to `session.kill`."""
    parsed = {"exit": parse_exit(fields.get("exit")), "stragglers": tuple(fields["stragglers"])}
    return _build(Killed, {"id": session_id, **fields, **parsed})


@checked
def parse_happened(fields: Mapping[str, Any]) -> Happened:
    """Read the answer to `session.wait`."""
    return _build(Happened, {**fields, "exit": parse_exit(fields.get("exit"))})


@checked
def parse_chunk(fields: Mapping[str, Any]) -> Chunk:
    """Read the answer to `session.read`."""
    return _build(Chunk, fields)


@checked
def parse_stats(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the answer to `daemon.stats`."""
    return dict(fields)


@checked
def parse_event(fields: Mapping[str, Any]) -> Event:
    """Read an `event` notification."""
    common = ("daemon_id", "seq", "type", "at_ms", "id")
    rest = {key: value for key, value in fields.items() if key not in common}
    return _build(Event, {"id": None, **fields, "fields": rest})


def _build(kind: type[Value], fields: Mapping[str, Any]) -> Value:
    known = _names(kind)  # type: ignore[arg-type]  # a class is hashable
    if not fields.keys() <= known:
        fields = {key: value for key, value in fields.items() if key in known}
    return kind(**fields)


@functools.cache
def _names(kind: type[Any]) -> frozenset[str]:
    return frozenset(field.name for field in attrs.fields(kind))
