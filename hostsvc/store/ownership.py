"""Statements on whose a path is: which ones this index made, which workspaces are there, what is broken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from sqlite_utils import Database

from hostsvc.store import audit
from hostsvc.store.rows import to_json


@attrs.frozen(kw_only=True)
class MadePath:
    """A path that was made for a generation of a workspace."""

    path: str
    role: str
    workspace_id: str
    generation: int
    device: int | None
    inode: int | None
    created_at_ms: int
    is_wanted: bool
    """That generation is there, or its deletion is under way."""
    is_deleted: bool
    """A row or a confirmed tombstone says that it was destroyed."""
    is_worktree: bool
    """Its row says so; when there is none, nothing does."""


@attrs.frozen(kw_only=True)
class Living:
    """A workspace that is there: any state but deleted."""

    id: str
    path: str
    device: int | None
    inode: int | None


def find(db: Database, paths: Sequence[str]) -> tuple[list[MadePath], list[Living]]:
    """Return what was ever made at some paths, oldest first, and every workspace that is there."""
    made = db.query(
        "SELECT p.*, coalesce(w.state <> 'deleted', 0) OR EXISTS (SELECT 1 FROM sagas"
        " WHERE workspace_id = p.workspace_id AND generation = p.generation AND finished_at_ms IS NULL)"
        " AS is_wanted,"
        " coalesce(w.state = 'deleted', 0) OR EXISTS (SELECT 1 FROM tombstones WHERE kind = 'workspace'"
        " AND id = p.workspace_id AND generation >= p.generation AND is_confirmed) AS is_deleted,"
        " w.common_dir IS NOT NULL AS is_worktree"
        " FROM paths AS p LEFT JOIN workspaces AS w ON w.id = p.workspace_id AND w.generation = p.generation"
        " WHERE p.path IN (SELECT value FROM json_each(?)) ORDER BY p.created_at_ms, p.generation",
        [to_json(list(paths))],
    )
    living = db.query("SELECT id, path, device, inode FROM workspaces WHERE state <> 'deleted'")
    return [_made(raw) for raw in made], [Living(**raw) for raw in living]


def _made(raw: dict[str, Any]) -> MadePath:
    flags = {name: bool(raw[name]) for name in ("is_wanted", "is_deleted", "is_worktree")}
    return MadePath(**{**raw, **flags})


def broken_since(db: Database, subjects: Sequence[str]) -> dict[str, int]:
    """Return when those of these worktrees that are broken were first reported so, by subject."""
    found = db.execute(
        "SELECT subject, event, at_ms FROM audit WHERE kind = 'worktree' AND event IN ('broken', 'mended')"
        " AND subject IN (SELECT value FROM json_each(?)) ORDER BY seq",
        [to_json(list(subjects))],
    )
    since: dict[str, int] = {}
    for subject, event, at_ms in found.fetchall():
        if event == "mended":
            since.pop(subject, None)
        else:
            since.setdefault(subject, at_ms)
    return since


def report_broken(db: Database, subject: str, path: str, now_ms: int) -> None:
    """Enter that a worktree is broken: its grace counts from the first time."""
    audit.append(db, at_ms=now_ms, event="broken", kind="worktree", subject=subject, detail={"path": path})


def report_mended(db: Database, subject: str, path: str, now_ms: int) -> None:
    """Enter that a worktree is sound again: when it breaks once more, its grace begins anew."""
    audit.append(db, at_ms=now_ms, event="mended", kind="worktree", subject=subject, detail={"path": path})
