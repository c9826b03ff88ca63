"""Parameters that several commands take: sizes, labels, sessions, with their completion."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from ptyd.protocol.errors import PtydError
from ptyd.protocol.limits import MAX_DIMENSION, SCROLLBACK_MAX_BYTES, SCROLLBACK_MIN_BYTES

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Function = TypeVar("Function", bound=Callable[..., Any])

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_COMPLETION_DEADLINE_S: Final = 1.0


def parse_size(value: str) -> tuple[int, int]:
    """Read ROWSxCOLS, in that order, as everywhere here."""
    found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", value)
    if found:
        rows, cols = int(found[1]), int(found[2])
        if 1 <= rows <= MAX_DIMENSION and 1 <= cols <= MAX_DIMENSION:
            return rows, cols
    hint = f"write ROWSxCOLS, as in 24x80 (1 to {MAX_DIMENSION} each)"
    raise click.BadParameter(f"{value!r} is no size; {hint}")


def parse_bytes(value: str) -> int:
    """Read a number of bytes, with KiB, MiB, k or m."""
    found = re.fullmatch(r"([0-9]{1,18})\s*([kmg]?)(?:i?b)?", value, re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{value!r} is no number of bytes; write one like 65536, 512KiB or 4MiB")
    return int(found[1]) * _UNITS[found[2].lower()]


def parse_scrollback(value: str) -> int:
    """Read a number of bytes that a session's scrollback can have."""
    count = parse_bytes(value)
    if not SCROLLBACK_MIN_BYTES <= count <= SCROLLBACK_MAX_BYTES:
        raise click.BadParameter(f"{value} is not between 64KiB and 64MiB")
    return count


def parse_pair(value: str) -> tuple[str, str]:
    """Read KEY=VALUE."""
    key, sign, rest = value.partition("=")
    if not sign or not key:
        raise click.BadParameter(f"{value!r} is no pair; write KEY=VALUE")
    return key, rest


def parse_since(value: str) -> int | str:
    """Read where in the output to begin."""
    if value in ("start", "live"):
        return value
    if re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    raise click.BadParameter(f"{value!r} is no place in the output; write start, live or an offset")


def pair_option(name: str, destination: str, help: str) -> Callable[[Function], Function]:
    """Declare an option that takes KEY=VALUE and may be repeated."""
    return click.option(
        name,
        destination,
        type=parse_pair,
        metavar="KEY=VALUE",
        multiple=True,
        help=f"{help}; may be repeated.",
    )


def since_option(default: str | None, help: str) -> Callable[[Function], Function]:
    """Declare `--since`."""
    return click.option(
        "--since",
        type=parse_since,
        metavar="start|live|OFFSET",
        default=default,
        show_default=default is not None,
        help=help,
    )


def complete_session(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the id or the name of a session."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(word, help=hint)
        for word, hint in _known_sessions(context)
        if word.startswith(incomplete)
    ]


session_argument: Final = click.argument("session", shell_complete=complete_session)
sessions_argument: Final = click.argument(
    "sessions", nargs=-1, required=True, shell_complete=complete_session
)


def _known_sessions(context: click.Context) -> list[tuple[str, str]]:
    """Ask a running daemon; completion starts nothing and says nothing when it cannot know."""
    from ptyd.blocking import BlockingClient
    from ptyd.cli.group import Settings

    path = context.ensure_object(Settings).runtime_dir
    try:
        with BlockingClient.connect(path, False, deadline_s=_COMPLETION_DEADLINE_S) as client:
            sessions = client.call("session.list")["sessions"]
    except PtydError:
        return []
    words = []
    for session in sessions:
        hint = f"{session['state']}  {' '.join(session['argv'])}"
        words += [(word, hint) for word in (session["name"], session["id"]) if word]
    return words


def pairs(given: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return KEY=VALUE options as a map.

    Raises:
        click.UsageError: the same key twice.
    """
    found = dict(given)
    if len(found) != len(given):
        raise click.UsageError("the same key is given twice")
    return found
