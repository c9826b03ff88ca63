"""Statements on the paths that we made: whose each is, and which file or directory it was."""

from __future__ import annotations

from collections.abc import Mapping

from sqlite_utils import Database

from hostsvc.model import Workspace
from hostsvc.owned import OwnedPath, PathRole


def own(db: Database, workspace: Workspace, made: Mapping[PathRole, str], now_ms: int) -> None:
    """Write whose some paths are, before they are there."""
    for role, path in made.items():
        db.execute(
            "INSERT INTO paths (path, role, workspace_id, generation, created_at_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET device = NULL, inode = NULL, created_at_ms = excluded.created_at_ms",
            [path, role.value, workspace.id, workspace.generation, now_ms],
        )


def identify(db: Database, workspace: Workspace, found: Mapping[PathRole, tuple[int, int]]) -> None:
    """Write which file or directory they are, now that they are there."""
    for role, identity in found.items():
        db.execute(
            "UPDATE paths SET device = ?, inode = ? WHERE workspace_id = ? AND generation = ? AND role = ?",
            [*identity, workspace.id, workspace.generation, role.value],
        )


def forget(db: Database, path: str, inode: int) -> None:
    """Enter that what was made there is gone for good: whatever is given its inode next is not it."""
    db.execute("UPDATE paths SET device = NULL, inode = NULL WHERE path = ? AND inode = ?", [path, inode])


def find(db: Database, workspace: Workspace) -> dict[PathRole, OwnedPath]:
    """Return a workspace's paths, by what each is for; none for a folder that was only adopted."""
    found = db.query(
        "SELECT * FROM paths WHERE workspace_id = ? AND generation = ?", [workspace.id, workspace.generation]
    )
    owned = [OwnedPath(**{**raw, "role": PathRole(raw["role"])}) for raw in found]
    return {one.role: one for one in owned}
