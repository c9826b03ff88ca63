"""Statements on the rows of sessions: intent, attempts, evidence. Each is one compare-and-set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from hostsvc.model import Key, LiveSession, SessionRow
from hostsvc.policy import Retry
from hostsvc.states import SessionStatus
from hostsvc.store import audit, rows
from hostsvc.store.rows import to_json

_OPEN = "status IN ('spawning', 'active')"
_PROVEN = "status IN ('exited', 'disposed', 'failed')"


# --- looking -------------------------------------------------------------------------------------


def find(db: Database, id_: str, generation: int | None = None) -> SessionRow | None:
    """Return a row by id (or, of an open one, by name): the newest generation unless one is given."""
    found = list(
        db.query(
            f"SELECT * FROM sessions WHERE (id = :ref OR (name = :ref AND {_OPEN}))"
            " AND (:generation IS NULL OR generation = :generation)"
            " ORDER BY id <> :ref, generation DESC LIMIT 1",
            {"ref": id_, "generation": generation},
        )
    )
    return rows.session(found[0]) if found else None


def find_open(db: Database) -> list[SessionRow]:
    """Return every row whose session is not over."""
    return [rows.session(raw) for raw in db.query(f"SELECT * FROM sessions WHERE {_OPEN}")]


def find_keys(db: Database, keys: Collection[Key]) -> dict[Key, SessionRow]:
    """Return the rows there are of these, over or not."""
    wanted = to_json([list(key) for key in keys])
    found = db.query(
        "SELECT s.* FROM json_each(?) AS k JOIN sessions AS s"
        " ON s.id = k.value ->> 0 AND s.generation = k.value ->> 1",
        [wanted],
    )
    return {row.key: row for row in map(rows.session, found)}


def find_of_workspace(db: Database, workspace_id: str) -> list[SessionRow]:
    """Return a workspace's rows, oldest first."""
    return find_all(db, workspace_id=workspace_id)


def find_all(db: Database, *, workspace_id: str | None = None, status: str | None = None) -> list[SessionRow]:
    """Return rows, oldest first."""
    found = db.query(
        "SELECT * FROM sessions WHERE (:workspace IS NULL OR workspace_id = :workspace)"
        " AND (:status IS NULL OR status = :status) ORDER BY created_at_ms, id, generation",
        {"workspace": workspace_id, "status": status},
    )
    return [rows.session(raw) for raw in found]


def count_by_status(db: Database) -> dict[str, int]:
    return dict(db.execute("SELECT status, count(*) FROM sessions GROUP BY status").fetchall())


def count_open_by_workspace(db: Database) -> dict[str, int]:
    """Return how many rows of each workspace are not over."""
    found = db.execute(
        f"SELECT workspace_id, count(*) FROM sessions WHERE {_OPEN} AND workspace_id IS NOT NULL"
        " GROUP BY workspace_id"
    )
    return dict(found.fetchall())


def count_unwanted(db: Database) -> tuple[int, int]:
    """Return how many open rows are to be ended, and how many of them are stuck."""
    found = db.execute(
        "SELECT count(*), count(stuck_at_ms) FROM sessions"
        f" WHERE {_OPEN} AND dispose_requested_at_ms IS NOT NULL"
    ).fetchone()
    return int(found[0]), int(found[1])


# --- birth ---------------------------------------------------------------------------------------


def insert_spawning(
    db: Database,
    *,
    id_: str,
    generation: int,
    workspace_id: str,
    name: str | None,
    labels: Mapping[str, str],
    argv: Sequence[str],
    cwd: str | None,
    run_id: str,
    instance_id: str,
    now_ms: int,
) -> bool:
    """Write the row before the spawn; False when the workspace takes nothing (any more)."""
    cursor = db.execute(
        "INSERT INTO sessions (id, generation, workspace_id, origin_workspace_id, status, name, labels, argv,"
        " cwd, run_id, instance_id, created_at_ms)"
        " SELECT :id, :generation, id, id, 'spawning', :name, :labels, :argv, :cwd, :run, :instance, :now"
        " FROM workspaces WHERE id = :workspace AND state = 'active'",
        {
            "id": id_,
            "generation": generation,
            "workspace": workspace_id,
            "name": name,
            "labels": to_json(dict(labels)),
            "argv": to_json(list(argv)),
            "cwd": cwd,
            "run": run_id,
            "instance": instance_id,
            "now": now_ms,
        },
    )
    return cursor.rowcount == 1


def insert_adopted(db: Database, live: LiveSession, workspace_id: str, fields: Mapping[str, Any]) -> bool:
    """Write the row of a session that lives and had none; False when the workspace takes nothing."""
    cursor = db.execute(
        "INSERT INTO sessions (id, generation, workspace_id, origin_workspace_id, status, name, labels, argv,"
        " cwd, run_id, instance_id, boot_id, shim_pid, shim_start, pid, pid_start, created_at_ms)"
        " SELECT :id, :generation, id, id, 'active', :name, :labels, :argv, :cwd, :run_id, :instance_id,"
        " :boot_id, :shim_pid, :shim_start, :pid, :pid_start, :created_at_ms"
        " FROM workspaces WHERE id = :workspace AND state = 'active'",
        {**_birth(live), **fields, "id": live.id, "generation": live.generation, "workspace": workspace_id},
    )
    return cursor.rowcount == 1


def confirm(db: Database, live: LiveSession) -> SessionRow | None:
    """ptyd says that it runs: spawning becomes active. Returns the row as it is then."""
    db.execute(
        "UPDATE sessions SET status = 'active', boot_id = :boot_id, shim_pid = :shim_pid,"
        " shim_start = :shim_start, pid = :pid, pid_start = :pid_start"
        " WHERE id = :id AND generation = :generation AND status = 'spawning'",
        {**_birth(live), "id": live.id, "generation": live.generation},
    )
    return find(db, live.id, live.generation)


def _birth(live: LiveSession) -> dict[str, Any]:
    return {
        "boot_id": live.boot_id,
        "shim_pid": live.shim_pid,
        "shim_start": live.shim_start,
        "pid": live.pid,
        "pid_start": live.pid_start,
    }


# --- the end -------------------------------------------------------------------------------------


def request_dispose(
    db: Database, key: Key, *, reason: str, is_forced: bool, now_ms: int
) -> SessionRow | None:
    """Stamp the intent; the first one stays. Makes the next attempt due at once."""
    db.execute(
        "UPDATE sessions SET dispose_reason = coalesce(dispose_reason, :reason),"
        " dispose_requested_at_ms = coalesce(dispose_requested_at_ms, :now),"
        " is_forced = max(is_forced, :forced), next_attempt_at_ms = NULL"
        f" WHERE id = :id AND generation = :generation AND {_OPEN}",
        {"reason": reason, "now": now_ms, "forced": is_forced, "id": key[0], "generation": key[1]},
    )
    return find(db, *key)


def request_dispose_all(db: Database, workspace_id: str, *, reason: str, now_ms: int) -> None:
    """Stamp the intent on every open row of a workspace."""
    db.execute(
        "UPDATE sessions SET dispose_reason = coalesce(dispose_reason, :reason),"
        " dispose_requested_at_ms = coalesce(dispose_requested_at_ms, :now), next_attempt_at_ms = NULL"
        f" WHERE workspace_id = :workspace AND {_OPEN}",
        {"reason": reason, "now": now_ms, "workspace": workspace_id},
    )


def record_attempt(db: Database, key: Key, *, error: str, retry: Retry, now_ms: int) -> bool:
    """Note a failed attempt; True when it has just become stuck, to be reported once."""
    found = db.execute("SELECT stuck_at_ms FROM sessions WHERE id = ? AND generation = ?", [*key]).fetchone()
    db.execute(
        "UPDATE sessions SET attempts = attempts + 1, last_error = ?, next_attempt_at_ms = ?,"
        f" stuck_at_ms = coalesce(stuck_at_ms, ?) WHERE id = ? AND generation = ? AND {_OPEN}",
        [error, retry.at_ms, now_ms if retry.is_stuck else None, *key],
    )
    return retry.is_stuck and found is not None and found[0] is None


def settle(
    db: Database,
    key: Key,
    status: SessionStatus,
    *,
    evidence: Mapping[str, Any] | None,
    exit_: Mapping[str, int] | None,
    error: str | None = None,
    now_ms: int,
) -> SessionRow | None:
    """Write an end and its evidence in one; None when it was over before, which stays as it is."""
    cursor = db.execute(
        "UPDATE sessions SET status = :status, kill_evidence = :evidence, exit = coalesce(:exit, exit),"
        " ended_at_ms = :now, next_attempt_at_ms = NULL, last_error = coalesce(:error, last_error)"
        f" WHERE id = :id AND generation = :generation AND {_OPEN}",
        {
            "status": status.value,
            "evidence": to_json(dict(evidence)) if evidence else None,
            "exit": to_json(dict(exit_)) if exit_ else None,
            "error": error,
            "now": now_ms,
            "id": key[0],
            "generation": key[1],
        },
    )
    if not cursor.rowcount:
        return None
    audit.append(
        db,
        at_ms=now_ms,
        event=status.value,
        kind="session",
        subject=key[0],
        generation=key[1],
        detail={"evidence": evidence, "exit": exit_, "error": error},
    )
    return find(db, *key)


def take_leave(db: Database, workspace_id: str, now_ms: int) -> list[SessionRow]:
    """A workspace goes: rows that are over move to the audit and a tombstone, the others lose it.

    Returns:
        The rows that stay: nobody has proven their sessions dead yet.
    """
    left = []
    for row in find_of_workspace(db, workspace_id):
        if row.is_ended:
            _archive(db, row, now_ms)
        else:
            left.append(row)
    db.execute("UPDATE sessions SET workspace_id = NULL WHERE workspace_id = ?", [workspace_id])
    return left


def count_prunable(db: Database, older_than_ms: int) -> int:
    """Return how many rows `prune` would move, all told."""
    found = db.execute(f"SELECT count(*) FROM sessions WHERE {_PROVEN} AND ended_at_ms < ?", [older_than_ms])
    return int(found.fetchone()[0])


def prune(db: Database, older_than_ms: int, now_ms: int) -> int:
    """Move rows that were over before `older_than_ms` to the audit, 1000 at most; return how many.

    Not lost ones: nobody has proven what became of those.
    """
    found = db.query(
        f"SELECT * FROM sessions WHERE {_PROVEN} AND ended_at_ms < ? LIMIT 1000", [older_than_ms]
    )
    over = [rows.session(raw) for raw in found]
    for row in over:
        _archive(db, row, now_ms)
    return len(over)


def _archive(db: Database, row: SessionRow, now_ms: int) -> None:
    kept = {
        "status": row.status.value,
        "workspace_id": row.origin_workspace_id,
        "name": row.name,
        "kill_evidence": row.kill_evidence,
        "exit": row.exit,
        "ended_at_ms": row.ended_at_ms,
    }
    audit.append(
        db,
        at_ms=now_ms,
        event="archived",
        kind="session",
        subject=row.id,
        generation=row.generation,
        detail=kept,
    )
    db.execute("DELETE FROM sessions WHERE id = ? AND generation = ?", [row.id, row.generation])
    db.execute(
        "INSERT INTO tombstones (kind, id, generation, is_confirmed, created_at_ms, detail)"
        " VALUES ('session', ?, ?, 1, ?, ?)",
        [row.id, row.generation, now_ms, to_json(kept)],
    )
