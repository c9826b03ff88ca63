"""What is written of something before it goes to the trash: what it is, and what is needed to put it back.

Looks only. A folder whose links to its repository do not agree is `broken`, and its repository none of ours.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from hostsvc import removal, tree
from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.places import Place, find_place
from hostsvc.git.worktree import Taken, read_taken
from hostsvc.tree import Identity, PathRefused

WORKTREE, FOLDER, REPOSITORY, BROKEN, GONE = "worktree", "folder", "repository", "broken", "gone"
KINDS: Final = (WORKTREE, FOLDER, REPOSITORY, BROKEN)
"""A linked worktree; a plain folder; one with a repository of its own; one whose `.git` cannot be followed,
moved as it is. `gone` was not there any more, and is never in the trash."""


async def describe(git: Git, base: Path, base_fd: int, name: str, identity: Identity) -> Mapping[str, Any]:
    """Return the manifest of a folder of the base.

    Raises:
        PathRefused: it is not that directory, or git does not say what it holds.
    """
    kind, place = await trio.to_thread.run_sync(_look, base, base_fd, name, identity)
    plain = {"kind": kind, "head": None, "branch": None, "size_bytes": 0}
    if kind == GONE:
        return plain
    plain["size_bytes"] = await trio.to_thread.run_sync(removal.measure, str(base / name))
    if place is None:
        return plain
    try:
        taken = await read_taken(git, place)
    except GitUnknown as error:
        raise PathRefused(f"{name} cannot be moved: {error}") from error
    return {**plain, **attrs.asdict(taken)}


def _look(base: Path, base_fd: int, name: str, identity: Identity) -> tuple[str, Place | None]:
    try:
        with tree.opened(base_fd, name, tree.PLACE) as fd:
            tree.check(os.fstat(fd), identity, name)
    except FileNotFoundError:
        return GONE, None
    except OSError as error:
        raise PathRefused(f"cannot look at {name}: {error.strerror}") from error
    if not os.path.lexists(base / name / ".git"):
        return FOLDER, None
    try:
        place = find_place(base / name)
    except GitUnknown:
        return BROKEN, None
    return (WORKTREE, place) if place.is_linked else (REPOSITORY, None)


def taken_of(manifest: Mapping[str, Any]) -> Taken | None:
    """Return what a worktree's manifest says of its registration; None for anything else."""
    if manifest.get("kind") != WORKTREE:
        return None
    return Taken(**{field.name: manifest[field.name] for field in attrs.fields(Taken)})
