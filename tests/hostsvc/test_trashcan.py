"""The trash on real folders and repositories: in, out and away; stopped anywhere, it is done again."""

from __future__ import annotations

import contextlib
import errno
import inspect
import itertools
import json
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from hostsvc import trashcan, tree
from hostsvc.git.command import Git
from hostsvc.git.keep import KEEP_REF, keep
from hostsvc.model import Workspace
from hostsvc.states import WorkspaceState
from hostsvc.store import nesting, trash, workspaces
from hostsvc.trashcan import TrashCan
from hostsvc.tree import TRASH, Identity, PathRefused
from tests.hostsvc.litter import DAY, process_inside
from tests.hostsvc.store import InlineIndex, add_workspace, inline_index
from tests.hostsvc.values import NOW
from tests.support.processes import alive
from tests.support.repos import Repository, commit, fingerprint, git


class Crash(BaseException):
    """The process is gone at this point."""


class Place:
    """A base with a trash, and a repository beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / "base"
        self.base_fd = tree.open_base(str(self.base))
        self.repository = Repository(root / "r")
        self.index: InlineIndex = inline_index(root / "state")
        self.can = TrashCan(self.index, Git(), self.base, self.base_fd, lambda: NOW, keep_ms=1000)

    def worktree(self, name: str = "w", branch: str = "work") -> Path:
        """A worktree with something of every kind in it."""
        folder = self.repository.worktree(self.base / name, branch)
        (folder / "staged").write_text("x")
        git(folder, "add", "staged")
        (folder / "loose").write_text("y")
        (folder / "link").symlink_to("nowhere")
        return folder

    async def put(self, folder: Path, id_: str = "t1", **fields: Any) -> trash.Entry:
        identity = fields.pop("identity", None) or identify(folder)
        return await self.can.put(
            id_, path=str(folder), identity=identity, why="for a test", who="test", **fields
        )

    async def entry(self, id_: str = "t1") -> trash.Entry:
        found = await self.index.read(trash.find, id_)
        assert found is not None
        return found

    def registered(self) -> list[str]:
        listed = git(self.repository.main, "worktree", "list", "--porcelain")
        return [
            line.removeprefix("worktree ") for line in listed.splitlines() if line.startswith("worktree ")
        ]

    def refs(self) -> str:
        return git(self.repository.main, "for-each-ref", "--format=%(refname) %(objectname)")

    def branches(self) -> str:
        return git(self.repository.main, "for-each-ref", "refs/heads")

    def in_trash(self) -> list[str]:
        return sorted(os.listdir(self.base / TRASH))


def identify(path: Path) -> Identity:
    found = path.lstat()
    return Identity(found.st_dev, found.st_ino)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    place.index.close()
    os.close(place.base_fd)


@contextlib.contextmanager
def stopped(steps: int, *, is_after: bool) -> Iterator[None]:
    """Let the process die at its n-th step that has an effect, just before it or just after."""
    left = itertools.count(1)

    @contextlib.contextmanager
    def step() -> Iterator[None]:
        is_last = next(left) == steps
        if is_last and not is_after:
            raise Crash
        yield
        if is_last:
            raise Crash

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with step():
                return real(*args, **kwargs)

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with step():
                return await real(*args, **kwargs)

        patch.setattr(owner, name, call_async if inspect.iscoroutinefunction(real) else call)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "unlink", "rmdir", "mkdir"):
            wrap(os, name)
        wrap(trash, "insert")
        wrap(trash, "purged")
        wrap(Git, "_call")
        yield


Work = Callable[[], Awaitable[Any]]
POINTS = [(steps, is_after) for is_after in (False, True) for steps in range(1, 24)]
PURGES = [(steps, is_after) for steps, is_after in POINTS if steps in (1, 2, 3, 8, 16, 17, 18, 19, 20, 21)]


async def stop_and_repeat(work: Work, steps: int, is_after: bool) -> bool:
    """Do something that is stopped at a point, then again; False when it has no such point."""
    try:
        with stopped(steps, is_after=is_after):
            await work()
    except Crash:
        await work()
        return True
    return False


async def test_A1_a_folder_there_and_back(place: Place) -> None:
    folder = place.base / "w"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("work")
    before, identity = fingerprint(folder), identify(folder)
    entry = await place.put(folder, workspace_id="w", generation=3)
    assert not folder.exists()
    assert place.in_trash() == ["t1", "t1.json"]
    assert (entry["manifest"]["kind"], entry["manifest"]["size_bytes"]) == ("folder", 4)
    manifest = place.base / TRASH / "t1.json"
    assert stat.S_IMODE(manifest.stat().st_mode) == 0o600
    shown = json.loads(manifest.read_text())
    assert (shown["path"], shown["why"], shown["who"], shown["generation"]) == (
        str(folder), "for a test", "test", 3,
    )  # fmt: skip
    assert await place.can.restore(entry)
    assert (fingerprint(folder), identify(folder)) == (before, identity)
    assert place.in_trash() == []


async def test_a_worktree_there_and_back(place: Place) -> None:
    folder = place.worktree()
    other = place.worktree("other", "other")
    before, status, registered, refs = (
        fingerprint(folder), git(folder, "status", "--porcelain"), place.registered(), place.refs(),
    )  # fmt: skip
    entry = await place.put(folder)
    assert place.in_trash() == ["t1", "t1.git", "t1.json"]
    assert place.registered() == [str(place.repository.main), str(other)]
    head = git(place.repository.main, "rev-parse", "work")
    assert git(place.repository.main, "rev-parse", f"{KEEP_REF}t1^1") == head
    kept = git(place.repository.main, "cat-file", "-p", f"{KEEP_REF}t1:")
    assert len(kept.splitlines()) == 1, "what is staged"
    assert {key: entry["manifest"][key] for key in ("kind", "branch", "head")} == {
        "kind": "worktree", "branch": "refs/heads/work", "head": head,
    }  # fmt: skip
    assert await place.can.restore(entry)
    assert fingerprint(folder) == before
    assert git(folder, "status", "--porcelain") == status
    assert sorted(place.registered()) == sorted(registered)
    assert place.refs() == refs


async def test_put_and_restore_are_the_same_wherever_they_are_stopped(place: Place) -> None:
    folder = place.worktree()
    other = place.worktree("other", "other")
    before, identity = fingerprint(folder), identify(folder)
    stops = []
    for steps, is_after in POINTS:
        id_ = f"t{steps}-{is_after}"

        async def put(id_: str = id_) -> None:
            await place.put(folder, id_, identity=identity)

        async def restore(id_: str = id_) -> None:
            await place.can.restore(await place.entry(id_))

        stops += [("put", steps)] * await stop_and_repeat(put, steps, is_after)
        assert place.in_trash() == [id_, f"{id_}.git", f"{id_}.json"]
        assert place.registered() == [str(place.repository.main), str(other)]
        assert f"{KEEP_REF}{id_} " in place.refs()
        stops += [("restore", steps)] * await stop_and_repeat(restore, steps, is_after)
        assert (fingerprint(folder), identify(folder)) == (before, identity)
        assert place.in_trash() == []
        assert KEEP_REF not in place.refs()
        await place.index.write(restored, id_)
    assert {name for name, steps in stops if steps > 7} == {"put", "restore"}
    assert max(steps for _, steps in stops) < POINTS[-1][0], "every point was tried"


def restored(db: Database, id_: str) -> None:
    db.execute("UPDATE trash SET restored_at_ms = 1 WHERE id = ?", [id_])


async def test_purge_is_the_same_wherever_it_is_stopped(place: Place) -> None:
    stops = []
    for steps, is_after in PURGES:
        id_ = f"t{steps}-{is_after}"
        entry = await place.put(place.worktree("w", id_), id_)

        async def purge(entry: trash.Entry = entry) -> None:
            assert await place.can.purge(entry) is None

        stops += [steps] * await stop_and_repeat(purge, steps, is_after)
        assert place.in_trash() == []
        assert KEEP_REF not in place.refs()
        assert (await place.entry(id_))["purged_at_ms"] == NOW
        assert f"refs/heads/{id_} " in place.refs(), "a branch is never deleted"
    assert len(stops) > 8


async def test_A2_what_is_gone_is_gone(place: Place) -> None:
    entry = await place.put(place.base / "never", identity=Identity(1, 2))
    assert (entry["manifest"]["kind"], entry["purged_at_ms"]) == ("gone", NOW)
    assert await place.index.read(trash.find_all) == []


BAD_PATHS = [
    "",
    "w",
    "/",
    "/etc",
    "{0}",
    "{0}/",
    "{0}/../r",
    "{0}/.trash",
    "{0}/a/b",
    "{0}/./a",
    "{0}-evil/a",
]


@pytest.mark.parametrize("path", BAD_PATHS)
async def test_A3_only_what_is_directly_below_the_base(place: Place, path: str) -> None:
    (place.base / "a" / "b").mkdir(parents=True)
    before = fingerprint(place.root)
    with pytest.raises(PathRefused):
        await place.can.put("t1", path=path.format(place.base), identity=Identity(1, 2), why="", who="")
    assert fingerprint(place.root) == before


async def test_B21_another_folder_is_left_alone(place: Place) -> None:
    folder = place.base / "w"
    folder.mkdir()
    identity = identify(folder)
    folder.rename(place.base / "kept")
    (folder / "inner").mkdir(parents=True)
    with pytest.raises(PathRefused, match="not the directory"):
        await place.put(folder, identity=identity)
    assert (folder / "inner").exists()
    assert await place.index.read(trash.find_all) == []


def cut_back_link(place: Place, folder: Path) -> None:
    admin = Path((folder / ".git").read_text().split()[1])
    (admin / "gitdir").write_text("/elsewhere/.git\n")


def cut_link(place: Place, folder: Path) -> None:
    (folder / ".git").write_text("nonsense")


def lose_repository(place: Place, folder: Path) -> None:
    place.repository.main.rename(place.root / "lost")


@pytest.mark.parametrize("damage", [cut_back_link, cut_link, lose_repository])
async def test_B18_what_is_broken_is_moved_as_it_is(
    place: Place, damage: Callable[[Place, Path], None]
) -> None:
    """No repository is touched for it, not even the one that it names."""
    folder = place.worktree()
    damage(place, folder)
    before, repository = fingerprint(folder), fingerprint(place.root / "r", place.root / "lost")
    entry = await place.put(folder)
    assert entry["manifest"]["kind"] == "broken"
    assert place.in_trash() == ["t1", "t1.json"]
    assert fingerprint(place.root / "r", place.root / "lost") == repository
    await place.can.restore(entry)
    assert fingerprint(folder) == before


async def test_B16_no_git_no_move(place: Place) -> None:
    folder = place.worktree()
    before = fingerprint(place.root / "base", place.root / "r")
    can = TrashCan(place.index, Git("no-such-git"), place.base, place.base_fd, lambda: NOW, keep_ms=1)
    with pytest.raises(PathRefused, match="git cannot be run"):
        await can.put("t1", path=str(folder), identity=identify(folder), why="", who="")
    assert fingerprint(place.root / "base", place.root / "r") == before


@pytest.mark.parametrize("inner", [".", "deep/inner"])
async def test_B20_a_workspace_that_comes_to_be_inside(place: Place, inner: str) -> None:
    """Before it was entered, it keeps all around it; after that it is refused, until that has gone."""
    folder = place.worktree()
    (folder / "deep" / "inner").mkdir(parents=True)
    path = os.path.normpath(folder / inner)

    def adopt(id_: str) -> Workspace:
        return add_workspace(place.index._db, id_, path=path, is_ours=False)

    lively = adopt("lively")
    with pytest.raises(PathRefused, match="lively"):
        await place.put(folder)
    assert await place.index.read(trash.find_all) == []
    for state in (WorkspaceState.DELETING, WorkspaceState.DELETED):
        await place.index.write(workspaces.set_state, lively, state, NOW)

    refused = []

    async def late(*args: Any) -> None:
        with pytest.raises(nesting.Leaving) as error:
            adopt("late")
        refused.append(str(error.value))
        with pytest.raises(PathRefused, match="just now"), place.can.alone("t1"):
            pass
        await keep(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trashcan, "keep", late)
        entry = await place.put(folder, workspace_id="w")
    assert len(refused) == 1
    assert "workspace w's" in refused[0]
    assert not folder.exists()
    folder.mkdir()
    assert adopt("after").state is WorkspaceState.ACTIVE, "what is there now is another"
    assert (Path(entry["trash_path"]) / "deep" / "inner").exists()


async def test_B20_also_when_the_base_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    place = Place(tmp_path / "link")
    try:
        folder = place.base / "w"
        (folder / "inner").mkdir(parents=True)
        add_workspace(place.index._db, "b", path=str((folder / "inner").resolve()), is_ours=False)
        with pytest.raises(PathRefused, match=r"workspaces inside.*: b$"):
            await place.put(folder)
        assert (folder / "inner").exists()
    finally:
        place.index.close()
        os.close(place.base_fd)


async def test_its_commits_are_kept_until_it_is_purged(place: Place) -> None:
    folder = place.worktree()
    git(folder, "checkout", "-q", "--detach")
    lonely = commit(folder, "lonely")
    entry = await place.put(folder)
    git(place.repository.main, "reflog", "expire", "--expire=now", "--all")
    git(place.repository.main, "gc", "-q", "--prune=now")
    await place.can.restore(entry)
    assert git(folder, "rev-parse", "HEAD") == lonely


@pytest.mark.parametrize("meanwhile", ["moved", "taken", "deleted"])
async def test_a_branch_that_went_on_is_left_alone(place: Place, meanwhile: str) -> None:
    folder = place.worktree()
    head, status = git(folder, "rev-parse", "HEAD"), git(folder, "status", "--porcelain")
    entry = await place.put(folder)
    match meanwhile:
        case "moved":
            git(place.repository.main, "branch", "-f", "work", commit(place.repository.main, "more"))
        case "taken":
            git(place.repository.main, "worktree", "add", "-q", str(place.root / "taker"), "work")
        case "deleted":
            git(place.repository.main, "branch", "-q", "-D", "work")
    refs = place.branches()
    assert not await place.can.restore(entry)
    assert (git(folder, "rev-parse", "HEAD"), git(folder, "branch", "--show-current")) == (head, "")
    assert git(folder, "status", "--porcelain") == status
    assert place.branches() == refs


async def test_restoring_takes_nobodys_place(place: Place) -> None:
    folder = place.worktree()
    entry = await place.put(folder)
    folder.mkdir()
    (folder / "of-somebody-else").touch()
    before = fingerprint(place.root)
    with pytest.raises(PathRefused):
        await place.can.restore(entry)
    assert fingerprint(place.root) == before
    (folder / "of-somebody-else").unlink()
    folder.rmdir()
    place.repository.main.rename(place.root / "away")
    with pytest.raises(PathRefused, match="is gone"):
        await place.can.restore(entry)
    assert place.in_trash() == ["t1", "t1.git", "t1.json"]
    (place.root / "away").rename(place.repository.main)
    assert await place.can.restore(entry)


async def test_a_name_that_was_given_away(place: Place) -> None:
    """Another worktree of the repository is registered by the same name by now."""
    folder = place.worktree()
    status = git(folder, "status", "--porcelain")
    entry = await place.put(folder)
    other = place.repository.worktree(place.root / "w", "second")
    assert await place.can.restore(entry)
    assert git(folder, "status", "--porcelain") == status
    assert sorted(place.registered()) == sorted(map(str, (place.repository.main, folder, other)))


async def test_B19_not_purged_under_a_process(place: Place) -> None:
    folder = place.worktree()
    with subprocess.Popen(["sleep", "100000"], cwd=folder) as inside:
        try:
            entry = await place.put(folder)
            error = await place.can.purge(entry)
            assert error is not None
            assert str(inside.pid) in error
            assert place.in_trash() == ["t1", "t1.git", "t1.json"]
        finally:
            inside.kill()
    assert not alive(inside.pid)
    assert await place.can.purge(entry) is None
    assert place.in_trash() == []


async def test_B19_nor_when_the_base_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    place = Place(tmp_path / "link")
    folder = place.base / "w"
    (folder / "inner").mkdir(parents=True)
    entry = await place.put(folder)
    try:
        with process_inside(place.base / TRASH / "t1" / "inner"):
            assert "is inside" in (await place.can.purge(entry) or "")
            assert place.in_trash() == ["t1", "t1.json"]
    finally:
        place.index.close()
        os.close(place.base_fd)


async def test_what_is_restored_or_not_moved_yet_is_not_purged(place: Place) -> None:
    folder = place.base / "w"
    (folder / "inner").mkdir(parents=True)
    with pytest.raises(Crash), stopped(3, is_after=False):  # its row is written, and it is where it was
        await place.put(folder)
    assert (folder / "inner").exists()
    entry = await place.entry()
    assert "not moved yet" in (await place.can.purge(entry) or "")
    assert (await place.entry())["purged_at_ms"] is None
    entry = await place.put(folder)
    with place.can.alone("t1"):
        assert "just now" in (await place.can.purge(entry) or "")
        with pytest.raises(PathRefused), place.can.alone("t1"):
            pass
    await place.index.write(restored, "t1")
    assert await place.can.purge(entry) is None
    assert place.in_trash() == ["t1", "t1.json"], "somebody has restored it in the meantime"


async def test_its_time_in_the_trash_counts_from_its_move(place: Place) -> None:
    """What it was at an attempt that failed does not count: neither the time nor the content."""
    folder = place.worktree()
    held = ("update-ref", "refs/hostsvc/trash")  # no ref can be below that one
    git(place.repository.main, *held, "HEAD")
    with pytest.raises(PathRefused, match="cannot move"):
        await place.put(folder, keep_ms=100 * DAY)
    assert (await place.entry())["purge_at_ms"] == NOW + 100 * DAY
    head = commit(folder, "more")
    git(folder, "checkout", "-q", "-b", "other")
    git(place.repository.main, held[0], "-d", held[1])
    later = NOW + 8 * DAY
    can = TrashCan(place.index, Git(), place.base, place.base_fd, lambda: later, keep_ms=7 * DAY)
    entry = await can.put("t1", path=str(folder), identity=identify(folder), why="later", who="test")
    assert (entry["trashed_at_ms"], entry["purge_at_ms"]) == (later, later + 7 * DAY)
    told = json.loads((place.base / TRASH / "t1.json").read_text())
    for manifest in (entry["manifest"], told):
        assert (manifest["head"], manifest["branch"], manifest["why"]) == (head, "refs/heads/other", "later")
    assert await can.put("t1", path=str(folder), identity=identify(Path(entry["trash_path"])), why="", who="")
    assert (await place.entry())["manifest"]["why"] == "later", "once it is there it stays so"


async def test_what_is_lost_on_its_way_back_is_no_obstacle(place: Place) -> None:
    folder = place.base / "w"
    folder.mkdir()
    entry = await place.put(folder)
    (place.base / TRASH / "t1").rmdir()
    with pytest.raises(PathRefused, match="is gone"):
        await place.can.restore(entry)
    await place.can.put_again(entry)
    assert (await place.entry())["purged_at_ms"] == NOW


async def test_B25_no_other_registration_is_touched(place: Place) -> None:
    away = place.repository.worktree(place.root / "away", "away")
    folder = place.worktree()
    away.rename(place.root / "unmounted")
    entry = await place.put(folder)
    assert str(away) in place.registered()
    await place.can.purge(entry)
    assert str(away) in place.registered()
    (place.root / "unmounted").rename(away)
    assert git(away, "status", "--porcelain") == ""


async def test_submodules_come_back(place: Place) -> None:
    inner = Repository(place.root / "inner")
    folder = place.worktree()
    git(folder, "submodule", "add", "-q", str(inner.remote), "sub")
    commit(folder / "sub", "lonely")
    before, status = fingerprint(folder), git(folder / "sub", "log", "--format=%H")
    entry = await place.put(folder)
    await place.can.restore(entry)
    assert fingerprint(folder) == before
    assert git(folder / "sub", "log", "--format=%H") == status


async def test_a_repository_on_another_device(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place.worktree()
    status = git(folder, "status", "--porcelain")
    real = os.rename

    def rename(source: Any, target: Any, **kwargs: Any) -> None:
        if not kwargs and isinstance(source, Path) and not source.name.endswith(".draft"):
            raise OSError(errno.EXDEV, "another device")
        real(source, target, **kwargs)

    monkeypatch.setattr(os, "rename", rename)
    entry = await place.put(folder)
    assert place.registered() == [str(place.repository.main)]
    assert place.in_trash() == ["t1", "t1.git", "t1.json"]
    assert await place.can.restore(entry)
    assert git(folder, "status", "--porcelain") == status
    assert place.in_trash() == []
