"""What may stop a pass: caps on what rests on absence, and the name of a plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsvc.model import Action, Basis, Candidate
from hostsvc.reaper.gate import SHARE_FLOOR, Caps, inferred, plan_hash, refusals
from tests.hostsvc.values import candidate

CAPS = Caps(count=50, share=0.5)


def orphans(count: int) -> list[Candidate]:
    return [candidate(f"s{number:03}") for number in range(count)]


@pytest.mark.parametrize(
    "count, whole, is_refused",
    [
        (0, 0, False),
        (1, 1, False),
        (4, 4, False),  # a share of very few says nothing
        (5, 5, True),
        (5, 9, True),
        (5, 10, False),
        (5, 0, True),
        (50, 100, False),
        (51, 1000, True),
        (50, 99, True),
    ],
)
def test_C22_caps(count: int, whole: int, is_refused: bool) -> None:
    assert bool(refusals(orphans(count), {"sessions": whole}, CAPS)) == is_refused


def test_C22_a_refusal_says_how_many_of_how_many() -> None:
    assert refusals(orphans(51), {"sessions": 1000}, CAPS) == ["sessions: 51 at once, more than 50"]
    assert refusals(orphans(6), {"sessions": 6}, CAPS) == ["sessions: 6 of 6, more than 50% of all"]


@pytest.mark.parametrize("basis", [Basis.INTENT, Basis.ROW])
def test_C24_what_was_asked_for_and_what_rows_say_is_exempt(basis: Basis) -> None:
    asked = [candidate(f"s{number}", basis=basis) for number in range(400)]
    assert refusals(asked, {"sessions": 400}, CAPS) == []
    assert inferred(asked) == ()


def test_entering_what_is_known_is_exempt() -> None:
    buried = [candidate(f"s{number}", action=Action.BURY) for number in range(400)]
    assert refusals(buried, {"sessions": 400}, CAPS) == []


def test_kinds_are_counted_apart() -> None:
    others = [candidate(f"t{number}", kind="trash", action=Action.PURGE) for number in range(4)]
    assert refusals([*orphans(4), *others], {"sessions": 4, "trash": 4}, CAPS) == []
    assert len(refusals([*orphans(9), *others * 2], {"sessions": 9, "trash": 8}, CAPS)) == 2


candidates = st.lists(
    st.builds(
        candidate,
        st.sampled_from(["a", "b", "c", "d"]),
        kind=st.sampled_from(["sessions", "trash"]),
        generation=st.integers(1, 2),
        action=st.sampled_from([Action.KILL, Action.BURY, Action.PURGE]),
        basis=st.sampled_from(Basis),
    ),
    unique_by=lambda one: (one.kind, one.subject, one.generation),
)


@given(candidates, st.randoms(use_true_random=False))
def test_M_the_order_of_candidates_matters_to_nothing(found: list[Candidate], random: object) -> None:
    mixed = list(found)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert inferred(mixed) == inferred(found)
    assert plan_hash(mixed) == plan_hash(found)
    assert refusals(mixed, {"sessions": 3}, CAPS) == refusals(found, {"sessions": 3}, CAPS)


@given(candidates, st.integers(0, 20), st.integers(0, 10))
def test_M_inferred_acts_that_pass_are_within_the_caps(
    found: list[Candidate], whole: int, count: int
) -> None:
    caps = Caps(count=count, share=0.5)
    if not refusals(found, {"sessions": whole, "trash": whole}, caps):
        for kind in ("sessions", "trash"):
            acts = sum(one.kind == kind for one in inferred(found))
            assert acts <= count
            assert acts < SHARE_FLOOR or acts <= whole * 0.5


def test_another_plan_has_another_name() -> None:
    plans = [
        [],
        [candidate("a")],
        [candidate("b")],
        [candidate("a"), candidate("b")],
        [candidate("a", generation=2)],
        [candidate("a", kind="trash")],
        [candidate("a", action=Action.PURGE)],
    ]
    assert len({plan_hash(plan) for plan in plans}) == len(plans)
    assert plan_hash([candidate("a", reason="x")]) == plan_hash([candidate("a")]), "the same acts"
