"""The user's terminal: raw while attached, and given back as it was found whatever happens.

Owns the terminal's settings, a way of writing to it that never blocks, and the signals that
concern it. Never knows what the bytes mean.

Source: termios(3), tty_ioctl(4), signal(7), poll(2)
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import time
import tty
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Final, Self

SIGNALS: Final = (
    signal.SIGWINCH,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGCONT,
)
GUARDED_WRITE_BYTES: Final = 256
"""What a terminal that polls writable takes without blocking: the kernel's WAKEUP_CHARS."""
SAY_WAIT_MS: Final = 200
LEAVE_DEADLINE_S: Final = 1.0
"""How long a stuck terminal may delay our leaving."""


class Hangup(Exception):
    """The terminal is gone."""


class Terminal:
    """The terminal on stdin and stdout, raw within a `with` block.

    Output goes through a description of our own where one can be opened: making the shared one
    non-blocking would change it for the shell that started us, and for good if we are killed.
    """

    def __init__(self, in_fd: int = 0, out_fd: int = 1) -> None:
        self.in_fd = in_fd
        self._settings = termios.tcgetattr(in_fd)
        self.out_fd, self._write_bytes = _open_output(out_fd)
        self._pending = bytearray()

    def __enter__(self) -> Self:
        self.make_raw()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not TCSADRAIN: a terminal that is stopped (Ctrl-S) would never drain.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self.in_fd, termios.TCSANOW, self._settings)
        os.close(self.out_fd)

    def make_raw(self) -> None:
        """Switch to raw mode; again after somebody else has used the terminal.

        Raises:
            Hangup: the terminal is gone. (The kernel sends SIGCONT with its SIGHUP, and we come here.)
        """
        try:
            tty.setraw(self.in_fd, termios.TCSANOW)
        except termios.error as error:
            raise Hangup from error

    def size(self) -> tuple[int, int]:
        """Return (rows, cols); a terminal that does not know is 24 × 80."""
        try:
            cols, rows = os.get_terminal_size(self.out_fd)
        except OSError:
            return 24, 80
        return rows or 24, cols or 80

    def read(self) -> bytes:
        """Take what was typed. Call when it polls readable.

        Raises:
            Hangup: the terminal is gone.
        """
        try:
            data = os.read(self.in_fd, 65536)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise Hangup from error
        if not data:
            raise Hangup
        return data

    @property
    def pending_bytes(self) -> int:
        """How much waits to be shown."""
        return len(self._pending)

    def show(self, data: bytes) -> None:
        """Show bytes, as many as the terminal takes now; the rest waits for `flush`."""
        if not data:
            return
        self._pending += data
        self.flush()

    def flush(self) -> None:
        """Show what waits, as far as possible without blocking.

        Raises:
            Hangup: the terminal is gone.
        """
        may_block = self._write_bytes == GUARDED_WRITE_BYTES
        while self._pending and (not may_block or _is_writable(self.out_fd, 0)):
            try:
                with memoryview(self._pending) as pending:
                    count = os.write(self.out_fd, pending[: self._write_bytes])
            except BlockingIOError:
                return
            except OSError as error:
                raise Hangup from error
            del self._pending[:count]

    def leave(self, farewell: bytes) -> None:
        """Drop what waits, show `farewell` if the terminal takes it within a second."""
        self._pending[:] = farewell
        deadline = time.monotonic() + LEAVE_DEADLINE_S
        with contextlib.suppress(Hangup):
            while self._pending and time.monotonic() < deadline:
                if _is_writable(self.out_fd, 100):
                    self.flush()


def _open_output(fd: int) -> tuple[int, int]:
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(os.ttyname(fd), flags), 65536
    except OSError:  # the terminal has no name here (another container), or is not ours (su)
        return os.dup(fd), GUARDED_WRITE_BYTES


def _is_writable(fd: int, wait_ms: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(wait_ms))


def say(words: str) -> None:
    """Write on stderr, unless that is a terminal that takes nothing just now."""
    if _is_writable(2, SAY_WAIT_MS):
        with contextlib.suppress(OSError):
            os.write(2, words.encode(errors="replace"))


@contextlib.contextmanager
def caught_signals() -> Iterator[int]:
    """Turn the signals that concern a terminal into bytes, their numbers, on the descriptor
    yielded."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, _ignore) for number in SIGNALS}
    try:
        yield reader
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(previous_fd)
        os.close(reader)
        os.close(writer)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Python writes the number to the wakeup descriptor; that is all that is wanted."""
