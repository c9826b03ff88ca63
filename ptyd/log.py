"""A daemon's log: JSON lines in a bounded file, or readable lines on stderr in the foreground.

Owns the file and its one predecessor. Never logs environments, input, output or marks.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

# structlog takes in rich where that happens to be installed, for a renderer that is not used here: a third
# of a daemon's start.
_IS_RICH_IN = "rich" in sys.modules
if not _IS_RICH_IN:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402

if not _IS_RICH_IN:
    del sys.modules["rich"]

get_logger = structlog.get_logger

MAX_LOG_BYTES = 1 << 20  # then it becomes NAME.1, replacing the one before


class BoundedFile:
    """A text file that starts anew when it has grown enough."""

    def __init__(self, dir_fd: int, name: str) -> None:
        self._dir_fd = dir_fd
        self._name = name
        self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._name, flags, 0o600, dir_fd=self._dir_fd)

    def write(self, text: str) -> None:
        try:
            if os.fstat(self._fd).st_size >= MAX_LOG_BYTES:
                os.rename(self._name, f"{self._name}.1", src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
                os.close(self._fd)
                self._fd = self._open()
            os.write(self._fd, text.encode(errors="replace"))
        except OSError:
            return  # a full disk must not take the daemon down; what is lost is only a line

    def flush(self) -> None:
        """Nothing is kept back."""


def set_up_log(dir_fd: int, name: str, level: str, foreground: bool) -> None:
    """Send structlog's lines to the file `name` in a directory, or to stderr in the foreground."""
    output: Any = sys.stderr if foreground else BoundedFile(dir_fd, name)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=False) if foreground else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=output),
        cache_logger_on_first_use=True,
    )
