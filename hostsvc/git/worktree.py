"""Linked worktrees: made, taken out of their repository, put back; exactly one, never a prune of all.

Owns what is changed in a repository: one worktree's registration, and a branch that was made for one which
came to nothing.

What is taken out takes its administrative directory along (index, HEAD, logs, submodules), so that putting it
back gives exactly what was there, staged changes too.

Source: git-worktree(1), gitrepository-layout(5)
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from pathlib import Path
from typing import Final

import attrs
import trio

from hostsvc.git.command import Git, GitUnknown, text
from hostsvc.git.places import LinkBroken, Place, find_place, read_line, resolve
from hostsvc.removal import remove_path

SHORT: Final = "refs/heads/"
"""What a branch's short name leaves out."""
MAKING_S: Final = 600.0
"""After this nobody is still making a worktree."""
_MAKING: Final = "initializing"
"""What git locks a worktree with until it has made it; a person's lock gives another reason, or none."""


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


async def find_branch(git: Git, common_dir: str, branch: str) -> bool:
    """Tell whether a repository has a branch.

    Raises:
        ValueError: no branch can be called so.
        GitUnknown: git could not tell.
    """
    if branch.startswith("-") or not await git.test(common_dir, "check-ref-format", SHORT + branch):
        raise ValueError(f"{branch[:64]!a} is no name for a branch")
    return await git.test(common_dir, "show-ref", "--verify", "--quiet", SHORT + branch)


async def add_worktree(git: Git, repository: Path, folder: Path, branch: str, base: str | None) -> Place:
    """Check a branch out into a folder that is not there or empty; with a `base` it is made at that commit.

    Raises:
        GitUnknown: git refused, or what it made is not a worktree.
    """
    made = [str(folder), branch] if base is None else ["-b", branch, str(folder), base]
    try:
        await git.run(str(repository), "worktree", "add", "--quiet", *made)
    except GitUnknown as error:
        text = f"git could not check out {branch!a} (is it checked out elsewhere?): {error}"
        raise GitUnknown(text) from error
    return await trio.to_thread.run_sync(find_place, folder)


async def delete_branch(git: Git, common_dir: str, branch: str, base: str) -> bool:
    """Delete a branch that is still where it was made, and that no worktree has; False when it is kept."""
    if await read_commit(git, Path(common_dir), SHORT + branch) != base:
        return False
    if await _is_checked_out(git, common_dir, SHORT + branch):
        return False
    await git.run(common_dir, "update-ref", "-d", SHORT + branch, base)
    return True


def find_registration(common_dir: Path, folder: Path) -> Path | None:
    """Return the administrative directory of the worktree that a repository has at a folder, there or not."""
    for registered in sorted((common_dir / "worktrees").glob("*")):
        try:
            if resolve(registered, read_line(registered / "gitdir")) == folder / ".git":
                return registered
        except (OSError, LinkBroken):
            continue
    return None


def check_idle(common_dir: Path, folder: Path) -> None:
    """Make sure that no git is still making a worktree; one outlives a service that was killed.

    Raises:
        GitUnknown: one may be.
    """
    registered = find_registration(common_dir, folder)
    if registered is None:
        return
    try:
        age_s = time.time() - (registered / "locked").stat().st_mtime
    except FileNotFoundError:
        return
    if age_s < MAKING_S:
        raise GitUnknown("git may still be making it")


def unregister_unfinished(common_dir: Path, folder: Path) -> bool:
    """Remove the registration that git has begun, and not finished, for a folder which is gone; else False.

    One that was finished may be all that is left of somebody's worktree: its HEAD, its index, its commits.
    """
    registered = find_registration(common_dir, folder)
    if registered is None or os.path.lexists(folder / ".git") or not _is_unfinished(registered):
        return False
    remove_path(registered)
    return True


def _is_unfinished(registered: Path) -> bool:
    try:
        return read_line(registered / "locked") == _MAKING
    except (FileNotFoundError, LinkBroken):
        return False


async def read_taken(git: Git, place: Place) -> Taken:
    """Return what is needed to put a worktree back, before it is taken out.

    Raises:
        GitUnknown: it is the repository's own, or cannot be read.
    """
    if not place.is_linked or place.git_dir.parent != place.common_dir / "worktrees":
        raise GitUnknown("it is its repository's own folder, not a worktree beside it")
    try:
        gitdir = await trio.to_thread.run_sync(read_line, place.git_dir / "gitdir")
    except (OSError, LinkBroken) as error:
        raise GitUnknown(f"its registration cannot be read: {type(error).__name__}") from error
    head, branch = await read_head(git, place.folder)
    return Taken(
        common_dir=str(place.common_dir), name=place.git_dir.name, gitdir=gitdir, head=head, branch=branch
    )


async def read_head(git: Git, folder: Path) -> tuple[str | None, str | None]:
    """Return the commit and the branch, each None when there is none."""
    branch = await git.ask(str(folder), "symbolic-ref", "--quiet", "HEAD")
    return await read_commit(git, folder, "HEAD"), None if branch is None else text(branch)


async def read_commit(git: Git, folder: Path, name: str) -> str | None:
    """Return the commit that a name stands for; None when it stands for none.

    Raises:
        GitUnknown: git could not tell, or says something else.
    """
    found = await git.ask(str(folder), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found is not None and not re.fullmatch(rb"(?:[0-9a-f]{40}|[0-9a-f]{64})\n", found):
        raise GitUnknown("what git says is no commit")
    return None if found is None else text(found)


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
        if read_line(registered / "gitdir") != taken.gitdir:
            return False
    except (FileNotFoundError, LinkBroken):
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
    if await read_commit(git, Path(taken.common_dir), taken.branch) != taken.head:
        return False
    return not await _is_checked_out(git, taken.common_dir, taken.branch)


async def _is_checked_out(git: Git, common_dir: str, reference: str) -> bool:
    listed = await git.run(common_dir, "worktree", "list", "--porcelain", "-z")
    return f"branch {reference}".encode() in listed.split(b"\0")


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
    remove_path(source)


def check_unregistered(common_dir: Path, folder: Path) -> None:
    """Refuse the place of a worktree whose folder is elsewhere now: its registration may be all of it.

    Raises:
        GitUnknown: the repository has one there.
    """
    if os.path.lexists(folder) or find_registration(common_dir, folder) is None:
        return  # what is there already is refused when it is made
    raise GitUnknown(
        f"it has a worktree registered at {folder}, whose folder is gone; if that was moved: git worktree"
        f" repair NEW_PLACE; if it is not wanted any more: git worktree remove {folder}; or take another name"
    )
