"""What would be lost with a worktree: everything in it that is nowhere else, or that cannot be read.

Owns the check. Reads only: no lock is taken, no index refreshed, no object fetched. Whatever cannot be told
is at risk. Ignored files are not: they are what a build makes.

Source: git-status(1) "Porcelain Format Version 2", git-ls-files(1), git-rev-list(1)
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from hostsvc.git.command import Git, GitUnknown, paths, text
from hostsvc.git.only_here import find_in_modules, find_only_here
from hostsvc.git.places import Place, find_place, find_submodule
from hostsvc.git.worktree import read_head

SHOWN: Final = 5
"""Paths named with a reason; the number is always told."""
DEEPEST: Final = 4
"""Submodules inside submodules that are looked into."""

IN_PROGRESS: Final = {
    "MERGE_HEAD": "merge",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase or am",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "BISECT_LOG": "bisect",
    "sequencer": "sequence of picks",
}
CODES: Final = (
    "modified",
    "staged",
    "untracked",
    "unmerged_paths",
    "hidden",
    "detached",
    "unpushed",
    "unmerged",
    "repository",
    "in_progress",
    "submodule",
    "locked",
    "busy",
    "unknown",
)
"""What a reason may be; protocol.md explains each."""
LOCKS: Final = ("index.lock", "HEAD.lock")


Check = Callable[[], Awaitable[list["Reason"]]]


@attrs.frozen(kw_only=True)
class Reason:
    """Why something is at risk. `code`: one word for programs; `text`: for people."""

    code: str = attrs.field(validator=attrs.validators.in_(CODES))
    text: str


@attrs.frozen(kw_only=True)
class Risk:
    """What a check has found; nothing is at risk when there are no reasons."""

    reasons: tuple[Reason, ...] = ()
    head: str | None = None
    branch: str | None = None

    @property
    def is_safe(self) -> bool:
        return not self.reasons


async def check_risk(git: Git, folder: Path) -> Risk:
    """Find out what would be lost with a worktree. Never raises: what cannot be told is a reason."""
    try:
        place = await trio.to_thread.run_sync(find_place, folder)
        return await _check(git, place, 0)
    except (GitUnknown, OSError) as error:
        return Risk(reasons=(Reason(code="unknown", text=f"it cannot be told: {error}"),))


async def _check(git: Git, place: Place, depth: int) -> Risk:
    head: str | None = None
    branch: str | None = None

    async def check_head() -> list[Reason]:
        nonlocal head, branch
        head, branch = await read_head(git, place.folder)
        return await _check_commits(git, place.folder, head, branch)

    reasons = await _gather(
        partial(_check_status, git, place.folder),  # takes longest
        partial(_confirm_place, git, place),
        partial(_check_index, git, place, depth),
        check_head,
        *([] if place.is_linked else [partial(_check_repository, git, place)]),
    )
    return Risk(reasons=(*_look_into(place), *reasons), head=head, branch=branch)


async def _gather(*checks: Check) -> list[Reason]:
    """Run checks side by side; return what they find, in their order.

    Raises:
        GitUnknown, OSError: one of them could not tell, always the first one.
    """
    found: dict[int, list[Reason] | GitUnknown | OSError] = {}

    async def run(number: int, check: Check) -> None:
        try:
            found[number] = await check()
        except (GitUnknown, OSError) as error:
            found[number] = error

    async with trio.open_nursery() as nursery:
        for number, check in enumerate(checks):
            nursery.start_soon(run, number, check)
    reasons: list[Reason] = []
    for _, one in sorted(found.items(), key=lambda item: item[0]):
        if isinstance(one, Exception):
            raise one
        reasons += one
    return reasons


async def _confirm_place(git: Git, place: Place) -> list[Reason]:
    """Make sure that git means the same folder as we do; finds nothing else.

    Raises:
        GitUnknown: it answers for another one, or not at all.
    """
    top = text(await git.run(str(place.folder), "rev-parse", "--show-toplevel"))
    if not _is_same(top, place.folder):
        raise GitUnknown("git answers for another repository around it")
    return []


def _is_same(path: str, folder: Path) -> bool:
    return os.path.samefile(path, folder)


def _look_into(place: Place) -> list[Reason]:
    """What the administrative directory tells by a file's being there."""
    found = [
        Reason(code="in_progress", text=f"a {what} is in progress")
        for name, what in IN_PROGRESS.items()
        if os.path.lexists(place.git_dir / name)
    ]
    if os.path.lexists(place.git_dir / "locked"):
        found.append(Reason(code="locked", text="its worktree is locked"))
    if any(os.path.lexists(place.git_dir / name) for name in LOCKS):
        found.append(Reason(code="busy", text="git is at work in it"))
    return found


async def _disarm_filters(git: Git, folder: Path) -> list[str]:
    """Return settings under which no filter of the repository's runs a command. What differs then is kept."""
    listed = await git.run(str(folder), "config", "--list", "--name-only", "-z")
    names = {name.decode(errors="replace") for name in paths(listed) if name.lower().startswith(b"filter.")}
    drivers = {name[: name.rindex(".")] for name in names}
    return [
        f"{driver}.{key}"
        for driver in sorted(drivers)
        for key in ("clean=", "process=", "smudge=", "required=false")
    ]


async def _check_status(git: Git, folder: Path) -> list[Reason]:
    overrides = await _disarm_filters(git, folder)
    output = await git.run(
        str(folder),
        "status",
        "--porcelain=v2",
        "-z",
        "--untracked-files=all",
        "--ignore-submodules=none",
        "--no-renames",
        overrides=overrides,
    )
    found: dict[str, list[bytes]] = {}
    for line in paths(output):
        for code, path in _read_status(line):
            found.setdefault(code, []).append(path)
    return [_reason(code, names) for code, names in found.items()]


def _read_status(line: bytes) -> list[tuple[str, bytes]]:
    """Read one entry: what is at risk in it.

    Raises:
        GitUnknown: it has a form that is not known.
    """
    match line[:1]:
        case b"?":
            return [("untracked", line[2:])]
        case b"u":
            return [("unmerged_paths", line.split(b" ", 10)[10])]
        case b"1":
            fields = line.split(b" ", 8)
            staged, changed, submodule, path = fields[1][:1], fields[1][1:2], fields[2], fields[8]
            if submodule.startswith(b"S"):
                return [("submodule", path)]
            codes = [("staged", staged), ("modified", changed)]
            return [(code, path) for code, sign in codes if sign != b"."]
    raise GitUnknown("git status has an entry of an unknown form")


async def _check_index(git: Git, place: Place, depth: int) -> list[Reason]:
    """Find files whose changes status does not show, because somebody told it not to look; and submodules."""
    listed = await git.run(str(place.folder), "ls-files", "-v", "--stage", "-z")
    special = [line.split(b"\t", 1) for line in _SPECIAL.findall(b"\0" + listed)]
    hidden = [name for meta, name in special if not meta.startswith((b"H ", b"M "))]
    present = _present(place.folder, hidden)
    modules = [name for meta, name in special if b" 160000 " in meta]
    reasons = [_reason("hidden", present)] if present else []
    return reasons + await _check_submodules(git, place, modules, depth)


def _present(folder: Path, names: Sequence[bytes]) -> list[bytes]:
    return [name for name in names if os.path.lexists(os.path.join(os.fsencode(folder), name))]


_SPECIAL: Final = re.compile(rb"\0((?:[^HM] |[HM] 160000 )[^\0]*)")
"""Entries that are told not to be looked at, or are submodules: few among very many. It finds where one may
begin by a byte: of 50 000 entries in 4 ms; a look behind at each byte held up everybody for 100."""


async def _check_commits(git: Git, folder: Path, head: str | None, branch: str | None) -> list[Reason]:
    """Find commits that are nowhere else."""
    if head is None:
        return []
    if branch is None and await _count(git, folder, head, "--branches", "--tags", "--remotes"):
        return [Reason(code="detached", text="its detached HEAD has commits that no branch has")]
    if await git.run(str(folder), "for-each-ref", "--count=1", "refs/remotes"):
        if missing := await _count(git, folder, head, "--remotes"):
            return [Reason(code="unpushed", text=f"{missing} commits are on no remote")]
        return []
    others = [f"--exclude={branch.removeprefix('refs/heads/')}"] if branch else []
    if missing := await _count(git, folder, head, *others, "--branches", "--tags"):
        return [Reason(code="unmerged", text=f"{missing} commits are on no other branch; there is no remote")]
    return []


async def _check_repository(git: Git, place: Place) -> list[Reason]:
    return [Reason(code="repository", text=one) for one in await find_only_here(git, place)]


async def _count(git: Git, folder: Path, head: str, *without: str) -> int:
    return int(text(await git.run(str(folder), "rev-list", "--count", head, "--not", *without)))


async def _check_submodules(git: Git, place: Place, names: Sequence[bytes], depth: int) -> list[Reason]:
    """Look into every submodule, there or not: its commits live in the worktree's own directory."""
    reasons: list[Reason] = []
    looked_into = set()
    for name in names:
        inner = place.folder / os.fsdecode(name)
        if not _present(inner, [b".git"]):
            continue
        if depth >= DEEPEST:
            raise GitUnknown("it has submodules inside submodules, too deep to look")
        found = await trio.to_thread.run_sync(find_submodule, inner)
        looked_into.add(found.git_dir)
        risk = await _check(git, found, depth + 1)
        reasons += _of_submodule(inner, [reason.text for reason in risk.reasons])
    for git_dir, one in await find_in_modules(git, place.git_dir, looked_into, DEEPEST - depth):
        reasons += _of_submodule(git_dir, [one])
    return reasons


def _of_submodule(folder: Path, texts: Sequence[str]) -> list[Reason]:
    return [Reason(code="submodule", text=f"{ascii(folder.name)[1:-1]}: {one}") for one in texts]


def _reason(code: str, names: Sequence[bytes]) -> Reason:
    shown = ", ".join(ascii(os.fsdecode(name))[1:-1] for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return Reason(code=code, text=f"{code.replace('_', ' ')}: {shown}{more}")
