"""A tmux server of the bench's own, asked over one client in control mode.

Owns the client's lines and the pairing of a command with its answer, as thin as can be: an answer is looked
for where one ends, and read once. Keeps one session, without which there is no client.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support import processes
from tests.support.waiting import wait_until

ANSWER_DEADLINE_S: Final = 60.0
KEEPER: Final = "keeper"
_READ_BYTES: Final = 256 << 10
_ENDS: Final = (b"%end ", b"%error ")
# Source: tmux(1), CONTROL MODE; the last number is 1 for what this client has asked.
_ANSWER: Final = re.compile(rb"^%begin \d+ (\d+) 1\n(.*?)^%(end|error) \d+ \1 1\n", re.MULTILINE | re.DOTALL)


def has_tmux() -> bool:
    return shutil.which("tmux") is not None


class TmuxServer:
    """Use it in a `with` block: the server ends with it, and all its sessions."""

    def __init__(self, where: Path) -> None:
        self.command: Final = ["tmux", "-S", str(where / "crowd.tmux"), "-f", "/dev/null"]
        strangers = ("TMUX", "TMUX_PANE", "STY")
        env = {name: value for name, value in os.environ.items() if name not in strangers}
        self.env: Final = {**env, "SHELL": "/bin/sh", "TERM": "xterm-256color", "HOME": str(where)}
        self._rest = b""

    def __enter__(self) -> TmuxServer:
        pipe = subprocess.PIPE
        argv = [*self.command, "-C", "new-session", "-s", KEEPER, "sh"]
        self._client = subprocess.Popen(argv, env=self.env, stdin=pipe, stdout=pipe)
        self.pid = int(self.ask("display-message -p '#{pid}'"))
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run([*self.command, "kill-server"], env=self.env, check=False)
        wait_until(lambda: not processes.alive(self.pid), ANSWER_DEADLINE_S, "tmux leaves")
        self._client.communicate()

    def ask(self, line: str) -> bytes:
        """Run a command and return its answer."""
        self.send([line])
        return self.answer()

    def send(self, lines: Sequence[str]) -> None:
        """Send commands without waiting for their answers."""
        assert self._client.stdin is not None
        self._client.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self._client.stdin.flush()

    def answer(self) -> bytes:
        """Return the answer to the oldest command that has none yet."""
        while not (found := _ANSWER.search(self._rest)):
            self._receive()
        self._rest = self._rest[found.end() :]
        assert found[3] == b"end", found[2]
        return found[2]

    def _receive(self) -> None:
        """Read until an answer may be whole."""
        assert self._client.stdout is not None
        out = self._client.stdout.fileno()
        while True:
            if not select.select([out], [], [], ANSWER_DEADLINE_S)[0]:
                raise TimeoutError
            data = os.read(out, _READ_BYTES)
            assert data, "tmux hung up"
            tail, self._rest = self._rest[-8:], self._rest + data
            if any(end in tail + data for end in _ENDS):
                return
