"""Replaying old output to a terminal: what to take out of it, and where it may begin.

Pure: bytes in, bytes out, no clock, no I/O. For the replayed backlog alone: live output is never
edited. Everything takes its input split anywhere.

The strategy is one regular expression for a whole control sequence and one for a beginning of one
at the end of what is there. 8-bit C1 controls are left alone: in UTF-8 those bytes are parts of
characters.

Source: ECMA-48 §5.4; https://invisible-island.net/xterm/ctlseqs/ctlseqs.html;
https://sw.kovidgoyal.net/kitty/keyboard-protocol/;
https://sw.kovidgoyal.net/kitty/graphics-protocol/
"""

from __future__ import annotations

import re
from typing import Final

_SEQUENCE: Final = re.compile(
    rb"""\x1b(?:
        \[ (?P<csi> [\x00-\x17\x19\x1c-\x1f -?]* [@-~] )    # controls inside are carried out
      | \] (?P<osc> [^\x07\x18\x1a\x1b]* ) (?: \x07 | \x1b\\ )
      | P  (?P<dcs> [^\x18\x1a\x1b]* ) \x1b\\
      | _  (?P<apc> [^\x18\x1a\x1b]* ) \x1b\\
      | [X^] [^\x18\x1a\x1b]* \x1b\\
      | (?P<esc> [ -/]* [0-OQ-WYZ`-~\\] )
    ) | (?P<enq> \x05 )""",
    re.VERBOSE,
)
_BEGINNING: Final = re.compile(
    rb"""\x1b(?:
        \[ [\x00-\x17\x19\x1c-\x1f -?]*
      | \] [^\x07\x18\x1a\x1b]* \x1b?
      | [PX^_] [^\x18\x1a\x1b]* \x1b?
      | [ -/]*
    )? \Z""",
    re.VERBOSE,
)
MAX_HELD_BYTES: Final = 1 << 20
"""An unfinished sequence longer than this (an image, a clipboard) passes as it is."""

_CONTROLS: Final = bytes(range(0x20))
_ABORT: Final = b"\x18"  # CAN

# --- queries -------------------------------------------------------------------------------------

_CSI_QUERY: Final = re.compile(
    rb"""
        [>=]? 0* c               # DA1, DA2, DA3: what are you
      | \?? [0-9;]* n            # DSR: status, cursor position, colour scheme
      | \?? [0-9;]* \$p          # DECRQM: is this mode set
      | (?: 1[134-689] | 2[01] ) (?: ;[0-9;]* )? t   # window state, size, position, title
      | [01]? x                  # DECREQTPARM
      | > [0-9]* q               # XTVERSION
      | \? u                     # kitty: keyboard flags
      | \? [0-9;]* [Sm]          # XTSMGRAPHICS, XTQMODKEYS
      | [0-9;]* (?: \$[uw] | \*y | &u | "v | '\| | \#[R|] )   # reports and checksums of VT300, VT400
      | \?? [0-9;]* i            # media copy: it prints
    """,
    re.VERBOSE,
)
_OSC_ACTS: Final = re.compile(
    rb"(?:9|52|99|777|5522);|1337;(?:Report|RequestUpload|Capabilities|Copy|File=)", re.DOTALL
)  # notifications, the clipboard, iTerm2's questions and downloads: they happened, once
_OSC_TEXT: Final = re.compile(rb"(?:[0127l8L]|133|633);")  # titles, folders, links: a "?" is only text
_OSC_ASKS: Final = re.compile(rb"[;=]\?(?:;|\Z)")
_DCS_QUERY: Final = re.compile(rb"[0-9;]*[$+]q|\+Q")  # DECRQSS, XTGETTCAP
_APC_SILENT: Final = re.compile(rb"G(?:[^;]*,)?q=2(?:[,;]|\Z)")  # a kitty image that asks for no answer


def is_query(sequence: re.Match[bytes]) -> bool:
    """Tell whether a terminal would answer this sequence, or act on the world beyond its screen."""
    match sequence.lastgroup, sequence.group(sequence.lastgroup or 0):
        case "csi", text:
            return _CSI_QUERY.fullmatch(text.translate(None, _CONTROLS)) is not None
        case "osc", text:
            if _OSC_ACTS.match(text):
                return True
            return not _OSC_TEXT.match(text) and _OSC_ASKS.search(text) is not None
        case "dcs", text:
            return _DCS_QUERY.match(text) is not None
        case "apc", text:
            return text.startswith(b"G") and _APC_SILENT.match(text) is None
        case "esc", text:
            return text == b"Z"  # DECID
        case "enq", _:
            return True
        case _:
            return False


class QueryStripper:
    """Takes queries out of a backlog, so that a terminal does not answer what was asked long
    ago."""

    def __init__(self) -> None:
        self._held = b""
        self._loose = False  # an escape was shown that began nothing whole

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown; an unfinished sequence at the end is held for the next call."""
        data = self._held + data
        end = _unfinished_at(data)
        self._held = data[end:]
        shown: list[bytes] = []
        at = 0
        for found in _SEQUENCE.finditer(data, 0, end):
            self._show(data[at : found.start()], shown)
            self._pass(found, shown)
            at = found.end()
        self._show(data[at:end], shown)
        return b"".join(shown)

    def finish(self) -> bytes:
        """Return what was held: the live stream completes it, so its program still waits for it."""
        held, self._held = self._held, b""
        return held

    def _show(self, text: bytes, shown: list[bytes]) -> None:
        shown.append(text)
        self._loose = self._loose or b"\x1b" in text

    def _pass(self, found: re.Match[bytes], shown: list[bytes]) -> None:
        if not is_query(found):
            shown.append(found.group())
        elif self._loose:
            # What was broken off before it must not become a query together with what follows it.
            shown.append(_ABORT)
        self._loose = False


def _unfinished_at(data: bytes) -> int:
    """Return where an unfinished sequence begins, or the end."""
    last = data.rfind(b"\x1b")
    if last < 0:
        return len(data)
    # The last escape may be half of the terminator of a string that begins at the one before it.
    for start in (data.rfind(b"\x1b", 0, last), last):
        if start >= 0 and _BEGINNING.match(data, start) and len(data) - start <= MAX_HELD_BYTES:
            return start
    return len(data)


# --- where a replay may begin --------------------------------------------------------------------

_SCAN_BYTES: Final = 64 * 1024
"""How far before the wanted cut to look for a sequence that reaches over it."""


def replay_start(backlog: bytes, limit: int) -> int:
    """Return where to begin showing at most `limit` bytes: after a line's end, else between
    sequences.

    A cut inside an escape sequence or a character would show as rubbish; inside a line the terminal
    cannot know its column, so a whole line is better.
    """
    cut = len(backlog) - limit
    if cut <= 0:
        return 0
    spans = [found.span() for found in _SEQUENCE.finditer(backlog, max(0, cut - _SCAN_BYTES))]
    line = backlog.find(b"\n", cut)
    while line >= 0 and any(begin < line < end for begin, end in spans):
        line = backlog.find(b"\n", line + 1)
    if 0 <= line < len(backlog) - 1:
        return line + 1
    for begin, end in spans:
        if begin < cut < end:
            return end
    return _character_start(backlog, cut)


def _character_start(data: bytes, at: int) -> int:
    """Skip the rest of a UTF-8 character: at most three bytes."""
    for skipped in range(4):
        if at + skipped >= len(data) or data[at + skipped] & 0xC0 != 0x80:
            return at + skipped
    return at
