"""What is typed on its way out: order, refusals, bounds, and a lost line."""

from __future__ import annotations

import pytest

from ptyd.attach.keyboard import MAX_TYPED_BYTES, PAUSE_S, Keyboard
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_INPUT_BYTES


def keyboard(read_only: bool = False) -> Keyboard:
    return Keyboard("ctrl-\\", read_only)


def test_one_piece_at_a_time_and_then_what_came_meanwhile() -> None:
    keys = keyboard()
    assert not keys.type(b"a")
    assert keys.next_piece(0) == b"a"
    keys.sent(1, b"a")
    keys.type(b"b")
    keys.type(b"c")
    assert keys.next_piece(0) is None
    assert keys.answered(1, None, 0)
    assert keys.next_piece(0) == b"bc"


def test_refused_for_want_of_room_is_offered_again_in_order() -> None:
    keys = keyboard()
    keys.type(b"a")
    keys.sent(1, b"a")
    keys.type(b"b")
    assert keys.answered(1, PtydError(Code.INPUT_FULL, "full"), 10)
    assert keys.next_piece(10) is None
    assert keys.due_at == 10 + PAUSE_S
    assert keys.next_piece(10 + PAUSE_S) == b"ab"


@pytest.mark.parametrize("code", [Code.ENDED, Code.READ_ONLY, Code.UNSUPERVISED, Code.NOT_FOUND])
def test_refused_for_good_drops_the_rest(code: Code) -> None:
    keys = keyboard()
    keys.type(b"ab")
    keys.sent(1, b"a")
    assert not keys.answered(1, PtydError(code, "no"), 0)
    assert keys.next_piece(0) is None


def test_answers_to_other_requests_change_nothing() -> None:
    keys = keyboard()
    keys.type(b"a")
    keys.sent(1, b"a")
    assert keys.answered(2, PtydError(Code.ENDED, "no"), 0)
    assert keys.lost() == 1


def test_lost_line_gives_up_what_was_sent_and_keeps_what_was_not() -> None:
    keys = keyboard()
    keys.type(b"abc")
    keys.sent(1, b"ab")
    assert keys.lost() == 2
    assert keys.next_piece(0) == b"c"
    assert keys.lost() == 0


def test_pieces_and_the_whole_are_bounded() -> None:
    keys = keyboard()
    keys.type(b"x" * MAX_TYPED_BYTES)
    assert keys.is_full
    piece = keys.next_piece(0)
    assert piece is not None
    assert len(piece) == MAX_INPUT_BYTES


def test_read_only_takes_only_the_keys_to_leave() -> None:
    keys = keyboard(read_only=True)
    assert not keys.type(b"hello")
    assert keys.next_piece(0) is None
    assert keys.type(b"\x1c")
