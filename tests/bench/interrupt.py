"""How long Ctrl-C takes to silence a program that prints without pause, through the attach commands."""

from __future__ import annotations

import time
from typing import Final

from tests.bench.contenders import COOKED, Contenders, Open
from tests.bench.report import Figure
from tests.bench.rounds import END, GO, count_until_end, in_turns, is_ours, on_go, peers, wake
from tests.bench.terminals import Terminal

CTRL_C: Final = b"\x03"
FLOOD_S: Final = 0.3


def measure_interrupt(contenders: Contenders, rounds: int, presses: int) -> list[Figure]:
    """Measure from Ctrl-C to the last byte of `yes`: what its shell prints after its end has come."""

    def press(_: str, open_terminal: Open) -> float:
        with open_terminal(f"trap : INT; {on_go('yes')}", COOKED) as terminal:
            wake(terminal, b"\n", END)
            return max(_silence_ms(terminal) for _ in range(presses))

    samples = in_turns(contenders.commands(), rounds, press)
    return [
        Figure(
            name=f"Ctrl-C to silence under `yes`, `{name}`",
            unit="ms",
            samples=found,
            peers=peers(samples),
            against="dtach -a",
            at_most=100,
            note=f"the slowest of {presses} in a round",
            group="flood",
        )
        for name, found in samples.items()
        if is_ours(name)
    ]


def _silence_ms(terminal: Terminal) -> float:
    terminal.send(terminal.encode(GO))
    ends = time.monotonic() + FLOOD_S
    while time.monotonic() < ends:
        terminal.receive()
    began = time.perf_counter()
    terminal.send(terminal.encode(CTRL_C))
    count_until_end(terminal)
    return (time.perf_counter() - began) * 1000
