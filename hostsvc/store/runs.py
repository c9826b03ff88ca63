"""Statements on runs: what belongs together and ends together.

A row is never deleted: that of a run that is over refuses what comes late.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlite_utils import Database

from hostsvc.run import Run
from hostsvc.states import RunState
from hostsvc.store import audit, rows
from hostsvc.store.rows import to_json
from ptyd.protocol.errors import Code, PtydError


def find(db: Database, id_: str) -> Run | None:
    found = list(db.query("SELECT * FROM runs WHERE id = ?", [id_]))
    return rows.run(found[0]) if found else None


def find_last(db: Database, limit: int) -> list[Run]:
    """Return the newest runs, those first that are not over."""
    found = db.query("SELECT * FROM runs ORDER BY state = 'ended', created_at_ms DESC, id LIMIT ?", [limit])
    return [rows.run(raw) for raw in found]


def find_unfinished(db: Database) -> list[Run]:
    """Return every run that is not over, oldest first."""
    found = db.query("SELECT * FROM runs WHERE state <> 'ended' ORDER BY created_at_ms, id")
    return [rows.run(raw) for raw in found]


def find_these(db: Database, ids: Collection[str]) -> dict[str, Run]:
    """Return the runs there are of these, over or not."""
    found = db.query("SELECT * FROM runs WHERE id IN (SELECT value FROM json_each(?))", [to_json(list(ids))])
    return {run.id: run for run in map(rows.run, found)}


def is_any(db: Database) -> bool:
    """Tell whether there ever was a run."""
    return bool(db.execute("SELECT EXISTS (SELECT 1 FROM runs)").fetchone()[0])


def count_sessions(db: Database) -> dict[str, int]:
    """Return how many rows of each run are not over."""
    found = db.execute(
        "SELECT run, count(*) FROM sessions WHERE run IS NOT NULL AND status IN ('spawning', 'active')"
        " GROUP BY run"
    )
    return dict(found.fetchall())


def require_open(db: Database, run: str | None) -> None:
    """Make sure, in a transaction that gives a run something, that it takes anything.

    Raises:
        PtydError: not_found; being_deleted, when its end was asked for; destroyed, when it is over.
    """
    if run is None:
        return
    found = find(db, run)
    if found is None:
        raise PtydError(Code.NOT_FOUND, f"no run {run}; see: hostsvc run ls")
    if found.state is RunState.ENDING:
        raise PtydError(Code.BEING_DELETED, f"run {run} is being ended; it takes nothing new")
    if found.state is RunState.ENDED:
        raise PtydError(Code.DESTROYED, f"run {run} has ended; start another: hostsvc run start")


# --- its life ------------------------------------------------------------------------------------


def insert(db: Database, run: Run) -> bool:
    """Write a run that begins; False when there is, or was, one of that id."""
    cursor = db.execute(
        "INSERT OR IGNORE INTO runs (id, state, holder_pid, holder_start, boot_id, created_at_ms,"
        " deadline_at_ms) VALUES (?, 'open', ?, ?, ?, ?, ?)",
        [run.id, run.holder_pid, run.holder_start, run.boot_id, run.created_at_ms, run.deadline_at_ms],
    )
    return cursor.rowcount == 1


def request_end(db: Database, id_: str, now_ms: int) -> Run | None:
    """Stamp the intent, the first one stays, on a run and on its sessions that are not proven dead.

    It takes nothing from here on. None when there is no such run; one that is over stays as it is.
    """
    cursor = db.execute(
        "UPDATE runs SET state = 'ending', end_requested_at_ms = coalesce(end_requested_at_ms, ?)"
        " WHERE id = ? AND state <> 'ended'",
        [now_ms, id_],
    )
    if cursor.rowcount:
        db.execute(
            "UPDATE sessions SET dispose_reason = coalesce(dispose_reason, 'its run was ended'),"
            " dispose_requested_at_ms = coalesce(dispose_requested_at_ms, ?), next_attempt_at_ms = NULL"
            " WHERE run = ? AND status IN ('spawning', 'active', 'lost')",
            [now_ms, id_],
        )
    return find(db, id_)


def give_up(db: Database, id_: str, reason: str, now_ms: int) -> bool:
    """Let a run take nothing any more, as nobody holds it; False when it is not open.

    Nobody has asked for its end: each thing that it has is still to be looked at by itself.
    """
    cursor = db.execute("UPDATE runs SET state = 'ending' WHERE id = ? AND state = 'open'", [id_])
    if cursor.rowcount:
        audit.append(db, at_ms=now_ms, event="given_up", kind="run", subject=id_, detail={"reason": reason})
    return cursor.rowcount == 1


def note(db: Database, id_: str, error: str | None) -> None:
    """Note why it could not be ended as yet."""
    db.execute("UPDATE runs SET last_error = ? WHERE id = ?", [error, id_])


def finish(db: Database, id_: str, now_ms: int) -> bool:
    """Enter that nothing of a run is left; False when it is over, open, or the index has something of it."""
    cursor = db.execute(
        "UPDATE runs SET state = 'ended', ended_at_ms = :now, last_error = NULL"
        " WHERE id = :id AND state = 'ending' AND NOT EXISTS"
        " (SELECT 1 FROM sessions WHERE run = :id AND status IN ('spawning', 'active'))"
        " AND NOT EXISTS (SELECT 1 FROM workspaces WHERE run = :id AND is_ephemeral AND state <> 'deleted')",
        {"id": id_, "now": now_ms},
    )
    if cursor.rowcount:
        audit.append(db, at_ms=now_ms, event="ended", kind="run", subject=id_)
    return cursor.rowcount == 1
