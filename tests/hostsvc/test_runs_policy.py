"""What is decided about a run's resources: every basis, every reason to keep, each age to the millisecond."""

from __future__ import annotations

from typing import Any

import pytest

from hostsvc.model import (
    ABSENT,
    Act,
    Action,
    Basis,
    Decision,
    Fact,
    Keep,
    Known,
    Observation,
    Observe,
    Unknown,
)
from hostsvc.policy import Limits
from hostsvc.run import Run
from hostsvc.runs.policy import NOBODY_NEEDED, Resource, RunLimits, decide_resource, decide_run
from hostsvc.states import RunState
from tests.hostsvc.values import FLOOR, NOW, OLD

AGE = 600_000
LIMITS = RunLimits(age_ms=AGE, absence=Limits(age_floor_ms=FLOOR))
LIVES: Fact[int] = Known(7)


def run(state: RunState = RunState.OPEN, **fields: Any) -> Run:
    plain: dict[str, Any] = {
        "holder_pid": 7,
        "holder_start": 1,
        "boot_id": "b",
        "created_at_ms": OLD,
        "deadline_at_ms": None,
    }
    return Run(id="r", state=state, **{**plain, **fields})


def asked(state: RunState = RunState.ENDING) -> Run:
    return run(state, end_requested_at_ms=OLD)


def thing(**fields: Any) -> Resource:
    plain: dict[str, Any] = {"plugin": "containers", "id": "c", "run": "r", "created_at_ms": OLD}
    return Resource(**{**plain, **fields})


def seen(first_at_ms: int = OLD, count: int = 1) -> Observation:
    return Observation(kind="runs", subject="s", first_at_ms=first_at_ms, last_at_ms=NOW - 1, count=count)


def decide(
    one: Resource, of: Run | None, holder: Fact[int] = LIVES, before: Observation | None = None
) -> Decision:
    return decide_resource(one, of, holder=holder, seen=before, now_ms=NOW, limits=LIMITS)


@pytest.mark.parametrize("state", [RunState.ENDING, RunState.ENDED])
@pytest.mark.parametrize("created_at_ms", [OLD, NOW, NOW + 1, None])
def test_what_was_asked_for_is_an_intent_at_any_age(state: RunState, created_at_ms: int | None) -> None:
    """Also when it turns up after the run was over: late is no better than left."""
    decision = decide(thing(created_at_ms=created_at_ms), asked(state))
    assert decision == Act(Action.END, Basis.INTENT, "its run was ended")


GIVEN_UP = {
    "there is no such run": (None, NOBODY_NEEDED),
    "its run was given up": (run(RunState.ENDING), LIVES),
    "its run's deadline is over": (run(deadline_at_ms=NOW - 1), LIVES),
    "its run's holder is gone": (run(), ABSENT),
}


@pytest.mark.parametrize("why", GIVEN_UP)
def test_D6_what_nobody_holds_is_believed_the_second_time_and_when_it_is_old(why: str) -> None:
    of, holder = GIVEN_UP[why]
    ends, waits = Act(Action.END, Basis.ABSENCE, why), Observe(why)
    assert decide(thing(), of, holder) == waits, "seen for the first time"
    assert decide(thing(), of, holder, seen()) == ends
    assert decide(thing(), of, holder, seen(NOW - FLOOR)) == ends
    assert decide(thing(), of, holder, seen(NOW - FLOOR + 1)) == waits, "two looks a moment apart are one"
    assert decide(thing(created_at_ms=NOW - AGE), of, holder, seen()) == ends
    assert decide(thing(created_at_ms=NOW - AGE + 1), of, holder, seen()) == waits


@pytest.mark.parametrize("why", GIVEN_UP)
@pytest.mark.parametrize("created_at_ms", [None, NOW + 1])
def test_D8_what_has_no_age_is_kept(why: str, created_at_ms: int | None) -> None:
    of, holder = GIVEN_UP[why]
    assert isinstance(decide(thing(created_at_ms=created_at_ms), of, holder, seen(count=99)), Keep)


@pytest.mark.parametrize(
    "one, of, holder",
    [
        (thing(), run(), LIVES),
        (thing(), run(holder_pid=None), NOBODY_NEEDED),
        (thing(), run(deadline_at_ms=NOW), LIVES),
        (thing(), run(), Unknown("nobody may look")),
        (thing(is_ours=False), None, ABSENT),
        (thing(is_ours=False), asked(), ABSENT),
        (thing(is_being_born=True), run(), ABSENT),
        (thing(next_attempt_at_ms=NOW + 1), asked(), LIVES),
    ],
)
def test_what_somebody_may_want_is_kept(one: Resource, of: Run | None, holder: Fact[int]) -> None:
    assert isinstance(decide(one, of, holder, seen(count=99)), Keep)


def decide_empty(of: Run, holder: Fact[int] = LIVES, before: Observation | None = None) -> Decision:
    return decide_run(of, holder=holder, seen=before, now_ms=NOW, limits=LIMITS)


def test_a_run_that_has_nothing() -> None:
    settled = Act(Action.SETTLE, Basis.INTENT, "nothing of it is left")
    assert decide_empty(asked()) == settled
    assert decide_empty(run(RunState.ENDING)) == settled, "also when it was only given up"
    assert isinstance(decide_empty(run()), Keep)
    assert isinstance(decide_empty(run(), Unknown("x"), seen()), Keep)
    assert isinstance(decide_empty(run(created_at_ms=NOW + 1), ABSENT, seen()), Keep)
    assert decide_empty(run(), ABSENT) == Observe("its run's holder is gone")
    young = run(created_at_ms=NOW - AGE + 1)
    assert decide_empty(young, ABSENT, seen()) == Observe("its run's holder is gone")
    assert decide_empty(run(), ABSENT, seen()) == Act(Action.BURY, Basis.ABSENCE, "its run's holder is gone")
