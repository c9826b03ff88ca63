"""The host service's socket: who may come in, requests in, answers and events out.

Owns `hostsvc.sock` and every connection on it. A request is a task of its own, at most 64 of a connection at
once; what a client does not read is bounded, and then it is not listened to. Nothing of a session's output
ever passes here: frontends get that from ptyd.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
import trio

from hostsvc.messages import METHODS, EventsSubscribe
from ptyd import paths
from ptyd.peers import peer_uid
from ptyd.protocol.codec import pack_notification
from ptyd.protocol.connection import Refused, RequestReceived, ServerConnection, Violated
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog, Subscription

log = structlog.get_logger()

SOCKET: Final = "hostsvc.sock"
MAX_CLIENTS: Final = 256
RECEIVE_BYTES: Final = 16 * 1024
UNREAD_BYTES: Final = 1 << 20  # of answers; above this a client is not listened to
EVENTS_AT_ONCE: Final = 64
LOOK_S: Final = 2.0  # for a socket file that somebody removed
BACKLOG: Final = 128
FAREWELL_S: Final = 0.5  # for the last words to go out

Handle = Callable[[Any], Awaitable[dict[str, Any]]]


class Server:
    """Accepts clients. Run `run` in a nursery."""

    def __init__(self, runtime: paths.Runtime, handle: Handle, events: EventLog) -> None:
        self._runtime = runtime
        self._handle = handle
        self._events = events
        self._clients: set[Client] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; a socket file that vanishes comes back."""
        try:
            async with trio.open_nursery() as clients:
                while True:
                    listener, identity = self._bind()
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._accept, listener, clients)
                        while self._is_there(identity):  # noqa: ASYNC110 - a file gives no event
                            await trio.sleep(LOOK_S)
                        nursery.cancel_scope.cancel()
                    listener.close()
                    log.warning("the socket file vanished; binding it again")
        finally:
            self._unlink()

    def _bind(self) -> tuple[trio.socket.SocketType, tuple[int, int]]:
        """Bind under another name, then rename: nobody ever finds a socket that is not served."""
        draft = f".{SOCKET}"
        try:
            os.unlink(draft, dir_fd=self._runtime.fd)
        except FileNotFoundError:
            pass
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.bind(self._runtime.address(draft))
        listener = trio.socket.from_stdlib_socket(unix)
        os.chmod(draft, 0o600, dir_fd=self._runtime.fd)
        listener.listen(BACKLOG)
        os.rename(draft, SOCKET, src_dir_fd=self._runtime.fd, dst_dir_fd=self._runtime.fd)
        found = os.stat(SOCKET, dir_fd=self._runtime.fd, follow_symlinks=False)
        return listener, (found.st_dev, found.st_ino)

    def _is_there(self, identity: tuple[int, int]) -> bool:
        try:
            found = os.stat(SOCKET, dir_fd=self._runtime.fd, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == identity

    def _unlink(self) -> None:
        try:
            os.unlink(SOCKET, dir_fd=self._runtime.fd)
        except OSError:
            pass

    async def _accept(self, listener: trio.socket.SocketType, clients: trio.Nursery) -> None:
        while True:
            try:
                sock, _ = await listener.accept()
            except OSError as error:
                log.error("cannot accept", error=error.strerror)
                await trio.sleep(LOOK_S)
                continue
            if (uid := peer_uid(sock)) != os.geteuid():  # type: ignore[arg-type]
                log.warning("refused a client of another user", uid=uid)
                sock.close()
            else:
                clients.start_soon(self._serve, trio.SocketStream(sock))

    async def _serve(self, stream: trio.SocketStream) -> None:
        client = Client(stream, self._handle, self._events)
        if len(self._clients) >= MAX_CLIENTS:
            client.say_goodbye(Code.TOO_MANY_CLIENTS, "the host service has as many clients as it allows")
        self._clients.add(client)
        try:
            await client.run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it has left
        except* Exception:
            log.exception("client failed")
        finally:
            self._clients.discard(client)

    async def say_stopping(self) -> None:
        """Tell every client, those without a subscription too, and let them go."""
        self._events.emit("service.stopping")
        for client in self._clients:
            client.say_goodbye(Code.STOPPING, "the host service is stopping")
        with trio.move_on_after(FAREWELL_S):
            while self._clients:  # noqa: ASYNC110 - once, at the end
                await trio.sleep(0.02)


class Client:
    """One connection."""

    def __init__(self, stream: trio.SocketStream, handle: Handle, events: EventLog) -> None:
        self._stream = stream
        self._handle = handle
        self._events = events
        self._protocol = ServerConnection(METHODS)
        self._outbox: deque[bytes] = deque()
        self._unread_bytes = 0
        self._subscription: Subscription | None = None
        self._news = trio.Event()
        self._room = trio.Event()
        self._is_closing = False

    async def run(self) -> None:
        """Serve it until it leaves. What it has asked for goes on; only its answers are dropped."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                await self._read(nursery)
                if not self._is_closing:
                    nursery.cancel_scope.cancel()
        finally:
            if self._subscription is not None:
                self._subscription.close()
            self._stream.socket.close()

    def say_goodbye(self, code: Code, text: str) -> None:
        """Say why, after what is due already, and hang up."""
        if self._subscription is not None:
            self._push_events()
        self._push(pack_notification("error", {"code": code.value, "message": text}))
        self._is_closing = True
        self._wake()

    # -- in ----------------------------------------------------------------------------------------

    async def _read(self, nursery: trio.Nursery) -> None:
        while not self._is_closing:
            data = await self._stream.receive_some(RECEIVE_BYTES)
            for event in self._protocol.receive(bytes(data)):
                match event:
                    case RequestReceived(msgid=msgid, params=params):
                        nursery.start_soon(self._answer, msgid, params)
                    case Refused(payload=payload):
                        self._push(payload)
                    case Violated(payload=payload):
                        self._is_closing = True
                        self._push(payload)
            if not data:
                return
            while self._unread_bytes > UNREAD_BYTES:
                self._room = trio.Event()
                await self._room.wait()

    async def _answer(self, msgid: int, params: Any) -> None:
        try:
            is_subscription = isinstance(params, EventsSubscribe)
            result = self._subscribe(params) if is_subscription else await self._handle(params)
            self._push(self._protocol.respond(msgid, result))
        except PtydError as error:
            self._push(self._protocol.respond_error(msgid, error))
        except Exception as error:
            log.exception("request failed", request=type(params).__name__)
            told = PtydError(Code.INTERNAL, f"{type(error).__name__}; see hostsvc.log")
            self._push(self._protocol.respond_error(msgid, told))

    def _subscribe(self, params: EventsSubscribe) -> dict[str, Any]:
        """Begin to send events; a second time starts anew there."""
        if self._subscription is not None:
            self._subscription.close()
        start, answer = self._events.place(params.since)
        self._subscription = Subscription(self._events, start, self._wake)
        return answer

    # -- out ---------------------------------------------------------------------------------------

    def _push(self, payload: bytes) -> None:
        self._outbox.append(payload)
        self._unread_bytes += len(payload)
        self._wake()

    def _push_events(self) -> None:
        assert self._subscription is not None
        for frame in self._subscription.next_frames(EVENTS_AT_ONCE):
            self._push(frame)

    def _wake(self) -> None:
        self._news.set()

    async def _write(self, scope: trio.CancelScope) -> None:
        """Send answers first, then events; nothing is queued for events, a slow client sees a gap."""
        while True:
            if not self._outbox and self._subscription is not None and self._subscription.has_more():
                self._push_events()
            if not self._outbox:
                if self._is_closing:
                    scope.cancel()
                self._news = trio.Event()
                await self._news.wait()
                continue
            payload = self._outbox.popleft()
            await self._stream.send_all(payload)
            self._unread_bytes -= len(payload)
            if self._unread_bytes <= UNREAD_BYTES:
                self._room.set()
