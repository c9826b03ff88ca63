"""How things are written: tables, ages, errors. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ptyd.protocol.errors import Code, PtydError

NEXT_STEPS: Final = {
    Code.NOT_FOUND: "see: ptyd ls -a",
    Code.EXISTS: "see: ptyd ls -a",
    Code.NAME_TAKEN: "see: ptyd ls",
    Code.KILL_UNCONFIRMED: "its state stays `killing`; run the same kill again",
    Code.MAYBE_APPLIED: "see: ptyd ls",
    Code.UNREACHABLE: "see: ptyd doctor",
    Code.BUSY: "try again; see: ptyd doctor",
    Code.UNSUPERVISED: "see: ptyd logs, ptyd kill",
    Code.INPUT_FULL: "the program does not read its input; try again",
}
_COLORS: Final = {
    **dict.fromkeys(("exited", "deleted", "disposed", "done"), 2),
    **dict.fromkeys(("killing", "unsupervised", "stuck", "lost", "failed", "error", "refused"), 31),
    **dict.fromkeys(("lingering", "deleting", "partial", "interrupted", "compensated"), 33),
    **dict.fromkeys(("starting", "spawning", "provisioning"), 36),
}
"""Of states, of both programs; what is as it should be has none."""


def say(text: str) -> None:
    """Talk: one line on stderr."""
    sys.stderr.write(f"{text}\n")


def tell_error(error: PtydError, program: str = "ptyd", next_steps: Mapping[Code, str] = NEXT_STEPS) -> None:
    """Tell what went wrong, who survived, and what to run next."""
    say(f"{program}: {error.code}: {printable(error.message)}")
    for survivor in error.data.get("survivors", ()):
        where = "{pid} {command} (state {state}): {reason}".format_map(_Blank(survivor))
        say(f"  still there: {printable(where)}")
    step = next_steps.get(error.code)
    if step and f"{program} " not in error.message:
        say(f"  {step}")


def put(text: str) -> None:
    """Write one line of data."""
    sys.stdout.write(f"{text}\n")


def put_json(value: object) -> None:
    """Write one JSON value on a line of its own."""
    put(json.dumps(value, default=_plain))


def put_bytes(data: bytes) -> None:
    """Write bytes as they are, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def drop_stdout() -> None:
    """Nobody reads any more; keep the interpreter from saying so when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)


def put_table(columns: Sequence[str], rows: Iterable[Sequence[str]], states: int = -1) -> None:
    """Write aligned columns, the last cut to the terminal's width; column `states` in colour."""
    lines = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    room = _width() - sum(widths[:-1]) - 2 * (len(columns) - 1)
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)]
        if 0 <= states < len(cells) and line[states] in _COLORS and _is_colored():
            cells[states] = f"\x1b[{_COLORS[line[states]]}m{cells[states]}\x1b[0m"
        put("  ".join([*cells, line[-1][: max(8, room)]]).rstrip())


def put_fields(fields: Mapping[str, object]) -> None:
    """Write `key: value` lines, aligned."""
    width = max(len(key) for key in fields) + 1
    for key, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, default=_plain)
        put(f"{key + ':':<{width}} {printable(text)}")


def age(ms: float) -> str:
    """Write a time span as people say it: its largest unit."""
    seconds = int(ms / 1000)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size or (seconds >= size and unit == "d"):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def command_line(argv: Sequence[str]) -> str:
    """Write an argv as a shell would take it."""
    import shlex

    return shlex.join(argv)


def printable(text: str) -> str:
    """Make text from elsewhere harmless on a terminal: a name must not move the cursor."""
    return text if text.isprintable() else "".join(_shown(sign) for sign in text)


def describe_exit(fields: Mapping[str, Any] | None) -> str:
    """Write how a leader ended."""
    match fields:
        case {"code": int(code)}:
            return f"exited with {code}"
        case {"signal": int(number)}:
            return f"killed by signal {number}"
    return "end unknown"


def exit_status(fields: Mapping[str, Any] | None) -> int:
    """Return an exit as a shell's status: the code, or 128 + the signal; 1 when nobody knows."""
    match fields:
        case {"code": int(code)}:
            return code
        case {"signal": int(number)}:
            return 128 + number
    return 1


def _shown(sign: str) -> str:
    return sign if sign.isprintable() else sign.encode("unicode_escape", "replace").decode()


def _width() -> int:
    try:
        return os.get_terminal_size(1).columns or 1 << 20
    except OSError:
        return 1 << 20  # not a terminal: nothing is cut


def _is_colored() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


def _plain(value: object) -> str:
    """What JSON cannot carry: bytes, should a daemon send some."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


class _Blank(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"
