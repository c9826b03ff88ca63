"""What the daemon answers: the shape of every result, as declared fields.

The daemon builds plain dicts, for speed; these classes are what the tests hold those dicts to, what
protocol.md's tables are compared with, and what a typed client may read them into.
"""

from typing import Any, Final

import attrs

from ptyd.protocol import limits
from ptyd.protocol.fields import Kind, Refusal, parse_map, spec
from ptyd.protocol.kinds import (
    ANY_MAP,
    ANY_STRING,
    BOOL,
    BYTES,
    COUNT,
    DIMENSION,
    GENERATION,
    LABELS,
    NAME,
    OFFSET,
    SESSION_ID,
    array,
    as_map,
    choice,
    integer,
    shape,
)
from ptyd.protocol.states import SessionState

PROOFS: Final = ("echild", "zygote_echild", "other_boot", "never_ran")
PHASES: Final = ("hangup", "terminate", "kill")
REASONS: Final = ("not_permitted", "not_dying", "supervisor_lost", "unattributed")

PROOF: Final = choice(*PROOFS)
PHASE: Final = choice(*PHASES)
STATE: Final = choice(*SessionState)
PID: Final = integer(1, 2**31 - 1, "a pid")


@attrs.frozen(kw_only=True)
class Exit:
    """How a leader ended: exactly one of the two."""

    code: int | None = attrs.field(default=None, metadata=spec(integer(0, 255), "what it exited with"))
    signal: int | None = attrs.field(
        default=None, metadata=spec(integer(1, limits.MAX_SIGNAL), "what killed it")
    )

    def __attrs_post_init__(self) -> None:
        if (self.code is None) == (self.signal is None):
            raise Refusal("expected exactly one of code and signal")


EXIT: Final = shape(Exit, "exit")


@attrs.frozen(kw_only=True)
class Foreground:
    """The foreground process group of a session."""

    pgid: int = attrs.field(metadata=spec(PID, "the group"))
    pid: int | None = attrs.field(default=None, metadata=spec(PID, "one process of it"))
    command: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "its command name"))


@attrs.frozen(kw_only=True)
class Survivor:
    """A process that a kill could not prove dead."""

    pid: int = attrs.field(metadata=spec(PID, "which"))
    command: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "its command name"))
    state: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "its state as in proc(5), such as `D`")
    )
    reason: str = attrs.field(metadata=spec(choice(*REASONS), "why it is alive"))


@attrs.frozen(kw_only=True)
class Straggler:
    """A process that outlived the hang-up of a kill, and died later."""

    pid: int = attrs.field(metadata=spec(PID, "which"))
    command: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "its command name"))
    phase: str = attrs.field(metadata=spec(PHASE, "the phase that it was alive in"))


@attrs.frozen(kw_only=True)
class Session:
    """A session. What is not known is nil."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "names it, for as long as it is remembered"))
    generation: int = attrs.field(metadata=spec(GENERATION, "counts the sessions of this id"))
    name: str | None = attrs.field(default=None, metadata=spec(NAME, "unique among living sessions"))
    state: str = attrs.field(metadata=spec(STATE, "see Session states"))
    argv: list[str] = attrs.field(metadata=spec(array(ANY_STRING), "what was started"))
    cwd: str = attrs.field(metadata=spec(ANY_STRING, "where it was started"))
    pid: int | None = attrs.field(default=None, metadata=spec(PID, "the leader's"))
    pid_start: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "the leader's start time in ticks (proc(5))")
    )
    rows: int = attrs.field(metadata=spec(DIMENSION, "window size"))
    cols: int = attrs.field(metadata=spec(DIMENSION, "window size"))
    labels: dict[str, str] = attrs.field(metadata=spec(LABELS, "the owner's, for selecting"))
    created_at_ms: int = attrs.field(metadata=spec(COUNT, "when, since the epoch"))
    age_ms: int = attrs.field(metadata=spec(COUNT, "time since then"))
    attached: int = attrs.field(metadata=spec(COUNT, "attachments, all clients together"))
    output_offset: int = attrs.field(metadata=spec(OFFSET, "end of the output so far"))
    scrollback_start: int = attrs.field(metadata=spec(OFFSET, "oldest offset still readable"))
    last_output_age_ms: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "time since the last output; nil if there was none")
    )
    foreground: Foreground | None = attrs.field(
        default=None,
        metadata=spec(shape(Foreground, "foreground"), "the foreground group; with detail"),
    )
    busy: bool | None = attrs.field(
        default=None, metadata=spec(BOOL, "someone or something uses it; with detail")
    )
    processes: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "how many are alive in it; with detail")
    )
    exit: Exit | None = attrs.field(
        default=None, metadata=spec(EXIT, "the leader's; nil while it lives, or if unknown")
    )
    proof: str | None = attrs.field(
        default=None, metadata=spec(PROOF, "how the end of all its processes is known")
    )
    ended_at_ms: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "when that was proven, since the epoch")
    )
    shim_pid: int | None = attrs.field(default=None, metadata=spec(PID, "its shim's, alive or not"))
    shim_start: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "the shim's start time in ticks (proc(5))")
    )
    boot_id: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "the boot of the machine that its pids belong to")
    )


SESSION: Final = shape(Session, "session")


@attrs.frozen(kw_only=True)
class Nothing:
    """An empty map: it was done."""


@attrs.frozen(kw_only=True)
class HelloResult:
    """Who serves here, and within which limits."""

    server: str = attrs.field(metadata=spec(choice("ptyd"), "what this is"))
    version: str = attrs.field(metadata=spec(ANY_STRING, "the daemon's version, for showing"))
    protocol: int = attrs.field(
        metadata=spec(integer(limits.PROTOCOL, limits.PROTOCOL, "1"), "the one spoken from here on")
    )
    instance_id: str = attrs.field(metadata=spec(ANY_STRING, "lives as long as the runtime directory"))
    daemon_id: str = attrs.field(metadata=spec(ANY_STRING, "this daemon process"))
    pid: int = attrs.field(metadata=spec(PID, "the daemon's"))
    features: list[str] = attrs.field(
        metadata=spec(array(ANY_STRING), "optional abilities; ignore unknown ones")
    )
    limits: dict[str, int] = attrs.field(metadata=spec(ANY_MAP, "see Limits"))


@attrs.frozen(kw_only=True)
class SessionListResult:
    """The sessions that matched."""

    instance_id: str = attrs.field(metadata=spec(ANY_STRING, "whose sessions these are"))
    complete: bool = attrs.field(
        metadata=spec(BOOL, "every record was resolved; if false, absence means nothing")
    )
    sessions: list[Session] = attrs.field(metadata=spec(array(SESSION), "in order of creation"))


@attrs.frozen(kw_only=True)
class SessionAttachResult:
    """An attachment. Its notifications follow."""

    attachment: int = attrs.field(metadata=spec(COUNT, "names it on this connection, never reused"))
    offset: int = attrs.field(metadata=spec(OFFSET, "of the first byte that will be sent"))
    truncated: int = attrs.field(
        metadata=spec(COUNT, "bytes between the offset asked for and this one that are gone")
    )
    session: Session = attrs.field(metadata=spec(SESSION, "as it is now"))


@attrs.frozen(kw_only=True)
class SessionDetachResult:
    """Every one of them has been told."""

    detached: int = attrs.field(metadata=spec(COUNT, "how many attachments were ended"))


@attrs.frozen(kw_only=True)
class SessionInputResult:
    """All of it was queued."""

    accepted: int = attrs.field(metadata=spec(COUNT, "bytes; always all that were sent"))


@attrs.frozen(kw_only=True)
class SessionReadResult:
    """A piece of the output."""

    offset: int = attrs.field(metadata=spec(OFFSET, "of data; later than asked if what is between is gone"))
    data: bytes = attrs.field(metadata=spec(BYTES, "may be empty"))
    next: int = attrs.field(metadata=spec(OFFSET, "the offset to ask for next"))
    ended: bool = attrs.field(metadata=spec(BOOL, "there will be nothing at next, ever"))


@attrs.frozen(kw_only=True)
class SessionSignalResult:
    """The signal was sent."""

    signalled: int = attrs.field(metadata=spec(COUNT, "processes that it was sent to"))


@attrs.frozen(kw_only=True)
class SessionKillResult:
    """Every process that the session ever started is proven dead."""

    outcome: str = attrs.field(
        metadata=spec(choice("killed", "already_exited"), "whether there was something left to do")
    )
    exit: Exit | None = attrs.field(default=None, metadata=spec(EXIT, "the leader's; nil if unknown"))
    proof: str = attrs.field(metadata=spec(PROOF, "how the end is known"))
    phase: str | None = attrs.field(
        default=None, metadata=spec(PHASE, "the last one needed; nil for already_exited")
    )
    stragglers: list[Straggler] = attrs.field(
        metadata=spec(array(shape(Straggler, "straggler")), "who outlived the hang-up; at most 32")
    )
    duration_ms: int = attrs.field(metadata=spec(COUNT, "from the request to the proof"))


@attrs.frozen(kw_only=True)
class WireError:
    """An error inside a result: always in map form."""

    code: str = attrs.field(metadata=spec(ANY_STRING, "see Errors"))
    message: str = attrs.field(metadata=spec(ANY_STRING, "for people"))
    data: dict[str, Any] = attrs.field(metadata=spec(ANY_MAP, "for programs"))


@attrs.frozen(kw_only=True)
class KillRefused:
    """One session's line in the results of a kill by labels that could not be confirmed."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "which session"))
    error: WireError = attrs.field(metadata=spec(shape(WireError, "error"), "why"))


@attrs.frozen(kw_only=True)
class KillConfirmed(SessionKillResult):
    """One session's line in the results of a kill by labels: a kill's result and its id."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "which session"))


def _parse_kill_line(value: object) -> KillConfirmed | KillRefused:
    line = as_map(value)
    return parse_map(KillRefused, line) if "error" in line else parse_map(KillConfirmed, line)


@attrs.frozen(kw_only=True)
class SessionKillManyResult:
    """What became of each session that the selector matched; empty if none did."""

    results: list[KillConfirmed | KillRefused] = attrs.field(
        metadata=spec(
            array(Kind("map", "", _parse_kill_line)),
            "one a session: `id` with a kill's result, or `{id, error: {code, message, data}}`",
        )
    )


@attrs.frozen(kw_only=True)
class SessionWaitResult:
    """What happened."""

    event: str = attrs.field(
        metadata=spec(choice("exit", "end", "match", "idle"), "`match`: the bytes were found")
    )
    exit: Exit | None = attrs.field(default=None, metadata=spec(EXIT, "the leader's, if it has exited"))
    offset: int = attrs.field(
        metadata=spec(OFFSET, "end of the match; otherwise end of the output at that moment")
    )


@attrs.frozen(kw_only=True)
class EventsSubscribeResult:
    """Where the events begin."""

    daemon_id: str = attrs.field(metadata=spec(ANY_STRING, "numbers mean nothing in another"))
    seq: int = attrs.field(metadata=spec(COUNT, "of the last event so far; 0 if there was none"))
    truncated: int = attrs.field(
        metadata=spec(
            COUNT, "events after `since` that are no longer kept; 0 if `since` is of another daemon"
        )
    )


@attrs.frozen(kw_only=True)
class DaemonStatsResult:
    """What the daemon counts."""

    pid: int = attrs.field(metadata=spec(PID, "the daemon's"))
    version: str = attrs.field(metadata=spec(ANY_STRING, "as in hello"))
    instance_id: str = attrs.field(metadata=spec(ANY_STRING, "as in hello"))
    daemon_id: str = attrs.field(metadata=spec(ANY_STRING, "as in hello"))
    uptime_ms: int = attrs.field(metadata=spec(COUNT, "of this daemon process"))
    sessions: dict[str, int] = attrs.field(
        metadata=spec(ANY_MAP, "how many in each state; a state without any is left out")
    )
    complete: bool = attrs.field(metadata=spec(BOOL, "as in session.list"))
    clients: int = attrs.field(metadata=spec(COUNT, "connections, this one included"))
    attachments: int = attrs.field(metadata=spec(COUNT, "of all connections"))
    events: int = attrs.field(metadata=spec(COUNT, "number of the last event"))
    limits: dict[str, int] = attrs.field(metadata=spec(ANY_MAP, "as in hello"))


@attrs.frozen(kw_only=True)
class DaemonStopResult:
    """The daemon will close every connection and end."""

    sessions: int = attrs.field(metadata=spec(COUNT, "how many of them live on"))
