"""`make run`: the host service, and the story that it is for.

On a terminal: the service in the foreground on the user's own defaults. Without one: a story told line by
line on real programs, in a private directory: a workspace, a polite session and a rude one, a deletion,
SIGKILL of the service and of ptyd's daemon in the middle of it, a restart that finishes it, and the proof
that nothing is left. Owns nothing but the story, and ends all that it started whatever happens.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from hostsvc.client import open_client
from hostsvc.store.database import FILE
from ptyd import procs
from ptyd.blocking import BlockingClient
from ptyd.protocol.errors import PtydError

T = TypeVar("T")

PYTHON: Final = (sys.executable, "-P")
DEADLINE_S: Final = 20.0
POLITE: Final = ["sleep", "1000"]
# Deaf to a hang-up and to TERM, and so are its children; one of them has a session of its own.
RUDE: Final = ["sh", "-c", "trap '' HUP TERM; setsid sleep 1000 & sleep 1000 & echo up; wait"]


class Untrue(Exception):
    """Something that the story tells was not seen."""


def main() -> int:
    if sys.stdin.isatty() and sys.stdout.isatty():
        os.execv(sys.executable, [*PYTHON, "-m", "hostsvc", "serve"])
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    stage = Stage()
    try:
        tell(stage)
    finally:
        stage.clear()
    say(f"{stage.path} is removed, and all that was started has ended")
    return 0


def tell(stage: Stage) -> None:
    """Tell the story; every line is something that has just been seen to be so."""
    first = stage.serve()
    workspace, sessions = furnish(stage)
    crowd = {pid: start for session in sessions for pid, start in stage.processes(session).items()}
    say(f"{len(crowd)} processes live in the workspace: {names(crowd)}")
    interrupt(stage, first, crowd)
    stage.serve()
    converge(stage, workspace, sessions)
    prove(stage, crowd)


def furnish(stage: Stage) -> tuple[str, list[str]]:
    with stage.client() as client:
        workspace = client.call("workspace.create", {"name": "demo"})
        say(f"workspace demo ({workspace['id']}) is {workspace['path']}")
        polite = client.call("session.create", {"workspace": "demo", "argv": POLITE})
        say(f"session {polite['id']} runs `sleep`, which is polite")
        rude = client.call("session.create", {"workspace": "demo", "argv": RUDE, "name": "rude"})
    with stage.ptyd() as ptyd:
        ptyd.call("session.wait", {"id": rude["id"], "for": b"up", "since": "start"})
    say(f"session {rude['id']} ignores HUP and TERM, and has a child that left it by setsid")
    return workspace["id"], [polite["id"], rude["id"]]


def interrupt(stage: Stage, service: subprocess.Popen[bytes], crowd: dict[int, int]) -> None:
    """Begin a deletion, and kill both daemons when it is half done."""
    command = [*PYTHON, "-m", "hostsvc", "workspace", "rm", "demo"]
    deletion = subprocess.Popen(command, env=stage.env, stderr=subprocess.PIPE, text=True)
    say("hostsvc workspace rm demo")

    def is_disposing() -> bool:
        return any(step["step"] == "dispose" and not step["done_at_ms"] for step in journal(stage))

    until(is_disposing, "the deletion ends its sessions")
    say(f"the deletion is under way: {shown(journal(stage))}")
    with stage.client() as client:
        daemon = client.call("health")["ptyd"]["pid"]
    os.kill(daemon, signal.SIGKILL)
    service.kill()
    service.wait()
    until(lambda: not is_running(daemon), "ptyd's daemon is dead")
    say(f"hostsvc {service.pid} and ptyd's daemon {daemon}: SIGKILL")
    _, told = deletion.communicate()
    (error,) = (line for line in told.splitlines() if line.startswith("hostsvc: "))
    say(f"the command exits with {deletion.returncode} and tells: {error.removeprefix('hostsvc: ')}")
    left = [pid for pid, start in crowd.items() if procs.is_alive(pid, start)]
    say(f"of the workspace's processes {len(left)} of {len(crowd)} live; nobody serves")


def converge(stage: Stage, workspace: str, sessions: list[str]) -> None:
    """Watch the new service finish what the old one had begun."""
    with stage.client() as client:
        (saga,) = client.call("saga.list")["sagas"]
        until(lambda: client.call("saga.get", {"id": saga["id"]})["saga"]["state"] == "done", "the saga ends")
        say(f"it has resumed the deletion: {shown(journal(stage))}")
        drain = until(lambda: second_startup(client), "its first pass ends")
        told = ", ".join(f"{count} {name}" for name, count in drain["counts"].items() if count)
        say(f"its first pass, the drain of what was left: {drain['state']}; {told}")
        try:
            client.call("workspace.get", {"id": workspace})
        except PtydError as error:
            say(f"the workspace: {error}")
        else:
            raise Untrue("the workspace is gone")
        for session in sessions:
            row = client.call("session.dispose", {"id": session})  # twice is once: its tombstone answers
            ensure(row["status"] == "disposed", f"session {session} is disposed")
            say(f"session {session}: {row['status']}, evidence {row['kill_evidence']}")
        rows = client.call("session.list")
        ensure(not rows["sessions"] and not rows["foreign"], "no row and no foreign session is left")
        say("rows in the index: none; sessions in ptyd that nobody knows: none")
        health = client.call("health")
        ensure(health["status"] == "green", f"health is green, not {health['status']} {health['reasons']}")
        say("health: green")


def prove(stage: Stage, crowd: dict[int, int]) -> None:
    """Look with our own eyes: at /proc, at the audit, at the folder."""
    left = [pid for pid, start in crowd.items() if procs.is_alive(pid, start)]
    ensure(not left, f"none of its processes lives, but: {left}")
    say(f"alive of the {len(crowd)} processes: 0 (looked up in /proc by pid and start time)")
    audit = sqlite3.connect(f"{(stage.path / 'state' / FILE).as_uri()}?mode=ro", uri=True)
    for event, kind, subject in audit.execute("SELECT event, kind, subject FROM audit ORDER BY seq"):
        say(f"audit: {kind} {subject} {event}")
    audit.close()
    ensure(not (stage.path / "work" / "demo").exists(), "its folder is gone")
    (kept,) = (one for one in (stage.path / "work" / ".trash").iterdir() if one.suffix != ".json")
    say(f"its folder waits in the trash: {kept}")


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


def journal(stage: Stage) -> list[dict[str, Any]]:
    with stage.client() as client:
        sagas = client.call("saga.list")["sagas"]
        steps = client.call("saga.get", {"id": sagas[0]["id"]})["steps"] if sagas else []
    return list(steps)


def shown(steps: list[dict[str, Any]]) -> str:
    return ", ".join(f"{step['step']} {'done' if step['done_at_ms'] else 'begun'}" for step in steps)


def second_startup(client: BlockingClient) -> dict[str, Any]:
    """Return the first pass of the second service; nothing while it is not over."""
    startups = [one for one in client.call("passes")["passes"] if one["origin"] == "startup"]
    return startups[0] if len(startups) == 2 and startups[0]["state"] != "running" else {}


def names(crowd: dict[int, int]) -> str:
    stats = (procs.read_stat(pid) for pid in crowd)
    return ", ".join(f"{stat.command} {stat.pid}" for stat in stats if stat is not None)


def is_running(pid: int) -> bool:
    stat = procs.read_stat(pid)
    return stat is not None and stat.state not in "ZX"


def until(look: Callable[[], T], what: str) -> T:
    """Look until something is there; the story must not wait for ever."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not (seen := look()):
        ensure(time.monotonic() < give_up_at, what)
        time.sleep(0.02)
    return seen


def ensure(seen: bool, what: str) -> None:
    if not seen:
        raise Untrue(what)


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Untrue as untrue:
        sys.exit(f"this should have been so, and was not seen: {untrue}")
