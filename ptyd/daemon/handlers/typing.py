"""What a client does to a session's terminal: input, size, signals, in the order it was sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from ptyd.daemon.connection import LATER, Client
from ptyd.daemon.handlers.context import Context
from ptyd.daemon.handlers.table import Table
from ptyd.daemon.input import send_input, send_input_waiting
from ptyd.daemon.lane import Lane
from ptyd.daemon.session import Session
from ptyd.daemon.sizing import fit, post_resize
from ptyd.datagrams import Body
from ptyd.protocol import messages
from ptyd.protocol.errors import Code, PtydError


class Typing:
    """Input, resize and signal."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def _writable(self, client: Client, id_or_name: str) -> Session:
        session = self._context.registry.get(id_or_name)
        views = [view for view in client.attachments.values() if view.session is session]
        writers = [view for view in views if view.may_write]
        if views and not writers:
            raise PtydError(Code.READ_ONLY, f"this connection is attached to {session.id} for reading only")
        if not session.is_living or not session.is_linked:
            raise session.gone()
        for view in writers:
            fit(session, view)
        return session

    def _input(self, client: Client, msgid: int | None, request: messages.SessionInput) -> object:
        try:
            session = self._writable(client, request.id)
        except PtydError as err:
            if msgid is None:
                _tell_refused(client, request, err)
                return LATER
            raise

        def answer(error: PtydError | None) -> None:
            if error is not None and msgid is None:
                _tell_refused(client, request, error)
            elif error is not None:
                client.fail(msgid, error)
            else:
                client.reply(msgid, {"accepted": len(request.data)})

        if session.id in client.lanes or request.wait_ms:
            lane = client.lanes.setdefault(session.id, Lane())
            return self._input_waiting(client, session, request, lane, lane.enter())
        send_input(session, request.data, answer, is_answered=msgid is not None)
        return LATER

    async def _input_waiting(
        self,
        client: Client,
        session: Session,
        request: messages.SessionInput,
        lane: Lane,
        turn: trio.Event,
    ) -> object:
        await turn.wait()
        try:
            await send_input_waiting(session, request.data, request.wait_ms)
        finally:
            if lane.release():
                client.lanes.pop(session.id, None)
        return {"accepted": len(request.data)}

    def _in_order(self, client: Client, session: Session, post: Callable[[], Any]) -> Any:
        """Post a question to the shim in its place among this client's inputs; returns its answer's wait."""
        lane = client.lanes.get(session.id)
        if lane is None:
            return post().answer()
        placed = trio.Event()
        got: list[Any] = []

        def work() -> None:
            try:
                got.append(post())
            except PtydError as err:
                got.append(err)
            placed.set()

        async def wait() -> Body:
            await placed.wait()
            if isinstance(got[0], PtydError):
                raise got[0]
            answer: Body = await got[0].answer()
            return answer

        lane.run(work)
        return wait()

    def _resize(self, client: Client, msgid: int | None, request: messages.SessionResize) -> object:
        session = self._context.registry.get_living(request.id)
        for view in client.attachments.values():
            if view.session is session and view.may_write:
                view.size = (request.rows, request.cols)
        return _empty(
            self._in_order(client, session, lambda: post_resize(session, request.rows, request.cols))
        )

    def _signal(self, client: Client, msgid: int | None, request: messages.SessionSignal) -> object:
        session = self._context.registry.get_living(request.id)
        body = {"do": "signal", "signal": request.signal, "to": request.to}
        return _signalled(self._in_order(client, session, lambda: session.post(body)))

    def table(self) -> Table:
        return {
            messages.SessionInput: self._input,
            messages.SessionResize: self._resize,
            messages.SessionSignal: self._signal,
        }


def _tell_refused(client: Client, request: messages.SessionInput, error: PtydError) -> None:
    refused = {
        "id": request.id,
        "bytes": len(request.data),
        "code": error.code.value,
        "message": error.message,
    }
    client.send(client.protocol.notify("session.input_refused", refused))


async def _empty(answer: Any) -> dict[str, Any]:
    await answer
    return {}


async def _signalled(answer: Any) -> dict[str, Any]:
    return {"signalled": (await answer)["signalled"]}
