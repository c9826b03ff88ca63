"""The ended sessions of a registry: in which order they give way, and which of them have to.

Owns that order, and nothing of the sessions themselves. A thousand that end at once cost each other nothing.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Final

from ptyd.daemon.session import Session

LINGERING_SHIMS: Final = 64
"""Ended sessions whose whole ring is kept readable; the oldest give way."""


class EndedSessions:
    """Those that are kept, and among them those whose shims still keep the ring."""

    def __init__(self) -> None:
        self._kept: set[Session] = set()
        self._oldest: list[tuple[int, int, Session]] = []  # a heap; may hold as many again that are forgotten
        self._numbers = itertools.count()
        self._lingering: list[Session] = []

    def add(self, session: Session) -> list[Session]:
        """Enter one that has ended; return those whose shims may leave for it."""
        self._kept.add(session)
        at_ms = session.fact("ended_at_ms") or 0
        heapq.heappush(self._oldest, (at_ms, next(self._numbers), session))
        lingering = [one for one in self._lingering if one.is_linked]
        surplus = max(0, len(lingering) + 1 - LINGERING_SHIMS)
        self._lingering = [*lingering[surplus:], session]
        return lingering[:surplus]

    def discard(self, session: Session) -> None:
        """Forget one; harmless if it is not here."""
        self._kept.discard(session)
        if len(self._oldest) > 2 * len(self._kept) + LINGERING_SHIMS:
            self._oldest = [entry for entry in self._oldest if entry[2] in self._kept]
            heapq.heapify(self._oldest)

    def overdue(self, most: int, limit_ms: int) -> Iterator[Session]:
        """Take out, oldest first, those beyond `most` and those that ended before `limit_ms`."""
        while self._oldest:
            at_ms, _, session = self._oldest[0]
            is_kept = session in self._kept
            if is_kept and at_ms >= limit_ms and len(self._kept) <= most:
                return
            heapq.heappop(self._oldest)
            if is_kept:
                self._kept.discard(session)
                yield session
