"""Methods on the trash."""

from __future__ import annotations

from hostsvc import views
from hostsvc.api.handlers import Answer, Handlers
from hostsvc.messages import trash as asked
from hostsvc.service import Service
from hostsvc.store import trash
from ptyd.protocol.errors import Code, PtydError


class Trash:
    """Handlers, by the type of what they answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._index = service.index
        self.handlers: Handlers = {asked.TrashList: self._list_trash, asked.TrashPurge: self._purge_trash}

    async def _list_trash(self, request: asked.TrashList) -> Answer:
        return {"entries": [views.trash_view(one) for one in await self._index.read(trash.find_all)]}

    async def _purge_trash(self, request: asked.TrashPurge) -> Answer:
        entry = await self._index.read(trash.find_in_trash, request.id)
        if entry is None:
            raise PtydError(Code.NOT_FOUND, f"{request.id} is not in the trash; see: hostsvc trash ls")
        if (error := await self._service.places.can.purge(entry)) is not None:
            raise PtydError(Code.PATH_REFUSED, f"{request.id} is not purged: {error}")
        self._service.events.emit("trash.purged", entry["workspace_id"] or None, entry=entry["id"])
        return views.trash_view(entry)
