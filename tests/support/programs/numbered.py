"""Writes numbered lines as fast as its terminal takes them; see tests/support/stream.py.

Runs with `-S -E` and imports little: it is started often.
"""

import os
import sys
import termios
import time

BLOCK_LINES = 1000
NUMBER = b"#" * 12
BLOCK = b"".join(NUMBER + b"%03d\n" % n for n in range(BLOCK_LINES))


def main(arguments: list[str]) -> int:
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    raw_output(1)
    wait_for(options.get("--go"))
    progress_fd = open_progress(options.get("--progress"))
    write_lines(int(options["--lines"]), float(options["--pause-ms"]) / 1000, progress_fd)
    return int(options["--exit-code"])


def raw_output(fd: int) -> None:
    """Let a line feed stay one byte."""
    if os.isatty(fd):
        mode = termios.tcgetattr(fd)
        mode[1] &= ~termios.OPOST
        termios.tcsetattr(fd, termios.TCSANOW, mode)


def wait_for(path: str | None) -> None:
    while path and not os.path.exists(path):
        time.sleep(0.002)


def open_progress(path: str | None) -> int | None:
    return None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)


def write_lines(lines: int, pause_s: float, progress_fd: int | None) -> None:
    number = 0
    while not lines or number < lines:
        block = BLOCK.replace(NUMBER, b"%012d" % (number // BLOCK_LINES))
        if lines:
            block = block[: (lines - number) * 16]
        write_all(1, block)
        number += len(block) // 16
        if progress_fd is not None:
            os.pwrite(progress_fd, b"%d" % number, 0)  # only ever longer: never torn digits
        if pause_s:
            time.sleep(pause_s)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


sys.exit(main(sys.argv[1:]))
