"""The PTY of one session: output into the ring, input out of a bounded queue, size, hang-up.

Owns the only master descriptor there is, and one open slave: without it, a moment in which nobody has
the terminal open would read as its end. Never decides that a session is over.

Standard library only (through `spawn`, ptyprocess).
"""

from __future__ import annotations

import errno
import os
import select
import time

from ptyd.datagrams import Verdict
from ptyd.ring import RingWriter
from ptyd.shim.link import INPUT_QUEUE_BYTES
from ptyd.shim.spawn import Program

READ_BYTES = 16 << 10  # one readv; the kernel hands out about 4 KiB, now and then 12
DRAIN_BYTES = 64 << 10  # of one turn, before anybody is woken
PTY_BYTES = 128 << 10  # more than a PTY holds between a write and its read (some 70 KiB)
SHORT_READ_BYTES = 1024  # a read this short is somebody typing: wake at once instead of asking again
ROOM_BYTES = INPUT_QUEUE_BYTES // 2  # a queue that refused says so when it is down to this
UNLIMITED = 2**64 - 1
PATIENCE_S = 2.0  # with a direct reader that holds the program back and does not read on


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
        self._input = bytearray()  # not the messages as they came: a million of one byte would fill 200 MB
        self._limits: dict[object, tuple[int, float | None]] = {}
        self._limit = UNLIMITED
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

    def drain_up_to(self, offset: int) -> bool:
        """Move output until there is none, or until `offset`; tell whether it came to that.

        It does not when a paced reader is so far behind that the ring has no room yet.
        """
        self.is_drained = not self._is_open
        while not self.is_drained and self.ring.head < min(offset, self._limit):
            self.drain()
        return self.is_drained or self.ring.head >= offset

    def _readv(self, views: list[memoryview]) -> int:
        return os.readv(self._fd, views)

    # -- pace ------------------------------------------------------------------------------------------

    def set_limit(self, reader: object, offset: int, until: float | None = None) -> None:
        """Read no further than `offset`: this paced reader is behind.

        Args:
            reader: Who asks; each has one limit.
            offset: Output is read up to here.
            until: The moment that lifts it; None for PATIENCE_S after it began to hold the program back.
        """
        self._limits[reader] = offset, until
        self._update_limit()

    def lift_limit(self, reader: object) -> None:
        """Forget what a reader has asked for."""
        if self._limits.pop(reader, None) is not None:
            self._update_limit()

    def lift_limits(self) -> None:
        if self._limits:
            self._limits.clear()
            self._update_limit()

    def lift_overdue(self, now: float) -> None:
        """Forget what was not asked for again in time."""
        kept = {reader: limit for reader, limit in self._limits.items() if limit[1] is None or limit[1] > now}
        self._limits = kept
        self._update_limit()

    def _update_limit(self) -> None:
        self._limit = min((offset for offset, _ in self._limits.values()), default=UNLIMITED)
        self.update_interest()

    @property
    def limit_until(self) -> float | None:
        """When the next limit has to be lifted; None while none has."""
        return min((until for _, until in self._limits.values() if until is not None), default=None)

    def _begin_patience(self) -> None:
        """Output has come to a limit: from now on its reader is waited for."""
        until = time.monotonic() + PATIENCE_S
        for reader, (offset, known) in self._limits.items():
            if known is None and offset <= self.ring.head:
                self._limits[reader] = offset, until

    @property
    def is_limited(self) -> bool:
        return self._limit != UNLIMITED

    # -- input -----------------------------------------------------------------------------------------

    def accept(self, data: bytes) -> Verdict:
        """Take input, all of it or nothing."""
        if not self._is_open:
            return Verdict.ENDED
        if len(self._input) + len(data) > INPUT_QUEUE_BYTES:
            self.refused = True
            return Verdict.FULL
        # A keystroke goes straight through; only what the program does not read yet is queued.
        taken = 0 if self._input else self._write(data)
        if taken < len(data):
            self._input += memoryview(data)[taken:]
            self.update_interest()
        return Verdict.ACCEPTED

    def write_input(self) -> None:
        """Write queued input as far as the line discipline takes it."""
        count = 1
        while self._input and count:
            with memoryview(self._input) as waiting:
                count = self._write(waiting)
            del self._input[:count]
        self.update_interest()

    def _write(self, data: bytes | memoryview) -> int:
        """Write to the line discipline; return how much of it was taken."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as err:
            if err.errno != errno.EIO:
                raise
            return len(data)  # hung up: nobody will ever read it

    def has_room_again(self) -> bool:
        """Tell once, after a refusal, that the queue has room."""
        if self.refused and len(self._input) <= ROOM_BYTES:
            self.refused = False
            return True
        return False

    # -- the rest --------------------------------------------------------------------------------------

    def update_interest(self) -> None:
        """Listen for what we can use: output unless limited, room for input only when some waits."""
        is_held = self.ring.head >= self._limit
        if is_held:
            self._begin_patience()
        wanted = 0 if is_held else select.EPOLLIN
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
