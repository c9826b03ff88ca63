"""Sessions as such: spawn, list, get, update, forget."""

from __future__ import annotations

import trio

from ptyd.daemon.connection import Client
from ptyd.daemon.handlers.context import Context
from ptyd.daemon.handlers.table import Table
from ptyd.daemon.row import pack_row, session_row
from ptyd.daemon.session import Session
from ptyd.datagrams import Body
from ptyd.protocol import messages
from ptyd.protocol.codec import Packed, open_list, open_map
from ptyd.protocol.errors import Code, PtydError

LOOK_DEADLINE_S = 0.25  # a shim that cannot say in time what it runs counts as busy


class Sessions:
    """What can be asked about sessions without touching their terminals."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def _spawn(self, client: Client, msgid: int | None, request: messages.SessionSpawn) -> object:
        self._context.check_instance(request.expect_instance)
        return session_row(await self._context.births.spawn(request))

    def _list(self, client: Client, msgid: int | None, request: messages.SessionList) -> object:
        found = self._context.registry.select(request.labels or {})
        chosen = [session for session in found if request.state is None or session.state == request.state]
        if request.detail:
            return self._list_detailed(chosen)
        return self._listing([pack_row(session) for session in chosen])

    async def _list_detailed(self, sessions: list[Session]) -> object:
        rows: dict[str, bytes] = {}

        async def look(session: Session) -> None:
            rows[session.id] = pack_row(session, await self._look(session))

        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(look, session)
        return self._listing([rows[session.id] for session in sessions])

    def _listing(self, rows: list[bytes]) -> Packed:
        told = {
            "instance_id": self._context.identity.instance_id,
            "complete": self._context.registry.is_complete,
        }
        return Packed(open_map(told, more=1), open_list("sessions", len(rows)), *rows)

    async def _look(self, session: Session) -> Body:
        """Ask what a session runs; an empty answer when nobody can tell."""
        if not session.is_linked or not session.is_living:
            return {"processes": 0} if not session.is_living else {}
        try:
            return await session.ask({"do": "look"}, LOOK_DEADLINE_S)
        except PtydError:
            return {}

    async def _get(self, client: Client, msgid: int | None, request: messages.SessionGet) -> object:
        session = self._context.registry.get(request.id)
        return session_row(session, await self._look(session))

    async def _update(self, client: Client, msgid: int | None, request: messages.SessionUpdate) -> object:
        session = self._context.registry.get_living(request.id)
        if request.name and any(
            o.name == request.name and o is not session for o in self._context.registry.living()
        ):
            raise PtydError(Code.NAME_TAKEN, f"a living session is named {request.name}; see: ptyd ls")
        name = session.name if request.name is None else (request.name or None)
        labels = session.labels if request.labels is None else dict(request.labels)
        # Ours from now on: whoever asks before the shim has answered must neither take nor undo it.
        before = session.record
        session.record = changed = {**before, "name": name, "labels": labels}
        try:
            await session.ask({"do": "update", "name": name, "labels": labels})
        except PtydError:
            if session.record is changed:
                session.record = before
            raise
        self._context.events.emit("session.updated", session.id, name=name, labels=labels)
        return session_row(session)

    def _forget(self, client: Client, msgid: int | None, request: messages.SessionForget) -> object:
        session = self._context.registry.get(request.id)
        if session.is_living:
            raise PtydError(
                Code.STILL_RUNNING,
                f"session {session.id} is living; end it first: ptyd kill {session.id}",
            )
        self._context.registry.forget(session)
        return {}

    def table(self) -> Table:
        return {
            messages.SessionSpawn: self._spawn,
            messages.SessionList: self._list,
            messages.SessionGet: self._get,
            messages.SessionUpdate: self._update,
            messages.SessionForget: self._forget,
        }
