"""One session's output as an async iterator that survives the daemon.

Reads the ring in place where that can be had (`ptyd.direct`): then the daemon has no part in it. Otherwise it
owns a connection of its own, and reads from it only when asked for the next event. So there is no
buffer to bound and nobody to hold up: a slow consumer fills its own socket, and from then on the
daemon's policy for that one attachment decides (`skip`: an exact gap once the scrollback has
overtaken it; `pace`: its session slows down for as long as it makes progress). Answers and other
attachments have other sockets.

The place in the output is an offset, kept here. After a lost connection the next attachment begins
at exactly that offset; what comes twice is dropped, what is gone is one Gap with exact bounds.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Final, Self

import trio

from ptyd.calls import Params
from ptyd.client.values import (
    Ended,
    Exited,
    Found,
    Gap,
    Line,
    Output,
    Session,
    parse_exit,
    parse_session,
)
from ptyd.client.wire import FIRST_PAUSE_S, Dialer, Message, Wire, WireLost
from ptyd.cursor import Missing, OutputCursor
from ptyd.direct import NOT_DIRECT, Direct
from ptyd.protocol.connection import NotificationReceived
from ptyd.protocol.errors import Code, PtydError

AttachmentEvent = Output | Gap | Exited | Ended

MAX_LINE_BYTES: Final = 64 * 1024
"""A longer line is handed out in pieces: output without a line's end must not grow in memory."""


class Attachment:
    """Made by `Client.attach`. Iterate over it; one task at a time.

    Yields Output, Gap, Exited and, last, Ended; then the iteration is over.

    Raises (from the iteration):
        PtydError: not_found, the session's record is gone; ended, its id now belongs to another
            generation; unreachable, no daemon within the client's `reconnect_deadline_s` (iterate
            again to try again: the place in the output is kept).

    Cancellation: nothing is lost; iterate again to go on at the same byte.
    """

    def __init__(self, dialer: Dialer, params: Params, reconnect_deadline_s: float) -> None:
        self._dialer = dialer
        self._params = params
        self._deadline_s = reconnect_deadline_s
        self._cursor = OutputCursor(params["since"])
        self._wire: Wire | None = None
        self._direct: Direct | None = None  # in place of a wire, once attached so
        self._number = -1
        self._events: deque[AttachmentEvent] = deque()
        self._exit_seen = False
        self._over = False
        self.truncated = 0
        self.was_detached = False
        """Somebody else ended this attachment; the session lives on."""
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The session as it was at the latest attach."""
        if self._session is None:
            raise RuntimeError("not attached yet: use `async with client.attach(...)`")
        return self._session

    @property
    def offset(self) -> int:
        """The offset of the first byte not handed out yet."""
        for event in self._events:
            match event:
                case Output(offset=offset) | Gap(from_=offset):
                    return offset
        return self._cursor.offset or 0

    async def __aenter__(self) -> Self:
        await self._attach(await self._dialer.dial())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        self._hang_up()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AttachmentEvent:
        while not self._events:
            if self._over:
                raise StopAsyncIteration
            await self._pump()
        return self._events.popleft()

    async def wait_for(self, pattern: bytes | re.Pattern[bytes], *, window_bytes: int = 64 * 1024) -> Found:
        """Read on until `pattern` (literal bytes, or a compiled regex) appears; return it and all
        before it.

        The next event begins right behind the match. A match can neither reach over a gap nor
        further back than `window_bytes`. Use trio.fail_after for a deadline.

        Raises:
            PtydError: ended, the session ended without a match; and as the iteration.

        Cancellation: what was read without a match stays read.
        """
        wanted = re.compile(re.escape(pattern), re.DOTALL) if isinstance(pattern, bytes) else pattern
        held, end = b"", self.offset
        async for event in self:
            match event:
                case Output(offset=offset, data=data):
                    held, end = held[-window_bytes:] + data, offset + len(data)
                case Gap(to=to):
                    held, end = b"", to
                case _:
                    continue
            if found := wanted.search(held):
                rest = held[found.end() :]
                if rest:
                    self._events.appendleft(Output(end - len(rest), rest))
                return Found(held[: found.end()], end - len(rest))
        raise PtydError(Code.ENDED, f"the session ended without showing {wanted.pattern!r}")

    async def lines(self) -> AsyncIterator[Line | Gap]:  # noqa: ASYNC900 - holds nothing open over a yield
        """Yield the output line by line, and gaps; the rest without a line's end comes at the end.

        A line longer than 64 KiB comes in pieces.
        """
        held, start = b"", self.offset
        async for event in self:
            match event:
                case Output(offset=offset, data=data):
                    start = start if held else offset
                    *lines, held = (held + data).split(b"\n")
                    for line in lines:
                        yield Line(start, line.removesuffix(b"\r"))
                        start += len(line) + 1
                    while len(held) > MAX_LINE_BYTES:
                        yield Line(start, held[:MAX_LINE_BYTES])
                        held, start = held[MAX_LINE_BYTES:], start + MAX_LINE_BYTES
                case Gap():
                    if held:
                        yield Line(start, held)
                        held = b""
                    yield event
        if held:
            yield Line(start, held)

    # --- the connection ---------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Take in one read's worth of events, attaching again first where that is needed."""
        if self._direct is not None:
            await self._pump_direct(self._direct)
        elif self._wire is None:
            await self._reattach()
        else:
            try:
                self._take(await self._wire.receive())
            except WireLost:
                self._hang_up()

    async def _pump_direct(self, direct: Direct) -> None:
        if direct.is_more:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(direct)
        direct.flush()
        heard = direct.receive()
        if heard is None:
            self._hang_up()  # the shim is gone, and has not said that the session ended
        else:
            self._take(heard)

    async def _reattach(self) -> None:
        """Attach again; a new daemon may not have heard from every shim yet."""
        give_up_at = trio.current_time() + self._deadline_s
        while True:
            wire = await self._dialer.redial(max(0, give_up_at - trio.current_time()))
            try:
                return await self._attach(wire)
            except PtydError as error:
                if error.code is not Code.BUSY or trio.current_time() > give_up_at:
                    raise
            await trio.sleep(FIRST_PAUSE_S)

    async def _attach(self, wire: Wire) -> None:
        self._wire = wire
        asked = {**self._params, "since": self._cursor.since}
        try:
            if (
                asked["via"] == "shm"
                and "shm" in wire.hello.get("features", ())
                and await self._attach_directly(asked)
            ):
                return
            reply, rest = await wire.exchange("session.attach", {**asked, "via": "stream"})
            self._attached(reply)
            self._take(rest)
        except WireLost:
            self._hang_up()
        except BaseException:
            self._hang_up()
            raise

    async def _attach_directly(self, asked: Params) -> bool:
        """Attach without the daemon in between; False when that cannot be had, and streaming may."""
        assert self._wire is not None
        try:
            reply, fds = await self._wire.exchange_for_fds("session.attach", asked)
            direct = Direct(reply, fds, is_paced=asked["flow"] == "pace")
        except PtydError as error:
            if error.code not in NOT_DIRECT:
                raise
            return False
        self._hang_up()
        self._direct = direct
        self._attached(reply)
        return True

    def _attached(self, reply: Params) -> None:
        session = parse_session(reply["session"])
        known = self._session
        if known is not None and (known.id, known.generation) != (session.id, session.generation):
            self._over = True
            raise PtydError(Code.ENDED, f"generation {known.generation} of session {known.id} is gone")
        self._session = session
        self._params["id"] = session.id  # a name may pass on to another session
        self._number = reply["attachment"]
        if known is None:
            self.truncated = reply["truncated"]
        self._missing(self._cursor.attached(reply["offset"]))

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        direct, self._direct = self._direct, None
        if direct is not None:
            direct.close()

    # --- what comes in ----------------------------------------------------------------------------

    def _take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if isinstance(message, NotificationReceived):
                self._apply(message.method, message.params)

    def _apply(self, method: str, params: dict[str, Any]) -> None:
        if method == "error" and params.get("code") == Code.STOPPING:
            self._dialer.told_stopping()
        if params.get("attachment") != self._number:
            return
        match method:
            case "session.output":
                missing, new = self._cursor.output(params["offset"], params["data"])
                self._missing(missing)
                if new:
                    offset = params["offset"] + len(params["data"]) - len(new)
                    self._events.append(Output(offset, new))
            case "session.gap":
                self._missing(self._cursor.gap(params["to"]))
            case "session.exit" if not self._exit_seen:
                self._exit_seen = True
                self._events.append(Exited(parse_exit(params["exit"]), params["offset"]))
            case "session.end":
                self._over = True
                self._events.append(Ended(parse_exit(params["exit"]), params["proof"], params["offset"]))
            case "session.detached" if params["reason"] == "stopping":
                self._dialer.told_stopping()
            case "session.detached" if params["reason"] == "requested":
                self._over = self.was_detached = True

    def _missing(self, missing: Missing | None) -> None:
        if missing is not None:
            self._events.append(Gap(missing.start, missing.end))
