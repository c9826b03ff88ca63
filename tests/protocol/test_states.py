"""The two state tables: complete where they must be, and absorbing at their ends."""

import pytest

from ptyd.protocol.states import (
    CONNECTION_TRANSITIONS,
    SESSION_TRANSITIONS,
    ConnectionEvent,
    ConnectionState,
    InvalidTransition,
    SessionEvent,
    SessionState,
    next_connection_state,
    next_state,
)

IMPOSSIBLE_FOR_SESSIONS = {
    (SessionState.RUNNING, SessionEvent.FORKED),
    (SessionState.LINGERING, SessionEvent.FORKED),
    (SessionState.UNSUPERVISED, SessionEvent.FORKED),
}
IMPOSSIBLE_FOR_CONNECTIONS = {
    (ConnectionState.SPEAKING, ConnectionEvent.HELLO),
    (ConnectionState.CLOSED, ConnectionEvent.HELLO),
    (ConnectionState.CLOSED, ConnectionEvent.MESSAGE),
}


@pytest.mark.parametrize("state", SessionState)
@pytest.mark.parametrize("event", SessionEvent)
def test_a_session_knows_every_event_in_every_state(state: SessionState, event: SessionEvent) -> None:
    if (state, event) in IMPOSSIBLE_FOR_SESSIONS:
        with pytest.raises(InvalidTransition):
            next_state(state, event)
    else:
        assert next_state(state, event) is SESSION_TRANSITIONS[state, event]


@pytest.mark.parametrize("event", SessionEvent)
def test_a_late_message_never_revives_what_has_ended(event: SessionEvent) -> None:
    assert next_state(SessionState.EXITED, event) is SessionState.EXITED


@pytest.mark.parametrize("state", SessionState)
def test_only_proof_ends_a_session(state: SessionState) -> None:
    """P1: no other event leads to `exited`, and this one always does."""
    assert next_state(state, SessionEvent.PROVEN_DEAD) is SessionState.EXITED
    to_exited = {e for (s, e), to in SESSION_TRANSITIONS.items() if s is state and to is SessionState.EXITED}
    if state is not SessionState.EXITED:
        assert to_exited == {SessionEvent.PROVEN_DEAD}


def test_K8_a_kill_that_overtakes_its_spawn_stays_a_kill() -> None:
    state = next_state(SessionState.STARTING, SessionEvent.KILL_REQUESTED)
    assert next_state(state, SessionEvent.FORKED) is SessionState.KILLING


def test_every_session_state_is_reached_from_starting() -> None:
    reached = {SessionState.STARTING}
    while more := {to for (s, _), to in SESSION_TRANSITIONS.items() if s in reached} - reached:
        reached |= more
    assert reached == set(SessionState)


@pytest.mark.parametrize("state", ConnectionState)
@pytest.mark.parametrize("event", ConnectionEvent)
def test_a_connection_knows_every_event_in_every_state(
    state: ConnectionState, event: ConnectionEvent
) -> None:
    if (state, event) in IMPOSSIBLE_FOR_CONNECTIONS:
        with pytest.raises(InvalidTransition):
            next_connection_state(state, event)
    else:
        assert next_connection_state(state, event) is CONNECTION_TRANSITIONS[state, event]
