"""One lane for each subject: whoever does something to it does so alone. Owns the locks that are in use."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Hashable

import trio


class Lanes:
    """Locks by key, which are there only while somebody needs them."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, tuple[trio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def alone(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the lane of `key` for the block."""
        lock, users = self._lanes.get(key, (trio.Lock(), 0))
        self._lanes[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._lanes[key]
            if users == 1:
                del self._lanes[key]
            else:
                self._lanes[key] = lock, users - 1
