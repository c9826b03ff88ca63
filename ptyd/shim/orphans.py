"""What a killed shim leaves behind: whose it is, and how it is ended with proof.

Owns the attribution of the zygote's children that are no shims. They fall to the zygote because it is a
subreaper too; its own ECHILD among them is the proof. A child is somebody's by the mark in its
environment, because it sits in its leader's POSIX session, by what it was below when it was found, or
because nobody else has lost a shim. One that could be anybody's is killed for nobody: it makes a kill
unconfirmed instead.

Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ptyd import procs
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
        if self.schedule.expired(now) or (self._was_signalled and not roots):
            # No roots and still not ended: what is left is not ours to reap, or could be anybody's.
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

    def __init__(self, is_known: Callable[[int], bool], is_more_to_come: Callable[[], bool]) -> None:
        self._is_known = is_known  # a shim or the daemon
        self._is_more_to_come = is_more_to_come  # a shim has died that was not taken over yet
        self._owner: dict[int, tuple[int, str]] = {}  # pid -> (start time, session id)
        self._wards: dict[str, Ward] = {}
        self._exits: dict[int, Exit] = {}

    def shims_died(self, wards: list[Ward]) -> None:
        """Take over the sessions of all the shims that are known to have died."""
        self._wards |= {ward.id: ward for ward in wards}
        self._attribute()

    def _belongs(self, ward: Ward, pid: int) -> bool:
        stat = procs.read_stat(pid)
        return procs.carries_mark(pid, ward.mark) or (stat is not None and stat.sid == ward.leader_pid)

    def _adopt(self, session_id: str, pid: int) -> None:
        for member in (pid, *procs.Tree(pid).walk()):
            if self._owned_by(member) is None and (stat := procs.read_stat(member)):
                self._owner[member] = (stat.start_ticks, session_id)

    def _owned_by(self, pid: int) -> str | None:
        """Return whose process this is. A pid that was handed on since is nobody's."""
        start_ticks, owner = self._owner.get(pid, (0, None))
        stat = procs.read_stat(pid) if owner else None
        return owner if stat is not None and stat.start_ticks == start_ticks else None

    def reaped(self, pid: int, exit: Exit) -> None:
        """A child that is no shim has been collected; what it leaves behind is ours now."""
        self._owner.pop(pid, None)
        if any(ward.leader_pid == pid for ward in self._wards.values()):
            self._exits.setdefault(pid, exit)
        self._attribute()

    def _attribute(self) -> None:
        """Find owners for the children that have none."""
        wards = list(self._wards.values())
        unowned = self.unattributed()
        # Asked after listing: a dead shim's children fall to us before it can be seen to be dead.
        is_only_one = len(wards) == 1 and not self._is_more_to_come()
        for pid in unowned:
            mine = wards if is_only_one else [ward for ward in wards if self._belongs(ward, pid)]
            if len(mine) == 1:
                self._adopt(mine[0].id, pid)

    def is_ours(self, ward: Ward) -> bool:
        """Tell whether this session's processes fell to us, so that our ECHILD speaks for them."""
        return ward.id in self._wards

    def unattributed(self) -> list[int]:
        return [pid for pid in self._children() if self._owned_by(pid) is None]

    def left(self, ward: Ward) -> list[int]:
        """Return the children that are, or may be, this session's. Empty is the proof."""
        return [pid for pid in self._children() if self._owned_by(pid) in (None, ward.id)]

    def tree(self, ward: Ward) -> tuple[procs.Tree, list[int]]:
        """Return where to signal: from our own children down, or, for a lost one, whoever has its mark."""
        tree = procs.Tree(os.getpid())
        if self.is_ours(ward):
            return tree, [pid for pid in self._children() if self._owned_by(pid) == ward.id]
        marked = [pid for pid in procs.all_pids() if procs.carries_mark(pid, ward.mark)]
        if procs.is_alive(ward.leader_pid, ward.leader_start) and ward.leader_pid not in marked:
            marked.append(ward.leader_pid)
        return tree, [pid for pid in marked if (stat := procs.read_stat(pid)) and stat.state not in "ZX"]

    def ended(self) -> list[tuple[Ward, Exit | None]]:
        """Return, once each, the sessions of which nobody is left, with their leader's exit if we saw it."""
        over = [ward for ward in self._wards.values() if not self.left(ward)]
        for ward in over:
            del self._wards[ward.id]
            self._owner = {pid: owner for pid, owner in self._owner.items() if owner[1] != ward.id}
        return [(ward, self._exits.pop(ward.leader_pid, None)) for ward in over]

    def __bool__(self) -> bool:
        return bool(self._wards)

    def _children(self) -> list[int]:
        return [pid for pid in procs.children(os.getpid()) if not self._is_known(pid)]
