"""`send`, `resize`, `signal` and `detach`: acting on a living session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from ptyd.blocking import BlockingClient
from ptyd.calls import INPUT_WAIT_MS, input_pieces
from ptyd.cli.group import Settings, command
from ptyd.cli.output import put_json, say
from ptyd.cli.params import parse_size, session_argument
from ptyd.protocol.errors import PtydError


@command()
@session_argument
@click.argument("text", nargs=-1)
@click.option("--enter", is_flag=True, help="Press Enter at the end.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Send standard input, byte for byte, first.")
@click.option(
    "--key",
    "keys",
    metavar="KEY",
    multiple=True,
    help="Press a key after the text: C-c, M-x, Up, F5, Escape, …; may be repeated.",
)
def send(
    settings: Settings,
    session: str,
    text: tuple[str, ...],
    enter: bool,
    from_stdin: bool,
    keys: tuple[str, ...],
) -> int:
    """Type into a session.

    What is typed: standard input, then TEXT (joined by spaces), then keys, then Enter.
    """
    if not (text or enter or from_stdin or keys):
        raise click.UsageError("nothing to send: give TEXT, --key, --enter or --stdin")
    typed = " ".join(text).encode(errors="surrogateescape") + _pressed(keys) + (b"\r" if enter else b"")
    with settings.connect() as client:
        sent = 0
        try:
            for piece in _pieces(from_stdin, typed):
                sent += _send(client, session, piece)
        except PtydError:
            if sent:
                say(f"ptyd: {sent} bytes had been sent before")
            raise
    if settings.json:
        put_json({"accepted": sent})
    return 0


def _pressed(keys: tuple[str, ...]) -> bytes:
    from ptyd.attach.keys import UnknownKey, key_bytes

    try:
        return b"".join(key_bytes(key) for key in keys)
    except UnknownKey as error:
        raise click.UsageError(str(error)) from error


def _pieces(from_stdin: bool, typed: bytes) -> Iterator[bytes]:
    while from_stdin and (data := os.read(0, 65536)):
        yield data
    yield from input_pieces(typed)


def _send(client: BlockingClient, session: str, data: bytes) -> int:
    params = {"id": session, "data": data, "wait_ms": INPUT_WAIT_MS}
    return int(client.call("session.input", params)["accepted"])


@command(with_json=False)
@session_argument
@click.argument("size", type=parse_size, metavar="ROWSxCOLS")
def resize(settings: Settings, session: str, size: tuple[int, int]) -> int:
    """Set a session's window size, ROWSxCOLS as in 24x80."""
    rows, cols = size
    with settings.connect() as client:
        client.call("session.resize", {"id": session, "rows": rows, "cols": cols})
    return 0


@command()
@session_argument
@click.argument("signal", metavar="SIGNAL")
@click.option(
    "--to",
    type=click.Choice(["foreground", "leader", "all"]),
    default="foreground",
    show_default=True,
    help="Whom to signal.",
)
def signal(settings: Settings, session: str, signal: str, to: str) -> int:
    """Send a signal to a session's program.

    SIGNAL is a name (INT, SIGINT) or a number. To end a session: ptyd kill.
    """
    which: str | int = int(signal) if signal.isdecimal() else signal.upper()
    with settings.connect() as client:
        answer = client.call("session.signal", {"id": session, "signal": which, "to": to})
    if settings.json:
        put_json(answer)
    return 0


@command()
@session_argument
def detach(settings: Settings, session: str) -> int:
    """End a session's attachments, whoever has them."""
    with settings.connect() as client:
        answer = client.call("session.detach", {"id": session})
    if settings.json:
        put_json(answer)
    elif not settings.quiet:
        count = answer["detached"]
        say(f"ptyd: {count} attachment{'' if count == 1 else 's'} ended")
    return 0
