"""One client's connection: requests in, replies and output out, nothing ever waiting for a slow reader.

Owns the socket and what is due on it. Replies go before output: at most the rest of one chunk is ahead of
them. Output is not queued at all (attachments are cursors); events neither. A client that does not
read its replies is not listened to until it does.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import trio

from ptyd.daemon.attachment import Attachment
from ptyd.daemon.lane import Lane
from ptyd.daemon.outbox import Outbox
from ptyd.daemon.pacer import Pacer
from ptyd.daemon.poller import Poller
from ptyd.log import get_logger
from ptyd.peers import send_with_fds
from ptyd.protocol.connection import (
    NotificationReceived,
    Refused,
    RequestReceived,
    ServerConnection,
    Violated,
)
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog, Subscription
from ptyd.protocol.limits import RECEIVE_BYTES

log = get_logger()

REQUESTS_PER_TURN = 16  # of one client; the rest waits for the next turn, behind everybody else's
UNREAD_BYTES = 1 << 20  # of replies; above this a client is not listened to
EVENTS_PER_TURN = 64


class Later:
    """What a handler returns when it will answer by itself."""


LATER = Later()


class Handlers(Protocol):
    """What a connection does with what it receives."""

    def handle(self, client: Client, msgid: int | None, request: Any) -> object: ...


class Client:
    """A connected client."""

    def __init__(
        self,
        sock: socket.socket,
        handlers: Handlers,
        poller: Poller,
        pacer: Pacer,
        events: EventLog,
        nursery: trio.Nursery,
        on_close: Callable[[Client], None],
    ) -> None:
        self.attachments: dict[int, Attachment] = {}
        self.lanes: dict[str, Lane] = {}
        self.protocol = ServerConnection()
        self.is_open = True
        self._sock = sock
        self._handlers = handlers
        self._poller = poller
        self._pacer = pacer
        self._events = events
        self._nursery = nursery
        self._on_close = on_close
        self._inbox: deque[Any] = deque()
        self._outbox = Outbox(sock)
        self._dirty: deque[Attachment] = deque()
        self._subscription: Subscription | None = None
        self._scopes: set[trio.CancelScope] = set()
        self._mask = select.EPOLLIN
        self._is_scheduled = False
        self._closes_when_sent = False
        poller.add(sock.fileno(), self._mask, self._ready)

    @property
    def is_sending(self) -> bool:
        return bool(self._outbox)

    @property
    def peer_sock(self) -> socket.socket:
        return self._sock

    # -- in --------------------------------------------------------------------------------------------

    def _ready(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._guard(self.flush)
        if mask & ~select.EPOLLOUT:
            self._guard(self._receive)

    def _guard(self, work: Callable[[], None]) -> None:
        """Run `work`: whatever a client provokes ends here, with its own connection."""
        try:
            work()
        except OSError:
            self.close()
        except Exception:
            log.exception("client failed", fd=self._sock.fileno())
            self.close()

    def _receive(self) -> None:
        if not self.is_open:
            return
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._inbox.extend(self.protocol.receive(data))
        self._work()

    def _work(self) -> None:
        """Serve a few requests; the rest later, and none while too many replies lie unread."""
        for _ in range(REQUESTS_PER_TURN):
            if not self._inbox or not self.is_open or self._outbox.size > UNREAD_BYTES:
                break
            self._process(self._inbox.popleft())
        self._listen()
        if self._inbox and self._outbox.size <= UNREAD_BYTES:
            self._schedule()

    def _process(self, event: object) -> None:
        match event:
            case RequestReceived(msgid=msgid, params=params):
                self._call(msgid, params)
            case NotificationReceived(params=params):
                self._call(None, params)
            case Refused(payload=payload):
                self.send(payload)
            case Violated(payload=payload):
                self._closes_when_sent = True
                self._inbox.clear()
                self.send(payload)

    def _call(self, msgid: int | None, request: object) -> None:
        try:
            result = self._handlers.handle(self, msgid, request)
        except PtydError as err:
            self.fail(msgid, err)
            return
        if isinstance(result, Coroutine):
            self._nursery.start_soon(self._finish, msgid, result)
        elif result is not LATER:
            self.reply(msgid, result)

    async def _finish(self, msgid: int | None, work: Coroutine[Any, Any, object]) -> None:
        """Run what takes time; a client that leaves meanwhile cancels its waiting, not its effect."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                result = await work
                if result is not LATER:
                    self.reply(msgid, result)
            except PtydError as err:
                self.fail(msgid, err)
            except Exception as err:
                log.exception("request failed", msgid=msgid)
                self.fail(msgid, PtydError(Code.INTERNAL, f"{type(err).__name__}; see daemon.log"))
            finally:
                self._scopes.discard(scope)

    # -- out -------------------------------------------------------------------------------------------

    def reply(self, msgid: int | None, result: object) -> None:
        if msgid is not None and self.is_open:
            self.send(self.protocol.respond(msgid, result))

    def reply_with_fds(self, msgid: int | None, result: object, fds: Sequence[int]) -> None:
        """Reply, with descriptors beside the first byte; nothing else may be on its way.

        Raises:
            PtydError: busy; the client has not read what it got before.
        """
        if msgid is None or not self.is_open:
            return
        if self._outbox or self.attachments:
            raise PtydError(Code.BUSY, "descriptors need a connection with nothing else on its way")
        payload = self.protocol.respond(msgid, result)
        try:
            count = send_with_fds(self._sock, payload, fds)
        except BlockingIOError:
            raise PtydError(Code.BUSY, "this connection takes nothing just now; try again") from None
        except OSError:
            self.close()
            return
        if count < len(payload):
            self.send(payload[count:])

    def fail(self, msgid: int | None, error: PtydError) -> None:
        if msgid is not None and self.is_open:
            self.send(self.protocol.respond_error(msgid, error))

    def send(self, message: bytes) -> None:
        """Send a reply or a notification, before any output that is due."""
        if not self.is_open:
            return
        self._outbox.push(message)
        if not self._mask & select.EPOLLOUT:
            self._drain()

    def flush(self) -> None:
        """Send what is due: what waits, then events, then one chunk of each attachment that has more."""
        self._is_scheduled = False
        if not self.is_open or (self._outbox and not self._drain()):
            return
        if self._push_events() and not self._drain():
            return
        if self._inbox:
            self._work()  # before more output, which may take all the room again
        for _ in range(len(self._dirty)):
            attachment = self._dirty.popleft()
            self._outbox.push(*attachment.next_frames())
            is_drained = self._drain()
            self._after_frames(attachment)
            if not is_drained:
                return
        if self._dirty:
            self._schedule()

    def _after_frames(self, attachment: Attachment) -> None:
        if attachment.reading.is_over:
            self.drop(attachment)
        elif attachment.has_more():
            self._dirty.append(attachment)
        else:
            attachment.is_dirty = False
        if attachment.is_paced:
            self._pacer.progressed(attachment)

    def _schedule(self) -> None:
        """Flush in the next turn; a socket that takes nothing says by itself when it does again."""
        if not self._is_scheduled and not self._mask & select.EPOLLOUT:
            self._is_scheduled = True
            self._poller.later(self._continue)

    def _continue(self) -> None:
        self._guard(self.flush)

    def _drain(self) -> bool:
        """Send what waits; tell whether all of it went."""
        try:
            is_empty = self._outbox.send()
        except OSError:
            self.close()
            return False
        if is_empty and self._closes_when_sent:
            self.close()
            return False
        self._listen()
        return is_empty

    def _listen(self) -> None:
        """Keep the epoll interest as it has to be; a system call only when it changes."""
        if not self.is_open:
            return
        deaf = self._inbox or self._outbox.size > UNREAD_BYTES or self._closes_when_sent
        mask = (0 if deaf else select.EPOLLIN) | (select.EPOLLOUT if self._outbox else 0)
        if mask != self._mask:
            self._mask = mask
            self._poller.change(self._sock.fileno(), mask)

    # -- attachments and events ------------------------------------------------------------------------

    def attach(self, attachment: Attachment) -> None:
        """Begin to send an attachment's output; its reply must have been sent before."""
        self.attachments[attachment.number] = attachment
        attachment.on_change = self._mark
        attachment.detach = lambda: self.detach(attachment)
        attachment.session.follow(attachment)
        attachment.session.streams.add(attachment)
        if attachment.is_paced:
            self._pacer.add(attachment)
        self._mark(attachment)

    def _mark(self, attachment: Attachment) -> None:
        if attachment.is_dirty:
            return
        attachment.is_dirty = True
        self._dirty.append(attachment)
        if self._inbox:
            self._schedule()  # flushing now would serve requests from within a request
        elif not self._mask & select.EPOLLOUT and not self._is_scheduled:
            self._continue()

    def detach(self, attachment: Attachment) -> None:
        """End an attachment as somebody has asked, and tell the client."""
        self.drop(attachment)
        fields = {"attachment": attachment.number, "reason": "requested"}
        self.send(self.protocol.notify("session.detached", fields))

    def drop(self, attachment: Attachment) -> None:
        """End an attachment; nothing more of it is sent."""
        if self.attachments.pop(attachment.number, None) is None:
            return
        attachment.reading.is_over = True
        attachment.session.unfollow(attachment)
        attachment.session.streams.discard(attachment)
        if attachment.is_paced:
            self._pacer.remove(attachment)
        self._events.emit("session.detached", attachment.session.id, attachment=attachment.number)

    def subscribe(self, seq: int) -> None:
        """Begin to send events younger than `seq`; a second time starts anew there."""
        self._unsubscribe()
        self._subscription = Subscription(self._events, seq, self._schedule)
        self._schedule()

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _push_events(self) -> bool:
        """Take the events that are due next; tell whether there were any."""
        if self._subscription is None:
            return False
        self._outbox.push(*self._subscription.next_frames(EVENTS_PER_TURN))
        if self._subscription.has_more():
            self._schedule()
        return bool(self._outbox)

    # -- end -------------------------------------------------------------------------------------------

    def close_after(self, payload: bytes) -> None:
        """Send a last message, and close."""
        self._closes_when_sent = True
        self.send(payload)

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._poller.remove(self._sock.fileno())
        self._sock.close()
        self._unsubscribe()
        for attachment in list(self.attachments.values()):
            self.drop(attachment)
        for scope in list(self._scopes):
            scope.cancel()
        self._on_close(self)
