"""Counting what living processes ask of the kernel: strace, attached by pid for as long as a block lasts.

Owns strace and what it writes. Counts calls that have come to an end in the block: one that waits when it
begins or ends (an idle process is in `epoll_wait` then) may be counted or not, so a count of N rounds is
sure to a few calls. Never measures time: under strace everything is slower, and nothing is done more often.

Source: strace(1), ptrace(2), proc_pid_syscall(5)
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support import processes
from tests.support.waiting import wait_until

PACKAGE: Final = "Debian package strace"
INTERRUPTED: Final = "EINTR"
# No work: a wait that strace itself has broken off, and memory, which the allocator asks for when it likes.
LEFT_OUT: Final = frozenset({"restart_syscall", "mmap", "munmap", "mremap", "madvise", "brk"})
WAITS: Final = ("epoll_wait", "epoll_pwait", "poll", "ppoll")
_END_DEADLINE_S: Final = 20.0
# 7 epoll_wait(4, [{events=EPOLLIN, …}], 256, 1) = 1      or, among several threads:
# 7 <... epoll_wait resumed>[{events=EPOLLIN, …}], 256, 1) = 1
_LINE: Final = re.compile(
    r"\d+ +(?:<\.\.\. )?(?P<name>\w+)(?:\(| resumed>)(?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<error>.*)"
)


class Call(NamedTuple):
    """One finished system call."""

    name: str
    arguments: str
    result: int
    """What it returned; negative when it failed."""

    @property
    def fd(self) -> int:
        """Its first argument."""
        return int(self.arguments.split(",")[0])


class Trace:
    """The calls of one process; whole once the block of `traced` has been left."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def named(self, *names: str) -> list[Call]:
        return [call for call in self.calls if call.name in names]

    @property
    def counts(self) -> Counter[str]:
        """How often each call was made."""
        return Counter(call.name for call in self.calls)

    def moved_bytes(self, *names: str) -> int:
        """How many bytes these calls (reads or writes) moved between the process and the kernel."""
        return sum(call.result for call in self.named(*names) if call.result > 0)

    def woken(self) -> int:
        """How often a wait for events ended with some."""
        return sum(call.result > 0 for call in self.named(*WAITS))

    @property
    def work(self) -> list[Call]:
        """All but the waits that ended with nothing, as a timer's do."""
        return [call for call in self.calls if call.result > 0 or call.name not in WAITS]


@contextlib.contextmanager
def traced(**pids: int) -> Iterator[Mapping[str, Trace]]:
    """Count what these processes do in the block; they must be at rest when it ends, or come to be.

    Skips the test, and says why, where there is no strace or it may not look.
    """
    if shutil.which("strace") is None:
        pytest.skip(f"no strace here ({PACKAGE})")
    traces = {name: Trace() for name in pids}
    with tempfile.TemporaryDirectory(prefix="pt-") as folder, contextlib.ExitStack() as stack:
        logs = {name: Path(folder, name) for name in pids}
        for name, pid in pids.items():
            stack.enter_context(_attached(pid, logs[name]))
        yield traces
        for name, pid in pids.items():
            wait_until(functools.partial(_rests, pid), what=f"{name} has nothing more to do")
        stack.close()
        for name, log in logs.items():
            traces[name].calls += _parse(log.read_text(errors="replace"))


@contextlib.contextmanager
def _attached(pid: int, log: Path) -> Iterator[None]:
    # -f: a process may have threads. No strings: they would be most of what is written.
    command = ["strace", "-f", "-s", "4", "-e", "signal=none", "-o", str(log), "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as strace:
        try:
            assert strace.stderr is not None
            told = strace.stderr.readline()
            if "attached" not in told:
                pytest.skip(f"strace may not look at another process here: {told.strip()}")
            yield
        finally:
            strace.send_signal(signal.SIGINT)  # lets go of the process, which goes on
            strace.communicate(timeout=_END_DEADLINE_S)


def _rests(pid: int) -> bool:
    """Tell whether it sleeps in a system call; while strace looks at one of its calls it does not."""
    return processes.state(pid) == "S"


def _parse(log: str) -> list[Call]:
    found = []
    for match in filter(None, map(_LINE.match, log.splitlines())):
        # strace itself interrupts what waits, as it comes and goes.
        if INTERRUPTED not in match["error"] and match["name"] not in LEFT_OUT:
            result = 0 if match["result"] == "?" else int(match["result"])
            found.append(Call(match["name"], match["arguments"], result))
    return found
