"""How long a session takes to begin and to end, while so many others are there: rounds and figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import attrs

from tests.bench import births as b
from tests.bench.births import Births
from tests.bench.crowd import Crowd
from tests.bench.doorbell import Doorbell
from tests.bench.report import Figure, percentile

COMMANDS: Final = (b.COMMAND, b.TMUX_COMMAND)
UNPROVEN: Final = "proven dead; tmux's is unproven, and a hang-up only"

Samples = Mapping[str, list[float]]


@attrs.frozen(kw_only=True)
class Sizes:
    """How much is measured: in a round, so many of each."""

    rounds: int = 5
    births: int = 12
    commands: int = 3
    burst: int = 32
    kills: int = 12


FULL: Final = Sizes()
QUICK: Final = Sizes(rounds=2, births=4, commands=1, burst=8, kills=4)


def measure(crowd: Crowd, sizes: Sizes, *, is_plotted: bool) -> list[Figure]:
    """Measure beside the crowd as it is; it is the same again afterwards."""
    samples: defaultdict[str, list[float]] = defaultdict(list)
    with crowd.runtime.connect() as rpc, Doorbell(crowd.runtime.base / "bell") as bell:
        births = Births(crowd.runtime, rpc, bell, crowd.tmux)
        for number in range(sizes.rounds):
            for name, sample in _round(births, sizes, is_turned=number % 2 == 1).items():
                samples[name].append(sample)
    crowd.wait_alone()
    figures = [*_births(crowd.count, samples), *_ends(crowd.count, samples)]
    return [attrs.evolve(figure, is_plotted=is_plotted) for figure in figures]


def _round(births: Births, sizes: Sizes, *, is_turned: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    ways = list(births.ways().items())
    for name, begin in reversed(ways) if is_turned else ways:
        count = sizes.commands if name in COMMANDS else sizes.births
        found[name] = percentile([begin() for _ in range(count)], 50)
    bursts = list(births.bursts(sizes.burst).items())
    found |= {name: begin() for name, begin in (reversed(bursts) if is_turned else bursts)}
    ends = [b.POLITE, b.FORCED, *([b.HUNG_UP] if b.TMUX in found else [])]
    for name in reversed(ends) if is_turned else ends:
        found[name] = percentile([births.end_one(name) for _ in range(sizes.kills)], 50)
    births.end_rest()
    return found


def _births(present: int, samples: Samples) -> list[Figure]:
    tmux = {"tmux": samples.get(b.TMUX_COMMAND, []), "tmux -C": samples.get(b.TMUX, [])}
    where = f"{present} present"
    return [
        Figure(
            name=f"spawn to first byte p50, {where}",
            unit="ms",
            samples=samples[b.SPAWN],
            peers=tmux,
            against="tmux",
            at_most=1.5,
            is_relative=True,
            group="many sessions",
            note="at the socket; tmux as a command and over control mode",
        ),
        Figure(
            name=f"spawn and attach to first byte p50, {where}",
            unit="ms",
            samples=samples[b.ATTACHED],
            peers=tmux,
            against="tmux",
            group="many sessions",
            note="at the attached client; tmux's is not attached",
        ),
        Figure(
            name=f"`ptyd new -d` to first byte p50, {where}",
            unit="ms",
            samples=samples[b.COMMAND],
            peers={"tmux": tmux["tmux"]},
            against="tmux",
            group="many sessions",
        ),
        Figure(
            name=f"spawns at once, {where}",
            unit="sessions/s",
            samples=samples[b.BURST],
            peers={"tmux -C": samples.get(b.TMUX_BURST, [])},
            against="tmux -C",
            group="many sessions",
        ),
    ]


def _ends(present: int, samples: Samples) -> list[Figure]:
    peers = {"tmux -C": samples.get(b.HUNG_UP, [])}
    return [
        Figure(
            name=f"kill of a polite session p50, {present} present",
            unit="ms",
            samples=samples[b.POLITE],
            peers=peers,
            against="tmux -C",
            at_most=15,
            group="many sessions",
            note=UNPROVEN,
        ),
        Figure(
            name=f"force kill p50, {present} present",
            unit="ms",
            samples=samples[b.FORCED],
            peers=peers,
            against="tmux -C",
            at_most=1,
            is_relative=True,
            group="many sessions",
            note=UNPROVEN,
        ),
    ]
