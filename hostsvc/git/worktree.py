"""Linked worktrees: made, taken out of their repository, put back; exactly one, never a prune of all.

Owns what is changed in a repository: one worktree's registration, and the refs under `refs/hostsvc/` that
keep a trashed one's commits. Branches are never deleted.

What is taken out takes its administrative directory along (index, HEAD, logs, submodules), so that putting it
back gives exactly what was there, staged changes too.

Source: git-worktree(1), gitrepository-layout(5)
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import attrs

from hostsvc.git.command import Git, GitUnknown, text
from hostsvc.git.places import Place, find_place

KEEP_REF: Final = "refs/hostsvc/trash/"
ADMIN: Final = ".git-admin"
"""What a taken-out worktree's administrative directory is called, below the trash entry's own name."""


@attrs.frozen(kw_only=True)
class Taken:
    """A worktree out of its repository: what is needed to put it back."""

    common_dir: str
    name: str
    """Of its administrative directory."""
    head: str | None
    branch: str | None


async def add_worktree(git: Git, repository: Path, folder: Path, branch: str, start: str | None) -> Place:
    """Check a branch out into a new folder; a branch that is not there yet is made from `start` or HEAD.

    Raises:
        GitUnknown: git refused, or what it made is not a worktree.
    """
    reference = f"refs/heads/{branch}"
    if not await git.test(str(repository), "check-ref-format", reference):
        raise GitUnknown(f"{branch!a} is no name for a branch")
    is_there = await git.test(str(repository), "show-ref", "--verify", "--quiet", reference)
    if is_there and start is not None:
        raise GitUnknown(f"branch {branch} is there already; leave out where to start it")
    made = [str(folder), branch] if is_there else ["-b", branch, str(folder), *([start] if start else [])]
    await git.run(str(repository), "worktree", "add", "--quiet", *made)
    return find_place(folder)


async def keep_commits(git: Git, place: Place, id_: str, head: str) -> None:
    """Let a ref of ours hold a commit, so that no gc takes what a trashed worktree alone may have."""
    await git.run(str(place.common_dir), "update-ref", KEEP_REF + id_, head)


async def drop_commits(git: Git, common_dir: Path, id_: str) -> None:
    """Let go of them: the trash entry is purged."""
    await git.run(str(common_dir), "update-ref", "-d", KEEP_REF + id_)


async def read_taken(git: Git, place: Place) -> Taken:
    """Return what is needed to put a worktree back, before it is taken out.

    Raises:
        GitUnknown: it is the repository's own, or cannot be read.
    """
    if not place.is_linked or place.git_dir.parent != place.common_dir / "worktrees":
        raise GitUnknown("it is its repository's own folder, not a worktree beside it")
    branch = None
    if await git.test(str(place.folder), "symbolic-ref", "--quiet", "HEAD"):
        branch = text(await git.run(str(place.folder), "symbolic-ref", "HEAD"))
    head = None
    if await git.test(str(place.folder), "rev-parse", "--verify", "--quiet", "HEAD^{commit}"):
        head = text(await git.run(str(place.folder), "rev-parse", "--verify", "HEAD^{commit}"))
    return Taken(common_dir=str(place.common_dir), name=place.git_dir.name, head=head, branch=branch)


def unregister(taken: Taken, folder: Path, admin: Path) -> bool:
    """Move one worktree's administrative directory away; False when that was done before.

    Args:
        taken: Which one.
        folder: Where its folder is, or was.
        admin: Where to.

    Raises:
        GitUnknown: another folder is registered under that name by now; it is left alone.
    """
    registered = Path(taken.common_dir) / "worktrees" / taken.name
    if not os.path.lexists(registered):
        return False
    if (registered / "gitdir").read_text().strip() != str(folder / ".git"):
        raise GitUnknown(f"{registered} is another worktree's by now")
    _move(registered, admin)
    return True


def register(taken: Taken, folder: Path, admin: Path) -> None:
    """Put a worktree's administrative directory back, under a name of its own, and link both ways.

    Raises:
        GitUnknown: its repository is gone.
    """
    worktrees = Path(taken.common_dir) / "worktrees"
    if not Path(taken.common_dir).is_dir():
        raise GitUnknown(f"its repository {taken.common_dir} is gone")
    worktrees.mkdir(exist_ok=True)
    registered = worktrees / taken.name
    count = 1
    while os.path.lexists(registered):
        registered = worktrees / f"{taken.name}{count}"
        count += 1
    _move(admin, registered)
    (registered / "gitdir").write_text(f"{folder}/.git\n")
    (folder / ".git").write_text(f"gitdir: {registered}\n")


async def branch_is_free(git: Git, taken: Taken) -> bool:
    """Tell whether no other worktree has its branch checked out by now."""
    listed = await git.run(taken.common_dir, "worktree", "list", "--porcelain", "-z")
    return taken.branch is None or f"branch {taken.branch}".encode() not in listed.split(b"\0")


def _move(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError:  # the repository is on another device than the trash
        draft = target.with_name(f".{target.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(source, draft, symlinks=True)
        os.rename(draft, target)
        shutil.rmtree(source)
