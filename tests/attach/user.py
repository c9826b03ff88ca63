"""A person at a terminal, for tests: `ptyd …` on a real PTY, what it shows, what is typed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType
from typing import Final, Self

from tests.support.daemon import RuntimeDir

DEADLINE_S: Final = 10.0
_COMMAND_LINE: Final = "import sys; from ptyd.cli import main; sys.argv[0] = 'ptyd'; main()"


class User:
    """Runs one command on a terminal of its own. Use it in a `with` block."""

    command_line = _COMMAND_LINE

    def __init__(
        self, runtime: RuntimeDir, *arguments: str, rows: int = 24, cols: int = 80, **settings: str
    ) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, cols, tell=False)
        self.settings_before = termios.tcgetattr(slave)
        self._slave = slave
        self.shown = b""
        self._seen = 0
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", self.command_line, *arguments],
            env={**runtime.env, "TERM": "xterm-256color", **settings},
            cwd=runtime.base,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=_take_terminal,
        )

    def resize(self, rows: int, cols: int, *, tell: bool = True) -> None:
        """Change the terminal's size, as dragging a window's corner does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)  # the kernel tells only a foreground group

    def type(self, data: bytes) -> None:
        """Press keys."""
        while data:
            data = data[os.write(self.master, data) :]

    def read(self, wait_s: float = 0.05) -> bytes:
        """Take in what is shown within `wait_s`."""
        if not select.select([self.master], [], [], wait_s)[0]:
            return b""
        with contextlib.suppress(OSError):  # EIO: the last slave was closed
            data = os.read(self.master, 65536)
            self.shown += data
            return data
        return b""

    def expect(self, text: bytes, deadline_s: float = DEADLINE_S) -> bytes:
        """Wait until `text` is shown after what was expected before; return all up to its end."""
        ends = time.monotonic() + deadline_s
        while (at := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < ends, f"{text!r} was not shown, but {self.shown[self._seen :]!r}"
            self.read()
        before = self.shown[self._seen : at + len(text)]
        self._seen = at + len(text)
        return before

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the command to end, showing all it writes; return its exit status."""
        ends = time.monotonic() + deadline_s
        while self.process.poll() is None:
            assert time.monotonic() < ends, f"it did not end; shown: {self.shown[-500:]!r}"
            self.read()
        while self.read(0.01):
            pass
        return self.process.returncode

    @property
    def is_raw(self) -> bool:
        local_modes: int = termios.tcgetattr(self._slave)[3]
        return not local_modes & termios.ICANON

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal's settings are what they were before the command."""
        return termios.tcgetattr(self._slave) == self.settings_before

    def make_cooked(self) -> None:
        """Do what a shell does when it gets the terminal back."""
        termios.tcsetattr(self._slave, termios.TCSANOW, self.settings_before)

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self._slave)
        os.close(self.master)
        self.master = self._slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.master >= 0:
            self.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
