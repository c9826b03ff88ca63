"""The attach commands as they are, each on a terminal that the bench holds the other end of.

The terminal is raw before a command starts, has 24 rows of 80, and is read as fast as it can be: how long
a real one takes to draw is left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.bench.multiplexers import Tmux, abduco_session, plain_env, screen_env, screen_session
from tests.bench.terminals import ANSWER_DEADLINE_S, Terminal, dtach_server, fresh, readable
from tests.support.daemon import RuntimeDir
from tests.support.waiting import wait_until

_READ_BYTES: Final = 1 << 16
_SIZE: Final = struct.pack("HHHH", 24, 80, 0, 0)


class _Screen:
    """The other end of a command's terminal."""

    lost_bytes = 0  # a command does not tell
    calm_s = 0.1

    def __init__(self, master: int) -> None:
        self._master = master

    def encode(self, keys: bytes) -> bytes:
        return keys

    def send(self, encoded: bytes) -> None:
        os.write(self._master, encoded)

    def receive(self) -> bytes:
        if not self.wait(ANSWER_DEADLINE_S):
            raise TimeoutError
        try:
            return os.read(self._master, _READ_BYTES)
        except OSError as error:  # EIO: nobody has the other end open
            raise AssertionError("the command has left") from error

    def decode(self, received: bytes) -> bytes:
        return received

    def wait(self, wait_s: float) -> bool:
        return readable(self._master, wait_s)


@contextlib.contextmanager
def shown(command: list[str], env: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a command on a terminal of its own."""
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        fcntl.ioctl(master, termios.TIOCSWINSZ, _SIZE)
        client = subprocess.Popen(
            command,
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    try:
        yield _Screen(master)
    finally:
        client.kill()
        client.wait()
        os.close(master)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def ptyd_attach(runtime: RuntimeDir, argv: list[str], ready: Path, *options: str) -> Iterator[Terminal]:
    """Run a program in a session, attached by `ptyd attach`."""
    ready.unlink(missing_ok=True)
    session_id = runtime.call("session.spawn", argv=argv, rows=24, cols=80)["id"]
    command = [sys.executable, "-P", "-m", "ptyd.cli", "attach", session_id, *options]
    try:
        wait_until(ready.exists, what="the session's program is up")
        with shown(command, {**plain_env(), **runtime.env, "TERM": "xterm-256color"}) as terminal:
            yield terminal
    finally:
        runtime.call("session.kill", id=session_id, force=True)


@contextlib.contextmanager
def dtach_attach(where: Path, argv: list[str], ready: Path) -> Iterator[Terminal]:
    """Run a program under dtach, attached by `dtach -a`."""
    path = fresh(where, "dtach")
    command = ["dtach", "-a", str(path), "-E", "-z", "-r", "none"]
    with dtach_server(path, argv, ready), shown(command, plain_env()) as terminal:
        yield terminal


@contextlib.contextmanager
def tmux_attach(tmux: Tmux, argv: list[str], ready: Path) -> Iterator[Terminal]:
    """Run a program in a session of tmux, attached by `tmux attach`."""
    with tmux.session(argv, ready) as name, shown(tmux.attach(name), plain_env()) as terminal:
        yield terminal


@contextlib.contextmanager
def screen_attach(where: Path, argv: list[str], ready: Path) -> Iterator[Terminal]:
    """Run a program under screen, attached by `screen -x`."""
    with screen_session(where, argv, ready) as command, shown(command, screen_env(where)) as terminal:
        yield terminal


@contextlib.contextmanager
def abduco_attach(where: Path, argv: list[str], ready: Path) -> Iterator[Terminal]:
    """Run a program under abduco, attached by `abduco -a`."""
    with abduco_session(where, argv, ready) as command, shown(command, plain_env()) as terminal:
        yield terminal
