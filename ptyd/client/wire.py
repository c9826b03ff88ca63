"""One connection to the daemon under trio, from the socket to whole messages.

Owns a stream and its protocol state. Never reconnects: it reports `WireLost`, and its owner
decides.

Source: protocol.md, "Transport"
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections import deque
from typing import Any, Final

import trio

from ptyd import launch
from ptyd.calls import ANSWER_DEADLINE_S, Params, hello_params, launch_errors
from ptyd.peers import fds_room, passed_fds
from ptyd.protocol.connection import ClientConnection, NotificationReceived, ResponseReceived
from ptyd.protocol.errors import Code, PtydError

RECEIVE_BYTES: Final = 128 * 1024
"""Two full output notifications: more would only raise memory and the latency of a cancellation."""
CONNECT_DEADLINE_S: Final = 10.0
MOST_FDS: Final = 4
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0

Message = ResponseReceived | NotificationReceived


class WireLost(Exception):
    """The connection is gone; the text says how."""


class Wire:
    """A connection that has said hello. One task may send and one may receive at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.protocol = ClientConnection()
        self.hello: Params = {}
        self.passed: list[int] | None = None  # descriptors, while some are expected

    async def send(self, payload: bytes) -> None:
        """Send one message whole.

        Cancellation: may leave half a message sent; the wire is of no use then, close it.
        """
        try:
            await self._stream.send_all(payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise WireLost(_why(error)) from error

    async def receive(self) -> list[Message]:
        """Wait for bytes and return the messages they complete, perhaps none.

        Cancellation: loses nothing.
        """
        try:
            data = await self._receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise WireLost(_why(error)) from error
        if not data:
            raise WireLost("the daemon closed the connection")
        return self.protocol.receive(data)

    async def exchange(self, method: str, params: Params) -> tuple[Any, deque[Message]]:
        """Make one call on a wire that nobody else uses; return its result and what came after it.

        Raises:
            PtydError: the daemon's refusal.
            WireLost: the connection was lost before the answer.
        """
        msgid, payload = self.protocol.request(method, params)
        await self.send(payload)
        while True:
            messages = deque(await self.receive())
            while messages:
                match messages.popleft():
                    case ResponseReceived(msgid=answered, result=result, error=error) if answered == msgid:
                        if error is not None:
                            raise error
                        return result, messages

    async def exchange_for_fds(self, method: str, params: Params) -> tuple[Any, list[int]]:
        """As `exchange`, for an answer with descriptors beside it, and nothing behind it."""
        self.passed = []
        try:
            result, _ = await self.exchange(method, params)
            return result, self.passed
        except BaseException:
            for fd in self.passed:
                os.close(fd)
            raise
        finally:
            self.passed = None

    async def _receive_some(self) -> bytes:
        if self.passed is None:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        flags = socket.MSG_CMSG_CLOEXEC
        data, told, _, _ = await self._stream.socket.recvmsg(RECEIVE_BYTES, fds_room(MOST_FDS), flags)
        self.passed += passed_fds(told)
        return data

    def close(self) -> None:
        """Hang up."""
        self._stream.socket.close()


class Dialer:
    """Knows how to reach the daemon, and whether it may be started.

    A daemon that says it is stopping was asked to: it is not started again from here. Whoever
    stopped it may start another (an upgrade), which is then found.
    """

    def __init__(self, path: str, start: bool, name: str) -> None:
        self.path = path
        self._start = start
        self._name = name
        self._stopped = False

    def told_stopping(self) -> None:
        """The daemon has said that it stops."""
        self._stopped = True

    @property
    def was_stopped(self) -> bool:
        return self._stopped

    async def dial(self) -> Wire:
        """Connect and say hello; once more where it is hung up on, as a daemon does that is just leaving.

        Raises:
            PtydError: unreachable, nested, busy, or the daemon's refusal of this client.
        """
        may_start = self._start and not self._stopped
        try:
            wire = await self._dial_once(may_start)
        except WireLost:
            try:
                wire = await self._dial_once(may_start)
            except WireLost as error:
                raise PtydError(Code.UNREACHABLE, f"the daemon hung up at once: {error}") from error
        self._stopped = False
        return wire

    async def _dial_once(self, may_start: bool) -> Wire:
        with launch_errors():
            connected = await _connect_in_thread(self.path, may_start)
        wire = Wire(trio.SocketStream(trio.socket.from_stdlib_socket(connected)))
        try:
            with trio.fail_after(ANSWER_DEADLINE_S):
                wire.hello, _ = await wire.exchange("hello", hello_params(self._name))
        except trio.TooSlowError as error:
            wire.close()
            text = f"the daemon accepted but said nothing for {ANSWER_DEADLINE_S:g} s (see: ptyd doctor)"
            raise PtydError(Code.BUSY, text) from error
        except BaseException:
            wire.close()
            raise
        return wire

    async def redial(self, deadline_s: float) -> Wire:
        """Connect, trying again until `deadline_s` is over.

        Raises:
            PtydError: the last reason why not.
        """
        give_up_at = trio.current_time() + deadline_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self.dial()
            except PtydError:
                # Any reason may pass: the zygote is about to restart the daemon, somebody makes room.
                if trio.current_time() + pause_s > give_up_at:
                    raise
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _connect_in_thread(path: str, start: bool) -> socket.socket:
    """Run the blocking connect, which may start a daemon, where it blocks nobody."""
    abandoned = False

    def connect() -> socket.socket:
        connected = launch.connect(path, start=start, deadline_s=CONNECT_DEADLINE_S)
        if abandoned:  # nobody is left to take it
            connected.close()
        return connected

    try:
        return await trio.to_thread.run_sync(functools.partial(connect), abandon_on_cancel=True)
    except trio.Cancelled:
        abandoned = True
        raise


def _why(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.EPIPE, errno.ECONNRESET):
        return "the connection to the daemon was lost"
    return f"the connection to the daemon was lost ({cause or error})"
