"""What waits to be sent on one socket: whole messages, and the rest of one that went in part.

Owns the bytes from the moment they are due until the kernel has them. Never blocks and copies nothing:
a message goes out by the buffers it was made of.
"""

from __future__ import annotations

import socket
from collections import deque
from itertools import islice

BUFFERS_PER_SEND = 64  # far below IOV_MAX; a send buffer takes four chunks of output at most


class Outbox:
    """A queue of buffers for one non-blocking socket; true while anything waits."""

    def __init__(self, sock: socket.socket) -> None:
        self.size = 0
        self._sock = sock
        self._buffers: deque[bytes | memoryview] = deque()

    def __bool__(self) -> bool:
        return bool(self._buffers)

    def push(self, *buffers: bytes) -> None:
        self._buffers += buffers
        self.size += sum(map(len, buffers))

    def send(self) -> bool:
        """Send as far as it goes; tell whether all of it went.

        Raises:
            OSError: the other end is gone.
        """
        while self._buffers:
            try:
                self._sent(self._sock.sendmsg(islice(self._buffers, BUFFERS_PER_SEND)))
            except BlockingIOError:
                return False
        return True

    def _sent(self, count: int) -> None:
        self.size -= count
        if not self.size:
            self._buffers.clear()  # nearly always
            return
        while count:
            first = self._buffers[0]
            if count < len(first):
                self._buffers[0] = memoryview(first)[count:]
                return
            count -= len(first)
            self._buffers.popleft()
