"""When ptyd's daemon is restarted: counted failures, patience with a busy one, a budget that is not endless.

Pure: a probe's outcome and a time in, the next state and what to do out. A restart costs no session, but one
that changes nothing must not be repeated for ever, and a daemon that is only slow is never touched.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs


class Probe(enum.StrEnum):
    """What one look at the daemon told."""

    ANSWERED = "answered"
    FAILED = "failed"
    """It did not answer in time and was not seen working."""
    BUSY = "busy"
    """It did not answer in time, but it works: its processor time moves."""
    GONE = "gone"
    """Its process is not there, and none has taken its place."""
    STARTING = "starting"
    """Its process is there and has not served yet."""
    STOPPED = "stopped"
    """Somebody has stopped it on purpose."""


@attrs.frozen(kw_only=True)
class Patience:
    """How much is borne."""

    failures: int = 3
    """In a row, each in an interval of its own."""
    interval_s: float = 10.0
    stale_s: float = 120.0
    """How long it may be busy without an answer."""
    restarts: int = 3
    """Within `budget_s`; then the circuit opens, and a person closes it."""
    budget_s: float = 600.0


@attrs.frozen(kw_only=True)
class Watch:
    """What is remembered between probes."""

    failures: int = 0
    counted_at_s: float | None = None
    busy_since_s: float | None = None
    is_restarting: bool = False
    restarted_at_s: tuple[float, ...] = ()
    open_because: str | None = None

    @property
    def is_open(self) -> bool:
        """No restart is tried any more until a person says so."""
        return self.open_because is not None


@attrs.frozen
class Wait:
    """Do nothing."""


@attrs.frozen
class Restart:
    """Replace the daemon's process."""

    reason: str


@attrs.frozen
class GiveUp:
    """The budget is spent: say so, once, and wait for a person."""

    reason: str


Verdict = Wait | Restart | GiveUp
WAIT: Final = Wait()


def judge(watch: Watch, probe: Probe, now_s: float, patience: Patience) -> tuple[Watch, Verdict]:
    """Return what to remember and what to do after a probe."""
    match probe:
        case Probe.ANSWERED:
            return _recovered(watch), WAIT
        case Probe.STARTING | Probe.STOPPED:
            return watch, WAIT
        case Probe.BUSY:
            return _bear_busy(watch, now_s, patience)
        case Probe.GONE:
            return _restart(watch, "its process is gone", now_s, patience)
        case Probe.FAILED:
            return _count(watch, now_s, patience)


def restarted(watch: Watch) -> Watch:
    """A restart has been carried out: the next probes judge the new daemon."""
    return attrs.evolve(watch, is_restarting=False, failures=0, counted_at_s=None, busy_since_s=None)


def closed(watch: Watch) -> Watch:
    """A person says: try again."""
    return Watch()


def _recovered(watch: Watch) -> Watch:
    """Whatever was counted is forgotten; spent restarts are not, or a crash loop would refill them."""
    return attrs.evolve(watch, failures=0, counted_at_s=None, busy_since_s=None)


def _bear_busy(watch: Watch, now_s: float, patience: Patience) -> tuple[Watch, Verdict]:
    since = now_s if watch.busy_since_s is None else watch.busy_since_s
    watch = attrs.evolve(watch, busy_since_s=since)
    if now_s - since < patience.stale_s:
        return watch, WAIT
    return _restart(watch, f"busy for {now_s - since:.0f} s without an answer", now_s, patience)


def _count(watch: Watch, now_s: float, patience: Patience) -> tuple[Watch, Verdict]:
    """Count a failure; several within one interval are one."""
    if watch.counted_at_s is not None and now_s - watch.counted_at_s < patience.interval_s:
        return watch, WAIT
    watch = attrs.evolve(watch, failures=watch.failures + 1, counted_at_s=now_s)
    if watch.failures < patience.failures:
        return watch, WAIT
    return _restart(watch, f"{watch.failures} probes in a row failed", now_s, patience)


def _restart(watch: Watch, reason: str, now_s: float, patience: Patience) -> tuple[Watch, Verdict]:
    if watch.is_restarting or watch.is_open:
        return watch, WAIT
    recent = tuple(at for at in watch.restarted_at_s if now_s - at < patience.budget_s)
    if len(recent) >= patience.restarts:
        why = f"{len(recent)} restarts within {patience.budget_s:.0f} s did not help; last: {reason}"
        return attrs.evolve(watch, restarted_at_s=recent, open_because=why), GiveUp(why)
    return attrs.evolve(watch, is_restarting=True, restarted_at_s=(*recent, now_s)), Restart(reason)
