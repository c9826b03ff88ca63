"""Statements on the rows of sessions: intent, attempts, evidence. Each is one compare-and-set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlite_utils import Database

from hostsvc.model import Key, LiveSession, SessionRow
from hostsvc.policy import Retry
from hostsvc.states import PROVEN, SessionStatus
from hostsvc.store import audit, launches, rows, runs
from hostsvc.store.rows import to_json

OPEN: Final = "status IN ('spawning', 'active')"
PROVEN_DEAD: Final = f"status IN ({', '.join(repr(status.value) for status in sorted(PROVEN))})"


# --- looking -------------------------------------------------------------------------------------


def find(db: Database, id_: str, generation: int | None = None) -> SessionRow | None:
    """Return the row of an id and generation; without a generation the newest.

    A name is that of one that is not over, or that waits to be started again.
    """
    found = list(
        db.query(
            "SELECT * FROM sessions AS s WHERE (id = :ref AND generation = coalesce(:generation, generation))"
            f" OR (:generation IS NULL AND name = :ref AND ({OPEN} OR {launches.EXISTS}))"
            f" ORDER BY id <> :ref, NOT ({OPEN}), generation DESC LIMIT 1",
            {"ref": id_, "generation": generation},
        )
    )
    return rows.session(found[0]) if found else None


def find_open(db: Database) -> list[SessionRow]:
    """Return every row whose session is not over."""
    return [rows.session(raw) for raw in db.query(f"SELECT * FROM sessions WHERE {OPEN}")]


def find_wanted(db: Database) -> list[SessionRow]:
    """Return the rows that are not over and whose end nobody asked for, in workspaces that are in use."""
    found = db.query(
        "SELECT s.* FROM sessions AS s JOIN workspaces AS w ON w.id = s.workspace_id"
        f" WHERE s.{OPEN} AND s.dispose_requested_at_ms IS NULL AND w.state = 'active'"
    )
    return [rows.session(raw) for raw in found]


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


def find_of_run(db: Database, run: str) -> list[SessionRow]:
    """Return a run's rows that are not over."""
    found = db.query(f"SELECT * FROM sessions WHERE run = ? AND {OPEN} ORDER BY created_at_ms, id", [run])
    return [rows.session(raw) for raw in found]


def find_all(db: Database, *, workspace_id: str | None = None, status: str | None = None) -> list[SessionRow]:
    """Return rows, oldest first."""
    found = db.query(
        f"SELECT * FROM sessions WHERE {_wanted(workspace_id, status)}"
        " ORDER BY created_at_ms, id, generation",
        {"workspace": workspace_id, "status": status},
    )
    return [rows.session(raw) for raw in found]


def find_stored(
    db: Database, columns: Sequence[str], *, workspace_id: str | None = None, status: str | None = None
) -> list[dict[str, Any]]:
    """Return these columns of rows, oldest first, as plain maps: for showing thousands at once."""
    found = db.execute(
        f"SELECT {', '.join(columns)} FROM sessions WHERE {_wanted(workspace_id, status)}"
        " ORDER BY created_at_ms, id, generation",
        {"workspace": workspace_id, "status": status},
    )
    return rows.decode_all([dict(zip(columns, raw, strict=True)) for raw in found])


def _wanted(workspace_id: str | None, status: str | None) -> str:
    """Return a condition that has only what is asked for, and of open rows also says that they are open.

    SQLite takes an index only where the statement itself shows that the index has all that is wanted;
    otherwise it reads every row there ever was.
    """
    asked = [] if workspace_id is None else ["workspace_id = :workspace"]
    if status is not None:
        asked.append("status = :status")
    if status in (SessionStatus.SPAWNING, SessionStatus.ACTIVE):
        asked.append(OPEN)
    return " AND ".join(asked) or "true"


def count_by_status(db: Database) -> dict[str, int]:
    return dict(db.execute("SELECT status, count(*) FROM sessions GROUP BY status").fetchall())


def count_open_by_workspace(db: Database) -> dict[str, int]:
    """Return how many rows of each workspace are not over."""
    found = db.execute(
        f"SELECT workspace_id, count(*) FROM sessions WHERE {OPEN} AND workspace_id IS NOT NULL"
        " GROUP BY workspace_id"
    )
    return dict(found.fetchall())


def count_unwanted(db: Database) -> tuple[int, int]:
    """Return how many open rows are to be ended, and how many of them are stuck."""
    found = db.execute(
        "SELECT count(*), count(stuck_at_ms) FROM sessions"
        f" WHERE {OPEN} AND dispose_requested_at_ms IS NOT NULL"
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
    run: str | None = None,
    instance_id: str,
    boot_id: str,
    now_ms: int,
) -> bool:
    """Write the row before the spawn; False when the workspace takes nothing (any more).

    Raises:
        PtydError: not_found, being_deleted or destroyed: the run takes nothing.
    """
    runs.require_open(db, run)
    cursor = db.execute(
        "INSERT INTO sessions (id, generation, workspace_id, origin_workspace_id, status, name, labels, argv,"
        " cwd, run_id, run, instance_id, boot_id, created_at_ms)"
        " SELECT :id, :generation, id, id, 'spawning', :name, :labels, :argv, :cwd, :run_id, :run, :instance,"
        " :boot, :now"
        " FROM workspaces WHERE id = :workspace AND state = 'active'",
        {
            "id": id_,
            "generation": generation,
            "workspace": workspace_id,
            "name": name,
            "labels": to_json(dict(labels)),
            "argv": to_json(list(argv)),
            "cwd": cwd,
            "run_id": run_id,
            "run": run,
            "instance": instance_id,
            "boot": boot_id,
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
    db: Database, key: Key, *, reason: str, is_forced: bool, is_doubt: bool = False, now_ms: int
) -> SessionRow | None:
    """Stamp the intent; the first one stays. Makes the next attempt due at once.

    Also on a lost one: should it be here again, it is to go. It is not started again, unless this is only our
    own doubt whether its start was heard (`is_doubt`).
    """
    if not is_doubt:
        launches.remove(db, key)
    db.execute(
        "UPDATE sessions SET dispose_reason = coalesce(dispose_reason, :reason),"
        " dispose_requested_at_ms = coalesce(dispose_requested_at_ms, :now),"
        " is_forced = max(is_forced, :forced), next_attempt_at_ms = NULL"
        f" WHERE id = :id AND generation = :generation AND NOT {PROVEN_DEAD}",
        {"reason": reason, "now": now_ms, "forced": is_forced, "id": key[0], "generation": key[1]},
    )
    return find(db, *key)


def request_dispose_all(db: Database, workspace_id: str, *, reason: str, now_ms: int) -> None:
    """Stamp the intent on every row of a workspace whose session is not proven dead."""
    db.execute(
        "UPDATE sessions SET dispose_reason = coalesce(dispose_reason, :reason),"
        " dispose_requested_at_ms = coalesce(dispose_requested_at_ms, :now), next_attempt_at_ms = NULL"
        f" WHERE workspace_id = :workspace AND NOT {PROVEN_DEAD}",
        {"reason": reason, "now": now_ms, "workspace": workspace_id},
    )
    launches.remove_of_workspace(db, workspace_id)


def record_attempt(db: Database, key: Key, *, error: str, retry: Retry, now_ms: int) -> bool:
    """Note a failed attempt; True when it has just become stuck, to be reported once."""
    found = db.execute("SELECT stuck_at_ms FROM sessions WHERE id = ? AND generation = ?", [*key]).fetchone()
    cursor = db.execute(
        "UPDATE sessions SET attempts = attempts + 1, last_error = ?, next_attempt_at_ms = ?,"
        f" stuck_at_ms = coalesce(stuck_at_ms, ?) WHERE id = ? AND generation = ? AND {OPEN}",
        [error, retry.at_ms, now_ms if retry.is_stuck else None, *key],
    )
    return bool(cursor.rowcount) and retry.is_stuck and found[0] is None


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
        f" WHERE id = :id AND generation = :generation AND {OPEN}",
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
