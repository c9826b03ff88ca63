"""Kind: orphan worktrees. A linked git worktree of ours that belongs to no workspace any more.

To the trash it goes only clean, pushed, old enough and with nobody inside, exactly this one taken out of its
repository; a broken one only after long, to a place where a person looks at it. What is at risk is left as it
is, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from hostsvc.clock import NowMs
from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.places import LinkBroken, find_place
from hostsvc.git.risk import check_risk
from hostsvc.index import Index
from hostsvc.model import ABSENT, Act, Action, Basis, Candidate, Decision, Fact, Known, Observation, Unknown
from hostsvc.owned import PathRole
from hostsvc.reaper.base import Base, Found
from hostsvc.reaper.discard import check_again, discard, finish, is_half_done, look_again
from hostsvc.reaper.kinds import Findings, Look, Skipped, subject_key
from hostsvc.store import ownership, passes, trash
from hostsvc.sweep import Ages, decide_worktree, keep_worktree
from hostsvc.trashcan import TrashCan
from ptyd.log import get_logger
from ptyd.protocol.eventlog import EventLog

log = get_logger()

AT_ONCE: Final = 2
"""Calls of git, which nobody waits for: starting a program holds up the service for a ms. With four at a time
and 100 worktrees `session.list` took 9 ms longer, with two 4 ms (2026-11-21, two cores)."""
QUARANTINED_MS: Final = 100 * 365 * 86_400_000
"""What nobody can look into is purged by a person, never by its age."""
_TRASH: Final = "trash/"  # before the id of an entry among the subjects; names have no slash


class Worktrees:
    """Finds and trashes them."""

    name = "worktrees"

    def __init__(
        self, index: Index, base: Base, can: TrashCan, git: Git, events: EventLog, now_ms: NowMs, ages: Ages
    ) -> None:
        self._index = index
        self._base = base
        self._can = can
        self._git = git
        self._events = events
        self._now_ms = now_ms
        self._ages = ages
        self._found: Mapping[str, Found] = {}
        self._broken: list[str] = []
        self._mended: list[str] = []

    async def find(self, look: Look) -> Findings:
        findings = Findings(kind=self.name)
        everything = await self._base.look(look)
        seen = await self._index.read(passes.observations, self.name)
        findings.inventory = sum(_is_folder_of_ours(one) for one in everything.values())
        self._found = {name: one for name, one in everything.items() if one.is_for_git}
        self._broken, self._mended = [], []
        since = await self._broken_since(self._found.values())
        decisions: dict[str, Decision] = {}

        async def decide(one: Found) -> None:
            decisions[one.entry.name] = await self._decide(one, seen, since, look.at_ms)

        async with trio.open_nursery() as nursery:
            for one in self._found.values():
                nursery.start_soon(decide, one)
        for name, one in self._found.items():
            findings.take(name, one.generation, decisions[name])
        await self._find_half_done(findings)
        return findings

    async def _find_half_done(self, findings: Findings) -> None:
        """Find what a crash left in the trash and in its repository at once: that still holds its branch."""
        decision = Act(Action.TRASH, Basis.INTENT, "a crash came before it was out of its repository")
        entries = await self._index.read(trash.find_all)
        for entry in await trio.to_thread.run_sync(lambda: list(filter(is_half_done, entries))):
            findings.take(_TRASH + entry["id"], entry["generation"], decision)

    async def _broken_since(self, found: Iterable[Found]) -> Mapping[str, int]:
        return await self._index.read(ownership.broken_since, [_broken_subject(one) for one in found])

    async def _decide(
        self, found: Found, seen: Mapping[str, Observation], since: Mapping[str, int], now_ms: int
    ) -> Decision:
        """Decide on what was seen already; only what that does not keep is worth a look by git."""
        claim = attrs.evolve(found.claim, seen=seen.get(subject_key(found.entry.name, found.generation)))
        if keep := keep_worktree(claim, found.form, now_ms=now_ms, ages=self._ages):
            return keep
        broken_since_ms = await self._look_at_link(found, since.get(_broken_subject(found)), now_ms)
        return decide_worktree(
            claim,
            found.form,
            broken_since_ms=broken_since_ms,
            at_risk=await self._look_for_risk(found) if broken_since_ms is ABSENT else ABSENT,
            now_ms=now_ms,
            ages=self._ages,
        )

    async def _look_at_link(self, found: Found, since: int | None, now_ms: int) -> Fact[int]:
        """Tell since when it is known that the link leads nowhere; Absent when it is sound."""
        try:
            await trio.to_thread.run_sync(find_place, Path(found.entry.path))
        except LinkBroken:
            if since is None:
                self._broken.append(found.entry.name)
            return Known(now_ms if since is None else since)
        except GitUnknown as error:
            return Unknown(str(error))
        if since is not None:
            self._mended.append(found.entry.name)
        return ABSENT

    async def _look_for_risk(self, found: Found) -> Fact[Sequence[str]]:
        risk = await check_risk(self._git, Path(found.entry.path))
        words = list(dict.fromkeys(reason.code for reason in risk.reasons))
        if "unknown" in words:
            return Unknown("what would be lost cannot be told")
        return Known(words) if words else ABSENT

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        if candidate.subject.startswith(_TRASH):
            return await finish(self._index, self._can, candidate.subject.removeprefix(_TRASH))
        found = await look_again(self._base, candidate)
        seen = await self._index.read(passes.observations, self.name)
        since = await self._broken_since([found])
        check_again(candidate, await self._decide(found, seen, since, self._now_ms()))
        if await self._base.look_at(candidate.subject) != found:  # git took its time
            raise Skipped("it has changed while it was looked into")
        keep_ms = QUARANTINED_MS if candidate.action is Action.QUARANTINE else None
        return await discard(self._index, self._can, found, candidate, self._now_ms(), keep_ms)

    async def tell(self, findings: Findings, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Report what was found broken, once until it is mended; the grace counts from there."""
        for name in self._mended:
            found = self._found[name]
            path = found.entry.path
            await self._index.write(ownership.report_mended, _broken_subject(found), path, self._now_ms())
        for name in self._broken:
            found = self._found[name]
            path = found.entry.path
            await self._index.write(ownership.report_broken, _broken_subject(found), path, self._now_ms())
            log.warning("a worktree's link is broken", path=path)
            self._events.emit("worktree.broken", name, path=path)


def _is_folder_of_ours(found: Found) -> bool:
    made = found.claim.made
    return isinstance(made, Known) and made.value.role is PathRole.FOLDER


def _broken_subject(found: Found) -> str:
    return f"{found.entry.path}#{found.entry.identity.inode}"
