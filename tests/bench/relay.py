"""The physical limit: a relay in C (relay.c beside this), compiled on the spot where there is a compiler."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.terminals import SocketTerminal, Terminal, connected, fresh, served

SOURCE: Final = Path(__file__).with_name("relay.c")


def compile_relay(where: Path) -> Path:
    """Compile the relay into a private directory; returns the program."""
    program = where / "relay"
    subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE), "-lutil"], check=True)
    return program


@contextlib.contextmanager
def relay_terminal(program: Path, argv: list[str], ready: Path) -> Iterator[Terminal]:
    """Run a program under the relay, attached; `ready` appears when it is up."""
    path = fresh(program.parent, "relay")
    with served([str(program), str(path), *argv], path, ready), connected(path) as sock:
        yield SocketTerminal(sock)
