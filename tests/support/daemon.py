"""One private ptyd for a test: its runtime directory, its processes, its end.

Sees ptyd as an administrator would: files in the runtime directory, pids, signals and the wire.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support import processes
from tests.support.rpc import Disconnected, Rpc
from tests.support.waiting import wait_until

ROOT: Final = Path(__file__).resolve().parents[2]
START_DEADLINE_S: Final = 15.0
STOP_DEADLINE_S: Final = 15.0  # a kill's 10 s and some
RING_LINGER_S: Final = "20"  # longer than any test needs to read what has ended, however busy the machine
# What the installed script does, also where nothing was installed.
_COMMAND_LINE: Final = "import sys; from ptyd.cli import main; sys.argv[0] = 'ptyd'; sys.exit(main())"


class RuntimeDir:
    """A private runtime directory and what runs in it. `base` is short and ends with the test."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))
        self.path = self.base / "r"
        self.home = self.base / "home"
        self.path.mkdir(mode=0o700)
        self.home.mkdir(mode=0o700)
        self.settings = {
            "PTYD_RUNTIME_DIR": str(self.path),
            "PTYD_RING_LINGER_S": RING_LINGER_S,
            "HOME": str(self.home),  # no start-up file of whoever runs the tests
            "PYTHONPATH": str(ROOT),
            **(settings or {}),
        }
        self.was_wrecked = False
        self.leftovers_expected: str | None = None
        self._starters: list[subprocess.Popen[bytes]] = []

    # -- where things are --------------------------------------------------------------------------

    @property
    def socket(self) -> Path:
        return self.path / "ptyd.sock"

    @property
    def env(self) -> dict[str, str]:
        """The environment for a process of this test: ours, with what names this directory."""
        return {**os.environ, **self.settings}

    @property
    def log(self) -> str:
        """What daemon and zygote have said so far, for a failing test's message."""
        files = (self.base / "zygote.out", self.path / "daemon.log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def record(self, session_id: str) -> dict[str, Any]:
        """Return a session's record file; it is replaced atomically, so this is always whole."""
        found: dict[str, Any] = json.loads(self._record_path(session_id).read_bytes())
        return found

    def has_record(self, session_id: str) -> bool:
        return self._record_path(session_id).exists()

    def _record_path(self, session_id: str) -> Path:
        return self.path / "sessions" / f"{session_id}.json"

    # -- who runs ----------------------------------------------------------------------------------

    def find_daemon_pid(self) -> int | None:
        """Return the living daemon's pid, None when there is none."""
        return self._holder("lock")

    def find_zygote_pid(self) -> int | None:
        return self._holder("zygote.lock")

    def _holder(self, name: str) -> int | None:
        try:
            pid = json.loads((self.path / name).read_bytes())["pid"]
        except (OSError, ValueError):
            return None
        assert isinstance(pid, int)
        return pid if processes.alive(pid) else None

    def daemon_pid(self) -> int:
        """Return the daemon's pid, waiting for one that is just starting."""
        return wait_until(self.find_daemon_pid, START_DEADLINE_S, "a daemon holds the lock")

    def zygote_pid(self) -> int:
        return wait_until(self.find_zygote_pid, START_DEADLINE_S, "a zygote holds its lock")

    def shim_pid(self, session_id: str) -> int:
        """Return the pid of the session's shim, from its record."""
        pid = self.record(session_id)["shim_pid"]
        assert isinstance(pid, int)
        return pid

    # -- talking to it -----------------------------------------------------------------------------

    def connect(self) -> Rpc:
        return Rpc(self.socket)

    def call(self, method: str, **params: Any) -> Any:
        """Call once on a connection of its own; see `Rpc.call`."""
        with self.connect() as rpc:
            return rpc.call(method, **params)

    def hello(self) -> dict[str, Any] | None:
        """Return the answer to a hello, None when nobody serves (yet)."""
        try:
            with self.connect() as rpc:
                found: dict[str, Any] = rpc.call("hello", client="tests", protocols=[1], deadline_s=5)
        except (OSError, Disconnected):
            return None
        return found

    def serves(self) -> bool:
        return self.hello() is not None

    def run(
        self, *arguments: str, input: str | None = None, deadline_s: float = 30, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line `ptyd …` here, without a terminal, and return its end."""
        return subprocess.run(
            [sys.executable, "-P", "-c", _COMMAND_LINE, *arguments],
            env={**self.env, **settings},
            cwd=self.base,
            input=input or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline_s,
        )

    # -- life and death ----------------------------------------------------------------------------

    def start(self, **settings: str) -> RuntimeDir:
        """Start a zygote and its daemon in the foreground and wait until they serve."""
        with (self.base / "zygote.out").open("ab") as out:
            starter = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "ptyd.shim",
                    "--runtime",
                    str(self.path),
                    "--foreground",
                ],
                env={**self.env, **settings},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._starters.append(starter)
        wait_until(lambda: self.serves() or starter.poll() is not None, START_DEADLINE_S, "it serves")
        assert starter.poll() is None, f"the zygote ended at once:\n{self.log}"
        return self

    def wait_for_new_daemon(self, old_pid: int, deadline_s: float = START_DEADLINE_S) -> int:
        """Return the pid of a daemon that serves and is not the old one."""

        def new_pid() -> int | None:
            pid: int | None = (self.hello() or {}).get("pid")
            return pid if pid != old_pid else None

        return wait_until(new_pid, deadline_s, f"a daemon other than {old_pid} serves")

    def kill_daemon(self) -> int:
        """SIGKILL the daemon; return the pid it had, dead by now."""
        return self._wreck(self.daemon_pid())

    def kill_zygote(self) -> int:
        """SIGKILL the zygote; return the pid it had, dead by now."""
        return self._wreck(self.zygote_pid())

    def kill_shim(self, session_id: str) -> int:
        """SIGKILL the session's shim; return the pid it had, dead by now."""
        return self._wreck(self.shim_pid(session_id))

    def _wreck(self, pid: int) -> int:
        self.was_wrecked = True
        processes.kill_and_wait(pid)
        for starter in self._starters:
            starter.poll()
        return pid

    def expect_leftovers(self, why: str) -> None:
        """Say that even an orderly stop leaves processes here, and why; the guard ends them."""
        self.leftovers_expected = why

    def ended_badly(self) -> bool:
        """Tell whether a zygote that `start` started has left without being told to, or is stuck."""
        try:
            return any(starter.wait(STOP_DEADLINE_S) != 0 for starter in self._starters)
        except subprocess.TimeoutExpired:
            return True

    def stop(self) -> bool:
        """Stop the daemon, killing its sessions; wait for both to leave; False when nobody serves.

        Raises:
            AssertionError: it was asked and did not leave in time.
        """
        zygote_pid, daemon_pid = self.find_zygote_pid(), self.find_daemon_pid()
        if not self._ask_to_stop():
            return False
        left = [pid for pid in (daemon_pid, zygote_pid) if pid is not None]

        def have_left() -> bool:
            if not any(processes.alive(pid) for pid in left):
                return True
            # Who was looking for a daemon when it stopped gets the next one: a client of a test that
            # killed daemons may have been, and be gone by now.
            if self.was_wrecked and self.find_daemon_pid() not in (None, daemon_pid):
                self._ask_to_stop()
            return False

        wait_until(have_left, STOP_DEADLINE_S, f"daemon and zygote {left} leave after daemon.stop")
        return True

    def _ask_to_stop(self) -> bool:
        """Have the daemon kill its sessions and stop; False when nobody serves."""
        try:
            with self.connect() as rpc, contextlib.suppress(Disconnected):
                rpc.call("daemon.stop", kill=True, deadline_s=STOP_DEADLINE_S)
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Collect what `start` started and remove the directory; everything in it is dead."""
        for starter in self._starters:
            starter.wait(timeout=5)
        shutil.rmtree(self.base, ignore_errors=True)
