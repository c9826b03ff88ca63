"""The modes a program has put a terminal into: to undo them on leaving, to redo them on coming
back.

Pure: bytes in, bytes out. Looks at output and never changes it. Only sequences that set a mode are
looked for, by one regular expression, so that a flood full of colours costs little.

Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html (DECSET),
https://sw.kovidgoyal.net/kitty/keyboard-protocol/#progressive-enhancement
"""

from __future__ import annotations

import re
from typing import Final

_MODE_SEQUENCE: Final = re.compile(
    rb"""\x1b(?! \[ [0-9;]*+ m )(?:  # a colour, as most are, is told from all of these at once
        \[ \? (?P<private> [0-9;]+ ) (?P<switch> [hl] )
      | \[    (?P<region> [0-9;]* ) r
      | \[ (?P<push> > [0-9]* ) u
      | \[ <  (?P<pop> [0-9]* ) u
      | \[ = (?P<flags> [0-9]* ) (?: ; [0-9]* )? u
      | \[ >4 (?: ; (?P<modify> [0-9]* ) )? m
      | \[    (?P<cursor> [0-9]* \  ) q
      | \[ (?P<soft> ! ) p
      | (?P<escape> [=>c] )
    )""",
    re.VERBOSE,
)
_BEGINNING: Final = re.compile(rb"\x1b(?:\[[?<>=!]?[0-9;]{0,64} ?)?\Z")

_ALTERNATE_SCREENS: Final = frozenset([47, 1047, 1049])
_ON_BY_DEFAULT: Final = frozenset([7, 25])
"""Autowrap and the cursor: leaving means setting them, not resetting."""
_UNTOUCHED: Final = frozenset([3, 4, 5, 12, 40, 45, 1048])
"""Modes that a terminal's owner chose, that clear the screen when set, or that save the cursor."""
_SYNCHRONIZED: Final = 2026
"""Holds the picture back until reset; redone on coming back it would freeze the screen."""
_MAX_PUSHES: Final = 16
_ABORT: Final = b"\x18"  # CAN ends whatever sequence the stream broke off in
_PLAIN: Final = b"\x1b[0m\x0f"  # no colours, the usual characters


class ModeTracker:
    """Follows a stream of output, split anywhere, and knows which modes it has left set."""

    def __init__(self) -> None:
        self._held = b""
        self._forget()

    def _forget(self) -> None:
        self._private: dict[int, bool] = {}
        self._pushed: list[bytes] = []  # kitty keyboard flags
        self._flags = b""
        self._modify_keys = b""
        self._keypad = False
        self._region = False
        self._cursor = b""

    def feed(self, data: bytes) -> None:
        """Take in output as the terminal gets it."""
        data = self._held + data
        for found in _MODE_SEQUENCE.finditer(data):
            self._apply(found)
        unfinished = _BEGINNING.search(data, max(0, len(data) - 80))
        self._held = data[unfinished.start() :] if unfinished else b""

    @property
    def alternate_screen(self) -> bool:
        """Whether a full-screen program has the other screen."""
        return any(self._private.get(mode, False) for mode in _ALTERNATE_SCREENS)

    def restore(self) -> bytes:
        """Return what puts a fresh terminal into the modes that the program believes it has."""
        changed = [(mode, on) for mode, on in self._changed() if mode != _SYNCHRONIZED]
        # The alternate screen first: cursor and keypad modes belong to the screen shown.
        changed.sort(key=lambda item: item[0] not in _ALTERNATE_SCREENS)
        out = [_private(mode, on) for mode, on in changed]
        out += [b"\x1b=" if self._keypad else b"", self._cursor and b"\x1b[%sq" % self._cursor]
        out += [b"\x1b[%su" % flags for flags in self._pushed]
        out += [self._flags and b"\x1b[=%su" % self._flags]
        return b"".join(out) + (self._modify_keys and b"\x1b[>4;%sm" % self._modify_keys)

    def reset(self) -> bytes:
        """Return what gives the terminal back to its owner; moves no cursor that it need not."""
        out = [_ABORT, b"\x1b[<u" * len(self._pushed), self._flags and b"\x1b[=0u"]
        out += [self._modify_keys and b"\x1b[>4m", b"\x1b>" if self._keypad else b""]
        out += [b"\x1b7\x1b[r\x1b8" if self._region else b""]  # unsaved, the cursor would go home
        out += [b"\x1b[0 q" if self._cursor else b""]
        # The alternate screen last: what was set there is reset there.
        changed = sorted(self._changed(), key=lambda item: item[0] in _ALTERNATE_SCREENS)
        out += [_private(mode, not on) for mode, on in changed]
        return b"".join(out) + _PLAIN

    def _changed(self) -> list[tuple[int, bool]]:
        return [(mode, on) for mode, on in self._private.items() if on != (mode in _ON_BY_DEFAULT)]

    def _apply(self, found: re.Match[bytes]) -> None:
        match found.lastgroup, found.group(found.lastgroup or 0):
            case "switch", switch:
                self._set_private(found.group("private"), switch == b"h")
            case "region", edges:
                self._region = edges not in (b"", b"0", b";", b"0;0")
            case "push", flags:
                self._pushed = [*self._pushed, flags][-_MAX_PUSHES:]
            case "pop", count:
                del self._pushed[-max(1, _number(count)) :]
            case "flags", flags:
                self._flags = b"" if flags in (b"", b"0") else flags
            case "modify", level:
                self._modify_keys = b"" if level in (b"", b"0") else level
            case "cursor", style:
                self._cursor = b"" if style in (b" ", b"0 ") else style
            case "soft", _:  # DECSTR
                self._keypad = self._region = False
                self._private.update({1: False, 6: False, 7: True, 25: True})
            case "escape", b"c":  # RIS
                self._forget()
            case "escape", which:
                self._keypad = which == b"="
            case None, _:  # CSI > 4 m
                self._modify_keys = b""

    def _set_private(self, modes: bytes, on: bool) -> None:
        for mode in map(_number, modes.split(b";")):
            if mode and mode not in _UNTOUCHED:
                self._private[mode] = on


def _private(mode: int, on: bool) -> bytes:
    return b"\x1b[?%d%s" % (mode, b"h" if on else b"l")


def _number(digits: bytes) -> int:
    """Read a parameter; one that is absent or absurd is 0."""
    return int(digits) if digits.isdigit() and len(digits) < 6 else 0
