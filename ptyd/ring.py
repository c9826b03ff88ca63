"""The output ring: an offset-addressed log of one session's output in shared memory.

Owns the layout of the memory and the order of loads and stores that makes it safe. Knows no
descriptor, no PTY and no socket: it works over any buffer.

One writer (the shim), any number of readers (the daemon's cursors), no lock between them. The writer
publishes `reserved` *before* it overwrites old bytes and `head` *after* the new ones are in place.
A reader copies first and only then looks at `reserved`: when the writer has meanwhile claimed what
was copied, the copy may be torn and is thrown away. Reading `reserved` before copying looks right and
is not: under a flood, readers at the ring's edge were seen to get torn bytes that looked valid.
This leans on x86-64 keeping stores in order, and on aligned 8-byte stores being whole.

    header page (4096 bytes), as 8-byte words                         data (capacity bytes)
    magic | version | capacity | reserved | head | end | last output   offset o lies at o % capacity

`last output` is the monotonic clock in milliseconds, so that a list can tell a session's quiet time
without asking anybody.

Standard library only: every shim imports this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAGIC: Final = int.from_bytes(b"ptydring", "little")
VERSION: Final = 1
HEADER_BYTES: Final = 4096  # one page: the data starts page aligned
NOT_ENDED: Final = 2**64 - 1

_MAGIC, _VERSION, _CAPACITY, _RESERVED, _HEAD, _END, _LAST_OUTPUT = range(7)

Buffer = memoryview


class RingError(Exception):
    """The memory is not a ring of ours."""


def ring_bytes(capacity: int) -> int:
    """Return the size of the memory that holds `capacity` bytes of output."""
    return HEADER_BYTES + capacity


def round_capacity(wanted: int) -> int:
    """Round a wished capacity up to whole pages."""
    return -(-wanted // HEADER_BYTES) * HEADER_BYTES


class RingWriter:
    """The one writer. Offsets are bytes since the session started."""

    def __init__(self, memory: Buffer) -> None:
        self._words = memory[:HEADER_BYTES].cast("Q")
        self._data = memory[HEADER_BYTES:]
        self.capacity = len(self._data)
        self.head = 0
        self._words[_CAPACITY] = self.capacity
        self._words[_VERSION] = VERSION
        self._words[_END] = NOT_ENDED
        self._words[_MAGIC] = MAGIC

    def fill(self, limit: int, readv: Callable[[list[memoryview]], int]) -> int:
        """Let `readv` put at most `limit` bytes straight into the ring; return how many it put.

        Whatever `readv` raises passes through and leaves `head` where it was.
        """
        start = self.head % self.capacity
        stop = min(start + limit, self.capacity)
        views = [self._data[start:stop]]
        if stop - start < limit:
            views.append(self._data[: min(limit - (stop - start), start)])
        self._words[_RESERVED] = self.head + limit
        try:
            count = readv(views)
        except OSError:
            self._words[_RESERVED] = self.head  # nothing was written: the old bytes are whole
            raise
        self.head += count
        self._words[_RESERVED] = self.head
        self._words[_HEAD] = self.head
        return count

    def stamp(self, monotonic_ms: int) -> None:
        """Note when output last came."""
        self._words[_LAST_OUTPUT] = monotonic_ms

    def end(self) -> None:
        """Say that nothing will follow."""
        self._words[_END] = self.head

    def tail(self, count: int) -> bytes:
        """Return the last `count` bytes, or all there are."""
        size = min(count, self.head, self.capacity)
        return _copy(self._data, self.capacity, self.head - size, size)


class RingReader:
    """A checking reader over memory that somebody else writes."""

    def __init__(self, memory: Buffer) -> None:
        """Open a ring.

        Raises:
            RingError: the magic, version or size is not a ring's.
        """
        if len(memory) <= HEADER_BYTES:
            raise RingError("too small for a ring")
        self._memory = memory
        self._words = memory[:HEADER_BYTES].cast("Q")
        if self._words[_MAGIC] != MAGIC or self._words[_VERSION] != VERSION:
            raise RingError("not a ring of this version")
        self._data = memory[HEADER_BYTES:]
        self.capacity = len(self._data)
        if self._words[_CAPACITY] != self.capacity:
            raise RingError("the ring's capacity is not the size of its memory")

    @property
    def head(self) -> int:
        return self._words[_HEAD]

    @property
    def start(self) -> int:
        """The oldest offset that can still be read whole."""
        return max(0, self._words[_RESERVED] - self.capacity)

    @property
    def ended(self) -> bool:
        return self._words[_END] != NOT_ENDED

    @property
    def last_output_ms(self) -> int:
        """When output last came, on the monotonic clock; 0 when none ever did."""
        return self._words[_LAST_OUTPUT]

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """Copy up to `limit` bytes from `offset` on.

        Returns:
            (offset of the first byte returned, bytes). The offset is greater than asked when the
            bytes between are gone; the bytes are empty when there is nothing newer yet.
        """
        while True:
            offset = max(offset, self.start)
            size = min(limit, self._words[_HEAD] - offset)
            if size <= 0:
                return offset, b""
            data = _copy(self._data, self.capacity, offset, size)
            if self._words[_RESERVED] - offset <= self.capacity:
                return offset, data

    def release(self) -> None:
        """Let go of the memory, so that its owner can unmap it."""
        self._words.release()
        self._data.release()
        self._memory.release()


def _copy(data: memoryview, capacity: int, offset: int, size: int) -> bytes:
    start = offset % capacity
    stop = start + size
    if stop <= capacity:
        return data[start:stop].tobytes()
    return b"".join((data[start:], data[: stop - capacity]))
