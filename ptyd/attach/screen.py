"""What is shown: the replay of old output, then the live stream, in the order of its offsets.

Owns the place in the output and the modes the terminal is in.
"""

from __future__ import annotations

from typing import Final

from ptyd.attach import Options
from ptyd.attach.modes import ModeTracker
from ptyd.attach.replay import COLLECT_BYTES, RecentReplay, Replay, WholeReplay
from ptyd.attach.tty import Terminal
from ptyd.calls import Params
from ptyd.cursor import OutputCursor, Since

MAX_UNSHOWN_BYTES: Final = 256 * 1024
_ABORT: Final = b"\x18"  # CAN ends a sequence whose end is missing


class Screen:
    """The terminal as the session's output makes it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._cursor = OutputCursor(0)
        self._boundary = 0
        self._replay: Replay = WholeReplay(0)
        self._terminal: Terminal | None = None
        self._unshown = bytearray()
        self.modes = ModeTracker()

    @property
    def since(self) -> Since:
        """Where the next attachment has to begin."""
        return self._cursor.since

    @property
    def is_behind(self) -> bool:
        """Whether the terminal has enough to do."""
        return self._terminal is not None and self._terminal.pending_bytes >= MAX_UNSHOWN_BYTES

    def begin(self, session: Params) -> Since:
        """Choose where to begin, knowing the session; return it."""
        since = self._options.since
        if since is None or since == "live":
            # Also for "live": the modes the terminal must be in lie in what it is not shown.
            since = max(session["scrollback_start"], session["output_offset"] - COLLECT_BYTES)
        self._cursor = OutputCursor(since)
        # Not the moment of the attach: what the program draws for its new size is live already.
        self._boundary = int(session["output_offset"])
        return since

    def attached(self, reply: Params) -> None:
        """Take the first attach's answer: what was there before `begin` is backlog, the rest is live."""
        boundary = self._boundary
        match self._options.since:
            case None:
                self._replay = RecentReplay(boundary, redraws=not self._options.read_only)
            case "live":
                self._replay = RecentReplay(boundary, limit=0)
            case _:
                self._replay = WholeReplay(boundary)
        self._cursor.attached(reply["offset"])
        self._show(self._replay.skip_to(reply["offset"]))

    def attached_again(self, reply: Params) -> bool:
        """Take a later attach's answer; True when output is missing."""
        missing = self._cursor.attached(reply["offset"])
        return missing is not None and self._lap(missing.end)

    def use(self, terminal: Terminal) -> None:
        """Show on this terminal, beginning with what came before it was ready."""
        self._terminal = terminal
        terminal.show(bytes(self._unshown))
        self._unshown.clear()

    def output(self, offset: int, data: bytes) -> bool:
        """Take output; True when some before it is missing."""
        missing, new = self._cursor.output(offset, data)
        lapped = missing is not None and self._lap(missing.end)
        self._show(self._replay.feed(offset + len(data) - len(new), new))
        return lapped

    def gap(self, end: int) -> bool:
        """Take a gap; True when it is in what the terminal shows."""
        return self._cursor.gap(end) is not None and self._lap(end)

    def ring(self) -> None:
        """Ring the bell: something typed was not taken. Source: termios(3), IMAXBEL."""
        if self._terminal is not None:
            self._terminal.show(b"\a")

    def _lap(self, end: int) -> bool:
        if not self._replay.over:
            self._show(self._replay.skip_to(end))
            return False
        self._show(_ABORT)
        return True

    def _show(self, data: bytes) -> None:
        self.modes.feed(data)
        if self._terminal is None:
            self._unshown += data
        else:
            self._terminal.show(data)
