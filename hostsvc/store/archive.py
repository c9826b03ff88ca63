"""Statements on what leaves the table of sessions: only rows proven dead, and never without a trace."""

from __future__ import annotations

from sqlite_utils import Database

from hostsvc.model import SessionRow
from hostsvc.states import PROVEN
from hostsvc.store import audit, launches, rows
from hostsvc.store.rows import to_json
from hostsvc.store.sessions import PROVEN_DEAD, find_of_workspace


def take_leave(db: Database, workspace_id: str, now_ms: int) -> list[SessionRow]:
    """A workspace goes: rows proven dead move to the audit and a tombstone, the others lose it.

    Returns:
        The rows that stay: nobody has proven their sessions dead yet.
    """
    left = []
    for row in find_of_workspace(db, workspace_id):
        if row.status in PROVEN:
            _archive(db, row, now_ms)
        else:
            left.append(row)
    db.execute("UPDATE sessions SET workspace_id = NULL WHERE workspace_id = ?", [workspace_id])
    return left


_PRUNABLE = f"FROM sessions AS s WHERE {PROVEN_DEAD} AND ended_at_ms < ? AND NOT {launches.EXISTS}"
"""One that is about to be started again stays until it was."""


def count_prunable(db: Database, older_than_ms: int) -> int:
    """Return how many rows `prune` would move, all told."""
    found = db.execute(f"SELECT count(*) {_PRUNABLE}", [older_than_ms])
    return int(found.fetchone()[0])


def prune(db: Database, older_than_ms: int, now_ms: int) -> int:
    """Move rows that were over before `older_than_ms` to the audit, 1000 at most; return how many.

    Not lost ones: nobody has proven what became of those.
    """
    found = db.query(f"SELECT s.* {_PRUNABLE} LIMIT 1000", [older_than_ms])
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
