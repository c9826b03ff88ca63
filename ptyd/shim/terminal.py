"""The PTY of one session: output into the ring, input out of a bounded queue, size, hang-up.

Owns the only master descriptor there is, and one open slave: without it, a moment in which nobody has
the terminal open would read as its end. Never decides that a session is over.

Standard library only (through `spawn`, ptyprocess).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections import deque

from ptyd.ring import RingWriter
from ptyd.shim.link import INPUT_QUEUE_BYTES, Verdict
from ptyd.shim.spawn import Program

READ_BYTES = 16 << 10  # one readv; the kernel hands out about 4 KiB, now and then 12
DRAIN_BYTES = 64 << 10  # of one turn, before anybody is woken
SHORT_READ_BYTES = 1024  # a read this short is somebody typing: wake at once instead of asking again
ROOM_BYTES = INPUT_QUEUE_BYTES // 2  # a queue that refused says so when it is down to this
UNLIMITED = 2**64 - 1


class Terminal:
    """The PTY, its ring and its input queue."""

    def __init__(self, program: Program, ring: RingWriter, epoll: select.epoll) -> None:
        self.program = program
        self.ring = ring
        self.is_drained = False
        self.refused = False
        self._fd = program.master_fd
        self._slave_fd = program.slave_fd
        self._epoll = epoll
        self._input: deque[memoryview] = deque()
        self._queued_bytes = 0
        self._limit = UNLIMITED
        self.limit_until = 0.0
        self._interest = select.EPOLLIN
        self._is_open = True
        epoll.register(self._fd, self._interest)

    def fileno(self) -> int:
        return self._fd

    def drain(self, most: int = DRAIN_BYTES) -> bool:
        """Move output into the ring; tell whether the head moved. Sets `is_drained` when nothing is left."""
        start = self.ring.head
        stop = min(start + most, self._limit)
        try:
            while (room := stop - self.ring.head) > 0:
                if self.ring.fill(min(room, READ_BYTES), self._readv) < SHORT_READ_BYTES:
                    break
        except BlockingIOError:
            self.is_drained = True
        if self.ring.head == start:
            return False
        self.ring.stamp(time.monotonic_ns() // 1_000_000)
        return True

    def drain_all(self) -> bool:
        """Move everything that is there, whatever a paced reader wishes."""
        self.lift_limit()
        self.is_drained = not self._is_open
        moved = False
        while not self.is_drained:
            moved |= self.drain()
        return moved

    def _readv(self, views: list[memoryview]) -> int:
        return os.readv(self._fd, views)

    # -- pace ------------------------------------------------------------------------------------------

    def set_limit(self, offset: int, until: float) -> None:
        """Read no further than `offset` before the moment `until`: a paced reader is behind."""
        self._limit, self.limit_until = offset, until
        self.update_interest()

    def lift_limit(self) -> None:
        if self._limit != UNLIMITED:
            self.set_limit(UNLIMITED, 0.0)

    @property
    def is_limited(self) -> bool:
        return self._limit != UNLIMITED

    # -- input -----------------------------------------------------------------------------------------

    def accept(self, data: bytes) -> Verdict:
        """Take input, all of it or nothing."""
        if not self._is_open:
            return Verdict.ENDED
        if self._queued_bytes + len(data) > INPUT_QUEUE_BYTES:
            self.refused = True
            return Verdict.FULL
        self._input.append(memoryview(data))
        self._queued_bytes += len(data)
        if len(self._input) == 1:
            self.write_input()
        return Verdict.ACCEPTED

    def write_input(self) -> None:
        """Write queued input as far as the line discipline takes it."""
        with contextlib.suppress(BlockingIOError):
            while self._input:
                count = self._write(self._input[0])
                self._queued_bytes -= count
                if count == len(self._input[0]):
                    self._input.popleft()
                else:
                    self._input[0] = self._input[0][count:]
        self.update_interest()

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except OSError as err:
            if err.errno != errno.EIO:
                raise
            return len(data)  # hung up: nobody will ever read it

    def has_room_again(self) -> bool:
        """Tell once, after a refusal, that the queue has room."""
        if self.refused and self._queued_bytes <= ROOM_BYTES:
            self.refused = False
            return True
        return False

    # -- the rest --------------------------------------------------------------------------------------

    def update_interest(self) -> None:
        """Listen for what we can use: output unless limited, room for input only when some waits."""
        wanted = 0 if self.ring.head >= self._limit else select.EPOLLIN
        wanted |= select.EPOLLOUT if self._input else 0
        if wanted != self._interest and self._is_open:
            self._interest = wanted
            self._epoll.modify(self._fd, wanted)

    def foreground_pgid(self) -> int:
        """Return the foreground process group, 0 when there is none."""
        try:
            return os.tcgetpgrp(self._fd) if self._is_open else 0
        except OSError:
            return 0

    def resize(self, rows: int, cols: int) -> None:
        if self._is_open:
            self.program.resize(rows, cols)

    def hang_up(self) -> None:
        """Close every end, as a closing terminal would. Nothing can be read or written afterwards."""
        if not self._is_open:
            return
        self._is_open = False
        self.is_drained = True
        self._input.clear()
        self._epoll.unregister(self._fd)
        os.close(self._slave_fd)
        # The master belongs to ptyprocess's file object: close it there, so that no stranger's
        # descriptor with the same number is closed later.
        self.program.process.fileobj.close()
