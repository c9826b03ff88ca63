"""Worktrees made, taken out of their repository and put back, one at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.places import find_place
from hostsvc.git.risk import check_risk
from hostsvc.git.worktree import (
    KEEP_REF,
    add_worktree,
    check_branch,
    drop_commits,
    keep_commits,
    read_taken,
    register,
    unregister,
)
from tests.support.repos import Repository, commit, git


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r")


def registered(repository: Repository) -> list[str]:
    listed = git(repository.main, "worktree", "list", "--porcelain")
    return [line.removeprefix("worktree ") for line in listed.splitlines() if line.startswith("worktree ")]


async def test_a_new_and_an_existing_branch(repository: Repository, tmp_path: Path) -> None:
    new = await add_worktree(Git(), repository.main, tmp_path / "new", "topic/a", None)
    assert new.is_linked
    assert git(new.folder, "branch", "--show-current") == "topic/a"
    git(repository.main, "branch", "there")
    old = await add_worktree(Git(), repository.main, tmp_path / "old", "there", None)
    assert git(old.folder, "branch", "--show-current") == "there"
    for branch, start in (("there", None), ("topic/a", "main"), ("-x", None), ("a..b", None), ("", None)):
        with pytest.raises(GitUnknown):
            await add_worktree(Git(), repository.main, tmp_path / "no", branch, start)
    assert not (tmp_path / "no").exists()


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
    place = find_place(folder)
    taken = await read_taken(Git(), place)
    assert (taken.branch, taken.head) == (None, lonely)
    await keep_commits(Git(), taken.common_dir, "id1", lonely)
    await keep_commits(Git(), taken.common_dir, "id1", lonely)
    os.rename(folder, tmp_path / "t")
    unregister(taken, tmp_path / "t.git")
    git(repository.main, "reflog", "expire", "--expire=now", "--all")
    git(repository.main, "gc", "-q", "--prune=now")
    assert git(repository.main, "rev-parse", KEEP_REF + "id1") == lonely
    await drop_commits(Git(), str(repository.main / ".git"), "id1")
    assert git(repository.main, "for-each-ref", KEEP_REF) == ""


async def test_the_repositorys_own_folder_is_not_taken_out(repository: Repository) -> None:
    with pytest.raises(GitUnknown, match="own folder"):
        await read_taken(Git(), find_place(repository.main))
    assert (await check_risk(Git(), repository.main)).is_safe
