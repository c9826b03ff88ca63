"""What a worktree is at, for showing: its branch, its commit, how many of its files have changed.

Only for people to look at: nothing is ever decided on it, what would be lost is `risk`'s to find.

Source: git-status(1) "Porcelain Format Version 2"
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs
import trio

from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.places import find_place

_OID: Final = b"# branch.oid "
_HEAD: Final = b"# branch.head "
_ENTRIES: Final = (b"1 ", b"2 ", b"u ", b"? ")


@attrs.frozen(kw_only=True)
class GitState:
    """`branch`: None when none is checked out. `head`: None before the first commit."""

    branch: str | None
    head: str | None
    changed: int
    """Files that are not as in `head`, untracked ones included."""


async def read_state(git: Git, folder: Path) -> GitState:
    """Look at a worktree, and touch nothing.

    Raises:
        GitUnknown: it is none, or git could not tell.
    """
    await trio.to_thread.run_sync(find_place, folder)  # or git would answer for a repository around it
    return parse_state(await git.run(str(folder), "status", "--porcelain=v2", "--branch", "-z"))


def parse_state(output: bytes) -> GitState:
    """Read what git status has told.

    Raises:
        GitUnknown: it does not say where HEAD is.
    """
    words = output.split(b"\0")
    oid = next((word.removeprefix(_OID) for word in words if word.startswith(_OID)), None)
    head = next((word.removeprefix(_HEAD) for word in words if word.startswith(_HEAD)), None)
    if oid is None or head is None:
        raise GitUnknown("git status does not say where HEAD is")
    return GitState(
        branch=None if head == b"(detached)" else head.decode(errors="replace"),
        head=None if oid == b"(initial)" else oid.decode(errors="replace"),
        changed=sum(word.startswith(_ENTRIES) for word in words),
    )
