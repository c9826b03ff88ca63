"""How long a list of many sessions takes: at the socket beside tmux's control mode, and as a command."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from tests.bench.births import ms_since
from tests.bench.crowd import Crowd
from tests.bench.private import PTYD
from tests.bench.report import Figure, percentile
from tests.bench.tmux_server import TmuxServer
from tests.support.rpc import Rpc

ALONE_MS: Final = 15


def measure_list(crowd: Crowd, rounds: int, lists: int, commands: int, is_last: bool) -> list[Figure]:
    """Measure a list at the socket, from the request to the decoded answer, and as a command.

    The targets at the socket are for the last, the largest.
    """
    with crowd.runtime.connect() as rpc:
        asked: dict[str, Callable[[], float]] = {"ptyd": lambda: _list_ms(rpc, crowd.count)}
        if tmux := crowd.tmux:
            asked["tmux -C"] = lambda: _tmux_list_ms(tmux)
        at_socket = _medians(asked, rounds, lists)
    as_command = _medians(_commands(crowd), rounds, commands)
    beside_tmux = Figure(
        name=f"`list` of {crowd} p50",
        unit="ms",
        samples=at_socket.pop("ptyd"),
        peers=at_socket,
        against="tmux -C",
        at_most=0.3 if is_last else None,
        is_relative=True,
        group="many sessions",
        is_plotted=is_last,
    )
    within = attrs.evolve(
        beside_tmux, name=f"{beside_tmux.name}, by itself", peers={}, is_relative=False, at_most=ALONE_MS
    )
    command = Figure(
        name=f"`ptyd ls` of {crowd}",
        unit="ms",
        samples=as_command.pop("ptyd"),
        peers=as_command,
        against="python",
        at_most=4,
        is_relative=True,
        group="many sessions",
        is_plotted=is_last,
        note="python: the start and end of one that does nothing",
    )
    return [beside_tmux, *([within] if is_last else []), command]


def _list_ms(rpc: Rpc, count: int) -> float:
    began = time.perf_counter()
    found = rpc.call("session.list")["sessions"]
    spent_ms = ms_since(began)
    assert len(found) == count, len(found)
    return spent_ms


def _tmux_list_ms(tmux: TmuxServer) -> float:
    began = time.perf_counter()
    tmux.ask("list-sessions")
    return ms_since(began)


def _commands(crowd: Crowd) -> dict[str, Callable[[], float]]:
    ours, pure = [*PTYD, "ls", "--no-start"], [sys.executable, "-c", "pass"]
    found = {
        "ptyd": lambda: _command_ms(ours, crowd.runtime.env),
        "python": lambda: _command_ms(pure, crowd.runtime.env),
    }
    if tmux := crowd.tmux:
        found["tmux"] = lambda: _command_ms([*tmux.command, "list-sessions"], tmux.env)
    return found


def _command_ms(argv: Sequence[str], env: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    return ms_since(began)


def _medians(kinds: Mapping[str, Callable[[], float]], rounds: int, count: int) -> dict[str, list[float]]:
    """Return each round's median of each, in turns within the round."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for name in list(kinds) if number % 2 else reversed(kinds):
            found[name].append(percentile([kinds[name]() for _ in range(count)], 50))
    return found
