"""Statements on the reaper's memory: its passes and what it has observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from hostsvc.model import Observation
from hostsvc.store import rows
from hostsvc.store.rows import from_json, to_json

PASSES_KEPT = 1000
STARTUP = "startup"
"""The origin of a process's first pass."""


def begin(db: Database, *, origin: str, is_dry: bool, kinds: Sequence[str], now_ms: int) -> int:
    """Enter a pass; it stays `running` if nobody lives to finish it."""
    db.execute("UPDATE passes SET state = 'interrupted' WHERE state = 'running'")
    if origin == STARTUP:  # a process trusts no look but its own: the index may come from a backup
        db.execute("DELETE FROM observations")
    cursor = db.execute(
        "INSERT INTO passes (started_at_ms, origin, is_dry, kinds, state) VALUES (?, ?, ?, ?, 'running')",
        [now_ms, origin, is_dry, to_json(list(kinds))],
    )
    assert cursor.lastrowid is not None
    db.execute("DELETE FROM passes WHERE id <= ?", [cursor.lastrowid - PASSES_KEPT])
    return cursor.lastrowid


def finish(
    db: Database, id_: int, *, state: str, plan_hash: str | None, body: Mapping[str, Any], now_ms: int
) -> dict[str, Any]:
    """Enter how a pass ended; return it."""
    db.execute(
        "UPDATE passes SET finished_at_ms = ?, state = ?, plan_hash = ?, body = ? WHERE id = ?",
        [now_ms, state, plan_hash, to_json(body), id_],
    )
    return next(_passes(db.query("SELECT * FROM passes WHERE id = ?", [id_])))


def find_last(db: Database, limit: int) -> list[dict[str, Any]]:
    """Return the newest passes, newest first."""
    return list(_passes(db.query("SELECT * FROM passes ORDER BY id DESC LIMIT ?", [limit])))


def find_last_done(db: Database) -> dict[str, Any] | None:
    """Return the last pass that was finished and was more than a rehearsal; None when there was none."""
    return next(_passes(db.query(_LAST_DONE)), None)


_LAST_DONE = "SELECT * FROM passes WHERE finished_at_ms IS NOT NULL AND NOT is_dry ORDER BY id DESC LIMIT 1"


def _passes(found: Any) -> Any:
    for raw in found:
        body = from_json(raw["body"])
        head = {key: value for key, value in raw.items() if key not in ("body", "kinds", "is_dry")}
        yield {**head, "dry_run": bool(raw["is_dry"]), "kinds": from_json(raw["kinds"]), **body}


def observations(db: Database, kind: str) -> dict[str, Observation]:
    """Return what a kind has observed so far, by subject."""
    found = db.query("SELECT * FROM observations WHERE kind = ?", [kind])
    return {seen.subject: seen for seen in map(rows.observation, found)}


def observe(db: Database, kind: str, subjects: Sequence[str], now_ms: int) -> None:
    """Add one observation of each of these; forget what was not seen again."""
    wanted = to_json(list(subjects))
    db.execute(
        "DELETE FROM observations WHERE kind = ? AND subject NOT IN (SELECT value FROM json_each(?))",
        [kind, wanted],
    )
    db.execute(
        "INSERT INTO observations (kind, subject, first_at_ms, last_at_ms, count)"
        " SELECT DISTINCT :kind, value, :now, :now, 1 FROM json_each(:wanted) WHERE true"
        " ON CONFLICT (kind, subject) DO UPDATE SET last_at_ms = :now, count = count + 1",
        {"kind": kind, "now": now_ms, "wanted": wanted},
    )
