"""Statements on deletions: the saga, its journal and its lease, and the transactions of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from hostsvc.model import Saga, SessionRow, Workspace
from hostsvc.policy import Retry
from hostsvc.saga import Step
from hostsvc.states import SagaState, WorkspaceState
from hostsvc.store import archive, audit, rows, sessions, workspaces
from hostsvc.store.rows import from_json, to_json


def find(db: Database, id_: str) -> Saga | None:
    found = list(db.query("SELECT * FROM sagas WHERE id = ?", [id_]))
    return rows.saga(found[0]) if found else None


def find_open(db: Database, workspace_id: str | None = None) -> list[Saga]:
    """Return the sagas that are not finished, oldest first."""
    found = db.query(
        "SELECT * FROM sagas WHERE finished_at_ms IS NULL AND (:id IS NULL OR workspace_id = :id)"
        " ORDER BY created_at_ms, id",
        {"id": workspace_id},
    )
    return [rows.saga(raw) for raw in found]


def find_last(db: Database, limit: int) -> list[Saga]:
    """Return the newest sagas, open ones first."""
    found = db.query(
        "SELECT * FROM sagas ORDER BY finished_at_ms IS NOT NULL, created_at_ms DESC, id LIMIT ?", [limit]
    )
    return [rows.saga(raw) for raw in found]


def find_finished(db: Database, workspace_id: str) -> Saga | None:
    """Return the saga that deleted a workspace last."""
    found = list(
        db.query(
            "SELECT * FROM sagas WHERE workspace_id = ? AND state = 'done'"
            " ORDER BY finished_at_ms DESC LIMIT 1",
            [workspace_id],
        )
    )
    return rows.saga(found[0]) if found else None


def find_undone(db: Database, workspace: Workspace) -> tuple[int, int]:
    """Return how many deletions of a workspace were undone, and when the last one was (0 when none)."""
    found = db.execute(
        "SELECT count(*), coalesce(max(finished_at_ms), 0) FROM sagas"
        " WHERE workspace_id = ? AND generation = ? AND state = 'compensated'",
        [workspace.id, workspace.generation],
    ).fetchone()
    return int(found[0]), int(found[1])


def journal(db: Database, id_: str) -> list[dict[str, Any]]:
    """Return the steps that were begun, in their order."""
    found = db.query("SELECT * FROM saga_steps WHERE saga_id = ? ORDER BY rowid", [id_])
    return [{**raw, "detail": from_json(raw["detail"])} for raw in found]


def done_steps(db: Database, id_: str) -> frozenset[Step]:
    found = db.execute("SELECT step FROM saga_steps WHERE saga_id = ? AND done_at_ms IS NOT NULL", [id_])
    return frozenset(Step(row[0]) for row in found.fetchall())


def open_saga(
    db: Database, *, id_: str, workspace: Workspace, is_forced: bool, skips_teardown: bool, now_ms: int
) -> Saga:
    """Return the workspace's open saga, a new one if it has none: two deletions of one are one.

    So are one that is over by now and one that was asked for before it was.
    """
    over = find_finished(db, workspace.id)
    if over is not None and over.generation >= workspace.generation:
        return over
    for saga in find_open(db, workspace.id):
        db.execute(
            "UPDATE sagas SET is_forced = max(is_forced, ?), skips_teardown = max(skips_teardown, ?)"
            " WHERE id = ?",
            [is_forced, skips_teardown, saga.id],
        )
        return saga
    db.execute(
        "INSERT INTO sagas (id, workspace_id, generation, state, is_forced, skips_teardown, created_at_ms)"
        " VALUES (?, ?, ?, 'open', ?, ?, ?)",
        [id_, workspace.id, workspace.generation, is_forced, skips_teardown, now_ms],
    )
    found = find(db, id_)
    assert found is not None
    return found


def take_lease(db: Database, id_: str, *, holder: str, until_ms: int, now_ms: int) -> bool:
    """Become the one who is at it; False when somebody else is, or it is finished."""
    cursor = db.execute(
        "UPDATE sagas SET lease = :holder, lease_until_ms = :until WHERE id = :id AND finished_at_ms IS NULL"
        " AND (lease IS NULL OR lease = :holder OR lease_until_ms < :now)",
        {"id": id_, "holder": holder, "until": until_ms, "now": now_ms},
    )
    return cursor.rowcount == 1


def void_leases(db: Database, holder: str) -> None:
    """Whoever else held a lease is dead: only one host service has the index open at a time."""
    db.execute("UPDATE sagas SET lease = NULL, lease_until_ms = NULL WHERE lease <> ?", [holder])


def begin_step(db: Database, id_: str, step: Step, now_ms: int) -> None:
    db.execute(
        "INSERT INTO saga_steps (saga_id, step, begun_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [id_, step.value, now_ms],
    )


def finish_step(
    db: Database, id_: str, step: Step, now_ms: int, detail: Mapping[str, Any] | None = None
) -> None:
    db.execute(
        "INSERT INTO saga_steps (saga_id, step, begun_at_ms, done_at_ms, detail)"
        " VALUES (:id, :step, :now, :now, :detail)"
        " ON CONFLICT (saga_id, step) DO UPDATE SET done_at_ms = :now, detail = :detail",
        {"id": id_, "step": step.value, "now": now_ms, "detail": to_json(detail) if detail else None},
    )


def add_warnings(db: Database, id_: str, warnings: Sequence[str]) -> None:
    """Remember what went wrong and did not stop it; each once."""
    found = find(db, id_)
    if found is not None and warnings:
        merged = list(dict.fromkeys([*found.warnings, *warnings]))
        db.execute("UPDATE sagas SET warnings = ? WHERE id = ?", [to_json(merged), id_])


def record_failure(db: Database, id_: str, *, error: str, retry: Retry) -> None:
    """Note that a step after the point of no return failed, and when to try again."""
    db.execute(
        "UPDATE sagas SET attempts = attempts + 1, last_error = ?, next_attempt_at_ms = ?, lease = NULL,"
        " lease_until_ms = NULL, state = ? WHERE id = ? AND finished_at_ms IS NULL",
        [error, retry.at_ms, SagaState.STUCK if retry.is_stuck else SagaState.OPEN, id_],
    )


# --- the transactions of the steps ---------------------------------------------------------------


def seal(db: Database, saga: Saga, workspace: Workspace, now_ms: int) -> bool:
    """Deleting, a tombstone, and every session's intent, all or nothing; False when it is protected."""
    found = workspaces.find(db, workspace.id)
    if found is not None and found.is_protected:
        return False
    workspaces.set_state(db, workspace, WorkspaceState.DELETING, now_ms)
    db.execute(
        "INSERT INTO tombstones (kind, id, generation, is_confirmed, created_at_ms)"
        " VALUES ('workspace', ?, ?, 0, ?) ON CONFLICT DO NOTHING",
        [workspace.id, workspace.generation, now_ms],
    )
    sessions.request_dispose_all(db, workspace.id, reason="its workspace is deleted", now_ms=now_ms)
    finish_step(db, saga.id, Step.SEAL, now_ms)
    return True


def compensate(db: Database, saga: Saga, error: str, now_ms: int) -> None:
    """Undo what can be undone: the workspace may be used again. Intents stay: they are never cleared."""
    db.execute(
        "UPDATE workspaces SET state = 'active' WHERE id = ? AND generation = ? AND state = 'deleting'",
        [saga.workspace_id, saga.generation],
    )
    db.execute(
        "DELETE FROM tombstones WHERE kind = 'workspace' AND id = ? AND generation = ? AND is_confirmed = 0",
        [saga.workspace_id, saga.generation],
    )
    _close(db, saga, SagaState.COMPENSATED, error, now_ms)


def finish(
    db: Database, saga: Saga, workspace: Workspace, detail: Mapping[str, Any], now_ms: int
) -> list[SessionRow]:
    """Close the rows: deleted, the tombstone confirmed. Returns the sessions that are still to die."""
    left = archive.take_leave(db, workspace.id, now_ms)
    workspaces.set_state(db, workspace, WorkspaceState.DELETED, now_ms)
    kept = {**detail, "path": workspace.path, "name": workspace.name, "survivors": [row.id for row in left]}
    db.execute(
        "UPDATE tombstones SET is_confirmed = 1, detail = ?"
        " WHERE kind = 'workspace' AND id = ? AND generation = ?",
        [to_json(kept), workspace.id, workspace.generation],
    )
    finish_step(db, saga.id, Step.FINISH, now_ms)
    _close(db, saga, SagaState.DONE, None, now_ms)
    return left


def _close(db: Database, saga: Saga, state: SagaState, error: str | None, now_ms: int) -> None:
    db.execute(
        "UPDATE sagas SET state = ?, last_error = coalesce(?, last_error), finished_at_ms = ?, lease = NULL,"
        " lease_until_ms = NULL, next_attempt_at_ms = NULL WHERE id = ?",
        [state.value, error, now_ms, saga.id],
    )
    audit.append(
        db,
        at_ms=now_ms,
        event="deleted" if state is SagaState.DONE else "deletion_undone",
        kind="workspace",
        subject=saga.workspace_id,
        generation=saga.generation,
        detail={"saga": saga.id, "error": error},
    )
