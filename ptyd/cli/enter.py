"""`new` and `attach`: into a session."""

from __future__ import annotations

import os
from typing import Any, Final, Literal

import click

from ptyd.blocking import BlockingClient
from ptyd.cli.group import Settings, command
from ptyd.cli.output import put, put_json, say
from ptyd.cli.params import (
    pair_option,
    pairs,
    parse_scrollback,
    parse_size,
    session_argument,
    since_option,
)
from ptyd.protocol.errors import Code, PtydError

MARKERS: Final = ("PTYD_SESSION", "PTYD_MARK", "_PTYD_COMPLETE")
"""Of our environment but not of a new session's, which has its own."""
_DETACH_KEYS: Final = "ctrl-\\"

Via = Literal["shm", "stream"]

detach_keys_option = click.option(
    "--detach-keys",
    metavar="KEYS",
    default=_DETACH_KEYS,
    show_default=True,
    help="What to type to leave, as in ctrl-\\ or ctrl-a,d.",
)


@command(context_settings={"allow_interspersed_args": False})
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.option("-d", "--detach", is_flag=True, help="Do not attach: print the new session's id.")
@click.option("--name", metavar="NAME", help="A name, unique among living sessions.")
@pair_option("--label", "labels", "A label")
@click.option("--cwd", metavar="DIR", help="Working directory [default: this one].")
@pair_option("--env", "env", "A variable on top of your environment")
@click.option(
    "--size", type=parse_size, metavar="ROWSxCOLS", help="Window size, rows first [default: this terminal's]."
)
@click.option(
    "--scrollback",
    type=parse_scrollback,
    metavar="BYTES",
    help="Output to keep, 64KiB to 64MiB [default: 1MiB].",
)
@click.option(
    "--on-leader-exit",
    type=click.Choice(["keep", "kill"]),
    help="What becomes of background processes when the program exits [default: keep].",
)
@detach_keys_option
def new(settings: Settings, argv: tuple[str, ...], detach: bool, detach_keys: str, **asked: Any) -> int:
    """Start a program in a new session and attach to it.

    The program is your login shell by default. It gets your environment and this directory.
    Options of ptyd come before it, its own after it.

    Without a terminal, or with -d, print the session's id instead of attaching.
    """
    from ptyd.attach import is_terminal

    with settings.connect() as client:
        session = spawn(client, argv, **asked)
    if detach or settings.json or not is_terminal():
        put_json(session) if settings.json else put(session["id"])
        return 0
    return _attach(settings, session["id"], detach_keys, since="start")


@command(with_json=False)
@session_argument
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.option("--read-only", is_flag=True, help="Look only: what is typed goes nowhere.")
@since_option(None, "Replay from there: all, none, or from an offset [default: the last screenfuls].")
@click.option(
    "--via",
    type=click.Choice(["shm", "stream"]),
    default="shm",
    help="Read the output in place, where that can be had, or through the daemon.  [default: shm]",
)
@click.option(
    "--create",
    is_flag=True,
    help="Start a session of this name if there is none, running ARGV or your shell.",
)
@detach_keys_option
def attach(
    settings: Settings,
    session: str,
    argv: tuple[str, ...],
    read_only: bool,
    since: int | str | None,
    via: Via,
    create: bool,
    detach_keys: str,
) -> int:
    """Show a session on this terminal.

    Ends when the program exits or the keys to leave are typed. Returns the program's exit code,
    128 + N for signal N, and 0 after leaving.
    """
    if argv and not create:
        raise click.UsageError("a program is only for --create")
    if create:
        _ensure_session(settings, session, argv)
    return _attach(settings, session, detach_keys, since=since, read_only=read_only, via=via)


def _attach(
    settings: Settings,
    session: str,
    detach_keys: str,
    *,
    since: int | str | None,
    read_only: bool = False,
    via: Via = "shm",
) -> int:
    from ptyd.attach import Options
    from ptyd.attach import attach as attach_terminal
    from ptyd.attach.keys import UnknownKey

    options = Options(
        path=settings.runtime_dir,
        start=settings.start,
        since=since,  # type: ignore[arg-type]  # parse_since lets nothing else through
        read_only=read_only,
        via=via,
        detach_keys=detach_keys,
        is_quiet=settings.quiet,
    )
    try:
        return attach_terminal(session, options)
    except UnknownKey as error:
        raise click.UsageError(str(error)) from error


def _ensure_session(settings: Settings, name: str, argv: tuple[str, ...]) -> None:
    with settings.connect() as client:
        try:
            found = client.call("session.get", {"id": name})
        except PtydError as error:
            if error.code is not Code.NOT_FOUND:
                raise
        else:
            if found["state"] != "exited":
                return
        try:
            spawn(client, argv, name=name)
        except PtydError as error:
            if error.code is not Code.NAME_TAKEN:  # somebody was faster, and that is as good
                raise
        else:
            say(f"ptyd: started {name}")


def spawn(
    client: BlockingClient,
    argv: tuple[str, ...],
    *,
    name: str | None = None,
    labels: tuple[tuple[str, str], ...] = (),
    cwd: str | None = None,
    env: tuple[tuple[str, str], ...] = (),
    size: tuple[int, int] | None = None,
    scrollback: int | None = None,
    on_leader_exit: str | None = None,
) -> dict[str, Any]:
    """Start a session with the caller's environment, directory and window size.

    The id is ours, so that a spawn whose answer was lost can be looked up instead of guessed at.
    """
    params: dict[str, Any] = {
        "id": os.urandom(4).hex(),
        "argv": list(argv) or login_shell(),
        "env": caller_env() | pairs(env),
        "name": name,
        "labels": pairs(labels),
        "cwd": os.path.abspath(cwd) if cwd else _here(),
        "scrollback_bytes": scrollback,
        "on_leader_exit": on_leader_exit,
    }
    if rows_cols := size or terminal_size():
        params["rows"], params["cols"] = rows_cols
    try:
        session = client.call("session.spawn", params)
    except PtydError as error:
        if error.code is not Code.MAYBE_APPLIED:
            raise
        client.reconnect()
        try:
            session = client.call("session.get", {"id": params["id"]})
        except PtydError:
            raise error from None
    found: dict[str, Any] = session
    return found


def caller_env() -> dict[str, str]:
    """Return this process's environment without what marks a session's processes."""
    return {key: value for key, value in os.environ.items() if key not in MARKERS}


def login_shell() -> list[str]:
    """Return how to start the user's shell as at a login."""
    import pwd

    shell = os.environ.get("SHELL") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    return [shell, "-l"]


def _here() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None  # it was deleted under us; the home directory is left


def terminal_size() -> tuple[int, int] | None:
    """Return the rows and columns of whichever of our streams is a terminal."""
    for fd in (1, 0, 2):
        try:
            cols, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        if rows and cols:
            return rows, cols
    return None
