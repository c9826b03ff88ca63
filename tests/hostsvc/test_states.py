"""The tables of states: what may follow what, and what nothing leaves."""

from __future__ import annotations

import enum

import pytest

from hostsvc.states import (
    ENDED,
    PROVEN,
    SAGA_MOVES,
    SESSION_MOVES,
    WORKSPACE_MOVES,
    SagaState,
    SessionStatus,
    WorkspaceState,
)

TABLES = [
    (WorkspaceState, WORKSPACE_MOVES, {"deleted"}),
    (SessionStatus, SESSION_MOVES, {"exited", "disposed", "lost", "failed"}),
    (SagaState, SAGA_MOVES, {"done", "compensated"}),
]


@pytest.mark.parametrize("states, moves, absorbing", TABLES)
def test_exactly_the_terminal_states_are_absorbing(
    states: type[enum.StrEnum], moves: frozenset[tuple[str, str]], absorbing: set[str]
) -> None:
    assert {state.value for state in states} - {before for before, _ in moves} == absorbing


@pytest.mark.parametrize("states, moves, absorbing", TABLES)
def test_every_state_but_the_first_is_reached(
    states: type[enum.StrEnum], moves: frozenset[tuple[str, str]], absorbing: set[str]
) -> None:
    first, *_ = states
    assert {first} | {after for _, after in moves} == set(states)
    assert all(before != after for before, after in moves)


def test_what_is_proven_is_over_and_lost_is_not_proven() -> None:
    assert ENDED - {SessionStatus.LOST} == PROVEN


def test_a_session_that_ran_never_fails_and_nothing_runs_again() -> None:
    assert (SessionStatus.ACTIVE, SessionStatus.FAILED) not in SESSION_MOVES
    assert all(after is not SessionStatus.SPAWNING for _, after in SESSION_MOVES)


def test_only_a_new_one_and_one_whose_deletion_is_undone_become_active() -> None:
    before = {before for before, after in WORKSPACE_MOVES if after is WorkspaceState.ACTIVE}
    assert before == {WorkspaceState.PROVISIONING, WorkspaceState.DELETING}
