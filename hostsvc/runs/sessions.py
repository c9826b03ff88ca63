"""Plug-in: sessions. ptyd has them alive, with this index's owner label and the label of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hostsvc.births import Births
from hostsvc.disposal import Disposal
from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.model import OWNER_LABEL, RUN_LABEL, Fact, Known, LiveSession, LiveView, SessionRow, Unknown
from hostsvc.runs.policy import Resource
from hostsvc.store import sessions
from ptyd.protocol.errors import Code, PtydError

ENDED_WITH_RUN: Final = "its run was given up"


class Sessions:
    """Finds and ends them."""

    name = "sessions"

    def __init__(self, index: Index, live: Live, disposal: Disposal, births: Births, owner: str) -> None:
        self._index = index
        self._live = live
        self._disposal = disposal
        self._births = births
        self._owner = owner

    async def check(self) -> bool:
        self._live.instance()
        return True

    async def find(self, run: str | None) -> Sequence[Resource]:
        labels = {OWNER_LABEL: self._owner} if run is None else {OWNER_LABEL: self._owner, RUN_LABEL: run}
        view = _whole(await self._live.view(labels=labels))
        found = [live for live in view.sessions.values() if live.is_alive and live.run is not None]
        rows = await self._index.read(sessions.find_keys, [live.key for live in found])
        return [self._resource(live, rows.get(live.key)) for live in found]

    async def look(self, resource: Resource) -> Resource | None:
        found = await self._live.get(resource.id)
        if not isinstance(found, Known):  # one answer that it is not there is no complete list
            left = [one for one in await self.find(resource.run) if one.subject == resource.subject]
            return left[0] if left else None
        live = found.value
        if not live.is_alive or live.generation != resource.generation or live.run is None:
            return None
        return self._resource(live, await self._index.read(sessions.find, *live.key))

    async def end(self, resource: Resource) -> Mapping[str, object]:
        key = resource.id, resource.generation
        row = await self._index.read(sessions.find, *key)
        if row is None or row.is_ended:
            return await self._disposal.kill_orphan(key, instance_id=self._live.instance())
        after = await self._disposal.dispose(key, reason=ENDED_WITH_RUN)
        return {"status": after.status.value, **(after.kill_evidence or {})}

    def _resource(self, live: LiveSession, row: SessionRow | None) -> Resource:
        assert live.run is not None
        return Resource(
            plugin=self.name,
            id=live.id,
            generation=live.generation,
            run=live.run,
            created_at_ms=live.created_at_ms,
            is_ours=live.owner == self._owner,
            is_being_born=self._births.is_being_born(live.key) or live.state == "starting",
            next_attempt_at_ms=None if row is None else row.next_attempt_at_ms,
        )


def _whole(view: Fact[LiveView]) -> LiveView:
    match view:
        case Known(found):
            return found
        case Unknown(why):
            raise PtydError(Code.NO_PTYD, why)
    raise PtydError(Code.NO_PTYD, "ptyd has no list")
