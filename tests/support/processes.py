"""Processes as the kernel tells of them, and the guard that lets none outlive its test.

Owns the walk over /proc and the only SIGKILLs of the tests. The test process makes itself a child
subreaper, so whatever a test starts (setsid, double fork, a daemon that lost its parent) stays its
descendant: a test's processes are exactly the descendants that were not there when it began. That
needs no mark and no scan by name, and can hit nobody else's process.

Source: prctl(2) PR_SET_CHILD_SUBREAPER, proc(5) /proc/PID/task/TID/children, pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.waiting import wait_until

_PR_SET_CHILD_SUBREAPER: Final = 36
_DEAD_STATES: Final = "ZXx"


class Process(NamedTuple):
    """A process for good: a pid alone may be somebody else's by now."""

    pid: int
    started: int  # clock ticks since boot

    def __str__(self) -> str:
        return f"{self.pid} {state(self.pid) or '-'} {command(self.pid)!r}"


class _Stat(NamedTuple):
    state: str
    ppid: int
    pgid: int
    started: int


def become_subreaper() -> None:
    """Let every orphan among our descendants become our child."""
    if not Path("/proc/self/task", str(os.getpid()), "children").exists():
        raise RuntimeError("the tests need a kernel with /proc/PID/task/TID/children")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in brackets may itself hold spaces and brackets.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(fields[0], int(fields[1]), int(fields[2]), int(fields[19]))


def alive(pid: int) -> bool:
    """Tell whether `pid` runs or could run again: a zombie is dead."""
    found = _stat(pid)
    return found is not None and found.state not in _DEAD_STATES


def state(pid: int) -> str | None:
    """Return the letter of proc(5): R, S, D, T, Z …; None when there is no such process."""
    found = _stat(pid)
    return found and found.state


def parent(pid: int) -> int | None:
    found = _stat(pid)
    return found and found.ppid


def process_group(pid: int) -> int | None:
    found = _stat(pid)
    return found and found.pgid


def started(pid: int) -> int | None:
    """Return the start time in clock ticks since boot, field 22 of /proc/PID/stat."""
    found = _stat(pid)
    return found and found.started


def command(pid: int) -> str:
    """Return the command line, or the name in brackets where there is none."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""
    return line.replace(b"\0", b" ").decode(errors="replace") or f"[{name}]"


def children(pid: int) -> list[int]:
    """Return the direct children of all threads of `pid`, zombies included."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it may go at any moment
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def descendants(pid: int, spare: Collection[Process] = ()) -> list[Process]:
    """Return everything below `pid`, parents first, without the subtrees of those in `spare`."""
    found: list[Process] = []
    waiting = [pid]
    for ancestor in waiting:
        for child in children(ancestor):
            since = started(child)
            if since is not None and Process(child, since) not in spare:
                found.append(Process(child, since))
                waiting.append(child)
    return found


@contextlib.contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    """Open exactly this process; None when it is gone, whoever has its pid now."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if started(process.pid) == process.started else None
    finally:
        os.close(fd)


def kill(process: Process | int, signum: int = signal.SIGKILL) -> None:
    """Send a signal; one that is gone is no error."""
    if isinstance(process, int):
        since = started(process)
        if since is None:
            return
        process = Process(process, since)
    with _pidfd(process) as fd, contextlib.suppress(ProcessLookupError):
        if fd is not None:
            signal.pidfd_send_signal(fd, signum)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is alive and does nothing for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state(pid) == "T", what="it is stopped")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def kill_and_wait(pid: int, deadline_s: float = 5.0) -> None:
    """SIGKILL `pid` and return when it is dead (a zombie at most).

    Raises:
        AssertionError: it lives on.
    """
    since = started(pid)
    if since is None:
        return
    with _pidfd(Process(pid, since)) as fd:
        if fd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        # A pidfd is readable when its process has ended, also before anyone reaped it.
        assert select.select([fd], [], [], deadline_s)[0], f"{pid} outlived a SIGKILL"


WALKS: Final = 2
"""Without a find, before nothing is left: one can miss a process that is just being handed on."""


class Guard:
    """What was there when a test began, and the end of everything that came later."""

    def __init__(self, *, spare_present: bool = True) -> None:
        self._spare = frozenset(descendants(os.getpid())) if spare_present else frozenset()

    def living(self) -> list[Process]:
        """Reap what is dead; return the test's processes that are alive, parents first."""
        found = descendants(os.getpid(), self._spare)
        ours = set(children(os.getpid()))
        for process in found:
            if process.pid in ours and not alive(process.pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
        return [process for process in found if alive(process.pid)]

    def settle(self, deadline_s: float) -> list[Process]:
        """Wait for them to end by themselves; return those that did not."""
        ends = time.monotonic() + deadline_s
        empty_walks = 0
        while empty_walks < WALKS:
            left = self.living()
            empty_walks = 0 if left else empty_walks + 1
            if left and time.monotonic() > ends:
                return left
            if left:
                _wait_for_any(left, min(0.05, deadline_s))
        return []

    def end_all(self, deadline_s: float = 10.0) -> list[str]:
        """SIGKILL every process of the test until none is left; return what was still alive.

        Raises:
            AssertionError: something outlived SIGKILL for `deadline_s`.
        """
        ended: dict[Process, str] = {}
        ends = time.monotonic() + deadline_s
        empty_walks = 0
        # Children of what was killed fall to us, so one that forks without pause runs out of parents.
        while empty_walks < WALKS:
            left = self.living()
            empty_walks = 0 if left else empty_walks + 1
            for process in left:
                ended.setdefault(process, str(process))
                kill(process)
            if left:
                assert time.monotonic() < ends, f"outlived SIGKILL: {', '.join(map(str, left))}"
                _wait_for_any(left, 0.01)
        return list(ended.values())


def _wait_for_any(processes: list[Process], deadline_s: float) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(_pidfd(process)) for process in processes[:64]]
        select.select([fd for fd in opened if fd is not None], [], [], deadline_s)
