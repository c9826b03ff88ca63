"""What is to be done about what lies in the base directory: pure, total, deterministic.

Facts in, decisions out. A path that the index never made is a stranger's and stays for ever; one whose
workspace is there stays whatever its age; only what is left goes, old enough, used by nobody, and with
nothing at risk in it. Never knows a clock (`now_ms` is given) and never does I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import attrs

from hostsvc.model import (
    Absent,
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
from hostsvc.owned import PathRole
from hostsvc.policy import Limits, absence_is_believed

UNRECOGNISED: Final = "unrecognised: this index never made it"


class Form(enum.Enum):
    """What a folder is to git."""

    PLAIN = "plain"
    LINKED = "linked"
    """A worktree of a repository elsewhere, or one that has lost its link."""
    REPOSITORY = "repository"
    """It holds a repository of its own."""
    COVERED = "covered"
    """It has no link of its own and lies inside another repository, which git would answer for."""


_KEPT_FORMS: Final = {
    Form.PLAIN: "a plain folder: the kind triples looks after it",
    Form.REPOSITORY: "it holds a repository of its own",
    Form.COVERED: "its .git is missing, inside another repository",
}


@attrs.frozen(kw_only=True)
class Made:
    """What the index says of a path that it made, and whose folder (if it is one) is still the same."""

    role: PathRole
    workspace_id: str
    generation: int
    created_at_ms: int
    is_deleted: bool
    """A row or a tombstone says that its workspace was deleted; else nothing is known of that any more."""


@attrs.frozen(kw_only=True)
class Ages:
    """From which age on what belongs to nobody goes."""

    sweep_ms: int
    worktree_ms: int
    quarantine_ms: int
    limits: Limits


@attrs.frozen(kw_only=True)
class Claim:
    """Who has to do with a path. `owner`: a workspace that is there; `user`: a process inside."""

    made: Fact[Made]
    owner: Fact[str]
    user: Fact[int]
    seen: Observation | None = None


def is_left_behind(claim: Claim) -> bool:
    """Tell whether it is ours and nobody's any more: only then its age and its inside matter."""
    return isinstance(_left_behind(claim), Made)


def decide_entry(claim: Claim, newest_at_ms: Fact[int], *, now_ms: int, ages: Ages) -> Decision:
    """Decide about a plain folder, a credential or an artifact folder.

    Args:
        claim: Who has to do with it.
        newest_at_ms: When something in it has last changed.
        now_ms: The time of the look.
        ages: When it goes.
    """
    made = _left_behind(claim)
    if isinstance(made, Keep):
        return made
    action = Action.UNLINK if made.role is PathRole.CREDENTIAL else Action.TRASH
    return (
        _in_use(claim)
        or _young(newest_at_ms, "its last change", ages.sweep_ms, now_ms)
        or _go(action, made, claim.seen, now_ms, ages.limits)
    )


def keep_worktree(claim: Claim, form: Form, *, now_ms: int, ages: Ages) -> Keep | None:
    """Say why a folder stays whatever git would tell of it; None when git has to be asked."""
    made = _left_behind(claim)
    if isinstance(made, Keep):
        return made
    if keep := _in_use(claim):
        return keep
    if keep := _young(Known(made.created_at_ms), "its creation", ages.worktree_ms, now_ms):
        return keep
    return Keep(_KEPT_FORMS[form]) if form in _KEPT_FORMS else None


def decide_worktree(
    claim: Claim,
    form: Form,
    *,
    broken_since_ms: Fact[int],
    at_risk: Fact[Sequence[str]],
    now_ms: int,
    ages: Ages,
) -> Decision:
    """Decide about a folder that git has, or had, to do with.

    Args:
        claim: Who has to do with it.
        form: What it is to git.
        broken_since_ms: When its link to its repository was first seen broken; Absent when it is sound.
        at_risk: In one word each, what would be lost with it; Absent when it is nothing.
        now_ms: The time of the look.
        ages: When it goes.
    """
    made = _left_behind(claim)
    keep = keep_worktree(claim, form, now_ms=now_ms, ages=ages)
    if isinstance(made, Keep):
        return made
    if keep is not None:
        return keep
    match broken_since_ms:
        case Unknown(why):
            return Keep(f"unknown: {why}")
        case Known(since_ms):
            return _decide_broken(made, since_ms, claim.seen, now_ms, ages)
        case Absent():
            return _decide_sound(made, at_risk, claim.seen, now_ms, ages.limits)


def _decide_broken(made: Made, since_ms: int, seen: Observation | None, now_ms: int, ages: Ages) -> Decision:
    """What nobody can look into is moved aside only after long, and never on one look alone."""
    why = "broken: its link leads to no repository"
    if now_ms - since_ms <= ages.quarantine_ms:
        return Keep(why)
    if absence_is_believed(seen, made.created_at_ms, now_ms, ages.limits):
        return Act(Action.QUARANTINE, Basis.ABSENCE, why)
    return Observe(why)


def _decide_sound(
    made: Made, at_risk: Fact[Sequence[str]], seen: Observation | None, now_ms: int, limits: Limits
) -> Decision:
    match at_risk:
        case Unknown(why):
            return Keep(f"unknown: {why}")
        case Known(words):
            return Keep(f"at risk: {', '.join(words)}")
        case Absent():
            return _go(Action.TRASH, made, seen, now_ms, limits)


def _left_behind(claim: Claim) -> Keep | Made:
    match claim.made, claim.owner:
        case Absent(), _:
            return Keep(UNRECOGNISED)
        case (Unknown(why), _) | (_, Unknown(why)):
            return Keep(f"unknown: {why}")
        case _, Known():
            return Keep("its workspace is there")
        case Known(made), _:
            return made
    raise AssertionError("a fact is one of three")


def _in_use(claim: Claim) -> Keep | None:
    match claim.user:
        case Known():
            return Keep("a process is inside")
        case Unknown(why):
            return Keep(f"unknown: {why}")
        case Absent():
            return None


def _young(at_ms: Fact[int], what: str, age_ms: int, now_ms: int) -> Keep | None:
    """Exactly at the age is young; a time that lies ahead tells nothing."""
    match at_ms:
        case Known(value) if value > now_ms:
            return Keep(f"{what} lies in the future")
        case Known(value) if value <= 0:
            return Keep(f"{what} has no time")
        case Known(value):
            return Keep("it is not old enough") if now_ms - value <= age_ms else None
        case Unknown(why):
            return Keep(f"unknown: {why}")
        case Absent():
            return Keep("it is gone")


def _go(action: Action, made: Made, seen: Observation | None, now_ms: int, limits: Limits) -> Act | Observe:
    if made.is_deleted:
        return Act(action, Basis.ROW, "its workspace is deleted")
    if absence_is_believed(seen, made.created_at_ms, now_ms, limits):
        return Act(action, Basis.ABSENCE, "it belongs to no workspace")
    return Observe("it belongs to no workspace")
