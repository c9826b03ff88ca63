"""Methods on the reaper, on health, and hello."""

from __future__ import annotations

import os

from hostsvc import kinds
from hostsvc.api.handlers import Answer, Handlers
from hostsvc.checkup import check_up
from hostsvc.messages import Hello
from hostsvc.messages import upkeep as asked
from hostsvc.service import Service
from hostsvc.store import passes
from ptyd import __version__
from ptyd.protocol import limits


class Upkeep:
    """Handlers, by the type of what they answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._index = service.index
        self.handlers: Handlers = {
            Hello: self._hello,
            asked.Reap: self._reap,
            asked.Passes: self._list_passes,
            asked.Health: self._check_up,
            asked.HealthReset: self._reset,
        }

    async def _hello(self, _: Hello) -> Answer:
        return {
            "server": "hostsvc",
            "version": __version__,
            "protocol": limits.PROTOCOL,
            "daemon_id": self._service.run_id,
            "index_id": self._service.owner,
            "pid": os.getpid(),
            "features": [],
            "limits": kinds.LIMITS,
        }

    async def _reap(self, request: asked.Reap) -> Answer:
        return await self._service.reaper.run_pass(
            "manual", kinds=request.kinds, is_dry=request.dry_run, accepted=request.accept
        )

    async def _list_passes(self, request: asked.Passes) -> Answer:
        return {"passes": await self._index.read(passes.find_last, request.limit)}

    async def _check_up(self, _: asked.Health) -> Answer:
        return await check_up(self._service)

    async def _reset(self, _: asked.HealthReset) -> Answer:
        await self._service.monitor.reset()
        return await check_up(self._service)
