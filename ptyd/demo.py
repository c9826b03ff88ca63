"""`make run`: the journey that ptyd is for.

On a terminal: a shell in a session, attached. Without one: the same journey told line by line on a real
program, in a private runtime directory: spawn, output, SIGKILL of the daemon, adoption, more output, a
kill with proof. Owns nothing but the story.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from ptyd.blocking import BlockingClient

# A program that minds its own business, and leaves a background child that will not hear of a hang-up.
COUNTER = "trap '' HUP; (setsid sleep 1000 &); i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"


def main() -> int:
    if sys.stdin.isatty() and sys.stdout.isatty():
        os.execv(sys.executable, [sys.executable, "-m", "ptyd.cli", "new"])
    directory = tempfile.mkdtemp(prefix="ptyd-demo-")
    os.environ.update(PTYD_RUNTIME_DIR=directory, PTYD_ALLOW_NESTED="1")
    try:
        tell(directory)
    finally:
        stop(directory)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def tell(directory: str) -> None:
    """Tell the story; every line is something that has just been seen to be so."""
    with BlockingClient.connect(directory) as client:
        daemon = client.hello["pid"]
        say(f"daemon {daemon} serves {directory}")
        session = client.call("session.spawn", {"argv": ["sh", "-c", COUNTER], "name": "counter"})
        say(f"session {session['id']} runs `sh` as pid {session['pid']}")
        first = read_lines(client, session["id"], 0, 5)
        say(f"its output so far: {show(first)}, {first['next']} bytes")
    os.kill(daemon, signal.SIGKILL)
    say(f"daemon {daemon}: SIGKILL. the session's shim goes on draining its output")
    time.sleep(0.5)  # the story's own pause, for the program to write while nobody serves
    with BlockingClient.connect(directory) as client:
        say(f"daemon {client.hello['pid']} has adopted the session: same program, pid {pid_of(client)}")
        more = read_lines(client, session["id"], first["next"], 5)
        gone = more["offset"] - first["next"]
        say(f"reading on from byte {first['next']}: {show(more)}, {gone} bytes missing")
        result = client.call("session.kill", {"id": "counter", "grace_ms": 300})
        say(f"killed: {result['outcome']}, proof {result['proof']}, after {result['duration_ms']} ms")
        for straggler in result["stragglers"]:
            say(f"  straggler {straggler['pid']} ({straggler['command']}) needed {straggler['phase']}")
        say("the table, with what has ended:")
    subprocess.run([sys.executable, "-m", "ptyd.cli", "ls", "--all"], check=True)


def read_lines(client: BlockingClient, session_id: str, offset: int, lines: int) -> dict[str, Any]:
    """Read from `offset` until so many whole lines are there."""
    data, start = b"", offset
    while data.count(b"\n") < lines:
        found = client.call("session.read", {"id": session_id, "offset": offset, "wait_ms": 2000})
        start = found["offset"] if not data else start
        data, offset = data + found["data"], found["next"]
    return {"offset": start, "data": data, "next": offset}


def show(found: dict[str, Any]) -> str:
    lines = found["data"].decode().splitlines()
    return f"{json.dumps(lines[0])} to {json.dumps(lines[-1])}"


def pid_of(client: BlockingClient) -> int:
    return int(client.call("session.get", {"id": "counter"})["pid"])


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def stop(directory: str) -> None:
    """End everything the story started, whatever happened."""
    with BlockingClient.connect(directory, start=False) as client:
        client.call("daemon.stop", {"kill": True})


if __name__ == "__main__":
    sys.exit(main())
