"""One client and one terminal: how much comes out, and how fast a key comes back.

Each round runs dtach and ptyd one after the other, and the next round the other way round: what slows
the machine for a while slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TypeVar

from tests.bench.report import Figure, percentile
from tests.bench.terminals import Terminal, direct_terminal, dtach_terminal, has_dtach, ptyd_terminal
from tests.support.daemon import RuntimeDir

LINE: Final = b"x" * 63 + b"\n"
END: Final = b"THE-END"
WARM_UP_KEYS: Final = 50
MIB: Final = 1 << 20

_NAMES: Final = {
    "streamed, pace": "streamed, lossless (`pace`)",
    "streamed, skip": "streamed, `skip`",
    "direct, pace": "direct, lossless (`pace`)",
    "direct, skip": "direct, `skip`",
}
_THROUGHPUT: Final = {"streamed, pace": 1.0, "streamed, skip": 1.0, "direct, pace": 1.1, "direct, skip": 1.1}
_ECHO: Final[dict[str, dict[int, float]]] = {
    "streamed, skip": {50: 1.5, 99: 1.0},
    "direct, skip": {50: 1.15},
}
"""The targets, as multiples of what dtach does."""

T = TypeVar("T")
Open = Callable[[list[str]], AbstractContextManager[Terminal]]


def measure_throughput(runtime: RuntimeDir, rounds: int, size_mib: int) -> list[Figure]:
    """Measure MiB/s of `cat` of a text file, as the client gets them."""
    text = runtime.base / "text"
    text.write_bytes(LINE * (size_mib * MIB // len(LINE)))
    ready = runtime.base / "ready"
    # Typed first, printed then: the shell's echo is off, and the end is not in what we type.
    script = f"stty -echo; : >{ready}; read go; cat {text}; printf '%s-%s' THE END; read stay"
    lost: list[int] = []

    def drain(open_terminal: Open) -> float:
        with open_terminal(["sh", "-c", script]) as terminal:
            began = time.perf_counter()
            terminal.send(terminal.encode(b"\n"))
            count = _count_until_end(terminal)
            lost.append(terminal.lost_bytes)
            return count / MIB / (time.perf_counter() - began)

    samples = _in_turns(_kinds(runtime, ready), rounds, drain)
    text.unlink()
    lost_share = 100 * max(lost) / (size_mib * MIB)
    return [
        Figure(
            name=f"throughput, {size_mib} MiB of text, {_NAMES[kind]}",
            unit="MiB/s",
            samples=samples[kind],
            peers={"dtach": samples.get("dtach", [])},
            at_least=at_least,
            is_relative=True,
            note=f"at most {lost_share:.1f} % lost in a round" if "skip" in kind else "",
            group="throughput",
        )
        for kind, at_least in _THROUGHPUT.items()
    ]


def _count_until_end(terminal: Terminal) -> int:
    count, tail = 0, b""
    while not tail.endswith(END):
        data = terminal.decode(terminal.receive())
        count += len(data)
        tail = (tail + data)[-len(END) :]
    return count


def measure_echo(runtime: RuntimeDir, rounds: int, keys: int) -> list[Figure]:
    """Measure the time from a key's being sent to its coming back, through `cat` on a raw terminal."""
    ready = runtime.base / "ready"
    script = f"stty raw -echo; : >{ready}; exec cat"

    def type_keys(open_terminal: Open) -> list[float]:
        with open_terminal(["sh", "-c", script]) as terminal:
            return [_echo_ms(terminal) for _ in range(WARM_UP_KEYS + keys)][WARM_UP_KEYS:]

    kinds = {kind: opened for kind, opened in _kinds(runtime, ready).items() if "pace" not in kind}
    samples = _in_turns(kinds, rounds, type_keys)
    return [
        Figure(
            name=f"keystroke echo p{percent}, {kind.removesuffix(', skip')}",
            unit="ms",
            samples=[percentile(times, percent) for times in samples[kind]],
            peers={"dtach": [percentile(times, percent) for times in samples.get("dtach", [])]},
            at_most=at_most.get(percent),
            is_relative=True,
            group="echo",
        )
        for kind, at_most in _ECHO.items()
        for percent in (50, 99)
    ]


def _echo_ms(terminal: Terminal) -> float:
    key = terminal.encode(b"k")
    began = time.perf_counter()
    terminal.send(key)
    echo = terminal.receive()
    spent_ms = (time.perf_counter() - began) * 1000
    assert terminal.decode(echo) == b"k", echo
    return spent_ms


def _kinds(runtime: RuntimeDir, ready: Path) -> dict[str, Open]:
    kinds: dict[str, Open] = {
        "streamed, pace": lambda argv: ptyd_terminal(runtime, argv, ready, "pace"),
        "streamed, skip": lambda argv: ptyd_terminal(runtime, argv, ready, "skip"),
        "direct, pace": lambda argv: direct_terminal(runtime, argv, ready, "pace"),
        "direct, skip": lambda argv: direct_terminal(runtime, argv, ready, "skip"),
    }
    if has_dtach():
        kinds["dtach"] = lambda argv: dtach_terminal(runtime.base, argv, ready)
    return kinds


def _in_turns(kinds: dict[str, Open], rounds: int, measure: Callable[[Open], T]) -> dict[str, list[T]]:
    samples: dict[str, list[T]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        order = list(kinds) if number % 2 else list(reversed(kinds))
        for kind in order:
            samples[kind].append(measure(kinds[kind]))
    return samples
