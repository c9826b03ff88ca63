"""Which idle sessions go, and which are started again, by case."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsvc.idle import Idleness, Room, admission, plan_evictions
from hostsvc.restart import (
    LONGEST_BACK_OFF_S,
    STEADY_S,
    Ended,
    GiveUp,
    LeaveIt,
    Policy,
    StartAgain,
    decide_restart,
)


def session(name: str, idle_ms: int | None, *, busy: bool | None = False, workspace: str = "w") -> Idleness:
    return Idleness(key=(name, 1), workspace_id=workspace, is_busy=busy, idle_ms=idle_ms)


def names(evicted: dict[tuple[str, int], str]) -> list[str]:
    return [key[0] for key in evicted]


def test_B26_idle_beyond_its_time_is_evicted() -> None:
    sessions = [session("old", 60_000), session("young", 59_999)]
    assert names(plan_evictions(sessions, Room(ttl_ms=60_000))) == ["old"]


@pytest.mark.parametrize("busy", [True, None], ids=["busy", "unknown"])
def test_B27_a_busy_one_is_never_evicted_at_any_cap(busy: bool | None) -> None:
    sessions = [session("a", 10**9, busy=busy), session("b", None)]
    assert plan_evictions(sessions, Room(ttl_ms=0, per_workspace=0, per_host=0)) == {}


def test_B28_over_the_cap_the_longest_idle_go_exactly_to_the_cap() -> None:
    sessions = [session(name, idle) for name, idle in (("a", 1), ("b", 5), ("c", 3), ("d", 4))]
    assert names(plan_evictions(sessions, Room(per_host=2))) == ["b", "d"]
    other = [*sessions, session("e", 100, workspace="v")]
    assert names(plan_evictions(other, Room(per_workspace=3))) == ["b"]


def test_B28_what_its_time_evicts_counts_for_the_cap() -> None:
    sessions = [session("a", 100), session("b", 50), session("c", 1)]
    assert names(plan_evictions(sessions, Room(ttl_ms=100, per_host=2))) == ["a"]


def test_B29_when_all_are_busy_none_goes_and_nobody_is_admitted() -> None:
    sessions = [session("a", 9, busy=True), session("b", 9, busy=True)]
    assert plan_evictions(sessions, Room(per_host=1)) == {}
    evicted, refusal = admission(sessions, "w", Room(per_host=2))
    assert evicted == {}
    assert refusal is not None
    assert "2 sessions, all of them busy" in refusal


def test_admission_makes_room_by_the_longest_idle() -> None:
    sessions = [session("a", 1), session("b", 2), session("c", 3, workspace="v")]
    assert admission(sessions, "w", Room(per_host=3)) == (
        {("c", 1): "this host has more than 3; it was idle the longest"},
        None,
    )
    assert names(admission(sessions, "w", Room(per_workspace=2))[0]) == ["b"]
    assert admission(sessions, "v", Room(per_workspace=2)) == ({}, None)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([True, False, None]), st.sampled_from("vw")), max_size=12
    ),
    st.builds(
        Room,
        ttl_ms=st.none() | st.integers(0, 3),
        per_workspace=st.none() | st.integers(0, 4),
        per_host=st.none() | st.integers(0, 4),
    ),
    st.randoms(use_true_random=False),
)
def test_B30_the_order_of_looking_decides_nothing(
    given_: list[tuple[int, bool | None, str]], room: Room, shuffle: random.Random
) -> None:
    sessions = [
        session(f"s{at}", idle, busy=busy, workspace=where) for at, (idle, busy, where) in enumerate(given_)
    ]
    planned = plan_evictions(sessions, room)
    shuffle.shuffle(sessions)
    assert list(plan_evictions(sessions, room).items()) == list(planned.items())
    assert not any(one.is_busy is not False for one in sessions if one.key in planned)


def ended(policy: Policy, **fields: object) -> Ended:
    known = {"limit": 3, "restarts": 0, "ran_s": 1.0, "exit": {"code": 1}, "was_unwanted": False}
    return Ended(policy=policy, **{**known, **fields})  # type: ignore[arg-type]


def test_B42_policies() -> None:
    assert isinstance(decide_restart(ended(Policy.NEVER)), LeaveIt)
    assert decide_restart(ended(Policy.ON_FAILURE)) == StartAgain(1.0, 1)
    assert isinstance(decide_restart(ended(Policy.ON_FAILURE, exit={"code": 0})), LeaveIt)
    assert decide_restart(ended(Policy.ON_FAILURE, exit={"signal": 9})) == StartAgain(1.0, 1)
    assert decide_restart(ended(Policy.ALWAYS, exit={"code": 0})) == StartAgain(1.0, 1)


def test_B42_back_off_and_limit() -> None:
    pauses = [decide_restart(ended(Policy.ALWAYS, limit=99, restarts=at)) for at in range(12)]
    assert [one.pause_s for one in pauses[:4] if isinstance(one, StartAgain)] == [1, 2, 4, 8]
    assert pauses[-1] == StartAgain(LONGEST_BACK_OFF_S, 12)
    assert isinstance(decide_restart(ended(Policy.ALWAYS, restarts=3)), GiveUp)
    assert decide_restart(ended(Policy.ALWAYS, restarts=3, ran_s=STEADY_S)) == StartAgain(1.0, 1)


@pytest.mark.parametrize("policy", Policy)
def test_B42_what_was_disposed_of_never_restarts(policy: Policy) -> None:
    assert isinstance(decide_restart(ended(policy, was_unwanted=True)), LeaveIt)
