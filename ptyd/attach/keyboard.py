"""What is typed, on its way to the session.

Owns the bytes between the terminal and the daemon. One request is on its way at a time, the next
one carries what was typed meanwhile: so the order is kept, a refusal is noticed, and nothing is
queued beyond a bound. Never sends a byte twice: what was sent without an answer when a daemon was
lost is given up.

Pure: the time and the sending are given.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ptyd.attach.keys import DetachKeys
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_INPUT_BYTES

MAX_TYPED_BYTES: Final = 1024 * 1024
"""Typed and not sent yet: a paste. Beyond it the keyboard is not read; the terminal holds the
rest."""
PAUSE_S: Final = 0.1
"""Before refused input is offered again."""


class InFlight(NamedTuple):
    """Input that was sent and not answered."""

    msgid: int
    data: bytes


class Keyboard:
    """The bytes typed and not accepted yet."""

    def __init__(self, detach_keys: str, read_only: bool) -> None:
        self._keys = DetachKeys(detach_keys)
        self._read_only = read_only
        self._typed = bytearray()
        self._in_flight: InFlight | None = None
        self._not_before = 0.0

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read from the terminal."""
        return len(self._typed) >= MAX_TYPED_BYTES

    @property
    def due_at(self) -> float | None:
        """When the next piece can be sent; None while there is none."""
        return self._not_before if self._typed and self._in_flight is None else None

    def type(self, data: bytes) -> bool:
        """Take what was typed; True when it ended in the keys to leave by."""
        passed, leaves = self._keys.feed(data)
        if not self._read_only:
            self._typed += passed
        return leaves

    def next_piece(self, now: float) -> bytes | None:
        """Return what to send now, if anything; say `sent` when it was."""
        if self.due_at is None or now < self.due_at:
            return None
        return bytes(self._typed[:MAX_INPUT_BYTES])

    def sent(self, msgid: int, data: bytes) -> None:
        """The piece is on its way."""
        del self._typed[: len(data)]
        self._in_flight = InFlight(msgid, data)

    def answered(self, msgid: int, error: PtydError | None, now: float) -> bool:
        """Take an answer; False when the session takes no input any more and what is left was
        dropped."""
        if self._in_flight is None or self._in_flight.msgid != msgid:
            return True  # a resize: if it was refused, the session has ended, which is told otherwise
        data = self._in_flight.data
        self._in_flight = None
        if error is None:
            return True
        if error.code in (Code.INPUT_FULL, Code.BUSY):
            self._typed[:0] = data  # nothing of it was taken
            self._not_before = now + PAUSE_S
            return True
        self._typed.clear()
        return False

    def lost(self) -> int:
        """The line is lost: return how many bytes nobody knows the fate of."""
        lost, self._in_flight = self._in_flight, None
        return len(lost.data) if lost is not None else 0
