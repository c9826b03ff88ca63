"""Everyone in turns, and what all measures of a terminal do alike: scripts, waking, reading on.

Each round runs every contender one after the other, and the next round the other way round: what slows the
machine for a while slows all of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from tests.bench.contenders import Open
from tests.bench.terminals import ANSWER_DEADLINE_S, Terminal

END: Final = b"THE-END"
GO: Final = b"go\n"
NUDGE_S: Final = 0.1
"""Between two wake-up calls: a command that is just starting may throw away what was typed before."""

T = TypeVar("T")


def in_turns(
    contenders: Mapping[str, Open], rounds: int, measure: Callable[[str, Open], T]
) -> dict[str, list[T]]:
    """Measure every contender once a round; returns each one's results, a round each."""
    samples: dict[str, list[T]] = {name: [] for name in contenders}
    for order in orders(contenders, rounds):
        for name in order:
            samples[name].append(measure(name, contenders[name]))
    return samples


def orders(names: Iterable[str], rounds: int) -> Iterator[list[str]]:
    """Yield the order of each round."""
    forth = list(names)
    for number in range(rounds):
        yield forth if number % 2 else forth[::-1]


def peers(samples: Mapping[str, Sequence[T]]) -> dict[str, Sequence[T]]:
    """Return those that are not ptyd's."""
    return {name: found for name, found in samples.items() if not is_ours(name)}


def is_ours(name: str) -> bool:
    return name.startswith(("direct", "streamed", "ptyd"))


def on_go(command: str) -> str:
    """Return a script that runs a command when GO is typed, and prints END after it and after any other line.

    END is not in the script, so that no echo of it can be taken for it.
    """
    say_end = f"printf '\\r\\n%s-%s' {END.decode().replace('-', ' ')}"
    return f"while read go; do case $go in go) {command};; esac; {say_end}; done"


def wake(terminal: Terminal, keys: bytes, answer: bytes) -> None:
    """Type until the answer comes, then wait until nothing more does: from now on keys are answered.

    Raises:
        TimeoutError: no answer came.
    """
    heard, ends = b"", time.monotonic() + ANSWER_DEADLINE_S
    while answer not in heard:
        if time.monotonic() > ends:
            raise TimeoutError(f"not woken; it said {heard[-200:]!r}")
        terminal.send(terminal.encode(keys))
        while answer not in heard and terminal.wait(NUDGE_S):
            heard += terminal.decode(terminal.receive())
    while terminal.wait(terminal.calm_s):
        terminal.decode(terminal.receive())


def count_until_end(terminal: Terminal) -> int:
    """Read until END has come; returns how many bytes did."""
    count, tail = 0, b""
    while END not in tail:
        data = terminal.decode(terminal.receive())
        count += len(data)
        # Of what came before only as much as could be the beginning of an END that goes on here.
        tail = tail[-len(END) :] + data
    return count


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[int]:
    """Do some work in a process of its own, as another client is one; yields its pid, ends it in the end.

    The work starts with copies of our descriptors and may use what we leave alone meanwhile.
    """
    pid = os.fork()
    if not pid:
        _work(work)
    try:
        yield pid
    finally:
        with contextlib.suppress(ChildProcessError):  # whoever uses this may have waited for its end
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _work(work: Callable[[], object]) -> None:
    """Work and leave, past everything that our own end would clean up."""
    status = 1
    try:
        work()
        status = 0
    except Exception:  # noqa: BLE001 - to be told by this process: nothing above it is ours to run
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
    finally:
        os._exit(status)
