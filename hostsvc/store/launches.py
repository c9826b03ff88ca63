"""Statements on how sessions are started again. A launch is there exactly as long as that is wanted.

Holds environments and commands, which may have secrets in them: nobody shows what is in here.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlite_utils import Database

from hostsvc.model import Key, SessionRow
from hostsvc.restart import Launch, Policy
from hostsvc.states import ENDED
from hostsvc.store import rows
from hostsvc.store.rows import from_json, to_json

EXISTS: Final = (
    "EXISTS (SELECT 1 FROM launches AS l WHERE l.session_id = s.id AND l.generation = s.generation)"
)
_OVER: Final = ", ".join(repr(status.value) for status in sorted(ENDED))


class Waiting(NamedTuple):
    """A session that has ended and may be started again."""

    row: SessionRow
    launch: Launch
    due_at_ms: int | None
    is_run_open: bool
    """The run that it belongs to, if any, still takes something new."""


def insert(db: Database, key: Key, launch: Launch, restarts: int) -> None:
    """Remember how to start a session again, whose row has just been written."""
    db.execute(
        "INSERT INTO launches (session_id, generation, most_restarts, spec) VALUES (?, ?, ?, ?)",
        [*key, launch.limit, to_json(_to_spec(launch))],
    )
    db.execute(
        "UPDATE sessions SET restart = ?, restarts = ? WHERE id = ? AND generation = ?",
        [launch.policy.value, restarts, *key],
    )


def find_waiting(db: Database) -> list[Waiting]:
    """Return the sessions that are over and have a launch, oldest end first."""
    found = db.query(
        "SELECT s.*, l.most_restarts, l.due_at_ms, l.spec,"
        " s.run IS NULL OR EXISTS (SELECT 1 FROM runs WHERE id = s.run AND state = 'open') AS is_open"
        " FROM launches AS l JOIN sessions AS s ON s.id = l.session_id AND s.generation = l.generation"
        f" WHERE s.status IN ({_OVER}) ORDER BY s.ended_at_ms, s.id"
    )
    return [_waiting(raw) for raw in found]


def _waiting(raw: dict[str, Any]) -> Waiting:
    limit, due_at_ms, spec, is_open = (
        raw.pop(name) for name in ("most_restarts", "due_at_ms", "spec", "is_open")
    )
    row = rows.session(raw)
    return Waiting(row, _from_spec(from_json(spec), Policy(row.restart), limit), due_at_ms, bool(is_open))


def set_due(db: Database, key: Key, due_at_ms: int) -> None:
    db.execute("UPDATE launches SET due_at_ms = ? WHERE session_id = ? AND generation = ?", [due_at_ms, *key])


def remove(db: Database, key: Key) -> bool:
    """It is not to be started again; False when that was so before."""
    cursor = db.execute("DELETE FROM launches WHERE session_id = ? AND generation = ?", [*key])
    return cursor.rowcount == 1


def remove_of_workspace(db: Database, workspace_id: str) -> None:
    db.execute(
        "DELETE FROM launches WHERE session_id IN (SELECT id FROM sessions WHERE workspace_id = ?)",
        [workspace_id],
    )


# Text that is no UTF-8 is kept byte by byte: latin-1 has a character for each.


def _to_spec(launch: Launch) -> dict[str, Any]:
    return {
        "argv": [word.decode("latin-1") for word in launch.argv],
        "cwd": None if launch.cwd is None else launch.cwd.decode("latin-1"),
        "env": {name.decode("latin-1"): text.decode("latin-1") for name, text in launch.env.items()},
        "rows": launch.rows,
        "cols": launch.cols,
        "on_leader_exit": launch.on_leader_exit,
    }


def _from_spec(spec: dict[str, Any], policy: Policy, limit: int) -> Launch:
    return Launch(
        policy=policy,
        limit=limit,
        argv=tuple(word.encode("latin-1") for word in spec["argv"]),
        cwd=None if spec["cwd"] is None else spec["cwd"].encode("latin-1"),
        env={name.encode("latin-1"): text.encode("latin-1") for name, text in spec["env"].items()},
        rows=spec["rows"],
        cols=spec["cols"],
        on_leader_exit=spec["on_leader_exit"],
    )
