"""One private host service for a test, in the runtime directory of a private ptyd.

Sees it as an administrator would: its process, its files, its socket. Several may follow one another in one
directory; the index stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.waiting import wait_until

START_DEADLINE_S: Final = 20.0
STOP_DEADLINE_S: Final = 15.0
_SERVE: Final = """
import sys
from hostsvc.app import StartRefused, serve
from hostsvc.config import ConfigError, read_config
try:
    sys.exit(serve(read_config(), foreground=True))
except (StartRefused, ConfigError) as refused:
    sys.exit(f"hostsvc: {refused}")
"""


class HostService:
    """A host service that a test can start, kill and start again.

    Args:
        runtime: The runtime directory that it shares with ptyd (which it starts when none runs).
        code: What its process runs in place of the plain service, such as one that dies at some point.
        settings: Environment variables, such as HOSTSVC_REAPER_INTERVAL_S.
    """

    def __init__(self, runtime: RuntimeDir, *, code: str = _SERVE, **settings: str) -> None:
        self.runtime = runtime
        self.state_dir = runtime.base / "state"
        self.base_dir = runtime.base / "work"
        self.code = code
        self.settings = {
            "HOSTSVC_STATE_DIR": str(self.state_dir),
            "HOSTSVC_BASE_DIR": str(self.base_dir),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log = runtime.base / "hostsvc.out"

    @property
    def env(self) -> dict[str, str]:
        return {**self.runtime.env, **self.settings}

    @property
    def socket(self) -> Path:
        return self.runtime.path / "hostsvc.sock"

    @property
    def index_path(self) -> Path:
        return self.state_dir / "index.db"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self, **settings: str) -> subprocess.Popen[bytes]:
        """Start the process and return at once."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", self.code],
                env={**self.env, **settings},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return self._process

    def start(self, **settings: str) -> HostService:
        """Start it and wait until it serves."""
        process = self.launch(**settings)
        wait_until(lambda: self.serves() or process.poll() is not None, START_DEADLINE_S, "hostsvc serves")
        assert process.poll() is None, f"hostsvc ended at once:\n{self.log}"
        return self

    def serves(self) -> bool:
        try:
            with self.connect() as rpc:
                rpc.call("hello", client="tests", protocols=[1], deadline_s=5)
        except (OSError, Disconnected):
            return False
        return True

    def connect(self) -> Rpc:
        return Rpc(self.socket)

    def call(self, method: str, **params: Any) -> Any:
        """Call once on a connection of its own, with errors as maps."""
        with self.connect() as rpc:
            rpc.call("hello", client="tests", protocols=[1], errors="map")
            return rpc.call(method, **params, deadline_s=60)

    def error(self, method: str, **params: Any) -> RpcError:
        """Call and return the error that it answers.

        Raises:
            AssertionError: it answered a result.
        """
        try:
            answer = self.call(method, **params)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} was not refused: {answer!r}")

    def row(self, session_id: str) -> Mapping[str, Any] | None:
        """Return a session's row as the service lists it."""
        rows = self.call("session.list")["sessions"]
        return next((row for row in rows if row["id"] == session_id), None)

    def kill(self) -> None:
        """SIGKILL it."""
        processes.kill_and_wait(self.pid)
        self.wait()

    def wait(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Wait for its end; return its status."""
        assert self._process is not None
        return self._process.wait(deadline_s)

    def stop(self) -> int:
        """Ask it to stop, if it runs; return its status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait(STOP_DEADLINE_S)

    def run(
        self, *arguments: str, input: str | None = None, deadline_s: float = 60, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line `hostsvc …` here, without a terminal, and return its end."""
        return subprocess.run(
            [
                sys.executable,
                "-P",
                "-c",
                "import sys; from hostsvc.cli import main; sys.argv[0] = 'hostsvc'; sys.exit(main())",
                *arguments,
            ],
            env={**self.env, **settings},
            cwd=self.runtime.base,
            input=input or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline_s,
        )


def remove_index(service: HostService) -> None:
    """Lose the index, as a broken disk would."""
    for path in service.state_dir.iterdir():
        os.unlink(path)
