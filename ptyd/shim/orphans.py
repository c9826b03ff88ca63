"""What a killed shim leaves behind: whose it is, and how it is ended with proof.

Owns the attribution of the zygote's children that are no shims. They fall to the zygote because it is a
subreaper too; its own ECHILD among them is the proof. A child is somebody's by what it was below when
its shim died, by the mark in its environment, or because it sits in its leader's POSIX session. One that
could be anybody's is killed for nobody: it makes a kill unconfirmed instead.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ptyd.shim import procs
from ptyd.shim.ending import Exit
from ptyd.shim.kill import MAX_REPORTED, Schedule, Survivor, signal_all


class Ward(NamedTuple):
    """A session without a shim, as its record tells it."""

    id: str
    mark: str
    leader_pid: int
    leader_start: int


class OrphanKill:
    """One kill of a session whose shim is gone. That it succeeded is for `Orphans.ended` to say."""

    def __init__(self, ward: Ward, orphans: Orphans, now: float, grace_s: float, force: bool) -> None:
        self.ward = ward
        self.schedule = Schedule(now, grace_s, force)
        self._orphans = orphans
        self._survivors: list[Survivor] = []
        self._was_signalled = False

    def step(self, now: float) -> dict[str, Any] | None:
        """Do what is due; return who is left once nothing more can be done."""
        tree, roots = self._orphans.tree(self.ward)
        if self.schedule.expired(now) or (self._was_signalled and not roots and not self._is_ours()):
            return self.result(now, "unconfirmed")
        if signals := self.schedule.due_signals(now):
            self._was_signalled = True
            self._survivors = signal_all(tree.walk(roots), signals, lambda stat: _among(tree, roots, stat))
        return None

    def result(self, now: float, outcome: str) -> dict[str, Any]:
        """Describe what this kill came to."""
        return {
            "outcome": outcome,
            "reason": None if self._is_ours() or outcome == "killed" else "supervisor_lost",
            "phase": self.schedule.phase,
            "survivors": self._explain()[:MAX_REPORTED] if outcome != "killed" else [],
            "duration_ms": round((now - self.schedule.started_at) * 1000),
        }

    def _is_ours(self) -> bool:
        return self._orphans.is_ours(self.ward)

    def _explain(self) -> list[dict[str, Any]]:
        known = [survivor for survivor in self._survivors if procs.read_stat(survivor.pid)]
        if not self._is_ours():
            return [survivor._replace(reason="supervisor_lost")._asdict() for survivor in known]
        stats = [stat for pid in self._orphans.unattributed() if (stat := procs.read_stat(pid))]
        told = [Survivor(stat.pid, stat.command, stat.state, "unattributed") for stat in stats]
        return [survivor._asdict() for survivor in [*known, *told]]


def _among(tree: procs.Tree, roots: list[int], stat: procs.Stat) -> bool:
    return tree.holds(stat) or stat.pid in roots


class Orphans:
    """Every child of the zygote that is neither a shim nor the daemon."""

    def __init__(self, is_known: Callable[[int], bool]) -> None:
        self._is_known = is_known  # a shim or the daemon
        self._owner: dict[int, str] = {}  # pid -> session id, for as long as that pid is our descendant
        self._wards: dict[str, Ward] = {}
        self._exits: dict[int, Exit] = {}

    def shim_died(self, ward: Ward) -> None:
        """Take over: everything that just fell to us and is nobody's yet is this session's."""
        self._wards[ward.id] = ward
        for pid in self._children():
            if pid not in self._owner and self._could_be(ward, pid):
                self._adopt(ward.id, pid)

    def _could_be(self, ward: Ward, pid: int) -> bool:
        if len(self._wards) == 1:
            return True
        return self._belongs(ward, pid)

    def _belongs(self, ward: Ward, pid: int) -> bool:
        stat = procs.read_stat(pid)
        return procs.carries_mark(pid, ward.mark) or (stat is not None and stat.sid == ward.leader_pid)

    def _adopt(self, session_id: str, pid: int) -> None:
        self._owner[pid] = session_id
        for below in procs.Tree(pid).walk():
            self._owner.setdefault(below, session_id)

    def reaped(self, pid: int, exit: Exit) -> None:
        """A child that is no shim has been collected; what it leaves behind inherits its owner."""
        owner = self._owner.pop(pid, None)
        if owner is not None and self._wards[owner].leader_pid == pid:
            self._exits[pid] = exit
        for child in self._children():
            if child not in self._owner:
                self._attribute(child)

    def _attribute(self, pid: int) -> None:
        wards = list(self._wards.values())
        mine = wards if len(wards) == 1 else [ward for ward in wards if self._belongs(ward, pid)]
        if len(mine) == 1:
            self._adopt(mine[0].id, pid)

    def is_ours(self, ward: Ward) -> bool:
        """Tell whether this session's processes fell to us, so that our ECHILD speaks for them."""
        return ward.id in self._wards

    def unattributed(self) -> list[int]:
        return [pid for pid in self._children() if pid not in self._owner]

    def left(self, ward: Ward) -> list[int]:
        """Return the children that are, or may be, this session's. Empty is the proof."""
        return [pid for pid in self._children() if self._owner.get(pid, ward.id) == ward.id]

    def tree(self, ward: Ward) -> tuple[procs.Tree, list[int]]:
        """Return where to signal: from our own children down, or, for a lost one, whoever has its mark."""
        tree = procs.Tree(os.getpid())
        if self.is_ours(ward):
            return tree, [pid for pid in self._children() if self._owner.get(pid) == ward.id]
        marked = [pid for pid in procs.all_pids() if procs.carries_mark(pid, ward.mark)]
        if procs.is_alive(ward.leader_pid, ward.leader_start) and ward.leader_pid not in marked:
            marked.append(ward.leader_pid)
        return tree, [pid for pid in marked if (stat := procs.read_stat(pid)) and stat.state not in "ZX"]

    def ended(self) -> list[tuple[Ward, Exit | None]]:
        """Return, once each, the sessions of which nobody is left, with their leader's exit if we saw it."""
        over = [ward for ward in self._wards.values() if not self.left(ward)]
        for ward in over:
            del self._wards[ward.id]
        return [(ward, self._exits.pop(ward.leader_pid, None)) for ward in over]

    def __bool__(self) -> bool:
        return bool(self._wards)

    def _children(self) -> list[int]:
        return [pid for pid in procs.children(os.getpid()) if not self._is_known(pid)]
