"""One client's view of one session's output: a cursor and a policy.

Owns the cursor. Turns what the ring holds into notifications, in the order that protocol.md promises:
output and gaps by offset, then `session.exit`, then `session.end`. Holds no bytes: a slow reader costs a
number, and what the ring has lost by the time it can be sent is one exact gap.
"""

from __future__ import annotations

from collections.abc import Callable

from ptyd.daemon.session import Session
from ptyd.protocol.codec import pack_notification, pack_output_header
from ptyd.protocol.limits import OUTPUT_CHUNK_BYTES, PACE_DEADLINE_MS, PACE_PROGRESS_BYTES

CREDIT_MS = PACE_DEADLINE_MS + 1000  # a little longer than a paced reader has; renewed while it reads


class Attachment:
    """A cursor over a session's output."""

    def __init__(self, number: int, session: Session, cursor: int, is_paced: bool, may_write: bool) -> None:
        self.number = number
        self.session = session
        self.cursor = cursor
        self.is_paced = is_paced
        self.may_write = may_write
        self.size: tuple[int, int] | None = None
        self.is_over = False
        self.is_dirty = False
        self.on_change: Callable[[Attachment], None] | None = None
        self._exit_sent = False
        self._progress_at: float | None = None
        self._progress_cursor = cursor

    def session_changed(self) -> None:
        """Called by the session when its output or its facts have moved."""
        if self.on_change is not None:
            self.on_change(self)

    def next_frames(self) -> list[bytes]:
        """Take the next chunk of output, or the notifications that are due after it; empty when neither."""
        output = self.session.output
        if output is None or self.is_over:
            return []
        exit_offset = self._exit_offset_due()
        if exit_offset is not None and self.cursor >= exit_offset:
            return [self._exit_frame(exit_offset)]
        most = OUTPUT_CHUNK_BYTES if exit_offset is None else exit_offset - self.cursor
        offset, data = output.read(self.cursor, min(most, OUTPUT_CHUNK_BYTES))
        if exit_offset is not None and offset >= exit_offset:
            data = b""  # the gap reaches beyond the exit, which is told first
        frames: list[bytes] = []
        if offset > self.cursor:
            frames.append(self._notification("session.gap", **{"from": self.cursor, "to": offset}))
        if data:
            frames += (pack_output_header(self.number, offset, len(data)), data)
        self.cursor = offset + len(data)
        return frames or self._end_frames()

    def has_more(self) -> bool:
        """Tell whether a next frame would be there right now."""
        output = self.session.output
        if output is None or self.is_over:
            return False
        exit_offset = self._exit_offset_due()
        is_exit_due = exit_offset is not None and self.cursor >= exit_offset
        return output.head > self.cursor or is_exit_due or bool(self.session.facts.get("ended"))

    def _exit_offset_due(self) -> int | None:
        """Where the leader's exit is still to be told; not at the head: others may go on writing for ever."""
        return None if self._exit_sent else self.session.facts.get("exit_offset")

    def _exit_frame(self, offset: int) -> bytes:
        self._exit_sent = True
        return self._notification("session.exit", exit=self.session.facts.get("exit"), offset=offset)

    def _end_frames(self) -> list[bytes]:
        """All output is out: tell the end, once there is one."""
        facts = self.session.facts
        if not facts.get("ended"):
            return []
        self.is_over = True
        end = {"exit": facts.get("exit"), "proof": facts.get("proof"), "offset": facts["end_offset"]}
        return [
            self._notification("session.end", **end),
            self._notification("session.detached", reason="ended"),
        ]

    def _notification(self, method: str, **fields: object) -> bytes:
        return pack_notification(method, {"attachment": self.number, **fields})

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
