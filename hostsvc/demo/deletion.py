"""The first part: a deletion, both daemons killed in the middle of it, and the proof that nothing is left."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from typing import Any, Final

from hostsvc.demo.stage import PYTHON, Stage, Untrue, ensure, is_running, say, until
from hostsvc.store.database import FILE
from ptyd import procs
from ptyd.blocking import BlockingClient
from ptyd.protocol.errors import PtydError

POLITE: Final = ["sleep", "1000"]
# Deaf to a hang-up and to TERM, and so are its children; one of them has a session of its own.
RUDE: Final = ["sh", "-c", "trap '' HUP TERM; setsid sleep 1000 & sleep 1000 & echo up; wait"]


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
