"""Statements on workspaces and on the tombstones of what was destroyed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from hostsvc.model import Workspace
from hostsvc.owned import PathRole
from hostsvc.states import WorkspaceState
from hostsvc.store import audit, nesting, paths, rows, runs, trash
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


def find_ephemeral(db: Database, run: str | None) -> list[Workspace]:
    """Return the workspaces that go with a run, or with any, and have not gone."""
    found = db.query(
        "SELECT * FROM workspaces WHERE is_ephemeral AND run IS NOT NULL AND run = coalesce(?, run)"
        " AND state <> 'deleted' ORDER BY created_at_ms, id",
        [run],
    )
    return [rows.workspace(raw) for raw in found]


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
    run: str | None = None,
    is_ephemeral: bool = False,
    is_expendable: bool = False,
    common_dir: str | None = None,
    branch: str | None = None,
    plan: Mapping[str, Any] | None = None,
    made: Mapping[PathRole, str] | None = None,
    aliases: Sequence[str] = (),
) -> Workspace:
    """Write the row of a workspace whose paths are not there yet, and that those to be `made` are its own.

    Raises:
        Taken: by a living one.
        Leaving: what is there comes or goes just now.
        Destroyed: a message that comes late revives nothing; give the next generation to make it anew.
        PtydError: not_found, being_deleted or destroyed: the run takes nothing.
    """
    runs.require_open(db, run)
    _check_free(db, id_, name, path)
    nesting.check_stays(db, [path, *aliases], restoring=(plan or {}).get("restore"))
    destroyed = destroyed_generation(db, "workspace", id_)
    if destroyed >= (generation or 1):
        raise Destroyed(id_, destroyed)
    generation = generation or 1
    db.execute("DELETE FROM workspaces WHERE id = ? AND state = 'deleted'", [id_])
    db.execute(
        "INSERT INTO workspaces (id, generation, name, path, is_ours, state, labels, teardown, is_protected,"
        " run, is_ephemeral, is_expendable, common_dir, branch, plan, created_at_ms)"
        " VALUES (?, ?, ?, ?, ?, 'provisioning', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            id_,
            generation,
            name,
            path,
            is_ours,
            to_json(dict(labels)),
            to_json(list(teardown)) if teardown else None,
            is_protected,
            run,
            is_ephemeral,
            is_expendable,
            common_dir,
            branch,
            to_json(dict(plan)) if plan else None,
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
    paths.own(db, found, made or {}, now_ms)
    return found


def _check_free(db: Database, id_: str, name: str | None, path: str) -> None:
    for what, column, value in (("id", "id", id_), ("name", "name", name), ("path", "path", path)):
        found = db.execute(
            f"SELECT id FROM workspaces WHERE {column} = ? AND state <> 'deleted'", [value]
        ).fetchone()
        if found:
            raise Taken(what, found[0])


def activate(
    db: Database,
    workspace: Workspace,
    found: Mapping[PathRole, tuple[int, int]],
    *,
    common_dir: str | None = None,
    branch: str | None = None,
) -> bool:
    """Its paths are there: it may be used. False when it is being deleted by now."""
    paths.identify(db, workspace, found)
    cursor = db.execute(
        "UPDATE workspaces SET state = 'active', plan = NULL, device = ?, inode = ?, common_dir = ?,"
        " branch = ? WHERE id = ? AND generation = ? AND state = 'provisioning'",
        [*found[PathRole.FOLDER], common_dir, branch, workspace.id, workspace.generation],
    )
    return cursor.rowcount == 1


def reclaim(
    db: Database, entry: trash.Entry, *, id_: str, made: Mapping[PathRole, str], now_ms: int
) -> Workspace:
    """Write the row of a workspace that comes back from the trash, with what is known of it from before.

    Raises:
        Taken: its id, name or path belongs to a living one.
    """
    found = find(db, id_)
    before = (
        found if found is not None and (found.id, found.generation) == (id_, entry["generation"]) else None
    )
    workspace = insert(
        db,
        id_=id_,
        generation=destroyed_generation(db, "workspace", id_) + 1,
        name=None if before is None else before.name,
        path=entry["path"],
        is_ours=True,
        labels={} if before is None else before.labels,
        teardown=None if before is None else before.teardown,
        is_protected=False,
        plan={"restore": entry["id"]},
        made=made,
        now_ms=now_ms,
    )
    trash.claim(db, entry["id"], workspace, now_ms)
    return workspace


def abandon(db: Database, workspace: Workspace, reason: str, now_ms: int) -> None:
    """Its paths could not be made: take back the row, as nothing of it exists."""
    cursor = db.execute(
        "DELETE FROM workspaces WHERE id = ? AND generation = ? AND state = 'provisioning'",
        [workspace.id, workspace.generation],
    )
    if cursor.rowcount:
        trash.unclaim(db, workspace)
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
