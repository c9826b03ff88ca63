"""When ptyd's daemon is restarted, by case."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostsvc.watchdog import WAIT, GiveUp, Patience, Probe, Restart, Verdict, Watch, closed, judge, restarted

PATIENCE = Patience(failures=3, interval_s=10, stale_s=60, restarts=2, budget_s=600)


def run(*probes: tuple[float, Probe], watch: Watch | None = None) -> tuple[Watch, list[Verdict]]:
    """Judge one probe after the other; every restart is carried out at once."""
    watch, verdicts = watch or Watch(), []
    for at_s, probe in probes:
        watch, verdict = judge(watch, probe, at_s, PATIENCE)
        verdicts.append(verdict)
        if isinstance(verdict, Restart):
            watch = restarted(watch)
    return watch, verdicts


def test_B32_one_failure_less_than_allowed_is_borne_and_the_last_is_not() -> None:
    _, verdicts = run((0, Probe.FAILED), (10, Probe.FAILED), (20, Probe.FAILED))
    assert verdicts[:2] == [WAIT, WAIT]
    assert isinstance(verdicts[2], Restart)


def test_B33_failures_within_one_interval_count_once() -> None:
    watch, verdicts = run(*((at / 10, Probe.FAILED) for at in range(99)))
    assert verdicts == [WAIT] * 99
    assert watch.failures == 1


def test_B34_a_process_that_is_gone_is_replaced_at_once() -> None:
    assert run((0, Probe.GONE))[1] == [Restart("its process is gone")]


def test_B35_a_busy_one_is_waited_for_until_that_is_stale() -> None:
    _, verdicts = run((0, Probe.BUSY), (30, Probe.BUSY), (59, Probe.BUSY), (60, Probe.BUSY))
    assert verdicts[:3] == [WAIT] * 3
    assert verdicts[3] == Restart("busy for 60 s without an answer")


def test_B36_an_answer_resets_everything_that_was_counted() -> None:
    watch, verdicts = run(
        (0, Probe.FAILED), (10, Probe.FAILED), (20, Probe.ANSWERED), (30, Probe.FAILED), (40, Probe.FAILED)
    )
    assert verdicts == [WAIT] * 5
    watch, verdicts = run((100, Probe.BUSY), (130, Probe.ANSWERED), (159, Probe.BUSY), (190, Probe.BUSY))
    assert verdicts == [WAIT] * 4
    assert watch.failures == 0


def test_B37_two_triggers_are_one_restart() -> None:
    watch, first = judge(Watch(), Probe.GONE, 0, PATIENCE)
    assert isinstance(first, Restart)
    watch, second = judge(watch, Probe.GONE, 0.1, PATIENCE)
    assert second == WAIT
    assert isinstance(judge(restarted(watch), Probe.GONE, 1, PATIENCE)[1], Restart)


def test_B38_a_spent_budget_stops_and_waits_for_a_person() -> None:
    watch, verdicts = run(
        (0, Probe.GONE), (1, Probe.GONE), (2, Probe.GONE), (3, Probe.GONE), (9999, Probe.GONE)
    )
    assert [type(verdict) for verdict in verdicts[:3]] == [Restart, Restart, GiveUp]
    assert verdicts[3:] == [WAIT, WAIT]
    assert watch.is_open
    watch, _ = run((10_000, Probe.ANSWERED), watch=watch)
    assert watch.is_open, "only a person closes it"
    assert isinstance(judge(closed(watch), Probe.GONE, 10_001, PATIENCE)[1], Restart)


def test_restarts_long_ago_are_not_counted() -> None:
    _, verdicts = run((0, Probe.GONE), (1, Probe.GONE), (700, Probe.GONE))
    assert all(isinstance(verdict, Restart) for verdict in verdicts)


def test_B40_none_while_it_is_starting() -> None:
    assert run(*((float(at), Probe.STARTING) for at in range(1000)))[1] == [WAIT] * 1000


def test_B41_one_that_is_slow_but_answers_is_never_touched() -> None:
    probes = [(at * 10.0, (Probe.FAILED, Probe.FAILED, Probe.ANSWERED)[at % 3]) for at in range(300)]
    assert run(*probes)[1] == [WAIT] * 300


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from(Probe)), max_size=60))
def test_restarts_are_bounded_whatever_happens(steps: list[tuple[float, Probe]]) -> None:
    now_s, probes = 0.0, []
    for pause_s, probe in steps:
        now_s += pause_s
        probes.append((now_s, probe))
    _, verdicts = run(*probes)
    times = [at for (at, _), verdict in zip(probes, verdicts, strict=True) if isinstance(verdict, Restart)]
    for at in times:
        assert sum(at <= other < at + PATIENCE.budget_s for other in times) <= PATIENCE.restarts
