"""What a newly attached terminal is shown of the output that was there before it.

Pure. Takes output by offset until the moment of the attach (the boundary), and says what to show;
from there on the live stream is the terminal's, unedited. A backlog that is shown in part is
collected first, because the modes set in the part left out (the other screen, bracketed paste, the
mouse) must be set too.
"""

from __future__ import annotations

import re
from typing import Final

from ptyd.attach.modes import ModeTracker
from ptyd.attach.terminal import QueryStripper, replay_start

RECENT_BYTES: Final = 64 * 1024
"""A few screenfuls: what one wants to see on coming back, and no wait on a slow line."""
COLLECT_BYTES: Final = 4 * 1024 * 1024
"""How far back modes are looked for: all of a default scrollback, 10 ms of work."""
_ENTERS_ALTERNATE: Final = re.compile(rb"\x1b\[\?(?:[0-9]+;)*(?:1049|1047|47)h")


class WholeReplay:
    """Shows all of the backlog, without the queries in it."""

    def __init__(self, boundary: int) -> None:
        self._boundary = boundary
        self._stripper = QueryStripper()
        self.over = False

    def feed(self, offset: int, data: bytes) -> bytes:
        """Return what to show for output at `offset`; what is beyond the boundary comes
        unedited."""
        if self.over:
            return data
        old = max(0, min(len(data), self._boundary - offset))
        shown = self._stripper.feed(data[:old])
        if offset + len(data) < self._boundary:
            return shown
        self.over = True
        return shown + self._stripper.finish() + data[old:]

    def skip_to(self, offset: int) -> bytes:
        """Take note that output up to `offset` is gone; return what to show at once."""
        return self.feed(offset, b"") if offset >= self._boundary else b""


class RecentReplay:
    """Shows the end of the backlog, in the modes that all of it has set.

    A full-screen program has nothing to replay: it gets its screen and its modes, and draws by
    itself. Where it will not be asked to (`redraws` False), what it drew since it took the screen
    is replayed.
    """

    def __init__(self, boundary: int, limit: int = RECENT_BYTES, redraws: bool = True) -> None:
        self._boundary = boundary
        self._limit = limit
        self._redraws = redraws
        self._backlog: list[bytes] = []
        self.over = False

    def feed(self, offset: int, data: bytes) -> bytes:
        """Return what to show for output at `offset`: nothing before the backlog is complete."""
        if self.over:
            return data
        old = max(0, min(len(data), self._boundary - offset))
        self._backlog.append(data[:old])
        if offset + len(data) < self._boundary:
            return b""
        self.over = True
        backlog = b"".join(self._backlog)
        self._backlog.clear()
        return self._compose(backlog) + data[old:]

    def skip_to(self, offset: int) -> bytes:
        """Take note that output up to `offset` is gone; return what to show at once."""
        self._backlog.clear()
        return self.feed(offset, b"") if offset >= self._boundary and not self.over else b""

    def _compose(self, backlog: bytes) -> bytes:
        at_end = ModeTracker()
        at_end.feed(backlog)
        if at_end.alternate_screen and self._redraws:
            return at_end.restore()
        cut = replay_start(backlog, self._limit)
        if at_end.alternate_screen:
            cut = _last_start(_ENTERS_ALTERNATE, backlog, cut)
        before = ModeTracker()
        before.feed(backlog[:cut])
        stripper = QueryStripper()
        return before.restore() + stripper.feed(backlog[cut:]) + stripper.finish()


def _last_start(pattern: re.Pattern[bytes], data: bytes, default: int) -> int:
    return max((found.start() for found in pattern.finditer(data)), default=default)


Replay = WholeReplay | RecentReplay
