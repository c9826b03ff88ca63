"""What is to be done about a session, and when to try again: pure, total, deterministic.

Facts in, decisions out. Never knows a clock (`now_ms` is given) and never does I/O. An unknown fact
never leads to an act that somebody did not ask for.
"""

from __future__ import annotations

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
    LiveSession,
    Observation,
    Observe,
    SessionRow,
    Unknown,
)
from hostsvc.states import SessionStatus

STUCK_ATTEMPTS: Final = 8
FIRST_BACK_OFF_MS: Final = 30_000
LONGEST_BACK_OFF_MS: Final = 300_000
STUCK_RETRY_MS: Final = 3_600_000
IMMEDIATE_RETRIES: Final = 2
"""The first failures are tried again at the very next pass: most of them were a daemon's restart."""


@attrs.frozen(kw_only=True)
class Limits:
    """When absence is believed."""

    age_floor_ms: int = 60_000
    """Both the thing and the first look at it must be older than this."""
    observations: int = 2


@attrs.frozen(kw_only=True)
class Retry:
    """When a failed act is due again, and whether a person should look."""

    at_ms: int
    is_stuck: bool


def next_retry(attempts: int, now_ms: int) -> Retry:
    """Return when to try again after `attempts` failures in all. Rate is bounded, memory is not."""
    if attempts >= STUCK_ATTEMPTS:
        return Retry(at_ms=now_ms + STUCK_RETRY_MS, is_stuck=True)
    if attempts <= IMMEDIATE_RETRIES:
        return Retry(at_ms=now_ms, is_stuck=False)
    back_off_ms = FIRST_BACK_OFF_MS << (attempts - IMMEDIATE_RETRIES - 1)
    return Retry(at_ms=now_ms + min(back_off_ms, LONGEST_BACK_OFF_MS), is_stuck=False)


def is_due(next_attempt_at_ms: int | None, now_ms: int) -> bool:
    return next_attempt_at_ms is None or next_attempt_at_ms <= now_ms


def absence_is_believed(seen: Observation | None, since_ms: int, now_ms: int, limits: Limits) -> bool:
    """Tell whether what is being seen once more has been seen often and long enough.

    Args:
        seen: The observations before this one.
        since_ms: Since when the thing itself exists.
        now_ms: The time of this look, in ms since the epoch.
        limits: What is often and long enough.
    """
    if seen is None or seen.count + 1 < limits.observations:
        return False
    oldest_allowed_ms = now_ms - limits.age_floor_ms
    return seen.first_at_ms <= oldest_allowed_ms and since_ms <= oldest_allowed_ms


# --- a session that lives ------------------------------------------------------------------------


def decide_live(
    live: LiveSession,
    row: Fact[SessionRow],
    *,
    owner: str,
    is_being_born: bool,
    seen: Observation | None,
    now_ms: int,
    limits: Limits,
) -> Decision:
    """Decide about a session that ptyd lists as alive.

    Args:
        live: What ptyd says.
        row: Its row in the index, of the same id and generation.
        owner: The index's id.
        is_being_born: A spawn of it is under way in this very process.
        seen: Earlier observations of it as an orphan without a row.
        now_ms: The time of the look.
        limits: When absence is believed.
    """
    if live.owner != owner:
        return Keep("foreign: it has another owner" if live.owner else "foreign: it has no owner")
    if not live.is_alive:
        return Keep("it has ended")
    match row:
        case Unknown(why):
            return Keep(f"unknown: {why}")
        case Known(found):
            return _decide_known(found, is_being_born, now_ms)
        case Absent():
            return _decide_rowless(live, is_being_born, seen, now_ms, limits)


def _decide_known(row: SessionRow, is_being_born: bool, now_ms: int) -> Decision:
    if row.is_unwanted:
        if row.is_ended:
            return Act(Action.KILL, Basis.ROW, f"its row is {row.status} and it lives")
        if not is_due(row.next_attempt_at_ms, now_ms):
            return Keep("its next attempt is not due yet")
        return Act(Action.KILL, Basis.INTENT, row.dispose_reason or "it was asked for")
    if is_being_born:
        return Keep("it is being born")
    match row.status:
        case SessionStatus.LOST:
            return Keep("it was lost and is here again; nobody asked for its end")
        case SessionStatus.EXITED | SessionStatus.DISPOSED | SessionStatus.FAILED:
            return Act(Action.KILL, Basis.ROW, f"its row is {row.status} and it lives")
        case SessionStatus.SPAWNING | SessionStatus.ACTIVE:
            if row.workspace_id is None:
                return Act(Action.KILL, Basis.ROW, "its workspace is gone")
            return Keep("it is wanted")


def _decide_rowless(
    live: LiveSession, is_being_born: bool, seen: Observation | None, now_ms: int, limits: Limits
) -> Decision:
    if is_being_born or live.state == "starting":
        return Keep("it is being born")
    if absence_is_believed(seen, live.created_at_ms, now_ms, limits):
        return Act(Action.KILL, Basis.ABSENCE, "it is ours and has no row")
    return Observe("it is ours and has no row")


# --- a row ---------------------------------------------------------------------------------------


def decide_row(
    row: SessionRow,
    live: Fact[LiveSession],
    *,
    is_being_born: bool,
    is_same_instance: bool,
    death: Fact[str],
    seen: Observation | None,
    now_ms: int,
    limits: Limits,
) -> Decision:
    """Decide about a row that says its session is not over.

    Args:
        row: The row.
        live: What ptyd's list has of the same id and generation.
        is_being_born: A spawn of it is under way in this very process.
        is_same_instance: The list is that of the ptyd that was asked for the session.
        death: What its processes tell: Known(how) when none is left, Absent when there is no such sign.
        seen: Earlier observations of it as gone.
        now_ms: The time of the look.
        limits: When absence is believed.
    """
    if row.is_ended:
        return Keep("its row is over")
    if is_being_born:
        return Keep("it is being born")
    match live:
        case Unknown(why):
            return Keep(f"unknown: {why}")
        case Known(found):
            return _decide_listed(row, found)
        case Absent():
            return _decide_unlisted(row, is_same_instance, death, seen, now_ms, limits)


def _decide_listed(row: SessionRow, live: LiveSession) -> Decision:
    if not live.is_alive:
        return Act(Action.SETTLE, Basis.ROW, "ptyd has proven its end")
    if row.status is SessionStatus.SPAWNING:
        return Act(Action.CONFIRM, Basis.ROW, "it runs; a crash lost the answer")
    return Keep("it lives")


def _decide_unlisted(
    row: SessionRow,
    is_same_instance: bool,
    death: Fact[str],
    seen: Observation | None,
    now_ms: int,
    limits: Limits,
) -> Decision:
    if row.status is SessionStatus.SPAWNING and is_same_instance:
        if not is_due(row.next_attempt_at_ms, now_ms):
            return Keep("its next attempt is not due yet")
        return Act(Action.FENCE, Basis.ROW, "a crash came before its spawn was answered, and it is not there")
    if not isinstance(death, Known):
        why = death.why if isinstance(death, Unknown) else "its processes may be alive"
        if row.is_unwanted and is_same_instance and is_due(row.next_attempt_at_ms, now_ms):
            return Act(Action.KILL, Basis.INTENT, f"it was asked for; not listed, but {why}")
        return Keep(f"it is not listed, but {why}")
    if absence_is_believed(seen, row.created_at_ms, now_ms, limits):
        return Act(Action.BURY, Basis.ABSENCE, f"it is gone: {death.value}")
    return Observe(f"it is gone: {death.value}")
