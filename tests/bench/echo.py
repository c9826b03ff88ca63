"""How fast a typed key comes back: while all is quiet, and while another session floods."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from tests.bench.contenders import COOKED, RAW, Contenders, Open
from tests.bench.report import Figure, percentile
from tests.bench.rounds import END, GO, beside, on_go, orders, peers, wake
from tests.bench.streams import LINE
from tests.bench.terminals import Terminal

KEY: Final = b"j"  # ends no escape sequence that a terminal is likely to be sent
TURNS: Final = 5
WARM_UP_KEYS: Final = 20
FLOODED_LONGEST_S: Final = 4.0
FLOOD_UP_S: Final = 0.2
ITSELF: Final = "itself, idle"


@attrs.frozen
class _Target:
    """How many times what a peer does, at most; several of the same samples are as many figures."""

    of: str
    percent: int
    against: str
    at_most: float | None = None


_IDLE: Final = (
    _Target("direct", 50, "dtach", 1.15),
    _Target("direct", 99, "dtach"),
    _Target("streamed", 50, "dtach", 1.5),
    _Target("streamed", 99, "dtach", 1.0),
    _Target("ptyd attach", 50, "dtach -a", 1.0),
    _Target("ptyd attach", 50, "tmux", 0.7),
    _Target("ptyd attach", 99, "dtach -a"),
    _Target("ptyd attach --via stream", 50, "dtach -a"),
    _Target("ptyd attach --via stream", 99, "dtach -a"),
)
_RIVALS: Final = {
    "direct": ("dtach", "tmux -C"),
    "streamed": ("dtach", "tmux -C"),
    "ptyd attach": ("dtach -a", "tmux"),
    "ptyd attach --via stream": ("dtach -a", "tmux"),
}
_FLOODED: Final = tuple(
    target
    for of, rivals in _RIVALS.items()
    for target in (
        _Target(of, 50, ITSELF),
        _Target(of, 99, ITSELF, 2.0),
        *(_Target(of, 99, rival, 1.0) for rival in rivals),
    )
)


@attrs.frozen
class _Echoes:
    """One contender's round, in milliseconds."""

    idle: list[float]
    flooded: list[float]


def measure_echo(contenders: Contenders, rounds: int, keys: int, flooded_keys: int) -> list[Figure]:
    """Measure the time from a key's being sent to its coming back, through `cat` on a raw terminal.

    First while nothing else happens: all terminals of a round are open, and each has its turn several times
    over, as a key's way depends on which cores its processes happen to be on. Then while a second client
    reads a session that floods: of the same server, or of another one where each serves one session.
    """
    samples = []
    for openers in (contenders.sockets("skip"), contenders.commands()):
        flooding = openers | contenders.sockets("pace")  # at a socket, a client that reads all of it
        found: dict[str, list[_Echoes]] = {name: [] for name in openers}
        for order in orders(openers, rounds):
            for name, echoes in _round({name: openers[name] for name in order}, flooding, keys, flooded_keys):
                found[name].append(echoes)
        samples.append(found)
    figures = [_idle_figures(found) for found in samples] + [_flooded_figures(found) for found in samples]
    return [figure for some in figures for figure in some]


def _round(
    openers: Mapping[str, Open], flooding: Mapping[str, Open], keys: int, flooded_keys: int
) -> Iterator[tuple[str, _Echoes]]:
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(opener("exec cat", RAW)) for name, opener in openers.items()}
        for terminal in opened.values():
            wake(terminal, KEY, KEY)
        idle: dict[str, list[float]] = {name: [] for name in opened}
        for _ in range(TURNS):
            for name, terminal in opened.items():
                _type(terminal, WARM_UP_KEYS)
                idle[name] += _type(terminal, max(1, keys // TURNS))
        for name, terminal in opened.items():
            with _flood_beside(flooding[name]):
                yield name, _Echoes(idle[name], _type(terminal, flooded_keys, FLOODED_LONGEST_S))


def _type(terminal: Terminal, keys: int, longest_s: float = float("inf")) -> list[float]:
    """Type keys one after the other; returns the milliseconds each took to come back."""
    spent_ms: list[float] = []
    ends = time.monotonic() + longest_s
    while len(spent_ms) < keys and time.monotonic() < ends:
        spent_ms.append(echo_ms(terminal))
    return spent_ms


def echo_ms(terminal: Terminal) -> float:
    """Return how long one key takes to come back; a client's own decoding of it is not counted."""
    key = terminal.encode(KEY)
    began = time.perf_counter()
    terminal.send(key)
    while True:
        received = terminal.receive()
        spent_ms = (time.perf_counter() - began) * 1000
        if KEY in terminal.decode(received):
            return spent_ms


@contextlib.contextmanager
def _flood_beside(open_terminal: Open) -> Iterator[None]:
    """Let another session flood, and a client in a process of its own read all of it."""
    with open_terminal(on_go(f"yes {LINE.decode().strip()}"), COOKED) as terminal:
        wake(terminal, b"\n", END)
        terminal.send(terminal.encode(GO))
        with beside(lambda: _read_on(terminal)):
            time.sleep(FLOOD_UP_S)
            yield


def _read_on(terminal: Terminal) -> None:
    while True:
        terminal.receive()


# -- figures ---------------------------------------------------------------------------------------


def _idle_figures(samples: Mapping[str, Sequence[_Echoes]]) -> Iterator[Figure]:
    for target in _IDLE:
        if target.of in samples:
            found = {name: _percentiles(target, [one.idle for one in of]) for name, of in samples.items()}
            yield _figure(_titled("keystroke echo", target, _IDLE), target, found, "echo")


def _flooded_figures(samples: Mapping[str, Sequence[_Echoes]]) -> Iterator[Figure]:
    for target in _FLOODED:
        if target.of in samples:
            found = {name: _percentiles(target, [one.flooded for one in of]) for name, of in samples.items()}
            found[ITSELF] = _percentiles(target, [one.idle for one in samples[target.of]])
            yield _figure(_titled("echo beside a flood", target, _FLOODED), target, found, "flood")


def _figure(name: str, target: _Target, samples: Mapping[str, Sequence[float]], group: str) -> Figure:
    return Figure(
        name=name,
        unit="ms",
        samples=samples[target.of],
        peers=peers(samples),
        against=target.against,
        at_most=target.at_most,
        is_relative=True,
        group=group,
    )


def _titled(what: str, target: _Target, targets: Sequence[_Target]) -> str:
    """Return a name that no other target's figure has: the first of the same samples has the plain one."""
    same = [one for one in targets if (one.of, one.percent) == (target.of, target.percent)]
    if target.of.startswith("ptyd"):
        what, of = f"{what} under a terminal", f"`{target.of}`"
    else:
        of = target.of
    return f"{what} p{target.percent}, {of}" + (f" (against {target.against})" if target != same[0] else "")


def _percentiles(target: _Target, rounds: Sequence[Sequence[float]]) -> list[float]:
    return [percentile(times, target.percent) for times in rounds]
