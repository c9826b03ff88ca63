"""The host service's socket: who may come in, requests in, answers and events out.

Owns `hostsvc.sock` and every connection on it. A request is a task of its own, at most 64 of a connection at
once, and is done whether its client stays or not: a client that leaves stops nothing half way. What a client
does not read is bounded, and then it is not listened to. Nothing of a session's output ever passes here:
frontends get that from ptyd.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from hostsvc.kinds import MAX_CLIENTS
from hostsvc.messages import LONG_ANSWERS, METHODS, EventsSubscribe
from ptyd import paths
from ptyd.log import get_logger
from ptyd.peers import peer_uid
from ptyd.protocol.codec import pack_error, pack_notification
from ptyd.protocol.connection import Refused, RequestReceived, ServerConnection, Violated
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog, Subscription
from ptyd.protocol.limits import MAX_REPLY_BYTES, RECEIVE_BYTES

log = get_logger()

SOCKET: Final = "hostsvc.sock"
UNREAD_BYTES: Final = 1 << 20  # of answers; above this a client is not listened to
EVENTS_AT_ONCE: Final = 64
LOOK_S: Final = 2.0  # for a socket file that somebody removed
BACKLOG: Final = 128
FAREWELL_S: Final = 0.5  # for the last words to go out, and for what is nearly done

Handle = Callable[[Any], Awaitable[dict[str, Any]]]
Identity = tuple[int, int]


class Server:
    """Accepts clients. Run `run` in a nursery."""

    def __init__(self, runtime: paths.Runtime, handle: Handle, events: EventLog) -> None:
        self._runtime = runtime
        self._handle = handle
        self._events = events
        self._clients: set[Client] = set()
        self._is_stopping = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; a socket file that vanishes comes back.

        Raises:
            OSError: the socket cannot be made at the start.
        """
        listener, identity = self._bind()
        try:
            async with trio.open_nursery() as clients:
                task_status.started()
                while True:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._accept, listener, clients)
                        while self._identity() == identity:  # noqa: ASYNC110 - a file gives no event
                            await trio.sleep(LOOK_S)
                        nursery.cancel_scope.cancel()
                    listener.close()
                    log.warning("the socket file vanished; binding it again")
                    listener, identity = await self._bind_again()
        finally:
            listener.close()
            if self._identity() == identity:
                os.unlink(SOCKET, dir_fd=self._runtime.fd)

    async def _bind_again(self) -> tuple[trio.socket.SocketType, Identity]:
        """Try for ever, as on a full disk: the clients that are there are served all the while."""
        told = None
        while True:
            try:
                return self._bind()
            except OSError as error:
                if error.strerror != told:
                    told = error.strerror
                    log.error("cannot bind the socket again", error=told)
                await trio.sleep(LOOK_S)

    def _bind(self) -> tuple[trio.socket.SocketType, Identity]:
        """Bind under another name, then rename: nobody ever finds a socket that is not served."""
        draft = f".{SOCKET}"
        try:
            os.unlink(draft, dir_fd=self._runtime.fd)
        except FileNotFoundError:
            pass
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            unix.bind(self._runtime.address(draft))
            os.chmod(draft, 0o600, dir_fd=self._runtime.fd)
            unix.listen(BACKLOG)
            os.rename(draft, SOCKET, src_dir_fd=self._runtime.fd, dst_dir_fd=self._runtime.fd)
            found = os.stat(SOCKET, dir_fd=self._runtime.fd, follow_symlinks=False)
        except BaseException:
            unix.close()
            raise
        return trio.socket.from_stdlib_socket(unix), (found.st_dev, found.st_ino)

    def _identity(self) -> Identity | None:
        try:
            found = os.stat(SOCKET, dir_fd=self._runtime.fd, follow_symlinks=False)
        except OSError:
            return None
        return found.st_dev, found.st_ino

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
        if self._is_stopping:
            client.say_goodbye(Code.STOPPING, "the host service is stopping")
        elif len(self._clients) >= MAX_CLIENTS:
            client.say_goodbye(Code.TOO_MANY_CLIENTS, "the host service has as many clients as it allows")
        self._clients.add(client)
        try:
            await client.run()
        except* Exception:
            log.exception("client failed")
        finally:
            self._clients.discard(client)

    async def say_stopping(self) -> None:
        """Tell every client, those without a subscription too, and let them go."""
        self._is_stopping = True
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
        self._waiting_for_room = trio.lowlevel.ParkingLot()
        self._one_long_answer = trio.Lock()
        self._is_closing = False

    async def run(self) -> None:
        """Serve it until it leaves, and do what it has asked for to the end: only the answers are dropped."""
        async with trio.open_nursery() as requests:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, nursery.cancel_scope)
                    await self._read(requests)
                    time_left_s = FAREWELL_S if self._is_closing else 0.0  # to read why it is sent away
                    nursery.cancel_scope.deadline = trio.current_time() + time_left_s
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it has left
            finally:
                self._hang_up()

    def _hang_up(self) -> None:
        self._is_closing = True
        if self._subscription is not None:
            self._subscription.close()
        self._stream.socket.close()
        self._outbox.clear()
        self._unread_bytes = 0
        self._waiting_for_room.unpark_all()

    def say_goodbye(self, code: Code, text: str) -> None:
        """Say why, after what is due already, and hang up."""
        if self._subscription is not None:
            self._push_events()
        self._push(pack_notification("error", {"code": code.value, "message": text}))
        self._is_closing = True

    # -- in ----------------------------------------------------------------------------------------

    async def _read(self, requests: trio.Nursery) -> None:
        while not self._is_closing:
            data = await self._stream.receive_some(RECEIVE_BYTES)
            for event in self._protocol.receive(bytes(data)):
                match event:
                    case RequestReceived(msgid=msgid, params=params):
                        requests.start_soon(self._answer, msgid, params)
                    case Refused(payload=payload):
                        self._push(payload)
                    case Violated(payload=payload):
                        self._push(payload)
                        self._is_closing = True
            if not data:
                return
            await self._room()

    async def _answer(self, msgid: int, params: Any) -> None:
        if isinstance(params, EventsSubscribe):
            self._push(self._protocol.respond(msgid, self._subscribe(params)))  # before its first event
        elif isinstance(params, LONG_ANSWERS):
            async with self._one_long_answer:
                await self._room()
                self._push(await self._outcome(msgid, params))
        else:
            self._push(await self._outcome(msgid, params))

    async def _outcome(self, msgid: int, params: Any) -> bytes:
        try:
            result = await self._handle(params)
        except PtydError as error:
            return self._protocol.respond_error(msgid, error)
        except Exception as error:
            log.exception("request failed", request=type(params).__name__)
            told = PtydError(Code.INTERNAL, f"{type(error).__name__}; see hostsvc.log")
            return self._protocol.respond_error(msgid, told)
        payload = self._protocol.respond(msgid, result)
        if len(payload) <= MAX_REPLY_BYTES:
            return payload
        told = PtydError(Code.INVALID_PARAMS, f"the answer would have {len(payload)} bytes; ask for less")
        return pack_error(msgid, told, self._protocol.as_map)

    def _subscribe(self, params: EventsSubscribe) -> dict[str, Any]:
        """Begin to send events; a second time starts anew there."""
        if self._subscription is not None:
            self._subscription.close()
        start, answer = self._events.place(params.since)
        self._subscription = Subscription(self._events, start, self._wake)
        return answer

    # -- out ---------------------------------------------------------------------------------------

    def _push(self, payload: bytes) -> None:
        if not self._is_closing:
            self._outbox.append(payload)
            self._unread_bytes += len(payload)
            self._wake()

    def _push_events(self) -> None:
        assert self._subscription is not None
        for frame in self._subscription.next_frames(EVENTS_AT_ONCE):
            self._push(frame)

    def _wake(self) -> None:
        self._news.set()

    async def _room(self) -> None:
        """Wait until it has read what it was sent, or has left."""
        while self._unread_bytes > UNREAD_BYTES and not self._is_closing:
            await self._waiting_for_room.park()

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
                self._waiting_for_room.unpark_all()
