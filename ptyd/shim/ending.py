"""How a session ends: reaping, the one kill however many ask, and the proof.

Owns the shim's children. `waitpid(-1, __WALL)` answering ECHILD *is* the proof of death: every process
the session ever started ends up as a child of this process, whatever it did to escape, because this
process is a subreaper. Nothing here trusts a list of processes for it.

Standard library only. Source: wait(2), PR_SET_CHILD_SUBREAPER(2const).
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ptyd import procs
from ptyd.shim.kill import MAX_REPORTED, Phase, Schedule, Send, Survivor, send_by_pidfd, signal_all

WALL = 0x40000000  # __WALL: also children made by clone() without SIGCHLD
Exit = dict[str, int]


def exit_from_status(status: int) -> Exit:
    """Turn a wait status into exactly one of code and signal."""
    code = os.waitstatus_to_exitcode(status)
    return {"code": code} if code >= 0 else {"signal": -code}


class KillResult(NamedTuple):
    """What a kill came to. `survivors` is empty when death is proven."""

    phase: str
    stragglers: list[dict[str, Any]]
    survivors: list[dict[str, Any]]
    duration_ms: int


class Ending:
    """The children of this process, and the kill under way."""

    def __init__(self, leader_pid: int, send: Send = send_by_pidfd) -> None:
        self.leader_pid = leader_pid
        self.exit: Exit | None = None
        self.is_proven = False
        self.stragglers: list[dict[str, Any]] = []
        self.wants_hang_up = False
        self._send = send
        self._schedule: Schedule | None = None
        self._survivors: list[Survivor] = []
        self._last_phase: Phase | None = None

    def reap(self) -> None:
        """Collect the dead; notes the leader's exit, and the proof when nobody is left."""
        while not self.is_proven:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | WALL)
            except ChildProcessError:
                self.is_proven = True
                return
            if pid == 0:
                return
            if pid == self.leader_pid:
                self.exit = exit_from_status(status)

    # -- kill ------------------------------------------------------------------------------------------

    @property
    def is_killing(self) -> bool:
        return self._schedule is not None

    @property
    def due_at(self) -> float | None:
        return self._schedule.due_at if self._schedule else None

    def begin(self, now: float, grace_s: float, force: bool) -> None:
        """Begin a kill, or join the one under way; a forced one makes it jump to KILL."""
        if self._schedule is None:
            self._schedule = Schedule(now, grace_s, force)
        elif force:
            self._schedule.hurry(now)

    def step(self, now: float) -> KillResult | None:
        """Do what is due. Returns the result once death is proven or the deadline has passed."""
        schedule = self._schedule
        if schedule is None:
            return None
        if self.is_proven:
            return self._finish(schedule, now, [])
        if schedule.expired(now):
            return self._finish(schedule, now, self._survivors)
        if signals := schedule.due_signals(now):
            self._last_phase = schedule.phase
            self._signal(schedule, signals)
        return None

    def nudge(self, now: float) -> None:
        """Somebody died during the KILL loop: look at once who is left."""
        if self._schedule is not None and self._schedule.phase is Phase.KILL:
            self._schedule.due_at = now

    def _signal(self, schedule: Schedule, signals: Any) -> None:
        tree = procs.Tree(os.getpid())
        self._survivors = signal_all(tree.walk(), signals, tree.holds, self._send)
        if schedule.phase is not Phase.HANGUP and not schedule.forced:
            self._note_stragglers(schedule.phase)
        alive = self._survivors
        self.wants_hang_up = (
            schedule.phase is Phase.KILL
            and bool(alive)
            and all(survivor.reason == "not_permitted" for survivor in alive)
        )

    def _note_stragglers(self, phase: Phase) -> None:
        known = {straggler["pid"]: straggler for straggler in self.stragglers}
        for survivor in self._survivors:
            entry = known.get(survivor.pid)
            if entry is not None:
                entry["phase"] = phase
            elif len(self.stragglers) < MAX_REPORTED:
                self.stragglers.append({"pid": survivor.pid, "command": survivor.command, "phase": phase})

    def _finish(self, schedule: Schedule, now: float, survivors: list[Survivor]) -> KillResult:
        self._schedule = None
        return KillResult(
            phase=self._last_phase or schedule.phase,
            stragglers=self.stragglers,
            survivors=[survivor._asdict() for survivor in survivors[:MAX_REPORTED]],
            duration_ms=round((now - schedule.started_at) * 1000),
        )


def describe_foreground(pgid: int) -> dict[str, Any] | None:
    """Describe the foreground process group of this process's session."""
    if pgid <= 0:
        return None
    leader = procs.read_stat(pgid)
    if leader is not None and leader.state not in "ZX":
        return {"pgid": pgid, "pid": pgid, "command": leader.command}
    tree = procs.Tree(os.getpid())
    stats = (procs.read_stat(pid) for pid in tree.walk())
    member = next((stat for stat in stats if stat and stat.pgid == pgid and stat.state not in "ZX"), None)
    return {"pgid": pgid, "pid": member.pid, "command": member.command} if member else None


def count_processes() -> int:
    """Count the living processes below this one."""
    stats = (procs.read_stat(pid) for pid in procs.Tree(os.getpid()).walk())
    return sum(1 for stat in stats if stat is not None and stat.state not in "ZX")
