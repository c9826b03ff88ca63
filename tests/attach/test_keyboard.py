"""What is typed on its way out: order, refusals, bounds, and a lost line."""

from __future__ import annotations

import pytest

from ptyd.attach.keyboard import (
    CONFIRM_AFTER_S,
    KEYSTROKE_BYTES,
    MAX_TYPED_BYTES,
    PAUSE_S,
    Keyboard,
    Piece,
)
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_INPUT_BYTES

PASTE = b"p" * (KEYSTROKE_BYTES + 1)
FULL = PtydError(Code.INPUT_FULL, "full")


def keyboard(typed: bytes = b"") -> Keyboard:
    made = Keyboard("ctrl-\\", read_only=False)
    made.type(typed)
    return made


def send(keys: Keyboard, now: float = 0, msgid: int = 1) -> Piece:
    piece = keys.next_piece(now)
    assert piece is not None
    keys.sent(piece, msgid if piece.is_request else None, now)
    return piece


def test_keystrokes_go_at_once_each_as_it_comes() -> None:
    keys = keyboard(b"a")
    assert send(keys) == Piece(b"a", False)
    keys.type(b"\x1b[A")
    assert send(keys) == Piece(b"\x1b[A", False)
    assert keys.next_piece(0) is None


def test_keystrokes_are_confirmed_a_little_later() -> None:
    keys = keyboard(b"a")
    send(keys, now=10)
    assert keys.due_at == 10 + CONFIRM_AFTER_S
    assert send(keys, now=10 + CONFIRM_AFTER_S, msgid=5) == Piece(b"", True)
    assert keys.answered(5, None, 11)
    assert keys.due_at is None
    assert keys.lost() == 0


def test_typing_puts_the_confirmation_off() -> None:
    keys = keyboard(b"a")
    send(keys, now=10)
    keys.type(b"b")
    send(keys, now=10.05)
    assert keys.due_at == 10.05 + CONFIRM_AFTER_S


def test_paste_goes_one_at_a_time_and_then_what_came_meanwhile() -> None:
    keys = keyboard(PASTE)
    assert send(keys) == Piece(PASTE, True)
    keys.type(b"b")
    keys.type(b"c")
    assert keys.next_piece(0) is None
    assert keys.answered(1, None, 0)
    assert send(keys, msgid=2) == Piece(b"bc", True)  # still behind a paste: its queue may be full
    assert keys.answered(2, None, 0)
    keys.type(b"d")
    assert send(keys) == Piece(b"d", False)


def test_refused_for_want_of_room_is_offered_again_in_order() -> None:
    keys = keyboard(PASTE)
    send(keys)
    keys.type(b"b")
    assert keys.answered(1, FULL, 10)
    assert keys.next_piece(10) is None
    assert keys.due_at == 10 + PAUSE_S
    assert keys.next_piece(10 + PAUSE_S) == Piece(PASTE + b"b", True)


@pytest.mark.parametrize("code", [Code.ENDED, Code.READ_ONLY, Code.UNSUPERVISED, Code.NOT_FOUND, Code.BUSY])
def test_refused_for_good_drops_the_rest_and_rings(code: Code) -> None:
    keys = keyboard(PASTE)
    send(keys)
    keys.type(b"more")
    assert not keys.answered(1, PtydError(code, "no"), 0)
    assert keys.next_piece(0) is None


def test_answers_to_other_requests_change_nothing() -> None:
    keys = keyboard(PASTE)
    send(keys)
    assert keys.answered(2, PtydError(Code.ENDED, "no"), 0)
    assert keys.lost() == len(PASTE)


def test_lost_line_gives_up_what_was_not_confirmed_and_keeps_what_was_not_sent() -> None:
    keys = keyboard(b"abc")
    send(keys)
    keys.type(PASTE)
    send(keys)
    keys.type(b"d")
    assert keys.lost() == 3 + len(PASTE)
    assert keys.next_piece(0) == Piece(b"d", True)
    assert keys.lost() == 0


def test_answer_to_a_paste_confirms_the_keystrokes_before_it() -> None:
    keys = keyboard(b"abc")
    send(keys)
    keys.type(PASTE)
    send(keys)
    assert keys.answered(1, None, 0)
    assert keys.lost() == 0


def test_pieces_and_the_whole_are_bounded() -> None:
    keys = keyboard(b"x" * MAX_TYPED_BYTES)
    assert keys.is_full
    assert len(send(keys).data) == MAX_INPUT_BYTES
    assert not keys.is_full


def test_read_only_takes_only_the_keys_to_leave() -> None:
    keys = Keyboard("ctrl-\\", read_only=True)
    assert not keys.type(b"hello")
    assert keys.next_piece(0) is None
    assert keys.type(b"\x1c")
