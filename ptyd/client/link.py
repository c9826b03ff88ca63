"""The client's shared connection: many calls at once, and a new connection when one is lost.

Owns the reader and the writer of the connection and the table of unanswered calls. Never sends a
call that changes something twice. Output and events do not come this way (they have connections of
their own), so an answer never waits behind a reader who is slow.

Two sets of slots keep within the daemon's limit of unanswered requests: calls that may last (wait,
kill, anything with wait_ms) cannot use up what quick ones need. A slot is free again when its call
was answered, not when its caller lost interest: the daemon is still at it.
"""

from __future__ import annotations

from typing import Any, Final

import trio

from ptyd.calls import Params, interrupted, repeated_params
from ptyd.client.wire import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Dialer,
    Wire,
    WireLost,
)
from ptyd.protocol.connection import NotificationReceived
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_REQUESTS_IN_FLIGHT

SLOTS: Final = MAX_REQUESTS_IN_FLIGHT // 2
LASTING: Final = frozenset(["session.wait", "session.kill"])
ATTEMPTS: Final = 8
"""Lost connections in a row, each within SETTLED_S, after which a repeatable call gives up."""
SETTLED_S: Final = 5.0


class _Reply:
    """The place for one answer."""

    def __init__(self, slot: trio.Semaphore) -> None:
        self._slot = slot
        self.settled = trio.Event()
        self.result: Any = None
        self.error: PtydError | None = None
        self.lost: str | None = None

    def settle(self) -> None:
        self._slot.release()
        self.settled.set()


class _Line:
    """One connection with the calls made on it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.is_lost = False
        self._replies: dict[int, _Reply] = {}
        # Room for every slot: putting a message in never waits, so it cannot be cancelled half way.
        self._outbox, self._outgoing = trio.open_memory_channel[bytes](2 * SLOTS)

    def submit(self, method: str, params: Params, slot: trio.Semaphore) -> _Reply:
        msgid, payload = self.wire.protocol.request(method, params)
        reply = self._replies[msgid] = _Reply(slot)
        self._outbox.send_nowait(payload)
        return reply

    async def serve(self, dialer: Dialer) -> None:
        """Carry messages until the connection is lost; then settle every call as lost."""
        why = "the client was closed"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read(dialer)
        except* WireLost as lost:
            why = str(lost.exceptions[0])
        except* PtydError as violation:
            why = str(violation.exceptions[0])
        finally:
            self._settle_lost(why)
            self._outbox.close()
            self._outgoing.close()
            self.wire.close()

    async def _write(self) -> None:
        async for payload in self._outgoing:
            await self.wire.send(payload)

    async def _read(self, dialer: Dialer) -> None:
        while True:
            for message in await self.wire.receive():
                if not isinstance(message, NotificationReceived):
                    self._settle(message.msgid, message.result, message.error)
                elif message.method == "error" and message.params.get("code") == Code.STOPPING:
                    dialer.told_stopping()

    def _settle(self, msgid: int, result: Any, error: PtydError | None) -> None:
        reply = self._replies.pop(msgid)
        reply.result, reply.error = result, error
        reply.settle()

    def _settle_lost(self, why: str) -> None:
        self.is_lost = True
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            reply.lost = why
            reply.settle()


class Link:
    """The connection that is always being kept: run `run` in a nursery, then `call`."""

    def __init__(self, dialer: Dialer, reconnect_deadline_s: float) -> None:
        self._dialer = dialer
        self._deadline_s = reconnect_deadline_s
        self._line: _Line | None = None
        self._news = trio.Event()  # set, and replaced, whenever the next two change
        self._trouble: PtydError | None = None
        self._quick = trio.Semaphore(SLOTS)
        self._lasting = trio.Semaphore(SLOTS)
        self.hello: Params = {}

    async def run(self, wire: Wire, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve `wire`, and after it new connections, until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = trio.current_time()
            self._line, self.hello = _Line(wire), wire.hello
            self._tell(None)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await self._line.serve(self._dialer)
            self._line = None
            # A daemon that accepts and dies at once is not worth a busy loop.
            pause_s = FIRST_PAUSE_S if trio.current_time() - began > 1 else min(2 * pause_s, LONGEST_PAUSE_S)
            wire = await self._dial_for_ever(pause_s)

    async def call(self, method: str, params: Params) -> Any:
        """Make one call; see Client for errors and cancellation."""
        began = since = trio.current_time()
        attempts = 0
        while True:
            reply = await self._submit(method, repeated_params(method, params, trio.current_time() - began))
            await reply.settled.wait()
            if reply.error is not None:
                raise reply.error
            if reply.lost is None:
                return reply.result
            now = trio.current_time()
            attempts = 1 if now - since > SETTLED_S else attempts + 1
            since = now
            error = interrupted(method, reply.lost)
            if error.code is Code.MAYBE_APPLIED or attempts >= ATTEMPTS:
                raise error

    async def _submit(self, method: str, params: Params) -> _Reply:
        slot = self._lasting if method in LASTING or params.get("wait_ms") else self._quick
        await slot.acquire()
        try:
            line = await self._connected()
            return line.submit(method, params, slot)
        except BaseException:
            slot.release()
            raise

    async def _connected(self) -> _Line:
        deadline = trio.current_time() + self._deadline_s
        while self._line is None or self._line.is_lost:
            news = self._news
            with trio.move_on_at(deadline) as scope:
                await news.wait()
            if scope.cancelled_caught:
                text = f"no connection to a daemon within {self._deadline_s:g} s"
                raise self._trouble or PtydError(Code.UNREACHABLE, text)
        return self._line

    async def _dial_for_ever(self, pause_s: float) -> Wire:
        while True:
            await trio.sleep(pause_s)
            try:
                return await self._dialer.dial()
            except PtydError as error:
                self._tell(error)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _tell(self, trouble: PtydError | None) -> None:
        self._trouble = trouble
        news, self._news = self._news, trio.Event()
        news.set()
