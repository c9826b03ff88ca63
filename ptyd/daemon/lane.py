"""Keeping the order of one client's input, resizes and signals to one session.

Owns only the waiting: while an input that may wait for room is undecided, what came after it waits
behind it. Without such an input there is no lane and no cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio


class Lane:
    """Work in order; `enter` stops it, `release` lets it go on."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_held = False

    def run(self, work: Callable[[], None]) -> None:
        """Do it now, or after what waits already."""
        if self._is_held or self._waiting:
            self._waiting.append(work)
        else:
            work()

    def enter(self) -> trio.Event:
        """Queue for the lane; the event is set when it is ours, until `release`."""
        turn = trio.Event()

        def begin() -> None:
            self._is_held = True
            turn.set()

        self.run(begin)
        return turn

    def release(self) -> bool:
        """Go on; tell whether the lane is empty and can be dropped."""
        self._is_held = False
        while self._waiting and not self._is_held:
            self._waiting.popleft()()
        return not self._is_held
