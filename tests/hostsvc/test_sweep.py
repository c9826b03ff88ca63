"""What is decided about what lies in the base directory: tables by case, and every input has one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsvc.config import ConfigError, read_config
from hostsvc.model import ABSENT, Act, Action, Basis, Decision, Fact, Keep, Known, Observe, Unknown
from hostsvc.owned import PathRole
from hostsvc.policy import Limits
from hostsvc.sweep import (
    UNRECOGNISED,
    Ages,
    Claim,
    Form,
    Made,
    decide_entry,
    decide_worktree,
    is_left_behind,
    keep_worktree,
)
from tests.hostsvc.values import FLOOR, NOW, OLD, seen

HOUR = 3_600_000
DAY = 24 * HOUR
AGES = Ages(sweep_ms=HOUR, worktree_ms=DAY, quarantine_ms=7 * DAY, limits=Limits(age_floor_ms=FLOOR))
LONG_AGO = NOW - 8 * DAY
UNKNOWN = Unknown("it cannot be read")
OWNED = Known("w")


def made(role: PathRole = PathRole.FOLDER, **fields: Any) -> Made:
    plain = {"workspace_id": "gone", "generation": 1, "created_at_ms": LONG_AGO, "is_deleted": False}
    return Made(role=role, **{**plain, **fields})


def claim(role: PathRole = PathRole.FOLDER, *, count: int = 1, **fields: Any) -> Claim:
    """Of something that is ours and nobody's any more, seen once before unless told otherwise."""
    deed = made(
        role, **{name: fields.pop(name) for name in ("is_deleted", "created_at_ms") if name in fields}
    )
    plain = {"made": Known(deed), "owner": ABSENT, "user": ABSENT, "seen": seen(count) if count else None}
    return Claim(**{**plain, **fields})


def entry(given: Claim, newest_at_ms: Fact[int] | None = None) -> Decision:
    return decide_entry(given, newest_at_ms or Known(LONG_AGO), now_ms=NOW, ages=AGES)


def worktree(
    given: Claim, form: Form = Form.LINKED, broken: Fact[int] = ABSENT, risk: Fact[Sequence[str]] = ABSENT
) -> Decision:
    return decide_worktree(given, form, broken_since_ms=broken, at_risk=risk, now_ms=NOW, ages=AGES)


# --- entries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "role, action",
    [
        (PathRole.FOLDER, Action.TRASH),
        (PathRole.ARTIFACTS, Action.TRASH),
        (PathRole.CREDENTIAL, Action.UNLINK),
    ],
)
def test_A5_what_belongs_to_nobody_goes_each_in_its_way(role: PathRole, action: Action) -> None:
    assert entry(claim(role)) == Act(action, Basis.ABSENCE, "it belongs to no workspace")
    assert isinstance(entry(claim(role, count=0)), Observe), "once is not enough"
    assert entry(claim(role, count=0, is_deleted=True)) == Act(action, Basis.ROW, "its workspace is deleted")


def test_A7_what_has_an_owner_stays_whatever_its_age() -> None:
    for is_deleted in (False, True):
        assert entry(claim(owner=OWNED, is_deleted=is_deleted)) == Keep("its workspace is there")
        assert worktree(claim(owner=OWNED, is_deleted=is_deleted)) == Keep("its workspace is there")


@pytest.mark.parametrize("age_ms, goes", [(HOUR - 1, False), (HOUR, False), (HOUR + 1, True)])
def test_A9_exactly_at_the_age_it_is_kept(age_ms: int, goes: bool) -> None:
    assert isinstance(entry(claim(is_deleted=True), Known(NOW - age_ms)), Act) is goes


@pytest.mark.parametrize("age", ["0", "-1", "nan", "inf", "soon", ""])
@pytest.mark.parametrize("setting", ["sweep_age_s", "worktree_grace_s", "quarantine_grace_s"])
def test_A9_an_age_that_is_none_is_refused(setting: str, age: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        read_config({setting: age}, {"HOME": "/nowhere", "PTYD_RUNTIME_DIR": "/nowhere/run"})


def test_A10_a_time_that_lies_ahead_or_is_none_is_kept() -> None:
    assert entry(claim(is_deleted=True), Known(NOW + 1)) == Keep("its last change lies in the future")
    assert entry(claim(is_deleted=True), Known(0)) == Keep("its last change has no time")
    ahead = claim(is_deleted=True, created_at_ms=NOW + 1)
    assert worktree(ahead) == Keep("its creation lies in the future")
    assert worktree(claim(is_deleted=True, created_at_ms=-5)) == Keep("its creation has no time")


def test_A12_a_strangers_is_kept_for_ever() -> None:
    stranger = claim(made=ABSENT)
    assert entry(stranger) == worktree(stranger) == Keep(UNRECOGNISED)


@pytest.mark.parametrize("fact", ["made", "owner", "user"])
def test_P5_what_is_unknown_is_kept(fact: str) -> None:
    kept = Keep("unknown: it cannot be read")
    assert entry(claim(is_deleted=True, **{fact: UNKNOWN})) == kept
    assert worktree(claim(is_deleted=True, **{fact: UNKNOWN})) == kept


def test_P5_an_age_that_is_unknown_is_kept() -> None:
    assert entry(claim(is_deleted=True), UNKNOWN) == Keep("unknown: it cannot be read")
    assert entry(claim(is_deleted=True), ABSENT) == Keep("it is gone")


# --- worktrees -----------------------------------------------------------------------------------


def test_B1_a_clean_orphan_goes_to_the_trash() -> None:
    assert worktree(claim()) == Act(Action.TRASH, Basis.ABSENCE, "it belongs to no workspace")
    assert isinstance(worktree(claim(count=0)), Observe)


@pytest.mark.parametrize("age_ms, goes", [(HOUR, False), (DAY, False), (DAY + 1, True)])
def test_B2_a_young_one_is_kept(age_ms: int, goes: bool) -> None:
    assert isinstance(worktree(claim(created_at_ms=NOW - age_ms, is_deleted=True)), Act) is goes


def test_B4_a_deleted_row_is_enough() -> None:
    assert worktree(claim(count=0, is_deleted=True)) == Act(
        Action.TRASH, Basis.ROW, "its workspace is deleted"
    )


def test_B5_what_is_at_risk_is_kept_with_the_reason_named() -> None:
    assert worktree(claim(is_deleted=True), risk=Known(["modified", "unpushed"])) == Keep(
        "at risk: modified, unpushed"
    )


def test_B16_what_git_cannot_tell_is_kept() -> None:
    assert worktree(claim(is_deleted=True), risk=UNKNOWN) == Keep("unknown: it cannot be read")


@pytest.mark.parametrize("form", [Form.COVERED, Form.REPOSITORY, Form.PLAIN])
def test_B17_only_a_worktree_of_its_own_is_asked_about(form: Form) -> None:
    assert isinstance(worktree(claim(is_deleted=True), form), Keep)


def test_B18_a_broken_one_is_moved_aside_only_after_long_and_on_two_looks() -> None:
    broken = "broken: its link leads to no repository"
    for is_deleted in (False, True):
        given = claim(is_deleted=is_deleted)
        assert worktree(given, broken=Known(NOW)) == Keep(broken)
        assert worktree(given, broken=Known(NOW - 7 * DAY)) == Keep(broken)
        assert worktree(given, broken=Known(LONG_AGO)) == Act(Action.QUARANTINE, Basis.ABSENCE, broken)
        assert worktree(attrs.evolve(given, seen=None), broken=Known(LONG_AGO)) == Observe(broken)
    assert isinstance(worktree(claim(), broken=UNKNOWN), Keep)


def test_B19_a_process_inside_keeps_it() -> None:
    inside = claim(is_deleted=True, user=Known(4711))
    assert entry(inside) == worktree(inside) == Keep("a process is inside")


# --- everything ----------------------------------------------------------------------------------


def facts(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Fact[Any]]:
    return st.one_of(st.just(ABSENT), st.just(UNKNOWN), values.map(Known))


times = st.integers(NOW - 20 * DAY, NOW + DAY) | st.sampled_from([0, -1, NOW, OLD, NOW - HOUR, NOW - DAY])
claims = st.builds(
    Claim,
    made=facts(
        st.builds(
            Made,
            role=st.sampled_from(PathRole),
            workspace_id=st.just("w"),
            generation=st.just(1),
            created_at_ms=times,
            is_deleted=st.booleans(),
        )
    ),
    owner=facts(st.just("w")),
    user=facts(st.just(1)),
    seen=st.none() | st.builds(seen, st.integers(1, 3), times),
)


@given(claims, facts(times), st.sampled_from(Form), facts(times), facts(st.just(["modified"])))
def test_M_every_input_has_one_answer_and_only_what_is_known_to_be_free_goes(
    given: Claim, newest: Fact[int], form: Form, broken: Fact[int], risk: Fact[Sequence[str]]
) -> None:
    decisions = entry(given, newest), worktree(given, form, broken, risk)
    assert decisions == (entry(given, newest), worktree(given, form, broken, risk))
    for decision in decisions:
        if not isinstance(decision, Keep):
            assert isinstance(given.made, Known)
            assert (given.owner, given.user) == (ABSENT, ABSENT)
            assert is_left_behind(given)
        if isinstance(decision, Act) and decision.basis is Basis.ABSENCE:
            assert given.seen is not None
    if not isinstance(decisions[0], Keep):
        assert isinstance(newest, Known)
        assert NOW - newest.value > HOUR
    if not isinstance(decisions[1], Keep):
        assert form is Form.LINKED
        assert isinstance(broken, Known) or (broken, risk) == (ABSENT, ABSENT)
        assert keep_worktree(given, form, now_ms=NOW, ages=AGES) is None
