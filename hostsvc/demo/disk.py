"""The second part: work at risk is kept, what was deleted comes back, and a job that was killed is swept."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hostsvc.demo.stage import PYTHON, Stage, Untrue, ensure, say, until
from ptyd.blocking import BlockingClient
from ptyd.protocol.errors import Code, PtydError

IDEA = b"not committed anywhere\n"


def tell(stage: Stage) -> None:
    """Tell it, on the service that runs; every line is something that has just been seen to be so."""
    with stage.client() as client:
        notes = begin(stage, client)
        refuse(client, notes)
        remove_and_restore(client, notes)
        sweep(stage, client)


def begin(stage: Stage, client: BlockingClient) -> Path:
    """Make a repository, a worktree of it as a workspace, and a file that is nowhere else."""
    repository = stage.path / "site"
    repository.mkdir()
    git(repository, "init", "--quiet")
    git(repository, "-c", "user.name=demo", "-c", "user.email=demo@example.invalid", "commit", "--quiet",
        "--allow-empty", "--message=first")  # fmt: skip
    asked = {"name": "web", "repository": str(repository), "branch": "topic"}
    path = Path(client.call("workspace.create", asked)["path"])
    head = git(path, "symbolic-ref", "--short", "HEAD")
    say(f"workspace web is a worktree of {repository}, on the branch {head}: {path}")
    notes = path / "notes.txt"
    notes.write_bytes(IDEA)
    return notes


def refuse(client: BlockingClient, notes: Path) -> None:
    before = notes.stat()
    try:
        client.call("workspace.delete", {"id": "web"})
    except PtydError as error:
        ensure(error.code is Code.AT_RISK, f"it is refused because of the work at risk, not {error}")
        say(f"hostsvc workspace rm web: {error}")
    else:
        raise Untrue("work at risk is not deleted")
    ensure(notes.stat() == before and notes.read_bytes() == IDEA, "nothing of it has changed")
    ensure(client.call("workspace.get", {"id": "web"})["state"] == "active", "it can be used as before")
    say("nothing of it was touched, and the workspace is active as before")


def remove_and_restore(client: BlockingClient, notes: Path) -> None:
    client.call("workspace.delete", {"id": "web", "force": True})
    ensure(not notes.parent.exists(), "its folder is gone")
    entry = next(one for one in client.call("trash.list")["entries"] if one["path"] == str(notes.parent))
    say(f"hostsvc workspace rm --force web: in the trash, with branch {entry['branch']} and all its files")
    generation = client.call("workspace.restore", {"id": "web"})["generation"]
    ensure(notes.read_bytes() == IDEA, "the file is back")
    status = git(notes.parent, "status", "--short", "--branch")
    ensure("topic" in status and "?? notes.txt" in status, f"git finds it as it was, not {status!r}")
    said = ", ".join(status.splitlines())
    say(f"hostsvc workspace restore web: generation {generation}, and git says: {said}")


def sweep(stage: Stage, client: BlockingClient) -> None:
    """Kill a job in the middle, so that it can tidy up nothing, and have it swept."""
    command = [*PYTHON, "-m", "hostsvc", "run", "exec", "--", "sh", "-c", "echo at work; exec sleep 1000"]
    with subprocess.Popen(command, env=stage.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        ensure(job.stdout.readline().strip() == b"at work", "the job is at work")
        (run,) = client.call("run.list")["runs"]
        (session,) = (row for row in client.call("session.list")["sessions"] if row["run"] == run["id"])
        say(f"hostsvc run exec is at work, in session {session['id']} of run {run['id']}")
        job.kill()
    say(f"hostsvc run exec {job.pid}: SIGKILL; its session lives on, and nobody holds the run")
    sent: list[dict[str, Any]] = []

    def is_swept() -> bool:
        sent.append(client.call("reap", {"kinds": ["runs"]}))
        return bool(client.call("run.get", {"id": run["id"]})["state"] == "ended")

    until(is_swept, "the run is swept", every_s=0.5)
    row = client.call("session.dispose", {"id": session["id"]})  # twice is once: its tombstone answers
    ensure(row["status"] == "disposed", f"session {row['id']} is disposed, not {row['status']}")
    say(f"swept by pass {len(sent)}, once it was old enough and seen twice: its session is {row['status']},")
    say(f"evidence {row['kill_evidence']}")
    left = [one["path"] for one in client.call("workspace.list")["workspaces"] if one["name"] != "web"]
    ensure(not left, f"its workspace is gone, but: {left}")
    say("its workspace is gone too: folder, artifacts and credential")


def git(folder: Path, *arguments: str) -> str:
    env = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True)
    return done.stdout.decode().strip()
