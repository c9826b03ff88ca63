"""Workspaces, sessions and rows as the host service's tests make them and look at them.

Knows the wire, the index's file and the processes; nothing of hostsvc's code. Time is bought by settings: one
pass at the start and then only those that a test asks for, and the shortest age floor there is.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support import processes
from tests.support.host import HostService
from tests.support.waiting import wait_until

QUIET: Final = {
    "HOSTSVC_REAPER_INTERVAL_S": "3600",
    "HOSTSVC_AGE_FLOOR_S": "1",
    "HOSTSVC_KILL_DEADLINE_S": "5",
}
OWNER: Final = "hostsvc.owner"
NO_PASS: Final = {"id": 0}
SLEEPER: Final = ["sleep", "100000"]
DEAF: Final = "trap '' HUP; : > \"$1\"; while :; do sleep 100 & wait; done"
RUDE: Final = "trap '' HUP TERM; : > \"$1\"; while :; do sleep 100 & wait; done"


def serve(host: HostService, **settings: str) -> HostService:
    """Start the service, wait for its first pass, and leave it to the test to ask for more."""
    before = peek(host, "SELECT max(id) AS id FROM passes")[0]["id"] if host.index_path.exists() else None
    host.start(**{**QUIET, **settings})
    wait_until(lambda: (last_pass(host) or NO_PASS)["id"] > (before or 0), what="the first pass is over")
    return host


def last_pass(host: HostService) -> dict[str, Any] | None:
    """Return the newest pass, if it is over."""
    found: list[dict[str, Any]] = host.call("passes", limit=1)["passes"]
    return found[0] if found and found[0]["finished_at_ms"] else None


# --- sessions ------------------------------------------------------------------------------------


def workspace(host: HostService, **params: Any) -> dict[str, Any]:
    made: dict[str, Any] = host.call("workspace.create", **params)
    return made


def session(host: HostService, where: str, argv: list[str] = SLEEPER, **params: Any) -> dict[str, Any]:
    """Start a session in a workspace and return its row; `live.pid` is its leader's."""
    row: dict[str, Any] = host.call("session.create", workspace=where, argv=argv, **params)
    return row


def shell(host: HostService, where: str, script: str, ready: Path) -> dict[str, Any]:
    """Start a script in a session and return its row once it has made the file `ready` (its $1)."""
    row = session(host, where, ["sh", "-c", script, "sh", str(ready)])
    wait_until(ready.exists, what="the script is ready")
    return row


def stray(host: HostService, id_: str, argv: list[str] = SLEEPER, **labels: str) -> int:
    """Start a session at ptyd, past the host service; return its leader's pid."""
    spawned = host.runtime.call("session.spawn", id=id_, argv=argv, labels=labels)
    return int(spawned["pid"])


def owner_of(host: HostService) -> str:
    return str(host.call("health")["index"]["id"])


def is_alive(row: dict[str, Any]) -> bool:
    """Tell whether the leader of a session lives, as its row told it when it was made."""
    return processes.alive(row["live"]["pid"])


# --- the reaper ----------------------------------------------------------------------------------


def reap(host: HostService, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = host.call("reap", **params)
    return found


def acts(found: dict[str, Any]) -> dict[str, str]:
    """Return what a pass did: subject → action and outcome."""
    return {act["subject"]: f"{act['action']} {act['outcome']}" for act in found["acts"]}


def reap_until(host: HostService, subject: str, act: str, **params: Any) -> dict[str, Any]:
    """Run passes until one did this to the subject; return that one. For what has to grow old first."""

    passes = []

    def is_done() -> bool:
        passes.append(reap(host, **params))
        return acts(passes[-1]).get(subject) == act

    try:
        wait_until(is_done)
    except AssertionError as error:
        did = [acts(one) for one in passes if one["acts"]]
        raise AssertionError(
            f"no pass did {act!r} to {subject}, but {did}; the last: {passes[-1]}"
        ) from error
    return passes[-1]


# --- the index -----------------------------------------------------------------------------------


def peek(host: HostService, query: str, *values: object) -> list[dict[str, Any]]:
    """Look into the index, in use or not."""
    with contextlib.closing(sqlite3.connect(f"file:{host.index_path}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query, values)]


def row_of(host: HostService, session_id: str) -> dict[str, Any]:
    """Return a session's row, without asking anybody."""
    [found] = peek(host, "SELECT * FROM sessions WHERE id = ?", session_id)
    return found


@contextlib.contextmanager
def editing(host: HostService) -> Iterator[sqlite3.Connection]:
    """Change the index of a service that does not run; its triggers still rule."""
    with contextlib.closing(sqlite3.connect(host.index_path)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        yield db
        db.commit()


def insert_session(db: sqlite3.Connection, id_: str, **fields: Any) -> None:
    """Write a row as a service of another time may have left it."""
    now_ms = int(time.time() * 1000)
    row: dict[str, Any] = {
        "id": id_,
        "generation": 1,
        "origin_workspace_id": "gone",
        "status": "active",
        "argv": json.dumps(SLEEPER),
        "run_id": "earlier",
        "created_at_ms": now_ms - 3_600_000,
        **fields,
    }
    if row["status"] in ("disposed", "exited"):
        row.setdefault("kill_evidence", json.dumps({"proof": "echild", "by": "ptyd"}))
        row.setdefault("ended_at_ms", now_ms)
    if row["status"] == "disposed":
        row.setdefault("dispose_requested_at_ms", now_ms)
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    db.execute(f"INSERT INTO sessions ({columns}) VALUES ({marks})", list(row.values()))
