"""Waiting for what gives no event, and the size of a test.

The only place where tests poll. Every wait has a deadline and says what it waited for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import trio

T = TypeVar("T")

DEADLINE_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.02
_REST: Final = 3
"""Of the time: a look that takes long (a pass of the reaper) is not taken all the time."""


def soak(small: int, full: int) -> int:
    """Return the size of a case: `small` in every run, `full` under PTYD_SOAK=1 (`make soak`)."""
    return full if os.environ.get("PTYD_SOAK", "") not in ("", "0") else small


def wait_until(predicate: Callable[[], T | None], deadline_s: float = DEADLINE_S, what: str = "") -> T:
    """Return the first true value of `predicate`.

    Raises:
        AssertionError: it was still false `deadline_s` later.
    """
    ends = time.monotonic() + deadline_s
    for pause_s in _pauses():
        looked_at = time.monotonic()
        value = predicate()
        if value:
            return value
        now = time.monotonic()
        if now >= ends:
            raise AssertionError(_complaint(predicate, deadline_s, what, value))
        time.sleep(max(pause_s, _REST * (now - looked_at)))
    raise AssertionError  # the pauses never end


async def trio_wait_until(
    predicate: Callable[[], T | None], deadline_s: float = DEADLINE_S, what: str = ""
) -> T:
    """Do what `wait_until` does, and let other tasks run meanwhile."""
    ends = trio.current_time() + deadline_s
    for pause_s in _pauses():
        value = predicate()
        if value:
            return value
        if trio.current_time() >= ends:
            raise AssertionError(_complaint(predicate, deadline_s, what, value))
        await trio.sleep(pause_s)
    raise AssertionError  # the pauses never end


def _pauses() -> Iterator[float]:
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)


def _complaint(predicate: object, deadline_s: float, what: str, value: object) -> str:
    what = what or getattr(predicate, "__qualname__", repr(predicate))
    return f"not within {deadline_s} s: {what} (last value: {value!r})"
