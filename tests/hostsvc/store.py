"""An index in a directory of its own, quick to make, and rows in it as the service writes them."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import trio
from sqlite_utils import Database

from hostsvc.index import Index
from hostsvc.model import SessionRow, Workspace
from hostsvc.owned import PathRole
from hostsvc.store import sessions, workspaces
from hostsvc.store.database import FILE, close_database, open_database, writing
from tests.hostsvc.values import BOOT, INSTANCE, NOW

T = TypeVar("T")
ROWS = 200
PAGE_BYTES = 4096
PROOF = {"proof": "echild", "by": "ptyd"}


@functools.cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        close_database(open_database(Path(directory)), Path(directory))
        return (Path(directory) / FILE).read_bytes()


def fresh(directory: Path) -> Path:
    """Put an empty index, made once and copied, into a directory; return the directory."""
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / FILE).write_bytes(_template())
    return directory


class InlineIndex(Index):
    """The real index without its thread: time may stand still while it works, and a step is one step."""

    async def _run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return self._translated(work)


def inline_index(directory: Path) -> InlineIndex:
    """An index in `directory`, made when there is none. Not for what a power failure would lose."""
    db = open_database(directory if (directory / FILE).exists() else fresh(directory))
    db.execute("PRAGMA synchronous = OFF")
    return InlineIndex(db, directory)


def opened(directory: Path) -> Database:
    """An empty index, open."""
    return open_database(fresh(directory))


def add_workspace(db: Database, id_: str = "w", **fields: Any) -> Workspace:
    """Write a workspace that is in use."""
    plain: dict[str, Any] = {
        "generation": None,
        "name": None,
        "path": f"/base/{id_}",
        "is_ours": True,
        "labels": {},
        "teardown": None,
        "is_protected": False,
        "now_ms": NOW,
    }
    with writing(db):
        made = workspaces.insert(db, id_=id_, **{**plain, **fields})
        workspaces.activate(db, made, {PathRole.FOLDER: (1, 2)})
    found = workspaces.find(db, id_)
    assert found is not None
    return found


def add_session(db: Database, id_: str = "s", generation: int = 1, **fields: Any) -> SessionRow:
    """Write the row of a session that is to be spawned in a workspace `w`."""
    plain: dict[str, Any] = {
        "workspace_id": "w",
        "name": None,
        "labels": {},
        "argv": ["sh"],
        "cwd": None,
        "run_id": "run",
        "instance_id": INSTANCE,
        "boot_id": BOOT,
        "now_ms": NOW,
    }
    with writing(db):
        assert sessions.insert_spawning(db, id_=id_, generation=generation, **{**plain, **fields})
    found = sessions.find(db, id_, generation)
    assert found is not None
    return found


def fill(directory: Path, rows: int = ROWS) -> None:
    db = open_database(directory)
    add_workspace(db)
    for number in range(rows):
        add_session(db, f"s{number}")
    close_database(db, directory)


def damage(path: Path, *, is_late: bool = False) -> None:
    """Flip bits on every page but the first, or only on those that were filled last."""
    content = bytearray(path.read_bytes())
    pages = len(content) // PAGE_BYTES
    for at in range(pages // 2 * PAGE_BYTES if is_late else PAGE_BYTES, len(content), PAGE_BYTES):
        content[at : at + 64] = bytes(byte ^ 0xFF for byte in content[at : at + 64])
    path.write_bytes(content)


def dump(path: Path, but: frozenset[str] = frozenset()) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table of an index file, but of those tables."""
    with sqlite3.connect(path) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {
            table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in tables
            if table not in but
        }
    db.close()
    return found


def restore(directory: Path, backup: Path) -> None:
    """Put a backup in the place of an index that nobody has open."""
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        (directory / name).unlink(missing_ok=True)
    shutil.copyfile(backup, directory / FILE)
