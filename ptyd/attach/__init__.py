"""The interactive frontend: a session shown on the user's terminal.

Owns one poll loop over the terminal, the line to the session and the signals. Never edits live output,
never sends a typed byte twice, never leaves the terminal raw. No trio: it must start at once and
echo at once.

    frontend    the loop, and when it ends     keyboard  what is typed, on its way to the session
    keys        keys by name, those to leave by  screen    what is shown
    replay      what of old output is shown      modes     what a program has switched on
    connection  lines, and a lost daemon         terminal  queries, cuts
    tty         the terminal itself: raw mode, signals
"""

from __future__ import annotations

import os
from typing import Final, Literal, NamedTuple

from ptyd.cursor import Since

DETACH_KEYS: Final = "ctrl-\\"


class Options(NamedTuple):
    """How to attach."""

    path: str | None = None
    start: bool = True
    since: Since | None = None
    """None for the recent output; "start" or an offset for all from there; "live" for none."""
    read_only: bool = False
    via: Literal["shm", "stream"] = "shm"
    """Read the session's memory in place where that can be had, or through the daemon in any case."""
    detach_keys: str = DETACH_KEYS
    is_quiet: bool = False


def is_terminal() -> bool:
    """Tell whether there is a terminal to attach."""
    return os.isatty(0) and os.isatty(1)


def attach(session: str, options: Options) -> int:
    """Show a session on this terminal until it exits or the user leaves; return the exit status.

    That is the program's code, 128 + N for signal N, 0 on leaving.

    Raises:
        PtydError: it could not be attached.
        UnknownKey: no such keys to leave by.
    """
    from ptyd.attach.frontend import run

    return run(session, options)
