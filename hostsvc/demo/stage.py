"""The stage of the story: a private directory and everything that runs in it, and how something is seen.

All that is started descends from this process, and is ended with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from hostsvc.client import open_client
from ptyd import procs
from ptyd.blocking import BlockingClient
from ptyd.protocol.errors import PtydError

T = TypeVar("T")

PYTHON: Final = (sys.executable, "-P")
DEADLINE_S: Final = 20.0


class Untrue(Exception):
    """Something that the story tells was not seen."""


class Stage:
    """A private directory, and everything that runs in it: all of it descends from this process."""

    def __init__(self) -> None:
        procs.become_subreaper()
        self.path = Path(tempfile.mkdtemp(prefix="hostsvc-demo-"))
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("PTYD_", "HOSTSVC_"))}
        self.env = {
            **mine,
            "PTYD_RUNTIME_DIR": str(self.path / "run"),
            "PTYD_ALLOW_NESTED": "1",  # with the story it is meant to die
            "HOSTSVC_STATE_DIR": str(self.path / "state"),
            "HOSTSVC_BASE_DIR": str(self.path / "work"),
            "XDG_CONFIG_HOME": str(self.path),
            "HOSTSVC_RUN_AGE_S": "1",  # an hour otherwise: too long for a story
            "HOSTSVC_AGE_FLOOR_S": "1",
        }

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the service and wait until it serves."""
        command = [*PYTHON, "-m", "hostsvc", "serve", "--quiet"]
        service = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL)

        def serves() -> bool:
            ensure(service.poll() is None, f"hostsvc runs; it ended with {service.returncode}")
            try:
                with self.client() as client:
                    return bool(client.call("health")["ptyd"]["reachable"])
            except PtydError:
                return False

        until(serves, "hostsvc serves")
        with self.client() as client:
            ptyd = client.call("health")["ptyd"]["pid"]
        say(f"hostsvc {service.pid} serves {self.path}; ptyd's daemon is {ptyd}")
        return service

    def client(self) -> BlockingClient:
        return open_client(self.env["PTYD_RUNTIME_DIR"])

    def ptyd(self) -> BlockingClient:
        return BlockingClient.connect(self.env["PTYD_RUNTIME_DIR"], start=False)

    def processes(self, session: str) -> dict[int, int]:
        """Return every process below a session's shim, with its start time."""
        with self.ptyd() as ptyd:
            shim = ptyd.call("session.get", {"id": session})["shim_pid"]
        found = (procs.read_stat(pid) for pid in procs.Tree(shim).walk())
        return {stat.pid: stat.start_ticks for stat in found if stat is not None}

    def clear(self) -> None:
        """End every descendant of ours, and remove the directory.

        Raises:
            Untrue: one is left.
        """
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        until(lambda: not end_descendants(), "nothing that was started is left")
        shutil.rmtree(self.path)


def end_descendants() -> int:
    """SIGKILL everything below this process, and bury what is dead; return how many there were."""
    tree = procs.Tree(os.getpid())
    found = list(tree.walk())
    for pid in found:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        stat = procs.read_stat(pid)
        if stat is not None and tree.holds(stat):  # it is still the one that the walk has found
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    return len(found)


def is_running(pid: int) -> bool:
    stat = procs.read_stat(pid)
    return stat is not None and stat.state not in "ZX"


def until(look: Callable[[], T], what: str, every_s: float = 0.02) -> T:
    """Look until something is there; the story must not wait for ever."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not (seen := look()):
        ensure(time.monotonic() < give_up_at, what)
        time.sleep(every_s)
    return seen


def ensure(seen: bool, what: str) -> None:
    if not seen:
        raise Untrue(what)


def say(text: str) -> None:
    print(f"==> {text}", flush=True)
