"""Which step of a deletion is next, what a failure of it means, and what a plan says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsvc.owned import OwnedPath, PathRole
from hostsvc.saga import (
    POINT_OF_NO_RETURN,
    STEPS,
    TEXT,
    OnFailure,
    Step,
    has_only_folder_left,
    is_past_return,
    next_step,
    on_failure,
    plan_delete,
)
from tests.hostsvc.values import row, workspace

PREFIXES = [STEPS[:count] for count in range(len(STEPS) + 1)]
DESTRUCTIVE = {Step.CREDENTIAL, Step.ARTIFACTS, Step.FOLDER, Step.FINISH}


@pytest.mark.parametrize("done", PREFIXES)
def test_steps_come_in_their_order_and_end(done: tuple[Step, ...]) -> None:
    assert next_step(frozenset(done)) == (STEPS[len(done)] if len(done) < len(STEPS) else None)


@given(st.permutations(STEPS), st.integers(0, len(STEPS)))
def test_M_the_journal_is_a_set(order: list[Step], count: int) -> None:
    done = order[:count]
    step = next_step(done)
    assert step == next_step(list(reversed(done)))
    assert (step is None) == (set(done) == set(STEPS))
    assert step not in done


def test_M_nothing_destructive_comes_before_the_point_of_no_return() -> None:
    before = set(itertools.takewhile(lambda step: step is not POINT_OF_NO_RETURN, STEPS))
    assert not before & DESTRUCTIVE
    assert {Step.PREFLIGHT, Step.SEAL, Step.DISPOSE, Step.RECHECK} <= before


@pytest.mark.parametrize("done", PREFIXES[:-1])
def test_a_failure_compensates_before_the_point_of_no_return_and_retries_after_it(
    done: tuple[Step, ...],
) -> None:
    step = next_step(done)
    assert step is not None
    is_before = STEPS.index(step) < STEPS.index(POINT_OF_NO_RETURN)
    assert on_failure(step, done) is (OnFailure.COMPENSATE if is_before else OnFailure.RETRY)
    assert is_past_return(done) == (POINT_OF_NO_RETURN in done)


TRIPLE = {
    role: OwnedPath(
        path=f"/base/w.{role}", role=role, workspace_id="w", generation=1, device=1, inode=2, created_at_ms=1
    )
    for role in PathRole
}


def test_A4_a_folder_in_the_way_holds_up_nothing_else() -> None:
    disk = [step for step in STEPS if step in (Step.CREDENTIAL, Step.ARTIFACTS, Step.FOLDER)]
    assert disk == [Step.CREDENTIAL, Step.ARTIFACTS, Step.FOLDER]
    for done in PREFIXES:
        assert has_only_folder_left(done) == (next_step(done) is Step.FOLDER)


def test_a_plan_names_the_repository_that_a_worktree_leaves() -> None:
    plan = plan_delete(workspace(common_dir="/src/.git"), [])
    [line] = [line for line in plan if line.step is Step.FOLDER]
    assert "/src/.git" in line.text


def test_a_plan_names_what_every_step_would_do() -> None:
    rows = [row(id="b"), row(id="a"), row("exited", id="over")]
    plan = plan_delete(workspace(teardown=("make", "clean")), rows, owned=TRIPLE)
    assert [line.step for line in plan] == list(STEPS)
    subjects = {line.step: line.subjects for line in plan}
    assert subjects[Step.TEARDOWN] == ("make", "clean")
    assert subjects[Step.DISPOSE] == ("a", "b")
    assert subjects[Step.CREDENTIAL] == ("/base/w.credential",)
    assert subjects[Step.ARTIFACTS] == ("/base/w.artifacts",)
    assert subjects[Step.FOLDER] == ("/base/w",)
    assert all(line.text for line in plan)
    assert set(TEXT) == set(STEPS)


def test_a_plan_leaves_out_what_has_nothing_to_do() -> None:
    idle = {Step.TEARDOWN, Step.DISPOSE, Step.CREDENTIAL, Step.ARTIFACTS}
    assert [line.step for line in plan_delete(workspace(), [])] == [
        step for step in STEPS if step not in idle
    ]
    skipped = plan_delete(workspace(teardown=("make",)), [], skips_teardown=True)
    assert Step.TEARDOWN not in {line.step for line in skipped}


def test_a_plan_of_a_deletion_under_way_has_only_what_is_left() -> None:
    assert [line.step for line in plan_delete(workspace(), [], done=STEPS[:-1])] == [Step.FINISH]
    assert plan_delete(workspace(), [], done=STEPS) == ()


def test_an_adopted_folder_is_left_alone() -> None:
    [line] = [line for line in plan_delete(workspace(is_ours=False), []) if line.step is Step.FOLDER]
    assert (line.subjects, line.text) == ((), "leave its folder alone: it was there before")
