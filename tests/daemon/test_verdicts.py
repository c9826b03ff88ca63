"""Who hears of a refused input, and that nobody is remembered for ever."""

from __future__ import annotations

import select
import socket

from ptyd.daemon.input import send_input
from ptyd.daemon.poller import Poller
from ptyd.daemon.session import Session
from ptyd.daemon.verdicts import UNANSWERED, Verdicts
from ptyd.datagrams import Verdict
from ptyd.protocol.errors import Code, PtydError
from ptyd.shim.link import Link


def make() -> tuple[Verdicts, list[tuple[int, Verdict | None]]]:
    return Verdicts(), []


def test_each_verdict_finds_its_input() -> None:
    verdicts, heard = make()
    for seq in range(6):
        assert verdicts.expect(seq, lambda v, seq=seq: heard.append((seq, v)), seq % 2 == 0) == (seq % 2 == 0)
    for seq, verdict in ((4, Verdict.ACCEPTED), (3, Verdict.FULL), (0, Verdict.ENDED), (3, Verdict.FULL)):
        verdicts.take(seq, verdict)
    assert heard == [(4, Verdict.ACCEPTED), (3, Verdict.FULL), (0, Verdict.ENDED)]


def test_after_many_that_are_not_answered_one_is_and_settles_them() -> None:
    verdicts, heard = make()
    asked = [
        seq
        for seq in range(UNANSWERED + 3)
        if verdicts.expect(seq, lambda v, seq=seq: heard.append((seq, v)), False)
    ]
    assert asked == list(range(UNANSWERED, UNANSWERED + 3))
    verdicts.take(UNANSWERED, Verdict.ACCEPTED)
    verdicts.take(5, Verdict.FULL)  # of the past: it was accepted, or this had come before
    assert heard == [(UNANSWERED, Verdict.ACCEPTED)]
    assert not verdicts.expect(9999, lambda _: None, False)
    verdicts.take(UNANSWERED + 1, Verdict.FULL)
    assert heard[1:] == [(UNANSWERED + 1, Verdict.FULL)]


def test_what_was_not_sent_settles_nobody_else() -> None:
    verdicts, heard = make()
    for seq in range(3):
        verdicts.expect(seq, lambda v, seq=seq: heard.append((seq, v)), False)
    verdicts.cancel(2)
    verdicts.take(2, Verdict.ACCEPTED)
    verdicts.take(0, Verdict.FULL)
    assert heard == [(0, Verdict.FULL)]


def test_a_broken_link_is_told_to_who_waits() -> None:
    verdicts, heard = make()
    verdicts.expect(1, lambda v: heard.append((1, v)), True)
    verdicts.expect(2, lambda v: heard.append((2, v)), False)
    verdicts.break_off()
    verdicts.break_off()
    verdicts.take(2, Verdict.FULL)
    assert heard == [(1, None)]


def test_input_on_a_link_that_breaks_is_told_apart_from_input_that_was_never_sent() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    poller = Poller()
    session = Session({"id": "a", "generation": 1}, poller, lambda *_: None)
    heard: list[PtydError | None] = []
    session.connect(Link(ours))
    send_input(session, b"sent", heard.append)
    theirs.close()
    session._ready(select.EPOLLIN)
    assert [error and (error.code, error.data) for error in heard] == [(Code.BUSY, {"maybe_taken": True})]
    assert session.gone().code is Code.BUSY  # what the same input is answered from now on
    assert session.gone().data == {}
