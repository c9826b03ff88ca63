"""Where a session's output is read from: the living ring, or the tail that a record keeps.

Owns the mapping of the ring, and the tail. A reader need not know which of the two it has.
"""

from __future__ import annotations

import mmap
import os
from typing import Protocol

from ptyd.ring import RingReader


class Output(Protocol):
    """Where output can be read: the living ring, or the tail that a record keeps."""

    capacity: int

    @property
    def head(self) -> int: ...
    @property
    def start(self) -> int: ...
    def read(self, offset: int, limit: int) -> tuple[int, bytes]: ...


class Tail:
    """What an exit record keeps of the output, read like a ring."""

    def __init__(self, data: bytes, end_offset: int) -> None:
        self._data = data
        self.capacity = len(data)
        self.head = end_offset
        self.start = end_offset - len(data)

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        offset = max(offset, self.start)
        at = offset - self.start
        return offset, self._data[at : at + limit]


class RingView:
    """The shim's ring, seen through memory of ours. Without memory for it, it is looked for again later."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._memory: mmap.mmap | None = None
        self._reader: RingReader | None = None

    @property
    def is_mapped(self) -> bool:
        return self._memory is not None

    @property
    def is_out_of_memory(self) -> bool:
        return self._fd is not None

    @property
    def reader(self) -> RingReader | None:
        """The ring; None while nobody has told where it is, or while there is no memory for it."""
        if self._fd is not None:
            self._map(self._fd)
        return self._reader

    def take(self, fds: list[int]) -> None:
        """Take the ring's descriptor over, and close what else came.

        Raises:
            RingError: it is none of ours.
        """
        if self._memory is None and self._fd is None:
            self._fd = fds.pop()
            self._map(self._fd)
        for fd in fds:
            os.close(fd)

    def _map(self, fd: int) -> None:
        try:
            self._memory = mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)
        except OSError:
            return  # the session runs on without us seeing it
        self.close()
        self._reader = RingReader(memoryview(self._memory))

    def close(self) -> None:
        """Give up on what could not be mapped; what was mapped stays readable."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def release(self) -> None:
        """Give the memory back."""
        if self._memory is not None and self._reader is not None:
            self._reader.release()
            self._memory.close()
            self._memory = self._reader = None
