"""Methods on runs."""

from __future__ import annotations

from hostsvc import views
from hostsvc.api.handlers import Answer, Handlers
from hostsvc.messages import runs as asked
from hostsvc.run import Run
from hostsvc.service import Service
from hostsvc.store import runs


class Runs:
    """Handlers, by the type of what they answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._index = service.index
        self.handlers: Handlers = {
            asked.RunStart: self._start,
            asked.RunList: self._list,
            asked.RunGet: self._get,
            asked.RunEnd: self._end,
        }

    async def _start(self, request: asked.RunStart) -> Answer:
        return await self._view(
            await self._service.runs.start(request.id, request.holder_pid, request.deadline_s)
        )

    async def _list(self, request: asked.RunList) -> Answer:
        found = await self._index.read(runs.find_last, request.limit)
        open_ = await self._index.read(runs.count_sessions)
        return {"runs": [views.run_view(run, open_.get(run.id, 0)) for run in found]}

    async def _get(self, request: asked.RunGet) -> Answer:
        return await self._view(await self._service.runs.find(request.id))

    async def _end(self, request: asked.RunEnd) -> Answer:
        ending = await self._service.runs.end(request.id)
        return {
            "run": await self._view(ending.run),
            "state": "partial" if ending.is_partial else "complete",
            "ended": ending.ended,
            "failed": len(ending.warnings),
            "warnings": ending.warnings,
        }

    async def _view(self, run: Run) -> Answer:
        open_ = await self._index.read(runs.count_sessions)
        return views.run_view(run, open_.get(run.id, 0))
