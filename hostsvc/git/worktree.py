"""Linked worktrees: made, taken out of their repository, put back; exactly one, never a prune of all.

Owns what is changed in a repository: one worktree's registration, and the refs under `refs/hostsvc/` that
keep a trashed one's commits. Branches are never deleted.

What is taken out takes its administrative directory along (index, HEAD, logs, submodules), so that putting it
back gives exactly what was there, staged changes too.

Source: git-worktree(1), gitrepository-layout(5)
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Final

import attrs

from hostsvc.git.command import Git, GitUnknown, text
from hostsvc.git.places import Place, find_place
from hostsvc.removal import remove_folder
from hostsvc.tree import DIRECTORY, identity_of

KEEP_REF: Final = "refs/hostsvc/trash/"


@attrs.frozen(kw_only=True)
class Taken:
    """A worktree out of its repository: what is needed to put it back."""

    common_dir: str
    name: str
    """Of its administrative directory."""
    gitdir: str
    """What that says of where the folder is, to the letter: by it this worktree's is told from another's."""
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


async def keep_commits(git: Git, common_dir: str, id_: str, head: str) -> None:
    """Let a ref of ours hold a commit, so that no gc takes what a trashed worktree alone may have."""
    await git.run(common_dir, "update-ref", KEEP_REF + id_, head)


async def drop_commits(git: Git, common_dir: str, id_: str) -> None:
    """Let go of them: the trash entry is purged."""
    await git.run(common_dir, "update-ref", "-d", KEEP_REF + id_)


async def read_taken(git: Git, place: Place) -> Taken:
    """Return what is needed to put a worktree back, before it is taken out.

    Raises:
        GitUnknown: it is the repository's own, or cannot be read.
    """
    if not place.is_linked or place.git_dir.parent != place.common_dir / "worktrees":
        raise GitUnknown("it is its repository's own folder, not a worktree beside it")
    try:
        gitdir = (place.git_dir / "gitdir").read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GitUnknown(f"its registration cannot be read: {type(error).__name__}") from error
    head, branch = await read_head(git, place.folder)
    return Taken(
        common_dir=str(place.common_dir), name=place.git_dir.name, gitdir=gitdir, head=head, branch=branch
    )


async def read_head(git: Git, folder: Path) -> tuple[str | None, str | None]:
    """Return the commit and the branch, each None when there is none."""
    branch = None
    if await git.test(str(folder), "symbolic-ref", "--quiet", "HEAD"):
        branch = text(await git.run(str(folder), "symbolic-ref", "HEAD"))
    return await read_commit(git, folder, "HEAD"), branch


async def read_commit(git: Git, folder: Path, name: str) -> str | None:
    """Return the commit that a name stands for; None when it stands for none."""
    if not await git.test(str(folder), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"):
        return None
    return text(await git.run(str(folder), "rev-parse", "--verify", f"{name}^{{commit}}"))


def unregister(taken: Taken, admin: Path) -> bool:
    """Move one worktree's administrative directory away; False when it is not registered (any more).

    Args:
        taken: Which one. Another that has its name by now is left alone.
        admin: Where to.

    Raises:
        OSError: it cannot be moved.
    """
    registered = Path(taken.common_dir) / "worktrees" / taken.name
    try:
        if (registered / "gitdir").read_text().rstrip("\n") != taken.gitdir:
            return False
    except FileNotFoundError:
        return False
    _move(registered, admin)
    return True


def register(taken: Taken, folder: Path, admin: Path) -> None:
    """Put a worktree's administrative directory back, under another name if its own was given away.

    Its folder has to be back where it was. Done already when `admin` is not there and both links agree.

    Raises:
        GitUnknown: it cannot be put back; nothing was changed.
        OSError: it cannot be moved.
    """
    if not os.path.lexists(admin):
        find_place(folder)
        return
    check_repository(taken)
    worktrees = Path(taken.common_dir) / "worktrees"
    worktrees.mkdir(exist_ok=True)
    name, count = taken.name, 1
    while os.path.lexists(worktrees / name):
        name, count = f"{taken.name}{count}", count + 1
    if name != taken.name:
        if os.path.lexists(admin / "modules"):  # they say where it is, relative to themselves
            raise GitUnknown(f"another worktree is called {taken.name} by now, and this one has submodules")
        (folder / ".git").write_text(f"gitdir: {worktrees / name}\n")
    _move(admin, worktrees / name)


def check_repository(taken: Taken) -> None:
    """Make sure that there is something to put it back into.

    Raises:
        GitUnknown: there is not.
    """
    if not Path(taken.common_dir, "objects").is_dir():
        raise GitUnknown(f"its repository {taken.common_dir} is gone")


async def check_branch(git: Git, taken: Taken) -> bool:
    """Tell whether its branch is still where it was, and in no other worktree by now."""
    if taken.branch is None:
        return True
    common_dir = Path(taken.common_dir)
    if await read_commit(git, common_dir, taken.branch) != taken.head:
        return False
    listed = await git.run(str(common_dir), "worktree", "list", "--porcelain", "-z")
    return f"branch {taken.branch}".encode() not in listed.split(b"\0")


def detach(taken: Taken, admin: Path) -> None:
    """Let a worktree that is out of its repository be at its commit, without its branch."""
    if taken.head is not None and os.path.lexists(admin):
        draft = admin / "HEAD.draft"
        draft.write_text(taken.head + "\n")
        os.rename(draft, admin / "HEAD")


def is_on_branch(taken: Taken, folder: Path) -> bool:
    """Tell whether a worktree that was put back has the branch that it had."""
    if taken.branch is None:
        return True
    return (find_place(folder).git_dir / "HEAD").read_text() == f"ref: {taken.branch}\n"


def _move(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _carry(source, target)


def _carry(source: Path, target: Path) -> None:
    """Move to another device: the target is there whole before the source goes."""
    if not os.path.lexists(target):
        draft = target.parent / f".{target.name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(source, draft, symlinks=True)
        os.rename(draft, target)
    fd = os.open(source.parent, DIRECTORY)
    try:
        remove_folder(fd, source.name, identity_of(os.lstat(source)))
    finally:
        os.close(fd)
