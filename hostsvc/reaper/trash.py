"""Kind: trash whose time is up. Never while a process is inside, or a session of its workspace is left."""

from __future__ import annotations

from collections.abc import Mapping

from hostsvc.index import Index
from hostsvc.model import Act, Action, Basis, Candidate, Keep
from hostsvc.reaper.kinds import Findings, Look, Skipped
from hostsvc.store import trash
from hostsvc.trashcan import TrashCan
from ptyd.protocol.errors import Code, PtydError


class Trash:
    """Finds and purges it."""

    name = "trash"

    def __init__(self, index: Index, can: TrashCan) -> None:
        self._index = index
        self._can = can

    async def find(self, look: Look) -> Findings:
        findings = Findings(kind=self.name)
        due = {entry["id"] for entry in await self._index.read(trash.find_due, look.at_ms)}
        for entry in await self._index.read(trash.find_all):
            findings.inventory += 1
            is_due = entry["id"] in due
            decision = (
                Act(Action.PURGE, Basis.INTENT, "its time is up") if is_due else Keep("its time is not up")
            )
            findings.take(entry["id"], entry["generation"], decision)
        return findings

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        entry = next(
            (e for e in await self._index.read(trash.find_due, look.at_ms) if e["id"] == candidate.subject),
            None,
        )
        if entry is None:
            raise Skipped("it is not due any more")
        if (error := await self._can.purge(entry)) is not None:
            raise PtydError(Code.BUSY, error)
        return {"purged": entry["trash_path"]}
