"""Statements on workspaces and on the tombstones of what was destroyed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from hostsvc.model import Workspace
from hostsvc.states import WorkspaceState
from hostsvc.store import audit, rows
from hostsvc.store.rows import from_json, to_json


class Destroyed(Exception):
    """That id was destroyed up to `generation`; only an explicit newer generation makes it anew."""

    def __init__(self, id_: str, generation: int) -> None:
        super().__init__(f"workspace {id_} was destroyed (generation {generation})")
        self.generation = generation


class Taken(Exception):
    """Another living workspace has that id, name or path; the message says which."""

    def __init__(self, what: str, by: str) -> None:
        super().__init__(f"that {what} belongs to workspace {by}")
        self.what = what
        self.by = by


def find(db: Database, id_or_name: str) -> Workspace | None:
    """Return a workspace by its id, or a living one by its name."""
    found = list(
        db.query(
            "SELECT * FROM workspaces WHERE id = :ref OR (name = :ref AND state <> 'deleted')"
            " ORDER BY id <> :ref LIMIT 1",
            {"ref": id_or_name},
        )
    )
    return rows.workspace(found[0]) if found else None


def find_deleted(db: Database, name: str) -> Workspace | None:
    """Return the workspace of that name that was deleted last."""
    found = list(
        db.query(
            "SELECT * FROM workspaces WHERE name = ? AND state = 'deleted'"
            " ORDER BY deleted_at_ms DESC LIMIT 1",
            [name],
        )
    )
    return rows.workspace(found[0]) if found else None


def find_all(db: Database, *, with_deleted: bool = False) -> list[Workspace]:
    """Return every workspace, oldest first."""
    where = "" if with_deleted else "WHERE state <> 'deleted'"
    return [
        rows.workspace(raw)
        for raw in db.query(f"SELECT * FROM workspaces {where} ORDER BY created_at_ms, id")
    ]


def destroyed_generation(db: Database, kind: str, id_: str) -> int:
    """Return the highest generation of it that was destroyed; 0 when none ever was."""
    found = db.execute(
        "SELECT coalesce(max(generation), 0) FROM tombstones WHERE kind = ? AND id = ?", [kind, id_]
    ).fetchone()
    return int(found[0])


def find_tombstone(db: Database, kind: str, id_: str) -> dict[str, Any] | None:
    """Return the newest tombstone of it."""
    found = list(
        db.query(
            "SELECT * FROM tombstones WHERE kind = ? AND id = ? ORDER BY generation DESC LIMIT 1", [kind, id_]
        )
    )
    return {**found[0], "detail": from_json(found[0]["detail"])} if found else None


def find_destroyed(db: Database) -> frozenset[str]:
    """Return the ids of all that was destroyed for good, also of what was made anew since."""
    found = db.execute("SELECT DISTINCT id FROM tombstones WHERE kind = 'workspace' AND is_confirmed")
    return frozenset(row[0] for row in found.fetchall())


def insert(
    db: Database,
    *,
    id_: str,
    generation: int | None,
    name: str | None,
    path: str,
    is_ours: bool,
    labels: Mapping[str, str],
    teardown: Sequence[str] | None,
    is_protected: bool,
    now_ms: int,
) -> Workspace:
    """Write the row of a workspace whose folder is not there yet.

    Raises:
        Taken: by a living one.
        Destroyed: a message that comes late revives nothing; give the next generation to make it anew.
    """
    _check_free(db, id_, name, path)
    destroyed = destroyed_generation(db, "workspace", id_)
    if destroyed >= (generation or 1):
        raise Destroyed(id_, destroyed)
    generation = generation or 1
    db.execute("DELETE FROM workspaces WHERE id = ? AND state = 'deleted'", [id_])
    db.execute(
        "INSERT INTO workspaces (id, generation, name, path, is_ours, state, labels, teardown, is_protected,"
        " created_at_ms) VALUES (?, ?, ?, ?, ?, 'provisioning', ?, ?, ?, ?)",
        [
            id_,
            generation,
            name,
            path,
            is_ours,
            to_json(dict(labels)),
            to_json(list(teardown)) if teardown else None,
            is_protected,
            now_ms,
        ],
    )
    audit.append(
        db,
        at_ms=now_ms,
        event="created",
        kind="workspace",
        subject=id_,
        generation=generation,
        detail={"path": path},
    )
    found = find(db, id_)
    assert found is not None
    return found


def _check_free(db: Database, id_: str, name: str | None, path: str) -> None:
    for what, column, value in (("id", "id", id_), ("name", "name", name), ("path", "path", path)):
        found = db.execute(
            f"SELECT id FROM workspaces WHERE {column} = ? AND state <> 'deleted'", [value]
        ).fetchone()
        if found:
            raise Taken(what, found[0])


def activate(db: Database, workspace: Workspace, device: int, inode: int) -> bool:
    """Its folder is there: it may be used. False when it is being deleted by now."""
    cursor = db.execute(
        "UPDATE workspaces SET state = 'active', device = ?, inode = ?"
        " WHERE id = ? AND generation = ? AND state = 'provisioning'",
        [device, inode, workspace.id, workspace.generation],
    )
    return cursor.rowcount == 1


def abandon(db: Database, workspace: Workspace, reason: str, now_ms: int) -> None:
    """Its folder could not be made: take back the row, as nothing of it exists."""
    cursor = db.execute(
        "DELETE FROM workspaces WHERE id = ? AND generation = ? AND state = 'provisioning'",
        [workspace.id, workspace.generation],
    )
    if cursor.rowcount:
        audit.append(
            db,
            at_ms=now_ms,
            event="abandoned",
            kind="workspace",
            subject=workspace.id,
            generation=workspace.generation,
            detail={"reason": reason},
        )


def update(
    db: Database,
    id_: str,
    *,
    name: str | None,
    labels: Mapping[str, str] | None,
    is_protected: bool | None,
) -> None:
    """Change what is given; an empty name takes the name away.

    Raises:
        Taken: the name belongs to another.
    """
    if name is not None:
        found = db.execute(
            "SELECT id FROM workspaces WHERE name = ? AND id <> ? AND state <> 'deleted'", [name, id_]
        ).fetchone()
        if found:
            raise Taken("name", found[0])
        db.execute("UPDATE workspaces SET name = ? WHERE id = ?", [name or None, id_])
    if labels is not None:
        db.execute("UPDATE workspaces SET labels = ? WHERE id = ?", [to_json(dict(labels)), id_])
    if is_protected is not None:
        db.execute("UPDATE workspaces SET is_protected = ? WHERE id = ?", [is_protected, id_])


def bury_unknown(db: Database, id_: str, now_ms: int) -> None:
    """Somebody destroyed what never was: remember it, so that a creation that comes late is a new one."""
    db.execute(
        "INSERT OR IGNORE INTO tombstones (kind, id, generation, is_confirmed, created_at_ms)"
        " SELECT 'workspace', ?, 1, 1, ? WHERE NOT EXISTS"
        " (SELECT 1 FROM tombstones WHERE kind = 'workspace' AND id = ?)",
        [id_, now_ms, id_],
    )


def set_state(db: Database, workspace: Workspace, state: WorkspaceState, now_ms: int) -> None:
    """Move a workspace; the schema refuses a move that the table does not have."""
    db.execute(
        "UPDATE workspaces SET state = ?, deleted_at_ms = ? WHERE id = ? AND generation = ?",
        [
            state.value,
            now_ms if state is WorkspaceState.DELETED else None,
            workspace.id,
            workspace.generation,
        ],
    )
