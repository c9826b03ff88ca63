"""What is typed, on its way to the session.

Owns the bytes between the terminal and the daemon, in order, within a bound. Never sends a byte twice: what
nobody has confirmed when a daemon is lost is given up and counted.

Two ways out. A keystroke goes as a notification, which is what makes its echo quick: nobody answers it, and
a refusal comes back as one. A little later an empty input follows as a request; its answer confirms all
that was sent before it. What is longer (a paste) goes as requests, one at a time, each with what was typed
meanwhile; for want of room it is offered again.

Pure: the time and the sending are given.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ptyd.attach.keys import DetachKeys
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_INPUT_BYTES

MAX_TYPED_BYTES: Final = 1024 * 1024
"""Typed and not sent yet: a paste. Beyond it the keyboard is not read; the terminal holds the rest."""
KEYSTROKE_BYTES: Final = 64
"""A key's sequence, or a few at once from a slow line."""
CONFIRM_AFTER_S: Final = 0.1
"""Out of the way of the echo, and of the keys of one who types fast."""
PAUSE_S: Final = 0.1
"""Before refused input is offered again."""


class Piece(NamedTuple):
    """Input to send: as a notification, or as a request whose message id `sent` wants to know."""

    data: bytes
    is_request: bool


class Keyboard:
    """The bytes typed and not confirmed yet."""

    def __init__(self, detach_keys: str, read_only: bool) -> None:
        self._keys = DetachKeys(detach_keys)
        self._read_only = read_only
        self._typed = bytearray()
        self._is_paste = False
        self._request: tuple[int, bytes] | None = None
        self._covered_bytes = 0  # of what was notified before the request
        self._notified_bytes = 0  # and not confirmed
        self._not_before = 0.0
        self._confirm_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read from the terminal."""
        return len(self._typed) >= MAX_TYPED_BYTES

    @property
    def due_at(self) -> float | None:
        """When there is something to send; None while there is nothing."""
        if self._request is not None:
            return None
        if self._typed:
            return self._not_before
        return self._confirm_at if self._notified_bytes else None

    def type(self, data: bytes) -> bool:
        """Take what was typed; True when it ended in the keys to leave by."""
        passed, leaves = self._keys.feed(data)
        if not self._read_only:
            self._typed += passed
        return leaves

    def next_piece(self, now: float) -> Piece | None:
        """Return what to send now, if anything; say `sent` when it was."""
        if self.due_at is None or now < self.due_at:
            return None
        self._is_paste = self._is_paste or len(self._typed) > KEYSTROKE_BYTES
        return Piece(bytes(self._typed[:MAX_INPUT_BYTES]), self._is_paste or not self._typed)

    def sent(self, piece: Piece, msgid: int | None, now: float) -> None:
        """The piece is on its way; `msgid` is that of its request."""
        del self._typed[: len(piece.data)]
        if msgid is None:
            self._notified_bytes += len(piece.data)
            self._confirm_at = now + CONFIRM_AFTER_S
        else:
            self._request = (msgid, piece.data)
            self._covered_bytes = self._notified_bytes

    def answered(self, msgid: int, error: PtydError | None, now: float) -> bool:
        """Take an answer; False when input was lost and the user should hear a bell."""
        if self._request is None or self._request[0] != msgid:
            return True  # a resize: if it was refused, the session has ended, which is told otherwise
        _, data = self._request
        self._request = None
        self._notified_bytes -= self._covered_bytes
        if error is None:
            # What was typed meanwhile, and a paste's own last bytes, may still meet a full queue.
            self._is_paste = bool(self._typed)
            return True
        if error.code is Code.INPUT_FULL:
            self._typed[:0] = data  # nothing of it was taken
            self._not_before = now + PAUSE_S
            return True
        self._typed.clear()
        return not data

    def lost(self) -> int:
        """The line is lost: return how many bytes nobody knows the fate of."""
        self._is_paste = bool(self._typed)
        unknown = self._notified_bytes + (len(self._request[1]) if self._request else 0)
        self._request = None
        self._notified_bytes = 0
        return unknown
