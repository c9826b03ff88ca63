"""A reader's place in a session's output: what makes it every byte once, or one gap with exact
bounds.

Pure. Offsets count bytes since the session started, so a reader that was cut off needs nothing but
its next offset: whatever comes twice is dropped, whatever is missing is known to the byte.

Source: protocol.md, "session.attach"
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Since = int | Literal["start", "live"]


class Missing(NamedTuple):
    """The bytes in [start, end) are gone."""

    start: int
    end: int


class OutputCursor:
    """Follows one session's output over any number of attachments."""

    def __init__(self, since: Since) -> None:
        self._since: Since = since
        self.offset: int | None = {"start": 0, "live": None}[since] if isinstance(since, str) else since

    @property
    def since(self) -> Since:
        """What to ask for at the next attach."""
        return self._since if self.offset is None or self.offset == 0 else self.offset

    def attached(self, offset: int) -> Missing | None:
        """Take the offset that an attach answered; return what was lost before it."""
        if self.offset is None:
            self.offset = offset
        return self._advance(offset)

    def gap(self, end: int) -> Missing | None:
        """Take a gap that ends at `end`; return what of it this reader had not had yet."""
        return self._advance(end)

    def output(self, offset: int, data: bytes) -> tuple[Missing | None, bytes]:
        """Take output; return what is missing before it, and what of it is new."""
        missing = self._advance(offset)
        seen = (self.offset or 0) - offset
        new = data[seen:] if seen > 0 else data
        self.offset = (self.offset or 0) + len(new)
        return missing, new

    def _advance(self, offset: int) -> Missing | None:
        begin = self.offset if self.offset is not None else offset
        if offset <= begin:
            return None
        self.offset = offset
        return Missing(begin, offset)
