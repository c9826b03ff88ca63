"""What a crowd of idle sessions costs others: an echo and a spawn beside it, and where there is none.

The ptyd without a crowd is another one, alive at the same time: both are measured in the same rounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

from tests.bench.births import Births
from tests.bench.crowd import Crowd
from tests.bench.doorbell import Doorbell
from tests.bench.echo import echo_ms
from tests.bench.private import guarded
from tests.bench.report import Figure, percentile
from tests.bench.terminals import Terminal, direct_terminal, ptyd_terminal
from tests.support.daemon import RuntimeDir

ALONE: Final = "itself, alone"
WARM_UP_KEYS: Final = 50
FLAT: Final = 1.25
"""What still counts as the same time: the rounds of one ptyd differ by as much."""
_WAYS: Final[Mapping[str, Callable[..., AbstractContextManager[Terminal]]]] = {
    "streamed": ptyd_terminal,
    "direct": direct_terminal,
}


def measure(crowd: Crowd, settings: Mapping[str, str], rounds: int, keys: int, births: int) -> list[Figure]:
    """Measure an echo and a spawn beside the crowd and without one."""

    def beside(alone: RuntimeDir) -> list[Figure]:
        runtimes = {"crowd": crowd.runtime, ALONE: alone}
        echo = _measure_echo(runtimes, crowd.count, rounds, keys)
        return echo + _measure_spawn(runtimes, crowd.count, rounds, births)

    figures = guarded(beside, settings)
    crowd.wait_alone()
    return figures


def _measure_echo(runtimes: Mapping[str, RuntimeDir], count: int, rounds: int, keys: int) -> list[Figure]:
    return [
        Figure(
            name=f"keystroke echo p{percent} beside {count} idle sessions, {way}",
            unit="ms",
            samples=[percentile(times, percent) for times in found["crowd"]],
            peers={ALONE: [percentile(times, percent) for times in found[ALONE]]},
            against=ALONE,
            at_most=1.1,
            is_relative=True,
            group="echo",
        )
        for way in _WAYS
        for found in [_in_turns(runtimes, rounds, lambda runtime, way=way: _echoes_ms(runtime, way, keys))]
        for percent in (50, 99)
    ]


def _echoes_ms(runtime: RuntimeDir, way: str, keys: int) -> list[float]:
    """From a key's being sent to its coming back, through `cat` on a raw terminal."""
    ready = runtime.base / "ready"
    argv = ["sh", "-c", f"stty raw -echo; : >{ready}; exec cat"]
    with _WAYS[way](runtime, argv, ready, flow="skip") as terminal:
        return [echo_ms(terminal) for _ in range(WARM_UP_KEYS + keys)][WARM_UP_KEYS:]


def _measure_spawn(runtimes: Mapping[str, RuntimeDir], count: int, rounds: int, births: int) -> list[Figure]:
    found = _in_turns(runtimes, rounds, lambda runtime: [_spawn_ms(runtime, births)])
    return [
        Figure(
            name=f"spawn to first byte p50, {count} present, beside none",
            unit="ms",
            samples=[sample for (sample,) in found["crowd"]],
            peers={ALONE: [sample for (sample,) in found[ALONE]]},
            against=ALONE,
            at_most=FLAT,
            is_relative=True,
            group="many sessions",
            note="flat, if it is near 1",
        )
    ]


def _spawn_ms(runtime: RuntimeDir, births: int) -> float:
    path = runtime.base / "bell"
    with runtime.connect() as rpc, Doorbell(path) as bell:
        born = Births(runtime, rpc, bell)
        times = [born.spawn() for _ in range(births)]
        born.end_rest()
    return percentile(times, 50)


def _in_turns(
    runtimes: Mapping[str, RuntimeDir], rounds: int, measure: Callable[[RuntimeDir], list[float]]
) -> dict[str, list[list[float]]]:
    found: defaultdict[str, list[list[float]]] = defaultdict(list)
    for number in range(rounds):
        for name in list(runtimes) if number % 2 else reversed(runtimes):
            found[name].append(measure(runtimes[name]))
    return found
