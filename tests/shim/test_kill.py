"""The kill's schedule as a table, and signalling real processes by what they are and not by number."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyd import procs
from ptyd.shim.kill import (
    DEADLINE_S,
    KILL_ROUND_MOST_S,
    KILL_ROUND_S,
    PHASES,
    Phase,
    Schedule,
    signal_all,
)
from tests.support.waiting import wait_until

HANGUP = (signal.SIGHUP, signal.SIGCONT)
TERMINATE = (signal.SIGTERM, signal.SIGCONT)
KILL = (signal.SIGKILL,)
GRACE_S = 1.0

# (seconds since the beginning, what is asked for, what is sent)
GENTLE = [
    (0.0, "due", HANGUP),
    (0.0, "due", ()),
    (0.999, "due", ()),
    (1.0, "due", TERMINATE),
    (1.999, "due", ()),
    (2.0, "due", KILL),
    (2.0, "due", ()),
    (2.01, "due", KILL),
    (2.02, "due", ()),
    (2.03, "due", KILL),
]
FORCED = [(0.0, "due", KILL), (0.005, "due", ()), (0.01, "due", KILL)]
HURRIED = [
    (0.0, "due", HANGUP),
    (0.5, "hurry", ()),
    (0.5, "due", KILL),
    (0.5, "hurry", ()),
    (0.505, "due", ()),
]
HURRIED_AT_ONCE = [(0.0, "hurry", ()), (0.0, "due", KILL)]
LATE = [(0.0, "due", HANGUP), (50.0, "due", TERMINATE), (50.5, "due", ()), (51.0, "due", KILL)]
TABLES = {
    "gentle": (False, GENTLE),
    "forced": (True, FORCED),
    "hurried": (False, HURRIED),
    "hurried at once": (False, HURRIED_AT_ONCE),
    "woken late": (False, LATE),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_sent_when(name: str) -> None:
    force, steps = TABLES[name]
    schedule = Schedule(100.0, GRACE_S, force)
    for at, what, sent in steps:
        if what == "hurry":
            schedule.hurry(100.0 + at)
        else:
            assert schedule.due_signals(100.0 + at) == sent, f"{at} s after the beginning"


def test_no_grace_is_three_phases_at_once() -> None:
    schedule = Schedule(0.0, 0.0, False)
    assert [schedule.due_signals(0.0) for _ in range(4)] == [HANGUP, TERMINATE, KILL, ()]


def test_rounds_of_kill_become_rarer_and_end() -> None:
    schedule = Schedule(0.0, GRACE_S, True)
    now, pauses = 0.0, list[float]()
    while not schedule.expired(now):
        assert schedule.due_signals(now) == KILL
        pauses.append(round(schedule.due_at - now, 6))
        now = schedule.due_at
    assert (pauses[0], pauses[-1]) == (KILL_ROUND_S, KILL_ROUND_MOST_S)
    assert pauses == sorted(pauses)
    assert DEADLINE_S <= now < DEADLINE_S + KILL_ROUND_MOST_S
    assert len(pauses) < 2 * DEADLINE_S / KILL_ROUND_MOST_S


def test_the_deadline_counts_from_the_first_kill() -> None:
    schedule = Schedule(0.0, 60.0, False)
    for now in (0.0, 60.0):
        schedule.due_signals(now)
        assert not schedule.expired(now + 59)
    schedule.due_signals(120.0)
    assert not schedule.expired(120.0 + DEADLINE_S - 0.1)
    assert schedule.expired(120.0 + DEADLINE_S)


def test_every_phase_leads_to_kill() -> None:
    assert set(PHASES) == set(Phase)
    phase = Phase.HANGUP
    for _ in Phase:
        phase = PHASES[phase][1]
    assert phase is Phase.KILL


@given(
    grace_s=st.integers(0, 60),  # whole numbers: what is due then is due, and not almost
    pauses=st.lists(st.integers(0, 30), max_size=40),
    hurries=st.sets(st.integers(0, 40)),
)
def test_phases_only_go_on(grace_s: int, pauses: list[int], hurries: set[int]) -> None:
    """Whenever it is asked: no phase twice but KILL, none backwards, and nothing before its time."""
    schedule, now, sent = Schedule(0.0, grace_s, False), 0.0, list[tuple[float, tuple[int, ...]]]()
    for n, pause in enumerate(pauses):
        now += pause
        if n in hurries:
            schedule.hurry(now)
        if signals := schedule.due_signals(now):
            sent.append((now, tuple(signals)))
            assert schedule.due_at >= now
    order = [(HANGUP, TERMINATE, KILL).index(signals) for _, signals in sent]
    assert order == sorted(order)
    assert order.count(0) <= 1
    assert order.count(1) <= 1
    if not hurries:
        starts = [at for at, signals in sent if signals != KILL] + [at for at, s in sent if s == KILL][:1]
        assert all(later - earlier >= grace_s for earlier, later in itertools.pairwise(starts))


# --- signalling ------------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        yield child
        child.kill()


def everybody(stat: procs.Stat) -> bool:
    return True


def test_signals_go_to_whom_belongs(child: subprocess.Popen[bytes]) -> None:
    assert signal_all([child.pid], KILL, lambda stat: stat.ppid != os.getpid()) == []
    assert child.poll() is None
    [survivor] = signal_all([child.pid], KILL, everybody)
    assert (survivor.pid, survivor.command, survivor.reason) == (child.pid, "sleep", "not_dying")
    assert child.wait() == -signal.SIGKILL


def test_a_zombie_is_nobody_to_signal(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    wait_until(lambda: (stat := procs.read_stat(child.pid)) is not None and stat.state == "Z")
    assert signal_all([child.pid], KILL, everybody) == []


def test_a_pid_that_is_gone_is_no_error(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    assert signal_all([child.pid], KILL, everybody) == []


def test_who_may_not_be_signalled_is_told(child: subprocess.Popen[bytes]) -> None:
    def refuse(pidfd: int, number: int) -> None:
        raise PermissionError

    [survivor] = signal_all([child.pid], KILL, everybody, refuse)
    assert (survivor.pid, survivor.reason) == (child.pid, "not_permitted")


def test_a_death_between_the_look_and_the_signal_is_no_error(child: subprocess.Popen[bytes]) -> None:
    def too_late(pidfd: int, number: int) -> None:
        raise ProcessLookupError

    [survivor] = signal_all([child.pid], HANGUP, everybody, too_late)
    assert survivor.reason == "not_dying"


def test_the_walk_is_lazy(child: subprocess.Popen[bytes]) -> None:
    """A process is signalled before its siblings are looked up: a fork storm cannot outrun a list."""
    seen = []

    def walk() -> Iterator[int]:
        yield child.pid
        seen.append(child.wait())
        yield child.pid

    signal_all(walk(), KILL, everybody)
    assert seen == [-signal.SIGKILL]


def test_descriptors_are_given_back(child: subprocess.Popen[bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        signal_all([child.pid, 2**22 - 1], (signal.SIGCONT,), everybody)
    assert len(os.listdir("/proc/self/fd")) == before
