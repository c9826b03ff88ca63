"""What is to be done about something that carries a run's label: pure, total, deterministic.

Facts in, decisions out. What somebody asked for is an intent. That a run's holder is gone, its deadline is
over or nobody knows it is only an absence, and each resource is judged by its own age, from its creation.
"""

from __future__ import annotations

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
from hostsvc.policy import Limits, absence_is_believed, is_due
from hostsvc.run import Run
from hostsvc.states import RunState


@attrs.frozen(kw_only=True)
class Resource:
    """Something that carries a run's label; `plugin`, `id` and `generation` name it for good."""

    plugin: str
    id: str
    generation: int = 0
    run: str
    created_at_ms: int | None
    """When it was made, however often it was started since; None when nobody can tell."""
    is_ours: bool = True
    """It carries this index's owner label too."""
    is_being_born: bool = False
    next_attempt_at_ms: int | None = None

    @property
    def subject(self) -> str:
        return f"{self.plugin}/{self.id}"


@attrs.frozen(kw_only=True)
class RunLimits:
    """When it is believed that nobody holds a run any more."""

    age_ms: int = 3_600_000
    """What is younger stays, counted from its creation."""
    absence: Limits = attrs.Factory(Limits)


def why_given_up(run: Run | None, holder: Fact[int], now_ms: int) -> str | None:
    """Say why nobody wants a run's resources any more, although nobody said so; None when somebody may.

    Args:
        run: Its row, if there is one.
        holder: The process that holds it: Known while it lives, Absent when it is gone.
        now_ms: The time of the look.
    """
    if run is None:
        return "there is no such run"
    if run.state is not RunState.OPEN:
        return "its run was given up"
    if run.deadline_at_ms is not None and run.deadline_at_ms < now_ms:
        return "its run's deadline is over"
    return "its run's holder is gone" if isinstance(holder, Absent) else None


def decide_resource(
    resource: Resource,
    run: Run | None,
    *,
    holder: Fact[int],
    seen: Observation | None,
    now_ms: int,
    limits: RunLimits,
) -> Decision:
    """Decide about one resource; arguments as of `why_given_up`, and what was observed of it before."""
    if not resource.is_ours:
        return Keep("foreign: it has another owner")
    if resource.is_being_born:
        return Keep("it is being born")
    if not is_due(resource.next_attempt_at_ms, now_ms):
        return Keep("its next attempt is not due yet")
    if run is not None and run.end_requested_at_ms is not None:
        return Act(Action.END, Basis.INTENT, "its run was ended")
    why = why_given_up(run, holder, now_ms)
    if why is None:
        return Keep(_why_kept(holder))
    if resource.created_at_ms is None:
        return Keep("nobody can tell when it was created")
    if resource.created_at_ms > now_ms:
        return Keep("its creation lies in the future")
    if resource.created_at_ms <= now_ms - limits.age_ms and absence_is_believed(
        seen, resource.created_at_ms, now_ms, limits.absence
    ):
        return Act(Action.END, Basis.ABSENCE, why)
    return Observe(why)


def decide_run(
    run: Run, *, holder: Fact[int], seen: Observation | None, now_ms: int, limits: RunLimits
) -> Decision:
    """Decide about a run of which nothing was found: it may be over, or nobody may hold it any more."""
    if run.state is RunState.ENDING:
        return Act(Action.SETTLE, Basis.INTENT, "nothing of it is left")
    why = why_given_up(run, holder, now_ms)
    if why is None:
        return Keep(_why_kept(holder))
    if run.created_at_ms > now_ms:
        return Keep("its creation lies in the future")
    if run.created_at_ms <= now_ms - limits.age_ms and absence_is_believed(
        seen, run.created_at_ms, now_ms, limits.absence
    ):
        return Act(Action.BURY, Basis.ABSENCE, why)  # nothing goes by it, so no cap stands before it
    return Observe(why)


def _why_kept(holder: Fact[int]) -> str:
    return f"unknown: {holder.why}" if isinstance(holder, Unknown) else "its run goes on"


NOBODY_NEEDED: Known[int] = Known(0)
"""The holder of a run that was started without one: nothing of it can be gone."""
