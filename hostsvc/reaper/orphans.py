"""Kind: orphaned sessions. ptyd has them alive, and the index wants them gone or does not know them."""

from __future__ import annotations

from collections.abc import Mapping

from hostsvc.births import Births
from hostsvc.disposal import Disposal
from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.model import (
    ABSENT,
    Act,
    Basis,
    Candidate,
    Fact,
    Keep,
    Known,
    LiveSession,
    LiveView,
    SessionRow,
)
from hostsvc.policy import Limits, decide_live
from hostsvc.reaper.kinds import Findings, Look, Skipped, seen_view, subject_key
from hostsvc.store import passes, sessions


class Orphans:
    """Finds and ends them."""

    name = "sessions"

    def __init__(
        self, index: Index, live: Live, disposal: Disposal, births: Births, limits: Limits, owner: str
    ) -> None:
        self._index = index
        self._live = live
        self._disposal = disposal
        self._births = births
        self._limits = limits
        self._owner = owner

    async def find(self, look: Look) -> Findings:
        view = seen_view(look)
        findings = Findings(kind=self.name)
        ours = [live for live in view.sessions.values() if live.owner == self._owner and live.is_alive]
        findings.inventory = len(ours)
        findings.kept["foreign"] = sum(
            live.owner != self._owner and live.is_alive for live in view.sessions.values()
        )
        rows = await self._index.read(sessions.find_keys, [live.key for live in ours])
        seen = await self._index.read(passes.observations, self.name)
        for live in ours:
            row = rows.get(live.key)
            decision = decide_live(
                live,
                ABSENT if row is None else Known(row),
                owner=self._owner,
                is_being_born=self._births.is_being_born(live.key),
                seen=seen.get(subject_key(*live.key)),
                now_ms=look.at_ms,
                limits=self._limits,
            )
            findings.take(*live.key, decision)
        return findings

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        view = seen_view(look)
        row = await self._index.read(sessions.find, candidate.subject, candidate.generation)
        match candidate.basis:
            case Basis.INTENT:
                return _evidence(await self._disposal.carry_out(candidate.key))
            case Basis.ROW:
                return await self._end_unwanted(candidate, row, view)
            case Basis.ABSENCE:
                await self._check_again(candidate, row, look)
                return await self._disposal.kill_orphan(candidate.key, instance_id=view.instance_id)

    async def _end_unwanted(
        self, candidate: Candidate, row: SessionRow | None, view: LiveView
    ) -> Mapping[str, object]:
        if row is None:
            raise Skipped("its row is gone")
        if row.is_ended:
            return await self._disposal.kill_orphan(candidate.key, instance_id=view.instance_id)
        if row.workspace_id is not None:
            raise Skipped("it has a workspace again")
        return _evidence(await self._disposal.dispose(candidate.key, reason=candidate.reason))

    async def _check_again(self, candidate: Candidate, row: SessionRow | None, look: Look) -> None:
        """What rests on absence is looked at once more, from both sides, just before the act."""
        now: Fact[LiveSession] = await self._live.get(candidate.subject)
        if not isinstance(now, Known) or now.value.key != candidate.key:
            raise Skipped("ptyd does not list it any more")
        decision = decide_live(
            now.value,
            ABSENT if row is None else Known(row),
            owner=self._owner,
            is_being_born=self._births.is_being_born(candidate.key),
            seen=(await self._index.read(passes.observations, self.name)).get(subject_key(*candidate.key)),
            now_ms=look.at_ms,
            limits=self._limits,
        )
        if not isinstance(decision, Act):
            raise Skipped(decision.reason if isinstance(decision, Keep) else "it is not believed yet")


def _evidence(row: SessionRow) -> Mapping[str, object]:
    return {"status": row.status.value, **(row.kill_evidence or {})}
