"""What is decided about a live session and about a row: tables by case, and every input has one answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsvc.model import (
    ABSENT,
    Act,
    Action,
    Basis,
    Decision,
    Fact,
    Keep,
    Known,
    LiveSession,
    Observation,
    Observe,
    SessionRow,
    Unknown,
)
from hostsvc.policy import (
    LONGEST_BACK_OFF_MS,
    STUCK_ATTEMPTS,
    STUCK_RETRY_MS,
    Limits,
    absence_is_believed,
    decide_live,
    decide_row,
    is_due,
    next_retry,
)
from hostsvc.states import SessionStatus
from tests.hostsvc.values import FLOOR, NOW, OLD, US, dead, live, row, seen, unwanted

LIMITS = Limits(age_floor_ms=FLOOR)
UNKNOWN = Unknown("ptyd did not list")


def about_live(found: LiveSession, fact: Fact[SessionRow], **given: Any) -> Decision:
    plain = {"owner": US, "is_being_born": False, "seen": None, "now_ms": NOW, "limits": LIMITS}
    return decide_live(found, fact, **{**plain, **given})


def about_row(found: SessionRow, fact: Fact[LiveSession], **given: Any) -> Decision:
    plain: dict[str, Any] = {
        "is_being_born": False,
        "is_same_instance": True,
        "death": ABSENT,
        "seen": None,
        "now_ms": NOW,
        "limits": LIMITS,
    }
    return decide_row(found, fact, **{**plain, **given})


def brief(decision: Decision) -> str:
    """An act's name and what it rests on, or that there is none."""
    match decision:
        case Act(action, basis):
            return f"{action} by {basis}"
        case Observe():
            return "observe"
        case Keep():
            return "keep"


# --- a session that lives ------------------------------------------------------------------------

BORN = {"is_being_born": True}
TWICE = {"seen": seen(1)}
LIVE: dict[str, tuple[LiveSession, Fact[SessionRow], dict[str, Any], str]] = {
    "C10 an intent is carried out": (live(), Known(unwanted()), {}, "kill by intent"),
    "C10 no workspace any more": (live(), Known(row(workspace_id=None)), {}, "kill by row"),
    "C11 disposed and alive": (live(), Known(unwanted("disposed")), {}, "kill by row"),
    "C12 exited and alive": (live(), Known(row("exited")), {}, "kill by row"),
    "C12 failed and alive": (live(), Known(row("failed")), {}, "kill by row"),
    "C12 lingering, nobody asked": (live("lingering"), Known(row()), {}, "keep"),
    "C12 lingering, with an intent": (live("lingering"), Known(unwanted()), {}, "kill by intent"),
    "C12 lingering, no workspace": (live("lingering"), Known(row(workspace_id=None)), {}, "kill by row"),
    "C13 wanted": (live(), Known(row()), {}, "keep"),
    "C13 wanted, answer lost": (live(), Known(row("spawning")), {}, "keep"),
    "C13 wanted, seen often": (live(), Known(row()), {"seen": seen(99)}, "keep"),
    "C14 rowless, once": (live(), ABSENT, {}, "observe"),
    "C14 rowless, twice and old": (live(), ABSENT, TWICE, "kill by absence"),
    "C14 rowless, twice, too young": (live(created_at_ms=NOW - FLOOR + 1), ABSENT, TWICE, "observe"),
    "C14 rowless, born in the future": (live(created_at_ms=NOW + 1), ABSENT, TWICE, "observe"),
    "C15 two looks 1 ms apart": (live(), ABSENT, {"seen": seen(1, NOW - 1)}, "observe"),
    "C15 many looks just now": (live(), ABSENT, {"seen": seen(50, NOW - FLOOR + 1)}, "observe"),
    "C15 exactly at the floor": (live(), ABSENT, {"seen": seen(1, NOW - FLOOR)}, "kill by absence"),
    "C16 not due yet": (live(), Known(unwanted(next_attempt_at_ms=NOW + 1)), {}, "keep"),
    "C16 due now": (live(), Known(unwanted(next_attempt_at_ms=NOW)), {}, "kill by intent"),
    "C16 rowless, the kill had failed": (live(), ABSENT, {"seen": seen(2)}, "kill by absence"),
    "C18 its row is unknown": (live(), UNKNOWN, TWICE, "keep"),
    "C21 another owner's": (live(owner="other"), ABSENT, TWICE, "keep"),
    "C21 another owner's, with a row": (live(owner="other"), Known(unwanted("disposed")), {}, "keep"),
    "C21 without our mark": (live(owner=None), ABSENT, TWICE, "keep"),
    "C21 an empty mark": (live(owner=""), ABSENT, TWICE, "keep"),
    "C22 an empty index": (live(owner="the lost index"), ABSENT, {"seen": seen(9)}, "keep"),
    "P6 being born, row there": (live("starting"), Known(row("spawning")), BORN, "keep"),
    "P6 being born, its workspace gone": (live(), Known(row("spawning", workspace_id=None)), BORN, "keep"),
    "P6 being born, no row": (live(), ABSENT, {**BORN, **TWICE}, "keep"),
    "P6 starting, no row": (live("starting"), ABSENT, TWICE, "keep"),
    "C20 being born and unwanted": (live(), Known(unwanted("spawning")), BORN, "kill by intent"),
    "lost and here again": (live(), Known(row("lost")), {}, "keep"),
    "lost and here again, with an intent": (live(), Known(unwanted("lost")), {}, "kill by row"),
    "ended": (dead(), Known(unwanted()), {}, "keep"),
    "exited without a proof is alive": (live("exited"), ABSENT, TWICE, "kill by absence"),
    "a state nobody knows is alive": (live("resting"), ABSENT, TWICE, "kill by absence"),
}


@pytest.mark.parametrize("case", LIVE)
def test_live(case: str) -> None:
    found, fact, given, wanted = LIVE[case]
    assert brief(about_live(found, fact, **given)) == wanted


# --- a row ---------------------------------------------------------------------------------------

GONE = {"death": Known("processes_gone")}
HIDDEN = {"death": Unknown("nobody can tell")}
ELSEWHERE = {"is_same_instance": False}
ROW: dict[str, tuple[SessionRow, Fact[LiveSession], dict[str, Any], str]] = {
    "C4 its death is recorded": (row(), Known(dead()), {}, "settle by row"),
    "C4 recorded, and intended": (unwanted(), Known(dead()), {}, "settle by row"),
    "C4 recorded, its answer was lost": (row("spawning"), Known(dead()), {}, "settle by row"),
    "C5 another instance proves nothing": (row(), ABSENT, ELSEWHERE, "keep"),
    "C5 intended, another instance": (unwanted(), ABSENT, ELSEWHERE, "keep"),
    "C5 another boot, once": (row(), ABSENT, {**ELSEWHERE, "death": Known("other_boot")}, "observe"),
    "C5 another boot, twice": (
        row(),
        ABSENT,
        {**ELSEWHERE, **TWICE, "death": Known("other_boot")},
        "bury by absence",
    ),
    "C5 gone, once": (row(), ABSENT, GONE, "observe"),
    "C5 gone, twice and old": (row(), ABSENT, {**GONE, **TWICE}, "bury by absence"),
    "C5 gone, twice, too young": (row(created_at_ms=NOW), ABSENT, {**GONE, **TWICE}, "observe"),
    "C5 signs of life": (row(), ABSENT, TWICE, "keep"),
    "C5 nobody can tell": (row(), ABSENT, {**HIDDEN, **TWICE}, "keep"),
    "C7 intended, not listed, alive": (unwanted(), ABSENT, {}, "kill by intent"),
    "C7 intended, nobody can tell": (unwanted(), ABSENT, HIDDEN, "kill by intent"),
    "C7 not due yet": (unwanted(next_attempt_at_ms=NOW + 1), ABSENT, {}, "keep"),
    "C13 listed": (row(), Known(live()), {}, "keep"),
    "C18 no list": (row(), UNKNOWN, {**GONE, **TWICE}, "keep"),
    "C18 no list, intended": (unwanted(), UNKNOWN, {**GONE, **TWICE}, "keep"),
    "C19 an empty list, once": (row(), ABSENT, GONE, "observe"),
    "C23 the answer was lost, it runs": (row("spawning"), Known(live()), {}, "confirm by row"),
    "C23 a crash before the answer": (row("spawning"), ABSENT, {}, "fence by row"),
    "C23 fencing failed, not due yet": (
        unwanted("spawning", next_attempt_at_ms=NOW + 1),
        ABSENT,
        {},
        "keep",
    ),
    "C23 spawning, another instance": (row("spawning"), ABSENT, ELSEWHERE, "keep"),
    "C23 spawning, another boot": (
        row("spawning"),
        ABSENT,
        {**ELSEWHERE, **TWICE, "death": Known("other_boot")},
        "bury by absence",
    ),
    "P6 being born": (row("spawning"), ABSENT, BORN, "keep"),
    "exited without a proof is alive": (row(), Known(live("exited")), {}, "keep"),
    "over": (unwanted("disposed"), ABSENT, {**GONE, **TWICE}, "keep"),
    "lost": (row("lost"), Known(dead()), {}, "keep"),
}


@pytest.mark.parametrize("case", ROW)
def test_row(case: str) -> None:
    found, fact, given, wanted = ROW[case]
    assert brief(about_row(found, fact, **given)) == wanted


def test_every_decision_has_a_reason() -> None:
    decisions = [about_live(found, fact, **given) for found, fact, given, _ in LIVE.values()]
    decisions += [about_row(found, fact, **given) for found, fact, given, _ in ROW.values()]
    assert all(decision.reason for decision in decisions)


# --- every input ---------------------------------------------------------------------------------

times = st.sampled_from([0, OLD, NOW - FLOOR - 1, NOW - FLOOR, NOW - FLOOR + 1, NOW, NOW + 1])
maybe_times = st.none() | times
observations = st.none() | st.builds(seen, st.integers(1, 3), times)
unknowns = st.builds(Unknown, st.sampled_from(["cut short", "no answer"]))
rows = st.builds(
    row,
    st.sampled_from(SessionStatus),
    workspace_id=st.none() | st.just("w"),
    dispose_requested_at_ms=maybe_times,
    next_attempt_at_ms=maybe_times,
    created_at_ms=times,
)
lives = st.builds(
    live,
    st.sampled_from(["starting", "running", "lingering", "killing", "exited", "unsupervised", "new"]),
    owner=st.sampled_from([US, "other", None]),
    proof=st.sampled_from([None, "echild"]),
    created_at_ms=times,
)
row_facts = st.just(ABSENT) | unknowns | st.builds(Known, rows)
live_facts = st.just(ABSENT) | unknowns | st.builds(Known, lives)
deaths = st.just(ABSENT) | unknowns | st.just(Known("processes_gone"))


@given(lives, row_facts, st.booleans(), observations)
def test_M_live_sessions(
    found: LiveSession, fact: Fact[SessionRow], is_being_born: bool, before: Observation | None
) -> None:
    """Total and deterministic; nothing foreign, ended, unknown or wanted is ever acted on."""
    given = {"is_being_born": is_being_born, "seen": before}
    decision = about_live(found, fact, **given)
    assert decision == about_live(found, fact, **given)
    if not isinstance(decision, Act):
        return
    assert decision.action is Action.KILL
    assert found.owner == US
    assert found.is_alive
    match fact:
        case Unknown():
            raise AssertionError("acted on what is unknown")
        case Known(known):
            assert decision.basis is not Basis.ABSENCE
            is_wanted = known.workspace_id is not None and not known.is_ended and not known.is_unwanted
            assert not is_wanted
            assert known.is_unwanted or not is_being_born
        case _:
            assert decision.basis is Basis.ABSENCE
            assert before is not None
            assert not is_being_born
            assert max(before.first_at_ms, found.created_at_ms) <= NOW - FLOOR


@given(rows, live_facts, st.booleans(), st.booleans(), deaths, observations)
def test_M_rows(
    found: SessionRow,
    fact: Fact[LiveSession],
    is_being_born: bool,
    is_same_instance: bool,
    death: Fact[str],
    before: Observation | None,
) -> None:
    """Total and deterministic; what is over, unknown or being born is left alone; a death is only buried."""
    given = {
        "is_being_born": is_being_born,
        "is_same_instance": is_same_instance,
        "death": death,
        "seen": before,
    }
    decision = about_row(found, fact, **given)
    assert decision == about_row(found, fact, **given)
    if not isinstance(decision, Act):
        return
    assert not found.is_ended
    assert not is_being_born
    assert not isinstance(fact, Unknown)
    match decision.action:
        case Action.KILL:
            assert found.is_unwanted
            assert decision.basis is Basis.INTENT
        case Action.BURY:
            assert (decision.basis, isinstance(death, Known)) == (Basis.ABSENCE, True)
            assert before is not None
            assert before.first_at_ms <= NOW - FLOOR
        case Action.SETTLE:
            assert isinstance(fact, Known)
            assert not fact.value.is_alive
        case Action.CONFIRM:
            assert isinstance(fact, Known)
            assert fact.value.is_alive
        case Action.FENCE:
            assert found.status is SessionStatus.SPAWNING
            assert is_same_instance
        case other:
            raise AssertionError(other)


@given(observations, times, st.integers(2, 4))
def test_M_one_look_is_never_enough(before: Observation | None, since_ms: int, looks: int) -> None:
    limits = Limits(age_floor_ms=0, observations=looks)
    believed = absence_is_believed(before, since_ms, NOW, limits)
    assert not believed or (before is not None and before.count + 1 >= looks)


# --- trying again --------------------------------------------------------------------------------


def test_C16_the_first_failures_are_due_at_the_very_next_pass() -> None:
    assert [next_retry(attempts, NOW).at_ms for attempts in (1, 2)] == [NOW, NOW]


def test_back_off_doubles_up_to_five_minutes_and_then_hourly_for_ever() -> None:
    waits_s = [(next_retry(attempts, NOW).at_ms - NOW) // 1000 for attempts in range(1, 12)]
    assert waits_s == [0, 0, 30, 60, 120, 240, 300, 3600, 3600, 3600, 3600]


@given(st.integers(0, 10_000), st.integers(0, 2**50))
def test_M_every_failure_is_tried_again_within_the_hour(attempts: int, now_ms: int) -> None:
    retry = next_retry(attempts, now_ms)
    assert retry == next_retry(attempts, now_ms)
    assert retry.is_stuck == (attempts >= STUCK_ATTEMPTS)
    assert 0 <= retry.at_ms - now_ms <= (STUCK_RETRY_MS if retry.is_stuck else LONGEST_BACK_OFF_MS)
    assert is_due(retry.at_ms, retry.at_ms)


def test_due() -> None:
    assert [is_due(at, NOW) for at in (None, NOW - 1, NOW, NOW + 1)] == [True, True, True, False]
