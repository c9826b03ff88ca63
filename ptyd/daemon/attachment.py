"""One client's view of one session's output: its place, as frames for its socket, and its policy.

What is due, and in which order, is `ptyd.reading`'s. Holds no bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from ptyd.daemon.session import Session
from ptyd.protocol.codec import pack_notification, pack_output_header
from ptyd.protocol.limits import OUTPUT_CHUNK_BYTES, PACE_DEADLINE_MS, PACE_PROGRESS_BYTES
from ptyd.reading import Reading

CREDIT_MS = PACE_DEADLINE_MS + 1000  # a little longer than a paced reader has; renewed while it reads


class Attachment:
    """A cursor over a session's output."""

    def __init__(self, number: int, session: Session, cursor: int, is_paced: bool, may_write: bool) -> None:
        self.number = number
        self.session = session
        self.reading = Reading(cursor)
        self.is_paced = is_paced
        self.may_write = may_write
        self.size: tuple[int, int] | None = None
        self.is_dirty = False
        self.on_change: Callable[[Attachment], None] | None = None
        self.detach: Callable[[], None] = lambda: None
        self._progress_at: float | None = None
        self._progress_cursor = cursor

    @property
    def cursor(self) -> int:
        """The offset of the first byte that was not sent yet."""
        return self.reading.offset

    def session_changed(self) -> None:
        """Called by the session when its output or its facts have moved."""
        if self.on_change is not None:
            self.on_change(self)

    def next_frames(self) -> list[bytes]:
        """Take the next chunk of output, or the notifications that are due after it; empty when neither."""
        output = self.session.output
        if output is None:
            return []
        frames: list[bytes] = []
        for method, fields in self.reading.next(output, self.session.facts, OUTPUT_CHUNK_BYTES):
            if method == "session.output":
                data = fields["data"]
                frames += (pack_output_header(self.number, fields["offset"], len(data)), data)
            else:
                frames.append(pack_notification(method, {"attachment": self.number, **fields}))
        return frames

    def has_more(self) -> bool:
        """Tell whether to go on at once: there is more, and nobody will tell us of it again.

        The shim tells of every turn of its own. To run after the head meanwhile, as a flood moves it, made
        four messages of what is one.
        """
        return self.session.output is not None and (
            self.reading.is_behind or self.reading.has_word(self.session.facts)
        )

    # -- pace ------------------------------------------------------------------------------------------

    def check_progress(self, now: float) -> None:
        """Turn a paced attachment to skip when it has stood still for too long with a backlog."""
        output = self.session.output
        has_backlog = output is not None and output.head > self.cursor
        has_moved = self.cursor - self._progress_cursor >= PACE_PROGRESS_BYTES
        if self._progress_at is None or has_moved or not has_backlog:
            self._progress_at, self._progress_cursor = now, self.cursor
        elif now - self._progress_at >= PACE_DEADLINE_MS / 1000:
            self.is_paced = False
