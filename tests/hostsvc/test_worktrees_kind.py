"""The kind `worktrees` on real git repositories, the real engine, a real index: B1 to B5, B15 to B25."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from hostsvc import trashcan, tree
from hostsvc.git.command import Git
from hostsvc.reaper import worktrees
from tests.hostsvc.litter import DAY, GONE, Litter, littered, outcomes, process_inside
from tests.support.repos import Repository, commit, fingerprint, git

OLD = 2 * DAY


@pytest.fixture
async def litter(tmp_path: Path) -> AsyncIterator[Litter]:
    with littered(tmp_path) as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r")


def registered(repository: Repository) -> set[str]:
    listed = git(repository.main, "worktree", "list", "--porcelain").splitlines()
    return {Path(line.removeprefix("worktree ")).name for line in listed if line.startswith("worktree ")}


async def test_B1_an_orphan_goes_to_the_trash(litter: Litter, repository: Repository) -> None:
    folder = litter.worktree(repository, "w")
    head = git(folder, "rev-parse", "HEAD")
    litter.later(OLD)
    assert outcomes(await litter.sweep()) == {}, "seen once is not enough"
    litter.later(61_000)
    recorded = await litter.sweep()
    assert outcomes(recorded) == {"w": "trash done"}
    assert recorded["acts"][0]["basis"] == "absence"
    (entry,) = litter.trash()
    assert (entry["path"], entry["manifest"]["head"], entry["manifest"]["who"]) == (
        str(folder),
        head,
        "reaper",
    )
    assert (Path(entry["trash_path"]) / "file").read_text() == "one\n"
    assert registered(repository) == {"main"}
    assert git(repository.main, "rev-parse", "w") == head, "its branch is kept"
    assert litter.audited() == ["trash"]
    assert not folder.exists()


async def test_B2_a_young_one_is_kept(litter: Litter, repository: Repository) -> None:
    litter.stop_the_clock()
    litter.worktree(repository, "w")
    litter.later(DAY)
    recorded = await litter.sweep()
    assert litter.kept(recorded) == {"it is not old enough": 1}, "exactly at the grace"
    assert recorded["counts"]["observed"] == 0
    litter.later(1)
    assert (await litter.sweep())["counts"]["observed"] == 1


async def test_B2_a_time_of_creation_that_lies_ahead_is_kept(litter: Litter, repository: Repository) -> None:
    litter.worktree(repository, "w", created_at_ms=litter.now_ms() + 9 * DAY)
    litter.later(OLD)
    assert litter.kept(await litter.sweep_twice()) == {"its creation lies in the future": 1}


async def test_B3_a_live_row_under_another_name_of_the_folder(tmp_path: Path, repository: Repository) -> None:
    """The base was reached through a link once; the workspace's row has the one name, the path the other."""
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    with littered(tmp_path, base=tmp_path / "alias" / "work") as litter:
        litter.worktree(repository, "w")
        litter.workspace("live", tmp_path / "real" / "work" / "w")
        litter.worktree(repository, "x")
        found = litter.path("x").stat()
        litter.workspace("other", Path("/elsewhere/x"))
        with litter.writing() as db:
            db.execute(
                "UPDATE workspaces SET device = ?, inode = ? WHERE id = 'other'", [found.st_dev, found.st_ino]
            )
        litter.later(OLD)
        recorded = await litter.sweep_twice()
        assert recorded["acts"] == []
        assert litter.names() == {"w", "x"}


async def test_B4_a_deleted_row_makes_it_a_candidate_at_once(litter: Litter, repository: Repository) -> None:
    litter.workspace("done", is_deleted=True)
    litter.worktree(repository, "w", "done")
    litter.later(OLD)
    recorded = await litter.sweep()
    assert outcomes(recorded) == {"w": "trash done"}
    assert recorded["acts"][0]["basis"] == "row"


async def test_B4_so_does_a_newer_generation_elsewhere(litter: Litter, repository: Repository) -> None:
    """The tombstone tells that the generation which had the folder was destroyed."""
    litter.workspace("w", is_deleted=True)
    litter.worktree(repository, "w", "w")
    with litter.writing() as db:
        db.execute(
            "INSERT INTO tombstones (kind, id, generation, is_confirmed, created_at_ms)"
            " VALUES ('workspace', 'w', 1, 1, 1)"
        )
    litter.workspace("w", litter.path("elsewhere"), generation=2)
    litter.later(OLD)
    assert outcomes(await litter.sweep()) == {"w": "trash done"}


def modify(_: Repository, folder: Path) -> None:
    (folder / "file").write_text("other\n")


def leave(_: Repository, folder: Path) -> None:
    (folder / "new").write_text("x")


def commit_alone(_: Repository, folder: Path) -> None:
    commit(folder, "fresh")


def lock(repository: Repository, folder: Path) -> None:
    git(repository.main, "worktree", "lock", str(folder))


@pytest.mark.parametrize(
    "damage, word", [(modify, "modified"), (leave, "untracked"), (commit_alone, "unpushed"), (lock, "locked")]
)
async def test_B5_to_B15_work_at_risk_is_kept_to_the_byte(
    litter: Litter, repository: Repository, damage: Callable[[Repository, Path], None], word: str
) -> None:
    litter.workspace("done", is_deleted=True)
    damage(repository, litter.worktree(repository, "w", "done"))
    litter.later(OLD)
    before = fingerprint(litter.base, repository.main, repository.remote)
    for _ in range(2):
        recorded = await litter.sweep_twice()
        assert recorded["acts"] == []
        assert litter.kept(recorded) == {f"at risk: {word}": 1}
    assert fingerprint(litter.base, repository.main, repository.remote) == before


async def test_B16_a_git_that_fails_keeps_it(litter: Litter, repository: Repository) -> None:
    litter.workspace("done", is_deleted=True)
    litter.worktree(repository, "w", "done")
    litter.worktrees._git = Git("/nowhere/git")
    litter.later(OLD)
    recorded = await litter.sweep()
    assert litter.kept(recorded) == {"unknown: what would be lost cannot be told": 1}


async def test_B17_without_its_link_inside_another_repository(tmp_path: Path, repository: Repository) -> None:
    with littered(tmp_path, base=repository.main / "work") as litter:
        litter.workspace("done", is_deleted=True)
        folder = litter.worktree(repository, "w", "done")
        (folder / ".git").unlink()
        litter.later(30 * DAY)
        before = fingerprint(folder)
        recorded = await litter.sweep_twice()
        assert recorded["acts"] == []
        assert litter.kept(recorded) == {"its .git is missing, inside another repository": 1}
        assert fingerprint(folder) == before


async def test_a_repository_of_its_own_is_kept(litter: Litter) -> None:
    """Nobody can tell what of it is elsewhere: it may have branches and stashes that no check looks at."""
    litter.workspace("done", is_deleted=True)
    git(litter.folder("w", "done"), "init", "-q")
    litter.later(30 * DAY)
    recorded = await litter.sweep_twice()
    assert recorded["acts"] == []
    assert litter.kept(recorded) == {"it holds a repository of its own": 1}


@pytest.mark.parametrize("how", ["nowhere", "garbage", "missing"])
async def test_B18_a_broken_link_is_moved_aside_only_after_long(
    litter: Litter, repository: Repository, how: str
) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.worktree(repository, "w", "done")
    if how == "missing":
        (folder / ".git").unlink()
        with litter.writing() as db:
            db.execute("UPDATE workspaces SET common_dir = '/somewhere'")
    else:
        (folder / ".git").write_text("gitdir: /nowhere\n" if how == "nowhere" else "\xff")
    litter.later(30 * DAY)
    before = fingerprint(folder)
    for _ in range(3):
        recorded = await litter.sweep_twice()
        assert recorded["acts"] == [], "the grace counts from when it was first seen"
        assert litter.kept(recorded) == {"broken: its link leads to no repository": 1}
    (event,) = litter.told("worktree.broken")
    assert (event["id"], event["path"]) == ("w", str(folder))
    assert fingerprint(folder) == before
    litter.later(7 * DAY)
    recorded = await litter.sweep_twice()
    assert outcomes(recorded) == {"w": "quarantine done"}
    (entry,) = litter.trash()
    assert entry["manifest"]["why"] == "broken: its link leads to no repository"
    assert entry["purge_at_ms"] - litter.now_ms() > worktrees.QUARANTINED_MS - DAY, "a person purges it"
    assert fingerprint(Path(entry["trash_path"])) != before, "only its name is another"
    assert registered(repository) == {"main", "w"}, "no repository was touched for it"
    assert len(litter.told("worktree.broken")) == 1


async def test_B18_zeros_where_a_path_should_be_hold_up_no_other(
    litter: Litter, repository: Repository
) -> None:
    """As a power cut leaves them."""
    litter.workspace("done", is_deleted=True)
    for name in ("sound", "w"):
        litter.worktree(repository, name, "done")
    gitdir = repository.main / ".git" / "worktrees" / "w" / "gitdir"
    gitdir.write_bytes(bytes(gitdir.stat().st_size))
    litter.later(OLD)
    recorded = await litter.sweep()
    assert outcomes(recorded) == {"sound": "trash done"}
    assert litter.kept(recorded) == {"broken: its link leads to no repository": 1}


async def test_B18_it_is_reported_once_also_after_a_restart(tmp_path: Path, repository: Repository) -> None:
    for _ in range(2):
        with littered(tmp_path) as litter:
            if not litter.path("w").exists():
                folder = litter.worktree(repository, "w")
                (folder / ".git").write_text("gitdir: /nowhere\n")
            litter.later(OLD)
            await litter.sweep_twice()
            lines = litter.db.execute("SELECT count(*) FROM audit WHERE event = 'broken'").fetchone()
            assert lines == (1,)


async def test_B18_the_grace_of_one_that_was_mended_begins_anew(
    litter: Litter, repository: Repository
) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.worktree(repository, "w", "done")
    (folder / "untracked").write_text("x")
    litter.later(OLD)
    away = repository.main.with_name("away")
    broken, at_risk = {"broken: its link leads to no repository": 1}, {"at risk: untracked": 1}
    for _ in range(2):
        repository.main.rename(away)
        assert litter.kept(await litter.sweep_twice()) == broken
        litter.later(5 * DAY)
        assert litter.kept(await litter.sweep()) == broken
        away.rename(repository.main)
        assert litter.kept(await litter.sweep_twice()) == at_risk
        litter.later(30 * DAY)
    assert len(litter.told("worktree.broken")) == 2, "each time it is told"
    lines = litter.db.execute("SELECT event FROM audit WHERE kind = 'worktree' ORDER BY seq").fetchall()
    assert [line[0] for line in lines] == ["broken", "mended"] * 2
    repository.main.rename(away)
    await litter.sweep()
    litter.later(8 * DAY)
    assert outcomes(await litter.sweep_twice()) == {"w": "quarantine done"}


async def test_B18_a_repository_that_cannot_be_read_now_is_not_broken(
    litter: Litter, repository: Repository
) -> None:
    """A loop of links stands for a disk that does not answer."""
    litter.workspace("done", is_deleted=True)
    folder = litter.worktree(repository, "w", "done")
    loop = repository.main / ".git" / "worktrees" / "w" / "commondir"
    loop.unlink()
    loop.symlink_to(loop)
    litter.later(30 * DAY)
    recorded = await litter.sweep_twice()
    assert recorded["acts"] == []
    assert list(litter.kept(recorded)) == [
        "unknown: its .git cannot be read: Too many levels of symbolic links"
    ]
    assert litter.told("worktree.broken") == []
    assert folder.exists()


async def test_B19_a_process_inside_keeps_it(litter: Litter, repository: Repository) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.worktree(repository, "w", "done")
    litter.later(OLD)
    with process_inside(folder):
        recorded = await litter.sweep()
    assert litter.kept(recorded) == {"a process is inside": 1}
    assert recorded["acts"] == []


async def before_the_act(
    litter: Litter, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], look: int = 1
) -> dict[str, object]:
    """Run a pass in which something changes just before one of the looks of its act; return that act."""
    look_at = litter.look.look_at
    looks = iter(range(1, 9))

    async def late(name: str) -> object:
        if next(looks) == look:
            change()
        return await look_at(name)

    with monkeypatch.context() as patch:
        patch.setattr(litter.look, "look_at", late)
        (act,) = (await litter.sweep())["acts"]
    return act


@pytest.mark.parametrize("look", [1, 2], ids=["before-git", "after-git"])
async def test_B19_B20_B21_what_changes_between_plan_and_act_keeps_it(
    litter: Litter, repository: Repository, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.worktree(repository, "w", "done")
    litter.later(OLD)
    with ExitStack() as processes:
        enter = partial(processes.enter_context, process_inside(folder))
        act = await before_the_act(litter, monkeypatch, enter, look)
    assert act["outcome"] == "skipped", "B19: a process"

    def replace() -> None:
        os.rename(folder, litter.root / "away")
        folder.mkdir()

    act = await before_the_act(litter, monkeypatch, replace, look)
    assert act["outcome"] == "skipped", "B21: another folder"
    folder.rmdir()
    os.rename(litter.root / "away", folder)

    act = await before_the_act(litter, monkeypatch, lambda: litter.workspace("late", folder), look)
    assert act["outcome"] == "skipped", "B20: a row"
    assert folder.exists()
    assert registered(repository) == {"main", "w"}
    assert litter.trash() == []


async def test_work_that_appears_between_plan_and_act_keeps_it(
    litter: Litter, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.worktree(repository, "w", "done")
    litter.later(OLD)
    act = await before_the_act(litter, monkeypatch, lambda: modify(repository, folder))
    assert (act["outcome"], act["error"]) == ("skipped", "at risk: modified")


async def test_B22_one_that_fails_does_not_stop_the_others(
    litter: Litter, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    litter.workspace("done", is_deleted=True)
    for name in ("a", "b"):
        litter.worktree(repository, name, "done")
    litter.folder("plain", "done")
    litter.later(OLD)
    check = worktrees.check_risk

    async def failing(git_: Git, folder: Path) -> object:
        if folder.name == "a":
            raise RuntimeError("a fault of ours")
        return await check(git_, folder)

    with monkeypatch.context() as patch:
        patch.setattr(worktrees, "check_risk", failing)
        recorded = await litter.sweep()
    assert (recorded["state"], list(recorded["errors"])) == ("error", ["worktrees"])
    assert outcomes(recorded) == {"plain": "trash done"}, "the other kind goes on"
    assert outcomes(await litter.sweep()) == {"a": "trash done", "b": "trash done"}


async def test_a_crash_before_it_was_out_of_its_repository_is_made_good(
    litter: Litter, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.worktree(repository, "w", "done")
    litter.later(OLD)
    with monkeypatch.context() as patch:
        patch.setattr(trashcan, "unregister", lambda *_: 1 / 0)
        assert outcomes(await litter.sweep()) == {"w": "trash failed"}
    (entry,) = litter.trash()
    assert not folder.exists()
    assert registered(repository) == {"main", "w"}
    folder.mkdir()
    assert (await litter.sweep())["acts"] == [], "somebody has its place: what is registered may be theirs"
    folder.rmdir()
    with litter.writing() as db:
        db.execute("UPDATE trash SET manifest = json_set(manifest, '$.who', 'workspace.delete')")
    assert (await litter.sweep())["acts"] == [], "a deletion goes on by itself"
    with litter.writing() as db:
        db.execute("UPDATE trash SET manifest = json_set(manifest, '$.who', 'reaper')")
    assert outcomes(await litter.sweep()) == {f"trash/{entry['id']}": "trash done"}
    assert registered(repository) == {"main"}
    assert [one["id"] for one in litter.trash()] == [entry["id"]]
    assert (await litter.sweep())["acts"] == []


async def test_a_crash_before_it_was_moved_is_gone_on_with(
    litter: Litter, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    litter.workspace("done", is_deleted=True)
    litter.worktree(repository, "w", "done")
    litter.later(OLD)
    with monkeypatch.context() as patch:
        patch.setattr(tree, "move_to_trash", lambda *_: 1 / 0)
        assert outcomes(await litter.sweep()) == {"w": "trash failed"}
    (entry,) = litter.trash()
    assert outcomes(await litter.sweep()) == {"w": "trash done"}
    assert [one["id"] for one in litter.trash()] == [entry["id"]], "one entry, not two"


async def test_B25_another_worktree_on_an_unmounted_disk_keeps_its_registration(
    litter: Litter, repository: Repository, tmp_path: Path
) -> None:
    away = repository.worktree(tmp_path / "disk", "away")
    litter.workspace("done", is_deleted=True)
    litter.worktree(repository, "w", "done")
    os.rename(away, tmp_path / "unmounted")
    litter.later(OLD)
    assert outcomes(await litter.sweep()) == {"w": "trash done"}
    assert registered(repository) == {"main", "disk"}


async def test_a_stranger_among_them_is_never_asked_about(litter: Litter, repository: Repository) -> None:
    repository.worktree(litter.path("theirs"), "theirs")
    litter.later(OLD)
    before = fingerprint(litter.base, repository.main)
    recorded = await litter.sweep_twice()
    assert recorded["acts"] == []
    assert litter.kept(recorded) == {}
    assert fingerprint(litter.base, repository.main) == before
    assert litter.audited(GONE) == []
