"""Who is measured: ptyd both ways, and every peer that is installed, each as a way to open a terminal.

Owns the names of the contenders. Two settings that are never compared with each other: a client at the
socket, and the real attach command under a terminal.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

from tests.bench import commands, relay, terminals
from tests.bench.multiplexers import Tmux
from tests.bench.terminals import Terminal
from tests.support.daemon import RuntimeDir

CONTROL = "tmux -C"
COOKED, RAW = "-echo", "raw -echo"

Open = Callable[[str, str], AbstractContextManager[Terminal]]
"""Opens a terminal on which a shell runs a script (the first) in the terminal modes of stty (the second)."""


class _Run(Protocol):
    def __call__(self, argv: list[str], ready: Path) -> AbstractContextManager[Terminal]: ...


def _has(program: str) -> bool:
    return shutil.which(program) is not None


class Contenders:
    """Everybody who is here. Use it in a `with` block: tmux has one server for all."""

    def __init__(self, runtime: RuntimeDir) -> None:
        self._runtime = runtime
        self._where = runtime.base
        self._stack = contextlib.ExitStack()
        self._tmux: Tmux | None = None
        self._relay: Path | None = None

    def __enter__(self) -> Contenders:
        with contextlib.ExitStack() as stack:
            if _has("tmux"):
                self._tmux = stack.enter_context(Tmux(self._where))
            if _has("cc"):
                self._relay = relay.compile_relay(self._where)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def sockets(self, flow: str) -> dict[str, Open]:
        """Return the clients at a socket; `flow` is ptyd's, the peers all wait for their readers."""
        found: dict[str, _Run] = {
            "direct": partial(terminals.direct_terminal, self._runtime, flow=flow),
            "streamed": partial(terminals.ptyd_terminal, self._runtime, flow=flow),
        }
        if _has("dtach"):
            found["dtach"] = partial(terminals.dtach_terminal, self._where)
        if self._relay:
            found["relay"] = partial(relay.relay_terminal, self._relay)
        if self._tmux:
            found[CONTROL] = self._tmux.control_terminal
        return self._openers(found)

    def commands(self) -> dict[str, Open]:
        """Return the attach commands under a terminal."""
        found: dict[str, _Run] = {
            "ptyd attach": partial(_ptyd_attach, self._runtime, ()),
            "ptyd attach --via stream": partial(_ptyd_attach, self._runtime, ("--via", "stream")),
        }
        if _has("dtach"):
            found["dtach -a"] = partial(commands.dtach_attach, self._where)
        if self._tmux:
            found["tmux"] = partial(commands.tmux_attach, self._tmux)
        if _has("screen"):
            found["screen"] = partial(commands.screen_attach, self._where)
        if _has("abduco"):
            found["abduco"] = partial(commands.abduco_attach, self._where)
        return self._openers(found)

    def _openers(self, found: Mapping[str, _Run]) -> dict[str, Open]:
        return {name: partial(self._open, run) for name, run in found.items()}

    def _open(self, run: _Run, script: str, modes: str) -> AbstractContextManager[Terminal]:
        ready = terminals.fresh(self._where, "ready")
        return run(["sh", "-c", f"stty {modes}; : >{shlex.quote(str(ready))}; {script}"], ready)


def _ptyd_attach(
    runtime: RuntimeDir, options: tuple[str, ...], argv: list[str], ready: Path
) -> AbstractContextManager[Terminal]:
    return commands.ptyd_attach(runtime, argv, ready, *options)
