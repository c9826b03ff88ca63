"""What is at risk in a worktree: every kind of work that is nowhere else is found, and nothing is touched."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostsvc.git.command import Git
from hostsvc.git.risk import Risk, check_risk
from tests.support.repos import Repository, commit, fingerprint, git
from tests.support.waiting import wait_until

Damage = Callable[[Repository, Path], object]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r")


@pytest.fixture
def worktree(repository: Repository, tmp_path: Path) -> Path:
    return repository.worktree(tmp_path / "w")


async def check(folder: Path, repository: Repository) -> Risk:
    """Check, and make sure that not a byte has changed."""
    before = fingerprint(folder, repository.main, repository.remote)
    risk = await check_risk(Git(), folder)
    assert fingerprint(folder, repository.main, repository.remote) == before
    return risk


def codes(risk: Risk) -> set[str]:
    return {reason.code for reason in risk.reasons}


async def test_B1_clean_and_pushed_is_safe(repository: Repository, worktree: Path) -> None:
    risk = await check(worktree, repository)
    assert risk.is_safe, risk.reasons
    assert risk.branch == "refs/heads/work"
    assert risk.head == git(worktree, "rev-parse", "HEAD")


def modify(_: Repository, worktree: Path) -> None:
    (worktree / "file").write_text("other\n")


def stage(_: Repository, worktree: Path) -> None:
    modify(_, worktree)
    git(worktree, "add", "file")


def leave_untracked(_: Repository, worktree: Path) -> None:
    (worktree / "new").write_text("x")


def hide_untracked(repository: Repository, worktree: Path) -> None:
    git(repository.main, "config", "status.showUntrackedFiles", "no")
    leave_untracked(repository, worktree)


def assume_unchanged(_: Repository, worktree: Path) -> None:
    git(worktree, "update-index", "--assume-unchanged", "file")
    modify(_, worktree)


def skip_worktree(_: Repository, worktree: Path) -> None:
    git(worktree, "update-index", "--skip-worktree", "file")
    modify(_, worktree)


def detach(_: Repository, worktree: Path) -> None:
    git(worktree, "checkout", "-q", "--detach")
    commit(worktree, "lonely")


def commit_unpushed(_: Repository, worktree: Path) -> None:
    commit(worktree, "fresh")


def commit_unmerged(repository: Repository, worktree: Path) -> None:
    git(repository.main, "remote", "remove", "origin")
    commit(worktree, "fresh")


def conflict(repository: Repository, worktree: Path, command: str) -> None:
    git(repository.main, "checkout", "-q", "-b", "other")
    commit(repository.main, "file", "theirs\n")
    commit(worktree, "file", "ours\n")
    git(worktree, "push", "-q", "origin", "work")
    git(worktree, *command.split(), "other", check=False)


def stop_am(_: Repository, worktree: Path) -> None:
    (worktree.parent / "patch").write_text(
        "From 1 Mon Sep 17 00:00:00 2001\nFrom: T <t@example.invalid>\n"
        "Date: Mon, 17 Sep 2001 00:00:00 +0000\n"
        "Subject: x\n\n---\n file | 2 +-\n\n--- a/file\n+++ b/file\n@@ -1 +1 @@\n-nothing\n+such\n-- \n2\n"
    )
    git(worktree, "am", str(worktree.parent / "patch"), check=False)


def bisect(_: Repository, worktree: Path) -> None:
    git(worktree, "bisect", "start")


def lock(repository: Repository, worktree: Path) -> None:
    git(repository.main, "worktree", "lock", str(worktree))


def dirty_submodule(repository: Repository, worktree: Path) -> None:
    add_submodule(repository, worktree)
    (worktree / "sub" / "file").write_text("dirty\n")


def unpushed_submodule(repository: Repository, worktree: Path) -> None:
    add_submodule(repository, worktree)
    commit(worktree / "sub", "deep")
    git(worktree, "commit", "-q", "-am", "bump")
    git(worktree, "push", "-q", "origin", "work")


def deinitialise_submodule(repository: Repository, worktree: Path) -> None:
    add_submodule(repository, worktree)
    git(worktree / "sub", "checkout", "-q", "-b", "topic")
    commit(worktree / "sub", "deep")
    git(worktree, "submodule", "deinit", "-q", "-f", "sub")


def remove_submodule(repository: Repository, worktree: Path) -> None:
    """Nothing of it is in the worktree any more, and its settings name a folder that is gone."""
    add_submodule(repository, worktree, "--name", "of/some/name")
    git(worktree / "sub", "checkout", "-q", "-b", "topic")
    commit(worktree / "sub", "deep")
    git(worktree / "sub", "checkout", "-q", "main")
    git(worktree, "rm", "-q", "sub")
    git(worktree, "commit", "-q", "-m", "without")
    git(worktree, "push", "-q", "origin", "work")
    settings = module_of(worktree, "of/some/name") / "config"
    git(worktree, "config", "--file", str(settings), "core.worktree", "../../../gone")


def module_of(worktree: Path, name: str = "sub") -> Path:
    return Path(git(worktree, "rev-parse", "--absolute-git-dir"), "modules", name)


def add_submodule(repository: Repository, worktree: Path, *options: str) -> None:
    git(worktree, "submodule", "add", "-q", *options, str(repository.remote), "sub")
    git(worktree, "commit", "-q", "-m", "with a submodule")
    git(worktree, "push", "-q", "origin", "work")


CASES: list[tuple[str, str, Damage]] = [
    ("B5", "modified", modify),
    ("B6", "staged", stage),
    ("B7", "untracked", leave_untracked),
    ("B8", "untracked", hide_untracked),
    ("B9", "hidden", assume_unchanged),
    ("B9_skip_worktree", "hidden", skip_worktree),
    ("B10", "detached", detach),
    ("B11", "unpushed", commit_unpushed),
    ("B12", "unmerged", commit_unmerged),
    ("B13_merge", "in_progress", lambda r, w: conflict(r, w, "merge")),
    ("B13_rebase", "in_progress", lambda r, w: conflict(r, w, "rebase")),
    ("B13_cherry_pick", "in_progress", lambda r, w: conflict(r, w, "cherry-pick")),
    ("B13_bisect", "in_progress", bisect),
    ("B13_am", "in_progress", stop_am),
    ("B14", "submodule", dirty_submodule),
    ("B14_unpushed", "submodule", unpushed_submodule),
    ("B14_deinitialised", "submodule", deinitialise_submodule),
    ("B14_removed", "submodule", remove_submodule),
    ("B15", "locked", lock),
]


@pytest.mark.parametrize("code,damage", [pytest.param(c, d, id=name) for name, c, d in CASES])
async def test_B5_to_B15_work_is_found_and_kept(
    repository: Repository, worktree: Path, code: str, damage: Damage
) -> None:
    damage(repository, worktree)
    risk = await check(worktree, repository)
    assert code in codes(risk), risk.reasons


async def test_a_clean_pushed_submodule_is_no_risk(repository: Repository, worktree: Path) -> None:
    add_submodule(repository, worktree)
    risk = await check(worktree, repository)
    assert risk.is_safe, risk.reasons


async def test_a_pushed_submodule_without_its_folder_is_no_risk(
    repository: Repository, worktree: Path
) -> None:
    add_submodule(repository, worktree)
    git(worktree, "submodule", "deinit", "-q", "-f", "sub")
    risk = await check(worktree, repository)
    assert risk.is_safe, risk.reasons


async def test_a_submodule_inside_one_without_its_folder_counts(
    repository: Repository, worktree: Path
) -> None:
    add_submodule(repository, worktree)
    git(worktree, "submodule", "deinit", "-q", "-f", "sub")
    module = module_of(worktree)
    git(module, "clone", "-q", "--bare", str(repository.remote), str(module / "modules" / "inner"))
    risk = await check(worktree, repository)
    assert [reason.text for reason in risk.reasons] == ["inner: 2 commits of its repository are on no remote"]


@pytest.mark.parametrize("left_out", ["HEAD", "objects"])
async def test_a_broken_submodule_without_its_folder_is_unknown(
    repository: Repository, worktree: Path, left_out: str
) -> None:
    """Git would answer for the repository around it, which is clean."""
    deinitialise_submodule(repository, worktree)
    module = module_of(worktree)
    (module / left_out).rename(module / "elsewhere")
    assert codes(await check(worktree, repository)) == {"unknown"}


FAILING = {
    "missing": None,
    "slow": "#!/bin/sh\nexec sleep 60\n",
    "failing": "#!/bin/sh\nexit 3\n",
    "no_utf8": "#!/bin/sh\nprintf '\\377\\376'\n",
    "silent": "#!/bin/sh\nexit 0\n",
}


@pytest.mark.parametrize("how", FAILING)
async def test_B16_a_git_that_cannot_tell_keeps_it(worktree: Path, tmp_path: Path, how: str) -> None:
    program = tmp_path / "git"
    if (script := FAILING[how]) is not None:
        program.write_text(script)
        program.chmod(0o755)
    risk = await check_risk(Git(str(program), deadline_s=0.3), worktree)
    assert codes(risk) == {"unknown"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
async def test_B16_somebody_elses_repository_is_unknown(repository: Repository, worktree: Path) -> None:
    for path in (worktree, worktree / ".git", repository.main / ".git"):
        os.chown(path, 12345, 12345)
    assert not (await check_risk(Git(), worktree)).is_safe


async def test_B17_a_missing_link_is_not_the_outer_repositorys(repository: Repository) -> None:
    inner = repository.worktree(repository.main / "inner", "inner")
    (inner / ".git").unlink()
    assert codes(await check(inner, repository)) == {"unknown"}


async def test_B17_a_repository_that_says_its_files_are_elsewhere(
    repository: Repository, tmp_path: Path
) -> None:
    """Everything is clean there; here it is not."""
    shutil.copytree(repository.main, tmp_path / "clean", symlinks=True)
    git(repository.main, "config", "core.worktree", str(tmp_path / "clean"))
    (repository.main / "precious").write_text("x")
    risk = await check_risk(Git(), repository.main)
    assert codes(risk) == {"unknown"}


async def test_B18_a_broken_link_is_unknown(repository: Repository, worktree: Path) -> None:
    (worktree / ".git").write_text("gitdir: /nowhere/at/all\n")
    assert codes(await check(worktree, repository)) == {"unknown"}


@pytest.mark.parametrize("content", [b"gitdir: /a\0b\n", b"gitdir: \xff\n", bytes(32)])
@pytest.mark.parametrize("where", ["", "sub"])
async def test_B18_a_link_that_can_be_no_path_is_unknown(
    repository: Repository, worktree: Path, where: str, content: bytes
) -> None:
    if where:
        add_submodule(repository, worktree)
    (worktree / where / ".git").write_bytes(content)
    assert codes(await check(worktree, repository)) == {"unknown"}


async def test_a_link_that_another_worktree_registers_is_unknown(
    repository: Repository, worktree: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / ".git").write_text((worktree / ".git").read_text())
    assert codes(await check(copy, repository)) == {"unknown"}


async def test_B24_a_hostile_environment_changes_nothing(
    repository: Repository, worktree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leave_untracked(repository, worktree)
    monkeypatch.setenv("GIT_DIR", str(repository.main / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository.main))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "status.showUntrackedFiles")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "no")
    assert "untracked" in codes(await check(worktree, repository))


BLINDING = ("core.trustctime=false", "core.checkStat=minimal", "core.fileMode=false")


@pytest.mark.parametrize("setting", BLINDING)
async def test_B8_settings_that_make_git_look_away(
    repository: Repository, worktree: Path, setting: str
) -> None:
    """A change that keeps size and time, or only the mode: git sees it if nobody tells it not to."""
    git(repository.main, "config", *setting.split("="))
    path = worktree / "file"
    if setting.startswith("core.fileMode"):
        path.chmod(0o755)
    else:
        os.utime(path, (1, 1))
        git(worktree, "update-index", "-q", "--refresh")
        second = int(time.time())  # git compares whole seconds of the time of change
        wait_until(lambda: int(time.time()) > second, what="the next second has begun")
        path.write_text("two\n")
        os.utime(path, (1, 1))
    assert "modified" in codes(await check(worktree, repository))


async def test_settings_of_the_repository_run_nothing(
    repository: Repository, worktree: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "ran"
    (worktree / ".gitattributes").write_text("* filter=x\n")
    os.utime(worktree / "file", ns=(1, 1))  # the same content under another time: git has to look inside
    for name in ("core.fsmonitor", "filter.x.clean", "filter.x.process", "diff.external", "core.sshCommand"):
        git(repository.main, "config", name, f"touch {proof}; cat")
    risk = await check_risk(Git(), worktree)
    assert not risk.is_safe
    assert not proof.exists()
