"""Worktrees made, taken out of their repository and put back, one at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.keep import KEEP_REF, keep, let_go
from hostsvc.git.places import LinkBroken, find_place, find_repository, find_submodule
from hostsvc.git.risk import check_risk
from hostsvc.git.worktree import (
    add_worktree,
    check_branch,
    check_idle,
    delete_branch,
    find_branch,
    find_registration,
    read_taken,
    register,
    unregister,
    unregister_unfinished,
)
from tests.support.repos import Repository, commit, fingerprint, git


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r")


def registered(repository: Repository) -> list[str]:
    listed = git(repository.main, "worktree", "list", "--porcelain")
    return [line.removeprefix("worktree ") for line in listed.splitlines() if line.startswith("worktree ")]


async def test_a_new_and_an_existing_branch(repository: Repository, tmp_path: Path) -> None:
    base = git(repository.main, "rev-parse", "HEAD")
    new = await add_worktree(Git(), repository.main, tmp_path / "new", "topic/a", base)
    assert new.is_linked
    assert git(new.folder, "branch", "--show-current") == "topic/a"
    git(repository.main, "branch", "there")
    (tmp_path / "old").mkdir()
    old = await add_worktree(Git(), repository.main, tmp_path / "old", "there", None)
    assert git(old.folder, "branch", "--show-current") == "there"
    for branch, start in (("there", None), ("topic/a", base)):
        with pytest.raises(GitUnknown):
            await add_worktree(Git(), repository.main, tmp_path / "no", branch, start)
    assert not (tmp_path / "no").exists()


async def test_names_of_branches(repository: Repository) -> None:
    common_dir = str(find_repository(repository.main))
    assert await find_branch(Git(), common_dir, "main")
    assert not await find_branch(Git(), common_dir, "topic/a")
    for branch in ("-x", "a..b", "", "a b", "a.lock", "@{-1}", "a\nb"):
        with pytest.raises(ValueError, match="no name for a branch"):
            await find_branch(Git(), common_dir, branch)


def test_a_repository_around_it_does_not_count(repository: Repository, tmp_path: Path) -> None:
    folder = repository.worktree(tmp_path / "w")
    assert find_repository(folder) == find_repository(repository.main) == repository.main / ".git"
    assert find_repository(repository.remote) == repository.remote
    (repository.main / "inner").mkdir()
    for path in (repository.main / "inner", tmp_path, tmp_path / "missing"):
        with pytest.raises(GitUnknown):
            find_repository(path)


@pytest.mark.parametrize("name", [".git", "commondir", "gitdir"])
@pytest.mark.parametrize("how", ["nul", "zeros", "pipe", "folder", "endless"])
async def test_a_link_that_anybody_may_have_written(
    repository: Repository, tmp_path: Path, name: str, how: str
) -> None:
    """What can be no path leads nowhere, whatever it is; a pipe is not waited for."""
    folder = repository.worktree(tmp_path / "w")
    path = folder / ".git" if name == ".git" else repository.main / ".git" / "worktrees" / "w" / name
    size = path.stat().st_size
    path.unlink()
    match how:
        case "nul":
            path.write_bytes(b"gitdir: /a\0b\n" if name == ".git" else b"/a\0b\n")
        case "zeros":
            path.write_bytes(bytes(size))
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "endless":
            path.write_text("gitdir: /" if name == ".git" else "/")
            os.truncate(path, 1 << 40)
    if (name, how) == (".git", "folder"):
        return  # a repository of its own
    for find in (find_place, find_submodule) if name == ".git" else (find_place,):
        with trio.fail_after(20), pytest.raises(LinkBroken):
            await trio.to_thread.run_sync(find, folder, abandon_on_cancel=True)


async def test_a_branch_goes_only_untouched_and_unused(repository: Repository, tmp_path: Path) -> None:
    base, common_dir = git(repository.main, "rev-parse", "HEAD"), str(repository.main / ".git")
    folder = repository.worktree(tmp_path / "w")
    assert not await delete_branch(Git(), common_dir, "work", base), "it is checked out"
    git(folder, "checkout", "-q", "--detach")
    assert not await delete_branch(Git(), common_dir, "never", base)
    assert not await delete_branch(Git(), common_dir, "work", "0" * 40), "somebody has committed to it"
    assert await delete_branch(Git(), common_dir, "work", base)
    assert not await delete_branch(Git(), common_dir, "work", base)


def test_a_registration_goes_only_unfinished_and_without_its_folder(
    repository: Repository, tmp_path: Path
) -> None:
    common_dir = repository.main / ".git"
    folder, other = repository.worktree(tmp_path / "w"), repository.worktree(tmp_path / "other", "other")
    locked = common_dir / "worktrees" / "w" / "locked"
    locked.write_text("initializing")
    assert not unregister_unfinished(common_dir, folder)
    folder.rename(tmp_path / "elsewhere")
    for reason in (None, "", "on a disk that is away\n"):
        locked.unlink(missing_ok=True) if reason is None else locked.write_text(reason)
        assert not unregister_unfinished(common_dir, folder)
    locked.write_text("initializing")
    assert unregister_unfinished(common_dir, folder)
    assert not unregister_unfinished(common_dir, folder)
    assert registered(repository) == [str(repository.main), str(other)]


def test_nothing_is_taken_from_a_git_at_work(repository: Repository, tmp_path: Path) -> None:
    folder, common_dir = repository.worktree(tmp_path / "w"), repository.main / ".git"
    check_idle(common_dir, folder)
    locked = common_dir / "worktrees" / "w" / "locked"
    locked.write_text("initializing")
    with pytest.raises(GitUnknown, match="still be making"):
        check_idle(common_dir, folder)
    os.utime(locked, (0, 0))
    check_idle(common_dir, folder)


async def test_a_registration_that_can_be_no_path_hides_no_other(
    repository: Repository, tmp_path: Path
) -> None:
    worktrees = repository.main / ".git" / "worktrees"
    folder, taken = repository.worktree(tmp_path / "w"), None
    for name in ("a", "b"):
        repository.worktree(tmp_path / name, name)
        taken = await read_taken(Git(), find_place(tmp_path / name))
        (worktrees / name / "gitdir").unlink()
    (worktrees / "a" / "gitdir").write_bytes(str(folder / ".git").encode() + b"\0")
    os.mkfifo(worktrees / "b" / "gitdir")
    with trio.fail_after(20):
        found = await trio.to_thread.run_sync(
            find_registration, repository.main / ".git", folder, abandon_on_cancel=True
        )
        assert found == worktrees / "w"
        assert taken is not None
        assert not await trio.to_thread.run_sync(
            unregister, taken, tmp_path / "t.git", abandon_on_cancel=True
        )


async def test_out_and_back_again_with_everything(repository: Repository, tmp_path: Path) -> None:
    folder = repository.worktree(tmp_path / "w")
    other = repository.worktree(tmp_path / "other", "other")
    (folder / "staged").write_text("x")
    git(folder, "add", "staged")
    (folder / "loose").write_text("y")
    before = git(folder, "status", "--porcelain")
    taken = await read_taken(Git(), find_place(folder))
    trash, admin = tmp_path / "t", tmp_path / "t.git"

    os.rename(folder, trash)
    assert unregister(taken, admin)
    assert not unregister(taken, admin)
    assert registered(repository) == [str(repository.main), str(other)]
    assert git(repository.main, "branch", "--list", "work")
    assert await check_branch(Git(), taken)

    os.rename(trash, folder)
    register(taken, folder, admin)
    assert sorted(registered(repository)) == sorted([str(repository.main), str(other), str(folder)])
    assert git(folder, "status", "--porcelain") == before
    assert git(folder, "branch", "--show-current") == "work"


async def test_another_worktree_of_the_same_name_is_left_alone(
    repository: Repository, tmp_path: Path
) -> None:
    folder = repository.worktree(tmp_path / "a" / "w")
    taken = await read_taken(Git(), find_place(folder))
    git(repository.main, "worktree", "remove", str(folder))
    repository.worktree(tmp_path / "b" / "w", "second")
    assert not unregister(taken, tmp_path / "admin")
    assert str(tmp_path / "b" / "w") in registered(repository)


async def test_B25_an_unmounted_worktree_keeps_its_registration(
    repository: Repository, tmp_path: Path
) -> None:
    away, folder = repository.worktree(tmp_path / "away", "away"), repository.worktree(tmp_path / "w")
    os.rename(away, tmp_path / "unmounted")
    taken = await read_taken(Git(), find_place(folder))
    os.rename(folder, tmp_path / "t")
    unregister(taken, tmp_path / "t.git")
    assert str(away) in registered(repository)


async def test_a_ref_keeps_what_no_branch_has(repository: Repository, tmp_path: Path) -> None:
    folder = repository.worktree(tmp_path / "w")
    git(folder, "checkout", "-q", "--detach")
    lonely = commit(folder, "lonely")
    taken = await read_taken(Git(), find_place(folder))
    assert (taken.branch, taken.head) == (None, lonely)
    await keep(Git(), taken, folder, "id1")
    await keep(Git(), taken, folder, "id1")
    os.rename(folder, tmp_path / "t")
    unregister(taken, tmp_path / "t.git")
    clean_up(repository)
    assert git(repository.main, "rev-parse", KEEP_REF + "id1") == lonely
    await let_go(Git(), str(repository.main / ".git"), "id1")
    await let_go(Git(), str(repository.main / ".git"), "id1")
    assert git(repository.main, "for-each-ref", KEEP_REF) == ""


def clean_up(repository: Repository) -> None:
    """As thorough as git can be."""
    git(repository.main, "reflog", "expire", "--expire=now", "--all")
    git(repository.main, "gc", "-q", "--prune=now")


@pytest.mark.parametrize("state", ["staged", "merge", "rebase", "bisect", "unborn", "intent"])
async def test_a_ref_keeps_what_is_staged_and_at_work(
    repository: Repository, tmp_path: Path, state: str
) -> None:
    """Out of the repository, its index and its HEADs are in no way of git's clean-up any more."""
    folder = repository.worktree(tmp_path / "w")
    (folder / "staged").write_text("only here\n")
    match state:
        case "staged":
            git(folder, "add", "staged")
        case "intent":
            git(folder, "add", "--intent-to-add", "staged")
        case "unborn":
            git(folder, "checkout", "-q", "--orphan", "fresh")
            git(folder, "add", "staged")
        case "bisect":
            commit(folder, "staged")
            git(folder, "bisect", "start", "HEAD", "HEAD~1")
        case _:
            commit(folder, "file", "ours\n")
            git(folder, "checkout", "-q", "--detach", "HEAD~1")
            commit(folder, "file", "theirs\n")
            git(folder, state, "work", check=False)
    before = git(folder, "status", "--porcelain"), git(folder, "ls-files", "--stage")
    taken = await read_taken(Git(), find_place(folder))
    prints = fingerprint(folder, repository.main / ".git" / "worktrees")
    await keep(Git(), taken, folder, "id1")
    assert fingerprint(folder, repository.main / ".git" / "worktrees") == prints
    os.rename(folder, tmp_path / "t")
    unregister(taken, tmp_path / "t.git")
    clean_up(repository)
    os.rename(tmp_path / "t", folder)
    register(taken, folder, tmp_path / "t.git")
    assert (git(folder, "status", "--porcelain"), git(folder, "ls-files", "--stage")) == before
    assert "missing" not in git(folder, "fsck", check=False)
    if state == "merge":
        git(folder, "checkout", "--theirs", "file")
        git(folder, "commit", "-q", "-am", "merged")


async def test_the_repositorys_own_folder_is_not_taken_out(repository: Repository) -> None:
    with pytest.raises(GitUnknown, match="own folder"):
        await read_taken(Git(), find_place(repository.main))
    assert (await check_risk(Git(), repository.main)).is_safe
