"""Services that start in no time: forked from a process that has imported all of them once.

Importing a service takes longer than all that a crash case does with it. What is forked runs the same code,
in a process and a session of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support import processes
from tests.support.daemon import ROOT, RuntimeDir
from tests.support.host import HostService
from tests.support.waiting import wait_until

_FORKS: Final = """
import json, os, signal, sys
import hostsvc.app
for line in sys.stdin:
    code, log, env = json.loads(line)
    pid = os.fork()
    if not pid:
        os.setsid()
        os.environ.clear()
        os.environ.update(env)
        for fd, path in ((0, os.devnull), (1, log), (2, log)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), fd)
        exec(code, {"__name__": "__main__"})
    print(pid, flush=True)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class Forks:
    """The process that has imported everything, and whose children are services."""

    def __init__(self) -> None:
        self._alone = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def start(self, code: str, log: Path, env: Mapping[str, str]) -> int:
        """Return the pid of a new process that runs `code`."""
        assert self._process.stdin
        assert self._process.stdout
        with self._alone:
            self._process.stdin.write(json.dumps([code, str(log), dict(env)]) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


class Forked:
    """One of its children, as far as a test of a service looks at it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        return None if processes.alive(self.pid) else 0

    def wait(self, deadline_s: float = 10.0) -> int:
        wait_until(lambda: not processes.alive(self.pid), deadline_s, "the service has ended")
        return 0

    def terminate(self) -> None:
        processes.kill(self.pid, signal.SIGTERM)


class ForkedHost(HostService):
    """A service that starts in no time."""

    def __init__(self, forks: Forks, runtime: RuntimeDir, *, code: str, **settings: str) -> None:
        super().__init__(runtime, code=code, **settings)
        self._forks = forks

    def launch(self, **settings: str) -> Any:
        self._process: Any = Forked(self._forks.start(self.code, self._log, {**self.env, **settings}))
        return self._process
