"""ptyd's events, followed: an end is entered in the index when it happens, not at the next pass.

Owns the subscription; notes too who was attached to. A convenience and no more: whatever is missed here (a
gap, a new daemon, a ptyd that is gone) the reaper finds in its next pass, from a complete list.
"""

from __future__ import annotations

from typing import Final

import trio

from hostsvc.crowd import Crowd
from hostsvc.disposal import Disposal
from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.model import Known
from hostsvc.store import sessions
from ptyd.client import Event
from ptyd.log import get_logger
from ptyd.protocol.errors import PtydError

log = get_logger()

RETRY_S: Final = 1.0


class Follower:
    """Follows ptyd. Run `run` in a nursery."""

    def __init__(self, index: Index, live: Live, disposal: Disposal, crowd: Crowd) -> None:
        self._index = index
        self._live = live
        self._disposal = disposal
        self._crowd = crowd

    async def run(self) -> None:
        """Follow for ever, over whatever becomes of ptyd."""
        while True:
            try:
                async with self._live.client().subscribe() as events:
                    async for event in events:
                        if isinstance(event, Event) and event.id:
                            await self._heed(event.type, event.id)
            except PtydError as error:
                log.debug("ptyd is not followed", error=str(error))
            except Exception:
                log.exception("following ptyd failed")  # no more than a convenience: it ends nothing
            await trio.sleep(RETRY_S)

    async def _heed(self, type_: str, id_: str) -> None:
        match type_:
            case "session.attached" | "session.detached":
                self._crowd.note_use(id_)
            case "session.ended":
                self._crowd.forget_use(id_)
                await self._ended(id_)

    async def _ended(self, id_: str) -> None:
        row = await self._index.read(sessions.find, id_)
        if row is None or row.is_ended:
            return
        live = await self._live.get(id_)
        if isinstance(live, Known) and live.value.key == row.key and not live.value.is_alive:
            await self._disposal.settle_end(row, live.value.evidence, live.value.exit)
