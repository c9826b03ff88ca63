"""What a repository has that would go with it: commits that are on no remote, and other worktrees.

Looks at repositories of their own, and at those that a worktree keeps for its submodules: one that has no
folder any more may still have commits. Reads only; whoever asks says what it means.

Source: git-submodule(1) "deinit", gitrepository-layout(5) "modules", git-rev-list(1)
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import trio

from hostsvc.git.command import Git, GitUnknown, text
from hostsvc.git.places import Place

_NOWHERE: Final = "--work-tree=."
"""For a repository whose settings name a folder that is gone: git would not begin."""
_OF_A_REPOSITORY: Final = ("HEAD", "objects", "refs")
"""With one of these something is a repository, whole or broken."""


async def find_only_here(git: Git, place: Place, *options: str) -> list[str]:
    """Return what a repository of its own has besides what is checked out, as texts for people.

    Raises:
        GitUnknown: git could not tell.
    """
    found = []
    every = ("--exclude=refs/remotes/*", "--all")  # branches, tags, stashes, what the trash keeps
    listed = await git.run(str(place.folder), *options, "rev-list", "--count", *every, "--not", "--remotes")
    others = int(text(listed))
    if others:
        found.append(f"{others} commits of its repository are on no remote")
    if any((place.git_dir / "worktrees").glob("*")):
        found.append("its repository has other worktrees")
    return found


async def find_in_modules(
    git: Git, parent: Path, but: Collection[Path], deepest: int
) -> list[tuple[Path, str]]:
    """Return the same of all repositories that one keeps for its submodules, and of those inside them.

    Args:
        parent: The directory of the one that keeps them.
        but: Those that were looked into where they are checked out.
        deepest: How many may be inside each other.

    Raises:
        GitUnknown: git could not tell; or one is none, and git would answer for another around it.
        OSError: it cannot be told which there are.
    """
    found: list[tuple[Path, str]] = []
    for git_dir in await trio.to_thread.run_sync(_modules, parent):
        if git_dir in but:
            continue
        if deepest <= 0:
            raise GitUnknown("it has submodules inside submodules, too deep to look")
        meant = text(await git.run(str(git_dir), _NOWHERE, "rev-parse", "--absolute-git-dir"))
        if not await trio.to_thread.run_sync(os.path.samefile, meant, git_dir):
            raise GitUnknown("git answers for another repository around a submodule's")
        place = Place(folder=git_dir, git_dir=git_dir, common_dir=git_dir)
        found += [(git_dir, one) for one in await find_only_here(git, place, _NOWHERE)]
        found += await find_in_modules(git, git_dir, (), deepest - 1)
    return found


def _modules(git_dir: Path) -> list[Path]:
    """Return where a worktree keeps the repositories of its submodules, of those without a folder too.

    A submodule's name may have slashes. What is inside another repository is that one's.

    Raises:
        OSError: it cannot be told.
    """
    found, left = [], _folders(git_dir / "modules")
    while left:
        folder = left.pop()
        if folder.is_symlink() or any(os.path.lexists(folder / name) for name in _OF_A_REPOSITORY):
            found.append(folder)
        else:
            left += _folders(folder)
    return sorted(found)


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
