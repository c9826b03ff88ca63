"""How much comes out: of one terminal at a socket, through the attach commands, and of four at once."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from tests.bench.contenders import CONTROL, COOKED, RAW, Contenders, Open
from tests.bench.report import Figure
from tests.bench.rounds import END, GO, beside, count_until_end, in_turns, is_ours, on_go, peers, wake
from tests.bench.terminals import Terminal

MIB: Final = 1 << 20
LINE: Final = b"x" * 63 + b"\n"
TEXT: Final = "text, cooked"
OUTPUTS: Final = (
    TEXT,
    "coloured listing, cooked",
    "text, raw",
    "coloured listing, raw",
    "random bytes, raw",  # only raw: cooking changes them
)
AT_ONCE: Final = 4
_SLOWER: Final = {"tmux": 4, "screen": 4, CONTROL: 8}
"""How much less these are given, as a divisor: it is a rate, and they would take most of the time."""


@attrs.frozen(kw_only=True)
class Output:
    """What a program prints, and in which modes of its terminal."""

    name: str
    block: bytes
    modes: str

    @contextlib.contextmanager
    def files(self, where: Path, size_mib: int) -> Iterator[dict[str, tuple[Path, int]]]:
        """Write a file of each share; yields path and MiB by the contender's name, "" for all others."""
        shares = {name: max(1, size_mib // divisor) for name, divisor in {"": 1, **_SLOWER}.items()}
        found = {name: (where / f"output-{mib}", mib) for name, mib in shares.items()}
        try:
            for path, mib in found.values():
                path.write_bytes(self.block * mib)
            yield found
        finally:
            for path, _ in found.values():
                path.unlink(missing_ok=True)


def _listing() -> bytes:
    """Return a MiB of what `ls -R --color` prints, of a tree that is the same in every run."""
    dice = random.Random(1)
    kinds = (
        (34, 1, ""),
        (32, 1, ""),
        (36, 1, ""),
        (31, 1, ".gz"),
        (35, 1, ".png"),
        (0, 0, ".py"),
        (0, 0, ".c"),
    )
    lines: list[str] = []
    size = 0
    while size < MIB:
        folder = "/".join(f"{dice.choice('abcdefgh')}{dice.randrange(99)}" for _ in range(dice.randint(1, 5)))
        names = [dice.choice(kinds) for _ in range(dice.randint(2, 40))]
        row = "  ".join(
            f"\x1b[{bold:02d};{colour}m{dice.randbytes(dice.randint(2, 8)).hex()}{ending}\x1b[0m"
            if colour
            else f"{dice.randbytes(dice.randint(2, 8)).hex()}{ending}"
            for colour, bold, ending in names
        )
        lines.append(f"./{folder}:\n{row}\n\n")
        size += len(lines[-1])
    return "".join(lines).encode()[: MIB - 5] + b"\x1b[0m\n"


def output(name: str) -> Output:
    """Return what is printed under one of the names of OUTPUTS."""
    match name.split(","):
        case ["text", modes]:
            block = LINE * (MIB // len(LINE))
        case ["coloured listing", modes]:
            block = _listing()
        case [_, modes]:
            block = random.Random(2).randbytes(MIB)
    return Output(name=name, block=block, modes=RAW if modes == " raw" else COOKED)


# -- at a socket -----------------------------------------------------------------------------------


def measure_throughput(
    contenders: Contenders, where: Path, rounds: int, size_mib: int, names: Sequence[str]
) -> list[Figure]:
    """Measure MiB/s as a client at the socket gets them, for each of OUTPUTS that is named."""
    lossless = contenders.sockets("pace")
    skipping = {
        f"{name}, `skip`": opened for name, opened in contenders.sockets("skip").items() if is_ours(name)
    }
    figures = []
    for printed in map(output, names):
        chosen = {**lossless, **skipping} if printed.name == TEXT else dict(lossless)
        if printed.modes == RAW:
            chosen.pop(CONTROL, None)  # it would take most of the time
        figures += _of_output(printed, chosen, where, rounds, size_mib)
    return figures


def _of_output(
    printed: Output, contenders: Mapping[str, Open], where: Path, rounds: int, size_mib: int
) -> list[Figure]:
    lost: dict[str, int] = dict.fromkeys(contenders, 0)

    def drain(name: str, open_terminal: Open) -> float:
        path, _ = files.get(name, files[""])
        with open_terminal(on_go(f"cat {path}"), printed.modes) as terminal:
            count, spent_s = _drain(terminal)
            lost[name] = max(lost[name], terminal.lost_bytes)
            return count / MIB / spent_s

    with printed.files(where, size_mib) as files:
        samples = in_turns(contenders, rounds, drain)
    return [
        Figure(
            name=f"{size_mib} MiB of {printed.name}: {name}",
            unit="MiB/s",
            samples=found,
            peers=peers(samples),
            against="dtach",
            at_least=_at_least(name, printed.modes),
            is_relative=True,
            note=_note(name, lost[name] / (size_mib * MIB)),
            group="throughput",
        )
        for name, found in samples.items()
        if is_ours(name)
    ]


def _at_least(name: str, modes: str) -> float:
    """Return the target, as a multiple of what dtach does."""
    if name.startswith("direct"):
        return 1.1
    return 1.0 if modes == COOKED else 0.95


def _note(name: str, lost_share: float) -> str:
    return f"at most {100 * lost_share:.1f} % lost in a round" if "skip" in name else "lossless (`pace`)"


def _drain(terminal: Terminal) -> tuple[int, float]:
    """Let a woken program print; returns how many bytes came, in how many seconds."""
    wake(terminal, b"\n", END)
    began = time.perf_counter()
    terminal.send(terminal.encode(GO))
    count = count_until_end(terminal)
    return count, time.perf_counter() - began


# -- through the attach commands -------------------------------------------------------------------


def measure_attached(
    contenders: Contenders, where: Path, rounds: int, size_mib: int, names: Sequence[str]
) -> list[Figure]:
    """Measure how fast a program prints through the attach commands, until the end of it is on the screen."""
    figures = []
    for printed in map(output, names):
        figures += _of_attached(printed, contenders.commands(), where, rounds, size_mib)
    return figures


def _of_attached(
    printed: Output, contenders: Mapping[str, Open], where: Path, rounds: int, size_mib: int
) -> list[Figure]:
    def drain(name: str, open_terminal: Open) -> float:
        path, mib = files.get(name, files[""])
        with open_terminal(on_go(f"cat {path}"), printed.modes) as terminal:
            return mib / _drain(terminal)[1]

    with printed.files(where, size_mib) as files:
        samples = in_turns(contenders, rounds, drain)
    return [
        Figure(
            name=f"{size_mib} MiB of {printed.name}, under a terminal: `{name}`",
            unit="MiB/s",
            samples=found,
            peers=peers(samples),
            against="dtach -a",
            note="the program's bytes; tmux and screen draw and need not pass all on",
            group="throughput",
        )
        for name, found in samples.items()
        if is_ours(name)
    ]


# -- four at once ----------------------------------------------------------------------------------


def measure_four(contenders: Contenders, where: Path, rounds: int, size_mib: int) -> list[Figure]:
    """Measure MiB/s of four programs together, each with a client of its own."""
    printed = output(TEXT)
    chosen = contenders.sockets("pace")
    chosen.pop(CONTROL, None)  # tmux 3.3a may crash when several of its control clients leave
    chosen.update((name, opened) for name, opened in contenders.commands().items() if name == "tmux")

    def drain(name: str, open_terminal: Open) -> float:
        path, mib = files.get(name, files[""])
        return AT_ONCE * mib / _drain_at_once(open_terminal, f"cat {path}", printed.modes)

    with printed.files(where, size_mib) as files:
        samples = in_turns(chosen, rounds, drain)
    targets = {"direct": ("dtach", 0.95), "streamed": ("tmux", 1.5)}
    return [
        Figure(
            name=f"{AT_ONCE} floods at once, together: {name}",
            unit="MiB/s",
            samples=samples[name],
            peers=peers(samples),
            against=against,
            at_least=at_least,
            is_relative=True,
            note=f"{size_mib} MiB of text each, cooked, the program's bytes; tmux by `tmux attach`",
            group="flood",
        )
        for name, (against, at_least) in targets.items()
    ]


def _drain_at_once(open_terminal: Open, command: str, modes: str) -> float:
    """Return how many seconds it takes until the last of the clients has everything."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_terminal(on_go(command), modes)) for _ in range(AT_ONCE)]
        for terminal in opened:
            wake(terminal, b"\n", END)
        pids = [stack.enter_context(beside(partial(count_until_end, terminal))) for terminal in opened]
        began = time.perf_counter()
        for terminal in opened:
            terminal.send(terminal.encode(GO))
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        spent_s = time.perf_counter() - began
    assert not any(statuses), "a client has failed"
    return spent_s
