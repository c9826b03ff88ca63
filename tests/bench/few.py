"""One terminal, or a few: every measure of how much and how fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs

from tests.bench import echo, interrupt, streams
from tests.bench.contenders import Contenders
from tests.bench.report import Figure
from tests.support.daemon import RuntimeDir


@attrs.frozen(kw_only=True)
class Sizes:
    """How much is measured."""

    rounds: int = 5
    stream_mib: int = 64
    attached_mib: int = 8
    flood_mib: int = 16
    keys: int = 1000
    flooded_keys: int = 200
    presses: int = 3
    outputs: Sequence[str] = streams.OUTPUTS
    attached_outputs: Sequence[str] = streams.OUTPUTS[:3]


FULL: Final = Sizes()
QUICK: Final = Sizes(
    rounds=3,
    stream_mib=4,
    attached_mib=2,
    flood_mib=2,
    keys=200,
    flooded_keys=50,
    presses=1,
    attached_outputs=[streams.TEXT],
)


def measure(runtime: RuntimeDir, sizes: Sizes, say: Callable[[str], None]) -> list[Figure]:
    """Measure everybody who is here; `say` tells what is next."""
    where, rounds = runtime.base, sizes.rounds
    with Contenders(runtime) as here:
        at_socket = partial(streams.measure_throughput, here, where, rounds, sizes.stream_mib)
        attached = partial(streams.measure_attached, here, where, rounds, sizes.attached_mib)
        steps: list[tuple[str, Callable[[], list[Figure]]]] = [
            ("throughput", lambda: at_socket(sizes.outputs)),
            ("throughput of the attach commands", lambda: attached(sizes.attached_outputs)),
            ("four floods", lambda: streams.measure_four(here, where, rounds, sizes.flood_mib)),
            ("echo", lambda: echo.measure_echo(here, rounds, sizes.keys, sizes.flooded_keys)),
            ("Ctrl-C", lambda: interrupt.measure_interrupt(here, rounds, sizes.presses)),
        ]
        figures: list[Figure] = []
        for name, step in steps:
            say(f"{name} …")
            figures += step()
        return figures
