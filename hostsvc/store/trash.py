"""Statements on the trash: what was moved there, and when it goes for good."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from hostsvc.model import Workspace


def insert(
    db: Database, *, id_: str, workspace: Workspace, trash_path: str, now_ms: int, purge_at_ms: int
) -> None:
    """Write the manifest before the folder is moved; a repeated step finds its own."""
    db.execute(
        "INSERT INTO trash (id, workspace_id, generation, path, trash_path, device, inode, trashed_at_ms,"
        " purge_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            id_,
            workspace.id,
            workspace.generation,
            workspace.path,
            trash_path,
            workspace.device,
            workspace.inode,
            now_ms,
            purge_at_ms,
        ],
    )


def find_due(db: Database, now_ms: int) -> list[dict[str, Any]]:
    """Return what may be purged: its time is up and no session of its workspace is left to die."""
    return list(
        db.query(
            "SELECT * FROM trash WHERE purged_at_ms IS NULL AND purge_at_ms <= ? AND NOT EXISTS"
            " (SELECT 1 FROM sessions WHERE origin_workspace_id = trash.workspace_id"
            " AND status IN ('spawning', 'active')) ORDER BY trashed_at_ms",
            [now_ms],
        )
    )


def find_all(db: Database) -> list[dict[str, Any]]:
    return list(db.query("SELECT * FROM trash WHERE purged_at_ms IS NULL ORDER BY trashed_at_ms, id"))


def purged(db: Database, id_: str, now_ms: int) -> None:
    db.execute("UPDATE trash SET purged_at_ms = ?, last_error = NULL WHERE id = ?", [now_ms, id_])


def failed(db: Database, id_: str, error: str) -> None:
    db.execute("UPDATE trash SET last_error = ? WHERE id = ?", [error, id_])
