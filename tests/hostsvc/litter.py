"""A base directory with all kinds of things in it, an index that knows of some, and the kinds that clear it.

Real files, real git, a real index and the real engine; only the clock is a test's: it goes on when told to.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlite_utils import Database

from hostsvc import tree
from hostsvc.clock import wall_ms
from hostsvc.git.command import Git
from hostsvc.model import Fact, LiveView, Unknown, Workspace
from hostsvc.owned import PathRole
from hostsvc.policy import Limits
from hostsvc.reaper.base import Base
from hostsvc.reaper.engine import Reaper, Schedule
from hostsvc.reaper.gate import Caps
from hostsvc.reaper.triples import Triples
from hostsvc.reaper.worktrees import Worktrees
from hostsvc.states import WorkspaceState
from hostsvc.store import audit, trash, workspaces
from hostsvc.store.database import writing
from hostsvc.sweep import Ages
from hostsvc.trashcan import TrashCan
from ptyd.protocol.eventlog import EventLog
from tests.hostsvc.store import inline_index
from tests.support.repos import Repository

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
AGES: Final = Ages(sweep_ms=HOUR, worktree_ms=DAY, quarantine_ms=7 * DAY, limits=Limits(age_floor_ms=60_000))
SECRET: Final = "s3cr3t-t0ken"
GONE: Final = "gone"
"""A workspace of which no row knows."""


class Blind:
    """A ptyd that nobody can see: these kinds do not look at it."""

    async def view(self) -> Fact[LiveView]:
        return Unknown("nobody looks")


class Litter:
    """The base, the index and the reaper of these two kinds."""

    def __init__(self, root: Path, base: Path | None = None, caps: Caps | None = None) -> None:
        self.root = root
        self.base = base or root / "work"
        self.index = inline_index(root / "state")
        self.base_fd = tree.open_base(str(self.base))
        self.ahead_ms = 0
        self._stopped_ms: int | None = None
        self.events = EventLog("run", self.now_ms)
        self.git = Git()
        self.can = TrashCan(self.index, self.git, self.base, self.base_fd, self.now_ms, keep_ms=7 * DAY)
        self.look = Base(self.index, self.base)
        self.worktrees = Worktrees(self.index, self.look, self.can, self.git, self.events, self.now_ms, AGES)
        self.triples = Triples(self.index, self.look, self.can, self.events, self.now_ms, AGES)
        self.reaper = Reaper(
            [self.worktrees, self.triples],
            self.index,
            Blind(),  # type: ignore[arg-type]
            self.events,
            self.now_ms,
            caps=caps or Caps(count=50, share=1.0),
            schedule=Schedule(),
        )

    def close(self) -> None:
        os.close(self.base_fd)
        self.index.close()

    def now_ms(self) -> int:
        return (self._stopped_ms or wall_ms()) + self.ahead_ms

    def stop_the_clock(self) -> int:
        """Let it go on only by `later`; return what it shows."""
        self._stopped_ms = wall_ms()
        return self.now_ms()

    def later(self, ms: int) -> None:
        self.ahead_ms += ms

    # -- what lies there ---------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        return self.base / name

    def names(self) -> set[str]:
        return {path.name for path in self.base.iterdir()} - {tree.TRASH}

    def folder(self, name: str, workspace_id: str = GONE, **fields: Any) -> Path:
        """Make a plain folder that the index knows as its own."""
        path = self.path(name)
        path.mkdir()
        (path / "file").write_text("x")
        return self.enter(path, PathRole.FOLDER, workspace_id, **fields)

    def artifacts(self, name: str, workspace_id: str = GONE, **fields: Any) -> Path:
        path = self.path(name + tree.ARTIFACTS)
        path.mkdir()
        return self.enter(path, PathRole.ARTIFACTS, workspace_id, **fields)

    def credential(self, name: str, workspace_id: str = GONE, **fields: Any) -> Path:
        path = self.path(name + tree.CREDENTIAL)
        path.write_text(SECRET)
        return self.enter(path, PathRole.CREDENTIAL, workspace_id, **fields)

    def triple(self, name: str, workspace_id: str = GONE, **fields: Any) -> None:
        self.folder(name, workspace_id, **fields)
        self.artifacts(name, workspace_id, **fields)
        self.credential(name, workspace_id, **fields)

    def worktree(self, repository: Repository, name: str, workspace_id: str = GONE, **fields: Any) -> Path:
        """Make a clean and pushed one, on a branch of its own name."""
        return self.enter(repository.worktree(self.path(name), name), PathRole.FOLDER, workspace_id, **fields)

    def enter(self, path: Path, role: PathRole, workspace_id: str, **fields: Any) -> Path:
        """Write that the index made a path."""
        found = path.lstat()
        row: dict[str, Any] = {
            "path": str(path),
            "role": role.value,
            "workspace_id": workspace_id,
            "generation": 1,
            "device": found.st_dev,
            "inode": found.st_ino,
            "created_at_ms": self.now_ms(),
            **fields,
        }
        with self.writing() as db:
            marks = ", ".join("?" * len(row))
            db.execute(f"INSERT INTO paths ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        return path

    def age(self, path: Path, at_ms: float) -> None:
        """Give something, and all that is in it, a time of last change."""
        for one in (*path.rglob("*"), path):
            os.utime(one, ns=(int(at_ms * 1_000_000),) * 2, follow_symlinks=False)

    # -- workspaces --------------------------------------------------------------------------------

    @property
    def db(self) -> Database:
        return self.index._db

    @contextmanager
    def writing(self) -> Iterator[Database]:
        with writing(self.db):
            yield self.db

    def workspace(
        self, id_: str, path: Path | None = None, *, is_deleted: bool = False, **fields: Any
    ) -> Workspace:
        """Write a workspace's row: active, or deleted."""
        plain: dict[str, Any] = {
            "generation": None,
            "name": None,
            "path": str(path or self.path(id_)),
            "is_ours": True,
            "labels": {},
            "teardown": None,
            "is_protected": False,
            "now_ms": self.now_ms(),
        }
        with self.writing() as db:
            made = workspaces.insert(db, id_=id_, **{**plain, **fields})
            workspaces.activate(db, made, {PathRole.FOLDER: (1, 2)})
            for state in (WorkspaceState.DELETING, WorkspaceState.DELETED) if is_deleted else ():
                workspaces.set_state(db, made, state, self.now_ms())
        found = workspaces.find(self.db, id_)
        assert found is not None
        return found

    # -- passes ------------------------------------------------------------------------------------

    async def sweep(self, **params: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self.reaper.run_pass("interval", **params)
        return found

    async def sweep_twice(self) -> dict[str, Any]:
        """What rests on absence is seen twice, with the age floor in between."""
        first = await self.sweep()
        assert first["state"] == "ok", first
        self.later(61_000)
        return await self.sweep()

    def kept(self, recorded: dict[str, Any], kind: str = "worktrees") -> dict[str, int]:
        found: dict[str, int] = recorded["kept"][kind]
        return found

    def told(self, kind: str = "triples.swept") -> list[dict[str, Any]]:
        return [event for event in self.events.after(0, 1000) if event["type"] == kind]

    def trash(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in trash.find_all(self.db)]

    def audited(self, workspace_id: str = GONE) -> list[str]:
        return [line["event"] for line in audit.tail(self.db, 100, workspace_id)]


@contextmanager
def littered(root: Path, **given: Any) -> Iterator[Litter]:
    litter = Litter(root, **given)
    try:
        yield litter
    finally:
        litter.close()


@contextmanager
def process_inside(folder: Path) -> Iterator[None]:
    """A process whose working directory is that folder."""
    with subprocess.Popen(["sleep", "1000"], cwd=folder) as child:
        try:
            yield
        finally:
            child.kill()


def outcomes(recorded: dict[str, Any]) -> dict[str, str]:
    """Return what a pass did: subject → action and outcome."""
    return {act["subject"]: f"{act['action']} {act['outcome']}" for act in recorded["acts"]}
