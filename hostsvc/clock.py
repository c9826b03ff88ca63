"""Time, given to whoever needs it: tests have their own."""

from __future__ import annotations

import time
from collections.abc import Callable

NowMs = Callable[[], int]
"""The wall clock, in ms since the epoch."""


def wall_ms() -> int:
    return time.time_ns() // 1_000_000
