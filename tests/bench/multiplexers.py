"""Where the sessions of tmux, screen and abduco live: servers in a private directory.

A multiplexer keeps a picture of the screen and draws that; it need not pass all bytes on. tmux in control
mode passes them all, escaped, in lines of `%output`.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.terminals import ANSWER_DEADLINE_S, RECEIVE_BYTES, SOCKET_CALM_S, Terminal, fresh, readable
from tests.support import processes
from tests.support.waiting import wait_until

COLS, ROWS = "80", "24"
_SETTINGS: Final = "set -g exit-empty off\nset -g status off\n"  # nothing but the program's output is drawn
LEAVE_DEADLINE_S: Final = 5.0


def plain_env(**more: str) -> dict[str, str]:
    """Return our environment with a known terminal, as if started outside of any multiplexer."""
    env = {name: value for name, value in os.environ.items() if name not in ("TMUX", "TMUX_PANE", "STY")}
    return {**env, "TERM": "xterm-256color", **more}


class Tmux:
    """One tmux server of our own, for all sessions of a run. Use it in a `with` block."""

    def __init__(self, where: Path) -> None:
        settings = where / "tmux.conf"
        settings.write_text(_SETTINGS)
        self._command = ["tmux", "-S", str(where / "tmux"), "-f", str(settings)]

    def __enter__(self) -> Tmux:
        self._run("start-server")
        return self

    def __exit__(self, *error: object) -> None:
        self._run("kill-server", is_needed=False)

    def _run(self, *words: str, is_needed: bool = True) -> None:
        quiet = None if is_needed else subprocess.DEVNULL
        command = [*self._command, *words]
        subprocess.run(command, env=plain_env(), check=is_needed, stdin=subprocess.DEVNULL, stderr=quiet)

    @contextlib.contextmanager
    def session(self, argv: list[str], ready: Path) -> Iterator[str]:
        """Run a program in a session; yields the session's name."""
        ready.unlink(missing_ok=True)
        name = ready.name
        self._run("new-session", "-d", "-s", name, "-x", COLS, "-y", ROWS, *argv)
        try:
            wait_until(ready.exists, what="the program under tmux is up")
            yield name
        finally:
            # tmux 3.3a may crash when one of several control clients leaves; the next session starts another.
            self._run("kill-session", "-t", name, is_needed=False)

    def attach(self, name: str) -> list[str]:
        """Return the command that attaches."""
        return [*self._command, "attach", "-t", name]

    @contextlib.contextmanager
    def control_terminal(self, argv: list[str], ready: Path) -> Iterator[Terminal]:
        """Run a program in a session, attached in control mode."""
        with self.session(argv, ready) as name:
            command = [*self._command, "-C", "attach", "-t", name]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, env=plain_env(), stdin=pipe, stdout=pipe) as client:
                try:
                    yield _Control(client, name)
                finally:
                    _leave(client)


def _leave(client: subprocess.Popen[bytes]) -> None:
    """Detach in the polite way."""
    try:
        client.communicate(timeout=LEAVE_DEADLINE_S)  # closes its input first
    except subprocess.TimeoutExpired:
        client.kill()


class _Control:
    """A client of tmux in control mode.

    Source: tmux(1), CONTROL MODE: bytes below 32 and backslashes come as backslash and three octal digits.
    """

    lost_bytes = 0
    calm_s = SOCKET_CALM_S

    def __init__(self, client: subprocess.Popen[bytes], session: str) -> None:
        assert client.stdin is not None
        assert client.stdout is not None
        self._in, self._out = client.stdin.fileno(), client.stdout.fileno()
        self._session = session
        self._rest = b""

    def encode(self, keys: bytes) -> bytes:
        return f"send-keys -t {self._session} -H {keys.hex(' ')}\n".encode()

    def send(self, encoded: bytes) -> None:
        os.write(self._in, encoded)

    def receive(self) -> bytes:
        if not self.wait(ANSWER_DEADLINE_S):
            raise TimeoutError
        data = os.read(self._out, RECEIVE_BYTES)
        assert data, "tmux hung up"
        return data

    def decode(self, received: bytes) -> bytes:
        *lines, self._rest = (self._rest + received).split(b"\n")
        return b"".join(_unescaped(line) for line in lines if line.startswith(b"%output "))

    def wait(self, wait_s: float) -> bool:
        return readable(self._out, wait_s)


def _unescaped(line: bytes) -> bytes:
    return codecs.escape_decode(line.split(b" ", 2)[2])[0]


@contextlib.contextmanager
def screen_session(where: Path, argv: list[str], ready: Path) -> Iterator[list[str]]:
    """Run a program under a screen of its own; yields the command that attaches, for `screen_env`."""
    ready.unlink(missing_ok=True)
    command, name = ["screen", "-c", "/dev/null"], ready.name
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [*command, "-D", "-m", "-S", name, *argv],
        env=screen_env(where),
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
    ) as server:
        try:
            wait_until(ready.exists, what="the program under screen is up")
            yield [*command, "-x", name]
        finally:
            server.terminate()  # screen hangs its programs up and removes its socket


def screen_env(where: Path) -> dict[str, str]:
    """Return an environment in which screen keeps its sockets in a private directory."""
    sockets = where / "screens"
    sockets.mkdir(mode=0o700, exist_ok=True)
    return plain_env(SCREENDIR=str(sockets))


@contextlib.contextmanager
def abduco_session(where: Path, argv: list[str], ready: Path) -> Iterator[list[str]]:
    """Run a program under an abduco of its own; yields the command that attaches."""
    ready.unlink(missing_ok=True)
    path = str(fresh(where, "abduco"))
    try:
        subprocess.run(["abduco", "-n", path, *argv], env=plain_env(), check=True, stdin=subprocess.DEVNULL)
        wait_until(ready.exists, what="the program under abduco is up")
        yield ["abduco", "-a", path]
    finally:
        # It has made itself a daemon; what we started and has this path in its words can be no other.
        for process in processes.descendants(os.getpid()):
            if path in processes.command(process.pid).split():
                processes.kill(process)
