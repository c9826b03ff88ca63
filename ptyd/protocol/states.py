"""The two state machines: a session's life and a connection's, as tables.

Standard library only, because the shim imports this module too. It does no I/O and holds no state:
`next_state` and `next_connection_state` are the only ways to move. `protocol.md` shows the same two
tables, and a test compares them.
"""

import enum
from typing import Final


class InvalidTransition(ValueError):
    """The event cannot happen in this state; a caller that sees it has lost track."""


class SessionState(enum.StrEnum):
    """What `state` of a session says."""

    STARTING = "starting"
    """Its record exists; its program has not been forked yet."""
    RUNNING = "running"
    LINGERING = "lingering"
    """The leader has exited; others of its processes live on."""
    KILLING = "killing"
    """A kill was asked for and death is not proven yet."""
    EXITED = "exited"
    """Every process of it is proven dead. Absorbing."""
    UNSUPERVISED = "unsupervised"
    """Its shim is gone: what its processes do now cannot be told."""


class SessionEvent(enum.StrEnum):
    FORKED = "forked"
    LEADER_EXITED = "leader_exited"
    KILL_REQUESTED = "kill_requested"
    PROVEN_DEAD = "proven_dead"
    SUPERVISOR_LOST = "supervisor_lost"


_S = SessionState
_E = SessionEvent

SESSION_TRANSITIONS: Final[dict[tuple[SessionState, SessionEvent], SessionState]] = {
    (_S.STARTING, _E.FORKED): _S.RUNNING,
    (_S.STARTING, _E.LEADER_EXITED): _S.LINGERING,
    (_S.STARTING, _E.KILL_REQUESTED): _S.KILLING,
    (_S.STARTING, _E.PROVEN_DEAD): _S.EXITED,
    (_S.STARTING, _E.SUPERVISOR_LOST): _S.UNSUPERVISED,
    (_S.RUNNING, _E.LEADER_EXITED): _S.LINGERING,
    (_S.RUNNING, _E.KILL_REQUESTED): _S.KILLING,
    (_S.RUNNING, _E.PROVEN_DEAD): _S.EXITED,
    (_S.RUNNING, _E.SUPERVISOR_LOST): _S.UNSUPERVISED,
    (_S.LINGERING, _E.LEADER_EXITED): _S.LINGERING,
    (_S.LINGERING, _E.KILL_REQUESTED): _S.KILLING,
    (_S.LINGERING, _E.PROVEN_DEAD): _S.EXITED,
    (_S.LINGERING, _E.SUPERVISOR_LOST): _S.UNSUPERVISED,
    # A kill can overtake the spawn it is meant for: the late "forked" must not undo it.
    (_S.KILLING, _E.FORKED): _S.KILLING,
    (_S.KILLING, _E.LEADER_EXITED): _S.KILLING,
    (_S.KILLING, _E.KILL_REQUESTED): _S.KILLING,
    (_S.KILLING, _E.PROVEN_DEAD): _S.EXITED,
    (_S.KILLING, _E.SUPERVISOR_LOST): _S.UNSUPERVISED,
    # A kill without a shim tells its own progress; the state stays what is known.
    (_S.UNSUPERVISED, _E.LEADER_EXITED): _S.UNSUPERVISED,
    (_S.UNSUPERVISED, _E.KILL_REQUESTED): _S.UNSUPERVISED,
    (_S.UNSUPERVISED, _E.PROVEN_DEAD): _S.EXITED,
    (_S.UNSUPERVISED, _E.SUPERVISOR_LOST): _S.UNSUPERVISED,
    # Late messages never revive what has ended.
    (_S.EXITED, _E.FORKED): _S.EXITED,
    (_S.EXITED, _E.LEADER_EXITED): _S.EXITED,
    (_S.EXITED, _E.KILL_REQUESTED): _S.EXITED,
    (_S.EXITED, _E.PROVEN_DEAD): _S.EXITED,
    (_S.EXITED, _E.SUPERVISOR_LOST): _S.EXITED,
}


def next_state(state: SessionState, event: SessionEvent) -> SessionState:
    """The state after `event`.

    Raises:
        InvalidTransition: the table has no such row (`forked` once it runs).
    """
    try:
        return SESSION_TRANSITIONS[state, event]
    except KeyError:
        raise InvalidTransition(f"a session that is {state} cannot see {event}") from None


class ConnectionState(enum.StrEnum):
    """Where the daemon's end of a connection is."""

    FRESH = "fresh"
    """Nothing was received yet: `hello` is still allowed."""
    SPEAKING = "speaking"
    CLOSED = "closed"
    """Nothing more is read. Absorbing."""


class ConnectionEvent(enum.StrEnum):
    HELLO = "hello"
    MESSAGE = "message"
    VIOLATION = "violation"
    EOF = "eof"


_C = ConnectionState
_V = ConnectionEvent

CONNECTION_TRANSITIONS: Final[dict[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = {
    (_C.FRESH, _V.HELLO): _C.SPEAKING,
    (_C.FRESH, _V.MESSAGE): _C.SPEAKING,
    (_C.FRESH, _V.VIOLATION): _C.CLOSED,
    (_C.FRESH, _V.EOF): _C.CLOSED,
    # (SPEAKING, HELLO) is missing on purpose: the first message or never.
    (_C.SPEAKING, _V.MESSAGE): _C.SPEAKING,
    (_C.SPEAKING, _V.VIOLATION): _C.CLOSED,
    (_C.SPEAKING, _V.EOF): _C.CLOSED,
    (_C.CLOSED, _V.VIOLATION): _C.CLOSED,
    (_C.CLOSED, _V.EOF): _C.CLOSED,
}


def next_connection_state(state: ConnectionState, event: ConnectionEvent) -> ConnectionState:
    """The state after `event`.

    Raises:
        InvalidTransition: the table has no such row (a second `hello`, a message after the end).
    """
    try:
        return CONNECTION_TRANSITIONS[state, event]
    except KeyError:
        raise InvalidTransition(f"a connection that is {state} cannot see {event}") from None
