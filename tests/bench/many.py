"""Many sessions: everything that is measured beside 0, 1, 100 and 1000 of them.

Also runs alone: `python -m tests.bench.many [--quick]`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from tests.bench import attaching, beside, lifecycle, listing
from tests.bench.crowd import Crowd
from tests.bench.footprint import Footprint
from tests.bench.private import run_part
from tests.bench.report import Figure
from tests.bench.tmux_server import TmuxServer, has_tmux
from tests.support.daemon import RuntimeDir

# Every adoption costs the zygote's crash budget one death.
SETTINGS: Final = {"PTYD_CRASH_BUDGET": "1000", "PTYD_RING_LINGER_S": "0"}


@attrs.frozen(kw_only=True)
class Sizes:
    """How much is measured: so many sessions, and so often."""

    levels: Sequence[int] = (1, 100, 1000)
    idle: int = 500
    idle_s: float = 10.0
    idle_rounds: int = 2
    rounds: int = 5
    lists: int = 15
    commands: int = 3
    attaches: int = 20
    keys: int = 400
    restarts: int = 3
    lifecycle: lifecycle.Sizes = lifecycle.FULL


FULL: Final = Sizes()
QUICK: Final = Sizes(
    levels=(1, 20, 100),
    idle=50,
    idle_s=2.0,
    idle_rounds=1,
    rounds=2,
    lists=5,
    commands=1,
    attaches=10,
    keys=200,
    restarts=1,
    lifecycle=lifecycle.QUICK,
)

Step = tuple[str, Callable[[], list[Figure]]]


def measure(runtime: RuntimeDir, sizes: Sizes, settings: Mapping[str, str] = SETTINGS) -> list[Figure]:
    """Run every measurement, in a runtime directory where ptyd runs and has no session."""
    figures: list[Figure] = []
    with contextlib.ExitStack() as stack:
        tmux = stack.enter_context(TmuxServer(runtime.base)) if has_tmux() else None
        for name, step in _steps(Crowd(runtime, tmux), sizes, settings):
            began = time.monotonic()
            figures += step()
            print(f"bench: {name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return figures


def _steps(crowd: Crowd, sizes: Sizes, settings: Mapping[str, str]) -> list[Step]:
    footprint = Footprint(crowd)
    steps: list[Step] = [("memory, none", footprint.measure)]
    for level in sorted({*sizes.levels, sizes.idle}):
        steps.append((f"{level} sessions", lambda level=level: _fill(crowd, level)))
        if level == sizes.idle:
            steps.append(("idle", lambda: crowd.measure_idle(sizes.idle_rounds, sizes.idle_s)))
        if level in sizes.levels:
            steps += _steps_of_level(crowd, footprint, sizes, is_last=level == max(sizes.levels))
    return [
        *steps,
        ("beside", lambda: beside.measure(crowd, settings, sizes.rounds, sizes.keys, sizes.lifecycle.births)),
        ("restart", lambda: crowd.measure_restart(sizes.restarts)),
        ("the end of all", crowd.measure_end_of_all),
    ]


def _fill(crowd: Crowd, level: int) -> list[Figure]:
    crowd.fill(level)
    return []


def _steps_of_level(crowd: Crowd, footprint: Footprint, sizes: Sizes, *, is_last: bool) -> list[Step]:
    return [
        ("memory", lambda: footprint.measure() if crowd.count > 1 else []),
        ("births and ends", lambda: lifecycle.measure(crowd, sizes.lifecycle, is_plotted=is_last)),
        ("list", lambda: listing.measure_list(crowd, sizes.rounds, sizes.lists, sizes.commands, is_last)),
        ("attach", lambda: attaching.measure_attach(crowd, sizes.rounds, sizes.attaches)),
    ]


if __name__ == "__main__":
    sys.exit(run_part(__doc__, measure, full=FULL, quick=QUICK, settings=SETTINGS))
