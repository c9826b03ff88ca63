"""Keys by name: what `send --key` sends, and what `--detach-keys` looks for.

Pure. Names are those of tmux (C-c, M-x, Enter, Up) for sending and of docker (ctrl-a,d) for
detaching, because people's fingers know them already.

Source: terminfo(5), xterm's ctlseqs, https://sw.kovidgoyal.net/kitty/keyboard-protocol/
"""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = {
    "enter": b"\r",
    "tab": b"\t",
    "btab": b"\x1b[Z",
    "escape": b"\x1b",
    "esc": b"\x1b",
    "space": b" ",
    "bspace": b"\x7f",
    "backspace": b"\x7f",
    "up": b"\x1b[A",
    "down": b"\x1b[B",
    "right": b"\x1b[C",
    "left": b"\x1b[D",
    "home": b"\x1b[H",
    "end": b"\x1b[F",
    "insert": b"\x1b[2~",
    "delete": b"\x1b[3~",
    "pageup": b"\x1b[5~",
    "ppage": b"\x1b[5~",
    "pagedown": b"\x1b[6~",
    "npage": b"\x1b[6~",
    **{f"f{n}": b"\x1bO" + bytes([b"PQRS"[n - 1]]) for n in range(1, 5)},
    **{f"f{n}": b"\x1b[%d~" % code for n, code in enumerate((15, 17, 18, 19, 20, 21, 23, 24), 5)},
}
KEY_NAMES: Final = "C-x, M-x, Enter, Tab, BTab, Escape, Space, BSpace, arrows, Home, End, Insert, Delete, \
PageUp, PageDown, F1 to F12, or one character"


class UnknownKey(ValueError):
    """No key has that name; the message says which names there are."""


def key_bytes(name: str) -> bytes:
    """Return what a terminal sends for a key.

    Raises:
        UnknownKey: no key has that name.
    """
    if (named := _NAMED.get(name.lower())) is not None:
        return named
    if len(name) == 1:
        return name.encode()
    prefix, _, rest = name.partition("-")
    if rest and prefix in ("C", "c", "^", "ctrl", "Ctrl"):
        return _control(name, rest)
    if rest and prefix in ("M", "m", "alt", "Alt"):
        return b"\x1b" + key_bytes(rest)
    raise UnknownKey(f"no key is called {name!r}; there are {KEY_NAMES}")


def _control(name: str, letter: str) -> bytes:
    if letter == "?":
        return b"\x7f"
    if letter.lower() == "space":
        letter = "@"
    if len(letter) == 1 and "@" <= letter.upper() <= "_":
        return bytes([ord(letter.upper()) & 0x1F])
    raise UnknownKey(f"{name!r} is no control key; they are C-a to C-z, C-@, C-[, C-\\, C-], C-^ and C-_")


# --- leaving -------------------------------------------------------------------------------------


class DetachKeys:
    """Finds the keys to leave by in what is typed, split anywhere.

    A program may have switched the terminal to the kitty or the xterm way of sending control keys,
    so those forms of a key count too. They are looked for in one piece only: waiting for the rest
    of one would hold back every Escape that is typed.
    """

    def __init__(self, text: str) -> None:
        """Take keys as docker writes them: `ctrl-\\\\`, `ctrl-a,d`.

        Raises:
            UnknownKey: the text names no key.
        """
        self.text = text
        keys = [_key_pattern(key) for key in text.split(",")]
        self._all = re.compile(b"".join(keys), re.DOTALL)
        partial = b""
        for key in reversed(keys[:-1]):
            partial = key + (b"(?:" + partial + b")?" if partial else b"")
        self._partial = re.compile(partial + rb"\Z", re.DOTALL) if partial else None
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what goes to the program, and whether the keys to leave came after it."""
        data = self._held + data
        self._held = b""
        if found := self._all.search(data):
            return data[: found.start()], True
        if self._partial and (begun := self._partial.search(data)):
            self._held = data[begun.start() :]
            return data[: begun.start()], False
        return data, False


def _key_pattern(key: str) -> bytes:
    prefix, dash, letter = key.partition("-")
    if not dash or not letter:
        if len(key) != 1:
            raise UnknownKey(f"{key!r} is no key to detach with; write one like ctrl-a, or one character")
        return re.escape(key.encode())
    if prefix.lower() not in ("ctrl", "c"):
        raise UnknownKey(f"{key!r} is no key to detach with; write one like ctrl-a, or one character")
    return b"(?:" + b"|".join([re.escape(_control(key, letter)), *_encoded(letter.lower())]) + b")"


def _encoded(letter: str) -> list[bytes]:
    """The forms of a control key with its modifiers in plain: 5 is ctrl, 64 and 128 the locks."""
    code = b"%d" % ord(letter)
    modifiers = rb"(?:5|69|133|197)"
    kitty = rb"\x1b\[" + code + rb"(?::[0-9:]*)?;" + modifiers + rb"(?::[12])?(?:;[0-9:]*)?u"
    return [kitty, rb"\x1b\[27;" + modifiers + rb";" + code + rb"~"]
