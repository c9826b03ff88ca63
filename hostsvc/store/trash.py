"""Statements on the trash: what was moved there, when it goes for good, and what came out of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from hostsvc.model import Workspace
from hostsvc.store import nesting, paths
from hostsvc.store.rows import from_json, to_json

Entry = Mapping[str, Any]
"""A row, its manifest as a map."""

_IN_THE_TRASH = "purged_at_ms IS NULL AND restored_at_ms IS NULL"


def insert(
    db: Database,
    *,
    id_: str,
    workspace_id: str,
    generation: int,
    path: str,
    trash_path: str,
    identity: tuple[int, int],
    manifest: Mapping[str, Any],
    now_ms: int,
    purge_at_ms: int,
    aliases: Sequence[str] = (),
) -> Entry:
    """Write what is known of something before it is moved; a repeated step writes what it has become.

    Raises:
        Inhabited: other workspaces are inside.
    """
    nesting.check_uninhabited(db, [path, *aliases], (workspace_id, generation))
    db.execute(
        "INSERT INTO trash (id, workspace_id, generation, path, trash_path, device, inode, trashed_at_ms,"
        " purge_at_ms, manifest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET manifest = excluded.manifest,"
        f" trashed_at_ms = excluded.trashed_at_ms, purge_at_ms = excluded.purge_at_ms WHERE {_IN_THE_TRASH}",
        [
            id_,
            workspace_id,
            generation,
            path,
            trash_path,
            *identity,
            now_ms,
            purge_at_ms,
            to_json(dict(manifest)),
        ],
    )
    found = find(db, id_)
    assert found is not None
    return found


def find(db: Database, id_: str) -> Entry | None:
    """Return an entry, also one that is out of the trash by now."""
    found = list(db.query("SELECT * FROM trash WHERE id = ?", [id_]))
    return _entry(found[0]) if found else None


def find_in_trash(db: Database, id_: str) -> Entry | None:
    found = list(db.query(f"SELECT * FROM trash WHERE id = ? AND {_IN_THE_TRASH}", [id_]))
    return _entry(found[0]) if found else None


def find_due(db: Database, now_ms: int) -> list[Entry]:
    """Return what may be purged: its time is up and no session of its workspace is left to die."""
    found = db.query(
        f"SELECT * FROM trash WHERE {_IN_THE_TRASH} AND purge_at_ms <= ? AND NOT EXISTS"
        " (SELECT 1 FROM sessions WHERE origin_workspace_id = trash.workspace_id"
        " AND status IN ('spawning', 'active')) ORDER BY trashed_at_ms",
        [now_ms],
    )
    return [_entry(raw) for raw in found]


def find_all(db: Database) -> list[Entry]:
    """Return what is in the trash, oldest first."""
    found = db.query(f"SELECT * FROM trash WHERE {_IN_THE_TRASH} ORDER BY trashed_at_ms, id")
    return [_entry(raw) for raw in found]


def find_restorable(db: Database, ref: str) -> Entry | None:
    """Return what is in the trash of that id; or of the workspace of that id or name, the newest."""
    found = db.query(
        f"SELECT * FROM trash WHERE {_IN_THE_TRASH} AND id NOT LIKE '%.artifacts' AND (id = :ref OR"
        " workspace_id = :ref OR workspace_id IN (SELECT id FROM workspaces WHERE name = :ref AND state ="
        " 'deleted')) ORDER BY id = :ref DESC, workspace_id = :ref DESC, trashed_at_ms DESC LIMIT 1",
        {"ref": ref},
    )
    return next(map(_entry, found), None)


def claim(db: Database, id_: str, workspace: Workspace, now_ms: int) -> None:
    """Take an entry and its artifacts out of the trash, before they are moved: nobody purges them now."""
    db.execute(
        "UPDATE trash SET restored_at_ms = ?, restored_as = ?, restored_generation = ?"
        f" WHERE id IN (?, ?) AND {_IN_THE_TRASH}",
        [now_ms, workspace.id, workspace.generation, id_, f"{id_}.artifacts"],
    )


def unclaim(db: Database, workspace: Workspace) -> None:
    """They are back in the trash."""
    db.execute(
        "UPDATE trash SET restored_at_ms = NULL, restored_as = NULL, restored_generation = NULL"
        " WHERE restored_as = ? AND restored_generation = ?",
        [workspace.id, workspace.generation],
    )


def purged(db: Database, id_: str, now_ms: int) -> None:
    """Enter that something is gone for good, and forget which directory it was."""
    db.execute("UPDATE trash SET purged_at_ms = ?, last_error = NULL WHERE id = ?", [now_ms, id_])
    if found := find(db, id_):
        paths.forget(db, found["path"], found["inode"])


def failed(db: Database, id_: str, error: str) -> None:
    db.execute("UPDATE trash SET last_error = ? WHERE id = ?", [error, id_])


def _entry(raw: Mapping[str, Any]) -> Entry:
    return {**raw, "manifest": from_json(raw["manifest"])}
