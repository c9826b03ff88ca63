"""The shim's side of a PTY, on a real one without any program."""

from __future__ import annotations

import os
import select
import tty
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ptyd.datagrams import Verdict
from ptyd.ring import RingReader, RingWriter, ring_bytes
from ptyd.shim.link import INPUT_QUEUE_BYTES
from ptyd.shim.terminal import PTY_BYTES, Terminal
from tests.support.stream import expected
from tests.support.waiting import wait_until

CAPACITY = 1 << 20
FAR = 1e12  # a moment that no test reaches


class Pty:
    """A terminal, its ring as a reader sees it, and the program's end of it."""

    def __init__(self) -> None:
        master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(master, False)
        memory = memoryview(bytearray(ring_bytes(CAPACITY)))
        self.epoll = select.epoll()
        file = open(master, "r+b", buffering=0)  # noqa: SIM115  # closed by a hang-up, as ptyprocess's is
        process = SimpleNamespace(fileobj=file, setwinsize=lambda rows, cols: None)
        program = SimpleNamespace(master_fd=master, slave_fd=os.dup(self.slave), process=process)
        self.terminal = Terminal(cast(Any, program), RingWriter(memory), self.epoll)
        self.reader = RingReader(memory)

    def interest(self) -> int:
        """What the shim listens for and would get at once."""
        return sum(mask for _, mask in self.epoll.poll(0))

    def close(self) -> None:
        self.terminal.hang_up()
        self.epoll.close()
        os.close(self.slave)


@pytest.fixture
def pty() -> Iterator[Pty]:
    pty = Pty()
    yield pty
    pty.close()


def fill_up(pty: Pty) -> int:
    """Write the numbered stream until the terminal takes no more; return how much that was."""
    os.set_blocking(pty.slave, False)
    at, stream = 0, memoryview(expected(0, PTY_BYTES))
    try:
        while True:
            at += os.write(pty.slave, stream[at : at + 4096])
    except BlockingIOError:
        return at


# --- output ----------------------------------------------------------------------------------------


def test_a_full_terminal_holds_less_than_we_count_on(pty: Pty) -> None:
    """What a leader has written when it exits is read before its exit is told: all of it fits the bound."""
    written = fill_up(pty)
    assert 4096 < written < PTY_BYTES - 4096
    assert pty.terminal.drain_up_to(PTY_BYTES)
    assert pty.terminal.is_drained
    assert pty.reader.read(0, PTY_BYTES) == (0, expected(0, written))
    assert pty.reader.last_output_ms > 0


def test_nothing_to_drain_is_drained(pty: Pty) -> None:
    assert not pty.terminal.drain()
    assert pty.terminal.drain_up_to(100)
    assert pty.reader.last_output_ms == 0


def test_one_who_writes_for_ever_does_not_keep_us(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is always more: it ends at the offset that was asked for, give or take a read."""
    monkeypatch.setattr(pty.terminal, "_readv", lambda views: sum(map(len, views)))
    assert pty.terminal.drain_up_to(PTY_BYTES)
    assert PTY_BYTES <= pty.reader.head <= PTY_BYTES + (64 << 10)
    assert not pty.terminal.is_drained


def test_a_limit_holds_to_the_byte_and_silences_the_terminal(pty: Pty) -> None:
    written = fill_up(pty)
    pty.terminal.set_limit("reader", 1000, FAR)
    wait_until(lambda: pty.interest() & select.EPOLLIN)
    assert not pty.terminal.drain_up_to(PTY_BYTES), "the rest has to wait for the next credit"
    assert pty.reader.head == 1000
    pty.terminal.update_interest()
    assert not pty.interest()
    pty.terminal.set_limit("reader", 1001, FAR)
    wait_until(lambda: pty.interest() & select.EPOLLIN)
    pty.terminal.drain()
    assert pty.reader.head == 1001
    pty.terminal.lift_limits()
    assert not pty.terminal.is_limited
    assert pty.terminal.drain_up_to(PTY_BYTES)
    assert pty.reader.head == written


def test_a_limit_behind_what_was_read_waits(pty: Pty) -> None:
    os.write(pty.slave, b"x" * 100)
    pty.terminal.drain_up_to(100)
    pty.terminal.set_limit("reader", 50, FAR)
    os.write(pty.slave, b"y")
    assert not pty.terminal.drain()
    assert not pty.interest()
    assert pty.reader.head == 100


# --- input -----------------------------------------------------------------------------------------


def read_some(pty: Pty) -> bytes:
    os.set_blocking(pty.slave, False)
    try:
        return os.read(pty.slave, 65536)
    except BlockingIOError:
        return b""


def test_a_keystroke_goes_straight_through(pty: Pty) -> None:
    assert pty.terminal.accept(b"k") is Verdict.ACCEPTED
    assert read_some(pty) == b"k"
    assert not pty.interest() & select.EPOLLOUT  # nothing waits: nobody is woken for room


def test_all_or_nothing_and_in_order(pty: Pty) -> None:
    """Far more than the terminal takes, in pieces of every size, read at the end."""
    sent, size = 0, 1
    while pty.terminal.accept(expected(sent, size)) is Verdict.ACCEPTED:
        sent += size
        size = size * 7 % 65_521 + 1
    assert INPUT_QUEUE_BYTES - 65_536 < sent < INPUT_QUEUE_BYTES + PTY_BYTES
    assert pty.terminal.refused
    assert not pty.terminal.has_room_again()
    got = bytearray()
    while len(got) < sent:
        got += read_some(pty)
        pty.terminal.write_input()
        if len(got) < sent - INPUT_QUEUE_BYTES // 2 - PTY_BYTES:
            assert not pty.terminal.has_room_again()
    assert bytes(got) == expected(0, sent)
    assert pty.terminal.has_room_again()
    assert not pty.terminal.has_room_again(), "it is told once"
    assert read_some(pty) == b""


def test_what_waits_wakes_us_when_there_is_room(pty: Pty) -> None:
    while pty.terminal.accept(b"x" * 65_536) is Verdict.ACCEPTED:
        pass
    while data := read_some(pty):
        assert set(data) == {ord("x")}
    wait_until(lambda: pty.interest() & select.EPOLLOUT)


def test_empty_input_is_no_input(pty: Pty) -> None:
    assert pty.terminal.accept(b"") is Verdict.ACCEPTED
    while pty.terminal.accept(b"x" * 65_536) is Verdict.ACCEPTED:
        pass
    assert pty.terminal.accept(b"") is Verdict.ACCEPTED


# --- the end ---------------------------------------------------------------------------------------


def test_after_a_hang_up_nothing_goes_in_or_out(pty: Pty) -> None:
    os.write(pty.slave, b"last words")
    pty.terminal.drain_up_to(100)
    pty.terminal.hang_up()
    pty.terminal.hang_up()
    assert pty.terminal.accept(b"x") is Verdict.ENDED
    assert pty.terminal.drain_up_to(1000)
    assert pty.terminal.foreground_pgid() == 0
    pty.terminal.resize(1, 1)
    pty.terminal.set_limit("reader", 5, FAR)
    assert pty.reader.read(0, 100) == (0, b"last words")
    assert os.read(pty.slave, 10) == b""  # the program's end is hung up
