"""Statements on which paths lie within which: what is moved takes along all that is inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sqlite_utils import Database

from hostsvc.store.rows import to_json


class Inhabited(Exception):
    """Other workspaces, that are there, are or lie inside of what is to be moved; the message says which."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(f"there are workspaces inside, delete them first: {', '.join(ids)}")


class Leaving(Exception):
    """What is at or above that path may be moved to the trash, or taken back, at any moment."""

    def __init__(self, by: str) -> None:
        super().__init__(f"that path is workspace {by}'s, which is just being made or removed")
        self.what = "path"
        self.by = by


def check_uninhabited(db: Database, paths: Sequence[str], besides: tuple[str, int]) -> None:
    """Refuse what would take others along: workspaces that are there at or below some paths, but this one.

    Raises:
        Inhabited: it would.
    """
    found = db.execute(
        "SELECT DISTINCT w.id FROM workspaces AS w, json_each(?) AS p WHERE w.state <> 'deleted'"
        " AND NOT (w.id = ? AND w.generation = ?)"
        " AND (w.path = p.value OR substr(w.path, 1, length(p.value) + 1) = p.value || '/') ORDER BY w.id",
        [to_json(list(paths)), *besides],
    ).fetchall()
    if found:
        raise Inhabited([row[0] for row in found])


def check_stays(db: Database, paths: Sequence[str], *, restoring: str | None) -> None:
    """Refuse what is, or lies inside of, something that is about to be moved.

    Args:
        db: The index.
        paths: One path, in each of its spellings.
        restoring: The entry of the trash that is to be put there.

    Raises:
        Leaving: it is.
    """
    above = to_json(sorted({str(one) for path in paths for one in (Path(path), *Path(path).parents)}))
    found = db.execute(
        "SELECT id FROM workspaces WHERE is_ours AND state IN ('provisioning', 'deleting')"
        " AND (path IN (SELECT value FROM json_each(:above))"
        " OR path || '-artifacts' IN (SELECT value FROM json_each(:above))) LIMIT 1",
        {"above": above},
    ).fetchone()
    if found:
        raise Leaving(found[0])
    entries = db.query(
        "SELECT workspace_id, path, inode FROM trash WHERE purged_at_ms IS NULL AND restored_at_ms IS NULL"
        " AND path IN (SELECT value FROM json_each(:above)) AND id NOT IN (:id, :id || '.artifacts')",
        {"above": above, "id": restoring or ""},
    )
    for one in entries:
        if _is_in_place(one["path"], one["inode"]):
            raise Leaving(one["workspace_id"])


def _is_in_place(path: str, inode: int) -> bool:
    """Tell whether what is entered in the trash may still be where it was: the entry comes first."""
    try:
        return os.lstat(path).st_ino == inode
    except FileNotFoundError:
        return False
    except OSError:
        return True
