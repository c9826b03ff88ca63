"""Kind: idle sessions. Beyond their time, or the longest idle ones beyond a cap; never a busy one."""

from __future__ import annotations

from collections.abc import Mapping

from hostsvc.births import Births
from hostsvc.crowd import Crowd, InUse
from hostsvc.idle import plan_evictions
from hostsvc.model import Act, Action, Basis, Candidate, Keep
from hostsvc.reaper.kinds import Findings, Look, Skipped


class Idle:
    """Finds and ends them."""

    name = "idle"

    def __init__(self, crowd: Crowd, births: Births) -> None:
        self._crowd = crowd
        self._births = births

    async def find(self, look: Look) -> Findings:
        findings = Findings(kind=self.name)
        if not self._crowd.room.is_limited:
            return findings
        alive = await self._crowd.look()  # its own look: whether a session is busy costs ptyd one at /proc
        findings.inventory = len(alive)
        evicted = plan_evictions(alive, self._crowd.room)
        for one in alive:
            if one.key in evicted:
                findings.take(*one.key, Act(Action.KILL, Basis.ROW, evicted[one.key]))
            else:
                findings.take(*one.key, Keep("it may stay" if one.may_go else "it is in use, or may be"))
        return findings

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        if self._births.is_being_born(candidate.key):
            raise Skipped("it is being born")
        try:
            return await self._crowd.evict(candidate.key, candidate.reason)
        except InUse as found:
            raise Skipped(str(found)) from found
