"""A named pipe on which the programs of any contender say that they run: their first byte."""

from __future__ import annotations

import os
import select
from pathlib import Path
from types import TracebackType
from typing import Final

DEADLINE_S: Final = 60.0


class Doorbell:
    """Use it in a `with` block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Doorbell:
        os.mkfifo(self._path, 0o600)
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        self._path.unlink()

    @property
    def script(self) -> str:
        """For sh: ring, print one byte on the terminal, and wait to be hung up."""
        return f"printf x >{self._path}; printf y; read stay"

    @property
    def argv(self) -> list[str]:
        return ["sh", "-c", self.script]

    def wait(self, count: int = 1) -> None:
        """Wait until it has rung so many times."""
        while count:
            if not select.select([self._fd], [], [], DEADLINE_S)[0]:
                raise TimeoutError("a program did not come up")
            count -= len(os.read(self._fd, count))
