"""Methods on deletions."""

from __future__ import annotations

from hostsvc import views
from hostsvc.api.handlers import Answer, Handlers
from hostsvc.messages import sagas as asked
from hostsvc.service import Service
from hostsvc.store import sagas
from ptyd.protocol.errors import Code, PtydError


class Sagas:
    """Handlers, by the type of what they answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._index = service.index
        self.handlers: Handlers = {
            asked.SagaList: self._list_sagas,
            asked.SagaGet: self._get_saga,
            asked.SagaResume: self._resume_saga,
        }

    async def _list_sagas(self, request: asked.SagaList) -> Answer:
        found = await self._index.read(sagas.find_last, request.limit)
        return {"sagas": [views.saga_view(saga) for saga in found]}

    async def _get_saga(self, request: asked.SagaGet) -> Answer:
        saga = await self._index.read(sagas.find, request.id)
        if saga is None:
            raise PtydError(Code.NOT_FOUND, f"no saga {request.id}; see: hostsvc saga ls")
        steps = await self._index.read(sagas.journal, saga.id)
        shown = ("step", "begun_at_ms", "done_at_ms", "detail")
        return {
            "saga": views.saga_view(saga),
            "steps": [{key: step[key] for key in shown} for step in steps],
        }

    async def _resume_saga(self, request: asked.SagaResume) -> Answer:
        saga = await self._index.read(sagas.find, request.id)
        if saga is None:
            raise PtydError(Code.NOT_FOUND, f"no saga {request.id}; see: hostsvc saga ls")
        if saga.finished_at_ms is not None:
            return views.saga_view(saga)
        deletion = self._service.deletion
        after = await (deletion.give_up_step(saga) if request.leave_out else deletion.run(saga))
        return views.saga_view(after)
