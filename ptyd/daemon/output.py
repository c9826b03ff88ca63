"""Where a session's output is read from: the living ring, or the tail that a record keeps.

Owns the tail. A reader need not know which of the two it has.
"""

from __future__ import annotations

from typing import Protocol


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
