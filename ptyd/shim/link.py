"""The link: a non-blocking SEQPACKET socket between a shim and somebody it talks to.

Owns the socket and what it could not take yet. Decides nothing; the messages are `ptyd.datagrams`.

Standard library only: every shim imports this.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence

from ptyd.datagrams import MAX_DATAGRAM_BYTES, WAKE_MESSAGE
from ptyd.peers import receive_with_fds, send_with_fds

QUEUE_BYTES = 8 << 20  # of messages that the other end does not take just now
MESSAGE_COST_BYTES = 512  # of each, beside its own: so that a queue of keystrokes is bounded, too
INPUT_QUEUE_BYTES = 1 << 20  # accepted input that the program has not read: a large paste

EXIT_STOPPED, EXIT_TEMPORARY, EXIT_CONFIG = 0, 75, 78
"""What a daemon ends with when its zygote is not to start another. Source: sysexits.h"""

# Room for any message, once for all: an allocation of this size can be a mapping of its own each time.
_ROOM = memoryview(bytearray(MAX_DATAGRAM_BYTES))


class Passed:
    """Descriptors that came with a message: closed when nobody keeps this any more."""

    def __init__(self, fds: Sequence[int]) -> None:
        self.fds = list(fds)

    def close(self) -> None:
        fds, self.fds = self.fds, []
        for fd in fds:
            os.close(fd)

    __del__ = close


class LinkClosed(Exception):
    """The other end is gone."""


class Link:
    """One end of a link: sends never block, what does not fit now waits in a short queue."""

    def __init__(self, sock: socket.socket, queue_bytes: int = QUEUE_BYTES) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.is_watching = False  # the other end wants to be woken
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._queue_bytes = queue_bytes
        self.backlog_bytes = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._waiting)

    def wake(self) -> None:
        """Tell a reader that the head has moved. A full queue is fine: it will load the head anyway."""
        try:
            self.sock.send(WAKE_MESSAGE)
        except OSError:
            pass  # full, or closed: then reading from it says so

    def send(self, message: bytes, fds: Sequence[int] = ()) -> bool:
        """Send now or queue; False when even the queue is full and nothing was taken.

        Raises:
            LinkClosed: the other end is gone.
        """
        if not self._waiting and self.send_now(message, fds):
            return True
        if self.backlog_bytes > self._queue_bytes:
            return False
        self._waiting.append((message, tuple(fds)))
        self.backlog_bytes += len(message) + MESSAGE_COST_BYTES
        return True

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        while self._waiting and self.send_now(*self._waiting[0]):
            message, _ = self._waiting.popleft()
            self.backlog_bytes -= len(message) + MESSAGE_COST_BYTES

    def send_now(self, message: bytes, fds: Sequence[int] = ()) -> bool:
        """Send without queueing; False when it does not fit now."""
        try:
            if fds:
                send_with_fds(self.sock, message, fds)
            else:
                self.sock.send(message)
        except BlockingIOError:
            return False
        except OSError as err:
            raise LinkClosed(str(err)) from err
        return True

    def receive(self) -> bytes | None:
        """Receive one message; None when there is none just now.

        Raises:
            LinkClosed: the other end is gone, and everything it had sent was received.
        """
        try:
            count = self.sock.recv_into(_ROOM)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # The other end closed with messages of ours unread. The kernel says so once, *before* what
            # it had sent us: its last words are still to be had.
            return self.receive()
        except OSError as err:
            raise LinkClosed(str(err)) from err
        if not count:
            raise LinkClosed("end of file")
        return _ROOM[:count].tobytes()

    def receive_with_fds(self, most: int = 3) -> tuple[bytes, list[int]] | None:
        """Like `receive`, for messages that may carry descriptors."""
        try:
            message, fds = receive_with_fds(self.sock, MAX_DATAGRAM_BYTES, most)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return self.receive_with_fds(most)
        except OSError as err:
            raise LinkClosed(str(err)) from err
        if not message:
            raise LinkClosed("end of file")
        return message, fds

    def close(self) -> None:
        self.sock.close()
