"""Many sessions at once: listing them, what they weigh, what they cost when idle, adopting them.

Looks at the processes through /proc. Memory is what a process has for itself alone (Private_Clean and
Private_Dirty of smaps_rollup): shims share most of theirs with the zygote they were forked from.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.bench.report import Figure, percentile
from tests.support.daemon import RuntimeDir
from tests.support.processes import children
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.waiting import wait_until

IDLE: Final = ["sh"]  # prints its prompt and waits, as an idle session does
SPAWNS_AT_ONCE: Final = 16
QUIET_S: Final = 0.5
QUIET_SHARE: Final = 0.02  # of a core, for all of them
SETTLE_DEADLINE_S: Final = 30.0
ADOPTION_DEADLINE_S: Final = 60.0
LOOK_S: Final = 0.005


class Crowd:
    """Idle sessions of one runtime directory, in which nothing else lives meanwhile."""

    def __init__(self, runtime: RuntimeDir) -> None:
        self._runtime = runtime
        self._empty_kib = 0

    def fill(self, wanted: int) -> list[Figure]:
        """Spawn idle sessions until `wanted` live, and wait until they are idle; that is no figure."""
        with self._runtime.connect() as rpc:
            present = _count_running(rpc)
            if not present:
                self._wait_alone()
            pending: deque[int] = deque()
            for _ in range(wanted - present):
                if len(pending) == SPAWNS_AT_ONCE:
                    rpc.result(pending.popleft())
                pending.append(rpc.send("session.spawn", argv=IDLE))
            for msgid in pending:
                rpc.result(msgid)
        wait_until(self._is_quiet, SETTLE_DEADLINE_S, "the sessions are idle")
        return []

    def _wait_alone(self) -> None:
        """Wait until the shims of what was measured before have left."""
        wait_until(lambda: not self._shims(), SETTLE_DEADLINE_S, "the shims of ended sessions leave")
        self._empty_kib = _rss_kib(self._runtime.daemon_pid())

    def _is_quiet(self) -> bool:
        before = _busy_s(self._supervisors())
        time.sleep(QUIET_S)
        return _busy_s(self._supervisors()) - before < QUIET_SHARE * QUIET_S

    def _shims(self) -> list[int]:
        daemon_pid = self._runtime.daemon_pid()
        return [pid for pid in children(self._runtime.zygote_pid()) if pid != daemon_pid]

    def _supervisors(self) -> list[int]:
        return [self._runtime.zygote_pid(), self._runtime.daemon_pid(), *self._shims()]

    # -- figures -----------------------------------------------------------------------------------

    def measure_list(self, rounds: int, calls: int) -> list[Figure]:
        """Measure `session.list` without detail, from the request to the decoded answer."""
        with self._runtime.connect() as rpc:
            count = _count_running(rpc)
            samples = [percentile([_list_ms(rpc) for _ in range(calls)], 50) for _ in range(rounds)]
        return [
            Figure(
                name=f"`list` of {count} sessions p50",
                unit="ms",
                samples=samples,
                at_most=15,
                group="many sessions",
            )
        ]

    def measure_memory(self) -> list[Figure]:
        """Measure what each session's shim, and the daemon for each session, have for themselves."""
        private = [_private_kib(pid) for pid in self._shims()]
        growth_kib = _rss_kib(self._runtime.daemon_pid()) - self._empty_kib
        zygote_kib = _private_kib(self._runtime.zygote_pid())
        return [
            Figure(
                name="private memory of an idle session's shim",
                unit="KiB",
                samples=private,
                at_most=1024,
                note=f"{len(private)} shims; {zygote_kib} KiB in the zygote",
                group="memory",
            ),
            Figure(
                name="daemon's resident memory per session",
                unit="KiB",
                samples=[growth_kib / len(private)],
                note=f"{self._empty_kib} KiB without sessions",
                group="memory",
            ),
        ]

    def measure_idle(self, rounds: int, window_s: float) -> list[Figure]:
        """Measure the processor time of daemon, zygote and shims while nothing happens."""
        pids, shares = self._supervisors(), []
        for _ in range(rounds):
            busy_s, began = _busy_s(pids), time.monotonic()
            time.sleep(window_s)
            shares.append(100 * (_busy_s(pids) - busy_s) / (time.monotonic() - began))
        name = f"processor, {len(pids) - 2} idle sessions over {window_s:g} s"
        return [Figure(name=name, unit="% of a core", samples=shares, at_most=1, group="many sessions")]

    def measure_adoption(self, rounds: int) -> list[Figure]:
        """Measure the time from SIGKILL of the daemon until the next one lists every session as running."""
        with self._runtime.connect() as rpc:
            count = _count_running(rpc)
        samples = [self._adoption_s(count) for _ in range(rounds)]
        name = f"SIGKILL of the daemon to {count} adopted sessions"
        return [Figure(name=name, unit="s", samples=samples, at_most=5, group="many sessions")]

    def _adoption_s(self, count: int) -> float:
        began = time.monotonic()
        self._runtime.kill_daemon()
        while self._count() != count:
            if time.monotonic() - began > ADOPTION_DEADLINE_S:
                raise AssertionError(f"{count} sessions were not adopted in {ADOPTION_DEADLINE_S:g} s")
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def _count(self) -> int | None:
        try:
            with self._runtime.connect() as rpc:
                return _count_running(rpc)
        except (OSError, Disconnected, RpcError):
            return None


def _count_running(rpc: Rpc) -> int:
    """Return how many sessions run, -1 while the daemon does not know all of them."""
    listing = rpc.call("session.list", state="running")
    return len(listing["sessions"]) if listing["complete"] else -1


def _list_ms(rpc: Rpc) -> float:
    began = time.perf_counter()
    rpc.call("session.list")
    return (time.perf_counter() - began) * 1000


# -- /proc -----------------------------------------------------------------------------------------


def _private_kib(pid: int) -> int:
    return _kib(Path(f"/proc/{pid}/smaps_rollup"), ("Private_Clean:", "Private_Dirty:"))


def _rss_kib(pid: int) -> int:
    return _kib(Path(f"/proc/{pid}/status"), ("VmRSS:",))


def _kib(path: Path, keys: tuple[str, ...]) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    return sum(int(words[1]) for words in lines if words and words[0] in keys)


def _busy_s(pids: Iterable[int]) -> float:
    return sum(map(process_s, pids))


def process_s(pid: int) -> float:
    """Return user and system time, to the nanosecond: ticks of 10 ms would hide an idle process.

    Source: proc(5) /proc/PID/stat utime and stime; the kernel's scheduler/sched-stats.rst.
    """
    if found := list(Path(f"/proc/{pid}/task").glob("*/schedstat")):
        return sum(int(path.read_text().split()[0]) for path in found) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
