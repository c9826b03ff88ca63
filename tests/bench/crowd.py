"""A crowd of idle sessions in ptyd, and as many in tmux if it is here; what they cost, and their adoption.

Looks at the processes through /proc.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from tests.bench.report import Figure
from tests.bench.tmux_server import TmuxServer
from tests.bench.usage import busy_s
from tests.support.daemon import RuntimeDir
from tests.support.processes import children
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.waiting import wait_until

IDLE: Final = ["sh"]  # prints its prompt and waits, as an idle session does
LABELS: Final = {"bench": "crowd"}
SPAWNS_AT_ONCE: Final = 16
QUIET_S: Final = 0.25
QUIET_SHARE: Final = 0.02  # of a core, for all of them
SETTLE_DEADLINE_S: Final = 60.0
KILL_DEADLINE_S: Final = 120.0
ADOPTION_DEADLINE_S: Final = 60.0
LOOK_S: Final = 0.005


class Crowd:
    """Idle sessions of one runtime directory, and as many of a tmux server; nothing else stays there."""

    def __init__(self, runtime: RuntimeDir, tmux: TmuxServer | None) -> None:
        self.runtime = runtime
        self.tmux = tmux
        self.ids: list[str] = []

    @property
    def count(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        return f"{self.count} session{'s' * (self.count != 1)}"

    def fill(self, wanted: int) -> None:
        """Spawn idle sessions until `wanted` live, and wait until they are idle."""
        present, missing = self.count, wanted - self.count
        with self.runtime.connect() as rpc:
            self.ids += [found["id"] for found in spawn_all(rpc, IDLE, missing)]
        if self.tmux:
            # Its keeper is the first of them.
            names = [f"crowd-{number}" for number in range(present, wanted) if number]
            self.tmux.send([f"new-session -d -s {name} {' '.join(IDLE)}" for name in names])
            for _ in names:
                self.tmux.answer()
        wait_until(self._is_quiet, SETTLE_DEADLINE_S, "the sessions are idle")

    def _is_quiet(self) -> bool:
        pids = self._everybody()
        before = busy_s(pids)
        time.sleep(QUIET_S)
        return busy_s(pids) - before < QUIET_SHARE * QUIET_S

    def _everybody(self) -> list[int]:
        return [*self._supervisors(), *([self.tmux.pid] if self.tmux else [])]

    def wait_alone(self) -> None:
        """Wait until the shims of what was measured before have left."""
        wait_until(
            lambda: len(self.shims()) == self.count, SETTLE_DEADLINE_S, "shims of ended sessions leave"
        )

    def shims(self) -> list[int]:
        daemon_pid = self.runtime.daemon_pid()
        return [pid for pid in children(self.runtime.zygote_pid()) if pid != daemon_pid]

    def _supervisors(self) -> list[int]:
        return [self.runtime.zygote_pid(), self.runtime.daemon_pid(), *self.shims()]

    # -- figures -----------------------------------------------------------------------------------

    def measure_idle(self, rounds: int, window_s: float) -> list[Figure]:
        """Measure the processor time of daemon, zygote and shims while nothing happens."""
        self.wait_alone()
        ours = self._supervisors()
        theirs = [self.tmux.pid] if self.tmux else []
        shares: list[float] = []
        peer_shares: list[float] = []
        for _ in range(rounds):
            before, peer_before, began = busy_s(ours), busy_s(theirs), time.monotonic()
            time.sleep(window_s)
            spent_s = time.monotonic() - began
            shares.append(100 * (busy_s(ours) - before) / spent_s)
            peer_shares.append(100 * (busy_s(theirs) - peer_before) / spent_s)
        return [
            Figure(
                name=f"processor, {self.count} idle sessions over {window_s:g} s",
                unit="% of a core",
                samples=shares,
                peers={"tmux": peer_shares if self.tmux else []},
                at_most=0.5,
                group="many sessions",
            )
        ]

    def measure_restart(self, rounds: int) -> list[Figure]:
        """Measure from SIGKILL of the daemon to the first byte of a session attached anew, and to all."""
        found = [self._restart_s() for _ in range(rounds)]
        name = f"SIGKILL of the daemon to {{}} of {self.count} sessions"
        return [
            Figure(
                name=name.format("the first byte"),
                unit="s",
                samples=[first for first, _ in found],
                at_most=1.5,
                group="many sessions",
                note="a new connection attaches to the youngest of them, and reads its prompt",
            ),
            Figure(
                name=name.format("the adoption"),
                unit="s",
                samples=[all_ for _, all_ in found],
                at_most=5,
                group="many sessions",
            ),
        ]

    def _restart_s(self) -> tuple[float, float]:
        began = time.monotonic()
        self.runtime.kill_daemon()
        first_s = 0.0
        while time.monotonic() - began < ADOPTION_DEADLINE_S:
            try:
                with self.runtime.connect() as rpc:
                    if not first_s:
                        rpc.call("session.attach", id=self.ids[-1], since="start")
                        rpc.next_notification("session.output")
                        first_s = time.monotonic() - began
                    if _count_running(rpc) == self.count:
                        return first_s, time.monotonic() - began
            except (OSError, Disconnected, RpcError):
                pass
            time.sleep(LOOK_S)
        raise AssertionError(f"{self.count} sessions were not adopted in {ADOPTION_DEADLINE_S:g} s")

    def measure_end_of_all(self) -> list[Figure]:
        """Measure the forced end of all sessions by one request; tmux is asked for each, and proves none."""
        with self.runtime.connect() as rpc:
            began = time.perf_counter()
            results = rpc.call("session.kill", labels=LABELS, force=True, deadline_s=KILL_DEADLINE_S)[
                "results"
            ]
            spent_s = time.perf_counter() - began
        assert len(results) == self.count, len(results)
        assert {one["outcome"] for one in results} == {"killed"}, results
        peers = {"tmux -C": [self._end_all_of_tmux()]} if self.tmux else {}
        ended, self.ids = self.count, []
        return [
            Figure(
                name=f"{ended} sessions force-killed at once",
                unit="s",
                samples=[spent_s],
                peers=peers,
                at_most=3,
                group="many sessions",
                note="proven; tmux's are unproven" if peers else "",
            )
        ]

    def _end_all_of_tmux(self) -> float:
        assert self.tmux
        names = [f"crowd-{number}" for number in range(1, self.count)]
        began = time.perf_counter()
        self.tmux.send([f"kill-session -t {name}" for name in names])
        for _ in names:
            self.tmux.answer()
        return time.perf_counter() - began


def spawn_all(rpc: Rpc, argv: Sequence[str], count: int) -> list[dict[str, object]]:
    """Spawn so many sessions of the crowd, some at once; return what was answered."""
    pending: list[int] = []
    found: list[dict[str, object]] = []
    for number in range(count):
        if number >= SPAWNS_AT_ONCE:
            found.append(rpc.result(pending[number - SPAWNS_AT_ONCE]))
        pending.append(rpc.send("session.spawn", argv=list(argv), labels=LABELS))
    return found + [rpc.result(msgid) for msgid in pending[len(found) :]]


def _count_running(rpc: Rpc) -> int:
    """Return how many sessions run, -1 while the daemon does not know all of them."""
    listing = rpc.call("session.list", state="running")
    return len(listing["sessions"]) if listing["complete"] else -1
