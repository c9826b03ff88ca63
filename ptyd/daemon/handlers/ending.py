"""Ending sessions: one, or all that carry the given labels."""

from __future__ import annotations

import re
from typing import Any

import trio

from ptyd.daemon.connection import Client
from ptyd.daemon.handlers.context import Context
from ptyd.daemon.handlers.table import Table
from ptyd.daemon.session import Session
from ptyd.protocol import limits, messages
from ptyd.protocol.errors import Code, PtydError

IS_ID = re.compile(limits.ID_PATTERN).fullmatch


class Ending:
    """Kill: the fence on disk first, then the shim."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def _kill(self, client: Client, msgid: int | None, request: messages.SessionKill) -> object:
        self._context.check_instance(request.expect_instance)
        if request.labels:
            return await self._kill_labelled(request)
        assert request.id is not None
        session = self._context.registry.find(request.id)
        if session is None:
            self._fence_unknown(request.id, request)
            raise PtydError(Code.NOT_FOUND, f"no session {request.id}; see: ptyd ls --all")
        return await self._context.killer.kill(session, request.grace_ms, request.force, request.generation)

    def _fence_unknown(self, id_or_name: str, request: messages.SessionKill) -> None:
        """Refuse a spawn that may still be on its way, unless only a session's name can look like this."""
        if IS_ID(id_or_name):
            self._context.killer.fence(id_or_name, request.generation or 1, request.grace_ms, request.force)

    async def _kill_labelled(self, request: messages.SessionKill) -> object:
        results: list[dict[str, Any]] = []

        async def kill(session: Session) -> None:
            try:
                result = await self._context.killer.kill(session, request.grace_ms, request.force)
                results.append({"id": session.id, **result})
            except PtydError as err:
                results.append({"id": session.id, "error": err.to_wire(True)})

        async with trio.open_nursery() as nursery:
            for session in self._context.registry.select(dict(request.labels or {})):
                if session.is_living:
                    nursery.start_soon(kill, session)
        return {"results": results}

    async def kill_all(self) -> list[PtydError]:
        """Kill every living session gently; return what went wrong."""
        failed: list[PtydError] = []

        async def kill(session: Session) -> None:
            try:
                await self._context.killer.kill(session, limits.DEFAULT_GRACE_MS, False)
            except PtydError as err:
                failed.append(err)

        async with trio.open_nursery() as nursery:
            for session in list(self._context.registry.living()):
                nursery.start_soon(kill, session)
        return failed

    def table(self) -> Table:
        return {
            messages.SessionKill: self._kill,
        }
