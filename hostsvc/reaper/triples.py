"""Kind: stale path triples. Plain folders, artifacts and credentials that belong to no workspace any more.

Folders go to the trash, a credential goes for good: it is never trashed, and nothing tells what was in it.
Tells how the base directory is, whenever that is news: each entry is swept, retained, failed or unrecognised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from hostsvc import removal
from hostsvc.clock import NowMs
from hostsvc.index import Index
from hostsvc.model import ABSENT, Action, Candidate, Decision, Fact, Keep, Observation
from hostsvc.reaper.base import Base, Found, newest_change
from hostsvc.reaper.discard import check_again, discard, enter, look_again
from hostsvc.reaper.kinds import Findings, Look, Skipped, subject_key
from hostsvc.store import passes, paths
from hostsvc.sweep import UNRECOGNISED, Ages, decide_entry, is_left_behind
from hostsvc.trashcan import TrashCan
from hostsvc.tree import DIRECTORY, Identity, PathRefused
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog


class Triples:
    """Finds and removes them."""

    name = "triples"

    def __init__(
        self, index: Index, base: Base, can: TrashCan, events: EventLog, now_ms: NowMs, ages: Ages
    ) -> None:
        self._index = index
        self._base = base
        self._can = can
        self._events = events
        self._now_ms = now_ms
        self._ages = ages
        self._found: Mapping[str, Found] = {}
        self._began_s = 0.0
        self._told: object = (frozenset(), frozenset())

    async def find(self, look: Look) -> Findings:
        self._began_s = trio.current_time()
        findings = Findings(kind=self.name)
        self._found = await self._base.look(look)
        seen = await self._index.read(passes.observations, self.name)
        decisions = await trio.to_thread.run_sync(self._decide_all, seen, look.at_ms)
        for name, decision in decisions.items():
            findings.take(name, self._found[name].generation, decision)
        findings.inventory = len(decisions) - findings.kept[UNRECOGNISED]
        return findings

    def _decide_all(self, seen: Mapping[str, Observation], now_ms: int) -> Mapping[str, Decision]:
        return {name: self._decide(one, seen, now_ms) for name, one in self._found.items()}

    def _decide(self, found: Found, seen: Mapping[str, Observation], now_ms: int) -> Decision:
        """Decide about one entry; only of what is left behind it matters when its inside has changed."""
        if found.is_for_git:
            return Keep("the kind worktrees looks after it")
        claim = attrs.evolve(found.claim, seen=seen.get(subject_key(found.entry.name, found.generation)))
        newest: Fact[int] = ABSENT
        if is_left_behind(claim):
            newest = newest_change(found.entry, now_ms - self._ages.sweep_ms)
        return decide_entry(claim, newest, now_ms=now_ms, ages=self._ages)

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        found = await look_again(self._base, candidate)
        seen = await self._index.read(passes.observations, self.name)
        check_again(candidate, await trio.to_thread.run_sync(self._decide, found, seen, self._now_ms()))
        if candidate.action is Action.UNLINK:
            return await self._unlink(found, candidate)
        return await discard(self._index, self._can, found, candidate, self._now_ms())

    async def _unlink(self, found: Found, candidate: Candidate) -> Mapping[str, object]:
        try:
            was_there = await trio.to_thread.run_sync(_unlink, Path(found.entry.path), found.entry.identity)
        except PathRefused as error:
            raise PtydError(Code.PATH_REFUSED, str(error)) from error
        await self._index.write(paths.forget, found.entry.path, found.entry.identity.inode)
        if not was_there:
            raise Skipped("it is gone")
        return await enter(self._index, found, candidate, self._now_ms(), {"unlinked": found.entry.path})

    async def tell(self, findings: Findings, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Tell how many of all entries went, failed, stayed, and are nobody's that we know."""
        swept = sum(act["outcome"] == "done" for act in outcomes)
        failed = frozenset(act["subject"] for act in outcomes if act["outcome"] == "failed")
        strange = frozenset(name for name, one in self._found.items() if one.claim.made is ABSENT)
        news = failed, strange
        if news == self._told and not swept:
            return
        self._told = news
        self._events.emit(
            "triples.swept",
            swept=swept,
            retained=len(self._found) - swept - len(failed) - len(strange),
            failed=len(failed),
            unrecognised=len(strange),
            duration_ms=round((trio.current_time() - self._began_s) * 1000),
        )


def _unlink(path: Path, expected: Identity) -> bool:
    fd = os.open(path.parent, DIRECTORY)
    try:
        return removal.unlink(fd, path.name, expected)
    finally:
        os.close(fd)
