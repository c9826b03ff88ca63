"""Reconciliation with a control plane's list, and retries, by case."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsvc.model import ABSENT, Known, Unknown
from hostsvc.reconcile import Entry, LiveList, Plan, parse_live_list, plan_reconcile
from hostsvc.retries import Retries


def live(*ids: str, complete: bool = True) -> Known[LiveList]:
    return Known(LiveList(ids=frozenset(ids), is_complete=complete))


IDLE, BUSY, UNSURE = (Entry(id=name, is_busy=busy) for name, busy in (("i", False), ("b", True), ("u", None)))


def test_E7_idle_goes_busy_stays_and_a_half_deleted_one_is_healed() -> None:
    half = Entry(id="h", is_busy=False, is_deleting=True)
    plan = plan_reconcile(live("h", "gone", "new"), [IDLE, BUSY, UNSURE, half], {"gone", "i"}, cap=9)
    assert plan == Plan(drop=("i",), keep_busy=("b", "u"), heal=("h",), gone=("gone",))


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {"live": "a", "complete": True},
        {"live": [1], "complete": True},
        {"live": [""], "complete": True},
        {"live": ["a"]},
        {"live": ["a"], "complete": "yes"},
    ],
)
def test_E8_a_malformed_list_drops_nothing(raw: Any) -> None:
    fact = parse_live_list(raw)
    assert isinstance(fact, Unknown)
    assert plan_reconcile(fact, [IDLE], (), cap=9).drop == ()


def test_E8_a_truncated_or_failed_list_drops_nothing() -> None:
    for fact in (live("x", complete=False), Unknown("timeout")):
        plan = plan_reconcile(fact, [IDLE], (), cap=9)
        assert plan.drop == ()
        assert plan.refusal


def test_E9_an_empty_list_counts_only_when_complete_and_within_the_cap() -> None:
    many = [Entry(id=f"e{at}", is_busy=False) for at in range(4)]
    assert plan_reconcile(live(complete=False), many, (), cap=9).drop == ()
    assert plan_reconcile(live(), many, (), cap=3) == Plan(
        refusal="4 of 4 would be dropped at once, more than 3"
    )
    assert len(plan_reconcile(live(), many, (), cap=4).drop) == 4


def test_E11_an_older_peer_without_the_field_changes_nothing() -> None:
    assert parse_live_list({"other": 1}) == ABSENT
    assert plan_reconcile(ABSENT, [IDLE], (), cap=9) == Plan(refusal="the peer sends no list")


@given(
    st.lists(
        st.builds(Entry, id=st.sampled_from("abcdef"), is_busy=st.sampled_from([True, False, None])),
        max_size=6,
    ),
    st.frozensets(st.sampled_from("abcdef")),
    st.randoms(use_true_random=False),
)
def test_only_idle_ones_that_are_not_live_are_ever_dropped(
    entries: list[Entry], ids: frozenset[str], shuffle: random.Random
) -> None:
    entries = list({entry.id: entry for entry in entries}.values())
    plan = plan_reconcile(live(*ids), entries, (), cap=99)
    assert set(plan.drop) == {one.id for one in entries if one.is_busy is False and one.id not in ids}
    shuffle.shuffle(entries)
    assert plan_reconcile(live(*ids), entries, (), cap=99) == plan


def test_E10_a_spent_budget_is_reported_once_and_then_probed_slowly() -> None:
    retries, reports, pauses = Retries(budget=4, probe_s=99), [], []
    for _ in range(8):
        retries, pause_s, is_news = retries.failed()
        pauses.append(pause_s)
        reports.append(is_news)
    assert pauses == [1, 2, 4, 99, 99, 99, 99, 99]
    assert reports == [False, False, False, True, False, False, False, False]
    assert retries.succeeded() == Retries(budget=4, probe_s=99)
    assert retries.succeeded().failed()[1] == 1
