"""Every contender that is here carries keys and output as they are; at sizes that take a moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Final

import pytest

from tests.bench import few
from tests.bench.contenders import COOKED, RAW, Contenders
from tests.bench.rounds import END, GO, beside, count_until_end, in_turns, on_go, wake
from tests.bench.streams import OUTPUTS, TEXT, output
from tests.bench.terminals import Terminal
from tests.support.daemon import RuntimeDir

pytestmark = pytest.mark.unmeasured


PROGRAMS: Final = {
    "direct": "sh",
    "streamed": "sh",
    "dtach": "dtach",
    "relay": "cc",
    "tmux -C": "tmux",
    "ptyd attach": "sh",
    "ptyd attach --via stream": "sh",
    "dtach -a": "dtach",
    "tmux": "tmux",
    "screen": "screen",
    "abduco": "abduco",
}
"""Each contender, and the program without which it is left out."""
EXACT: Final = ["direct", "streamed", "dtach", "relay"]
TINY: Final = few.Sizes(
    rounds=1,
    stream_mib=1,
    attached_mib=1,
    flood_mib=1,
    keys=5,
    flooded_keys=3,
    presses=1,
    outputs=[OUTPUTS[-1]],
    attached_outputs=[TEXT],
)
QUIET_S: Final = 0.1


@pytest.fixture
def contenders(daemon: RuntimeDir) -> Iterator[Contenders]:
    with Contenders(daemon) as found:
        yield found


def test_nothing_comes_but_what_the_program_prints(contenders: Contenders) -> None:
    """No end of a terminal echoes by itself, which would be taken for the program's answer."""
    everyone = {**contenders.sockets("pace"), **contenders.commands()}
    assert list(everyone) == [name for name, program in PROGRAMS.items() if shutil.which(program)]
    for name, opened in everyone.items():
        with opened(on_go("printf HELLO"), COOKED) as terminal:
            wake(terminal, b"\n", END)
            terminal.send(terminal.encode(b"g"))
            assert not _heard(terminal), name
            terminal.send(terminal.encode(b"o\n"))
            assert b"HELLO" in _until_end(terminal), name


def test_every_byte_comes(contenders: Contenders, runtime: RuntimeDir) -> None:
    printed = output(OUTPUTS[-1])
    (runtime.base / "printed").write_bytes(printed.block)
    everyone = contenders.sockets("pace")
    for name in EXACT:
        if name in everyone:
            with everyone[name](on_go(f"cat {runtime.base / 'printed'}"), RAW) as terminal:
                wake(terminal, b"\n", END)
                terminal.send(terminal.encode(GO))
                assert _until_end(terminal) == printed.block + b"\r\n" + END, name


def _heard(terminal: Terminal) -> bytes:
    heard = b""
    while terminal.wait(QUIET_S):
        heard += terminal.decode(terminal.receive())
    return heard


def _until_end(terminal: Terminal) -> bytes:
    heard = b""
    while END not in heard:
        heard += terminal.decode(terminal.receive())
    return heard


def test_every_target_of_few_terminals_is_measured(runtime: RuntimeDir) -> None:
    said: list[str] = []
    figures = few.measure(runtime.start(PTYD_RING_LINGER_S="1"), TINY, said.append)
    assert len(said) == 5
    assert len({figure.name for figure in figures}) == len(figures)
    assert all(sample > 0 for figure in figures for sample in figure.samples)
    assert [figure.target for figure in figures if figure.target] == [
        *("≥ 1.1 × dtach", "≥ 0.95 × dtach"),
        *("≥ 0.95 × dtach", "≥ 1.5 × tmux"),
        *("≤ 1.15 × dtach", "≤ 1.5 × dtach", "≤ 1 × dtach"),
        *("≤ 1 × dtach -a", "≤ 0.7 × tmux"),
        *("≤ 2 × itself, idle", "≤ 1 × dtach", "≤ 1 × tmux -C") * 2,
        *("≤ 2 × itself, idle", "≤ 1 × dtach -a", "≤ 1 × tmux") * 2,
        *("≤ 100 ms", "≤ 100 ms"),
    ]


def test_each_round_goes_the_other_way_round() -> None:
    asked: list[str] = []

    def measure(name: str, _: object) -> int:
        asked.append(name)
        return len(asked)

    samples = in_turns(dict.fromkeys("ab"), 2, measure)  # type: ignore[arg-type]
    assert asked == ["b", "a", "a", "b"]
    assert samples == {"a": [2, 3], "b": [1, 4]}


def test_the_end_is_found_wherever_it_is_cut() -> None:
    whole = b"THE-THE-END"
    for at in range(1, len(whole)):
        assert count_until_end(_Said([whole[:at], whole[at:]])) == len(whole)  # type: ignore[arg-type]


class _Said:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def receive(self) -> bytes:
        return self._pieces.pop(0)

    def decode(self, received: bytes) -> bytes:
        return received


@pytest.mark.parametrize("error", [None, ValueError("told on stderr")])
def test_work_beside_ends_by_itself(error: Exception | None, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        if error:
            raise error

    with beside(work) as pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == bool(error)
    assert ("told on stderr" in capfd.readouterr().err) == bool(error)


def test_work_beside_ends_with_the_block() -> None:
    with beside(lambda: os.read(os.pipe()[0], 1)) as pid:
        pass
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
