"""The look at the base directory that `worktrees` and `triples` share: what lies there, and whose it is.

Owns the look, one for both in a pass: one scan of the directory, one look into the index after it, one walk
over all processes. Reads only, follows no link, and never takes what it cannot read for something that is not
there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from hostsvc import processes
from hostsvc.index import Index
from hostsvc.model import ABSENT, Fact, Known, Unknown
from hostsvc.owned import PathRole
from hostsvc.reaper.kinds import Look
from hostsvc.store import ownership
from hostsvc.store.ownership import Living, MadePath
from hostsvc.sweep import Claim, Form, Made, is_left_behind
from hostsvc.tree import SIBLING_SUFFIXES, TRASH, Identity
from ptyd.protocol.errors import Code, PtydError

MOST_LOOKED_INTO: Final = 200_000
"""Entries of one folder whose times are looked at, which takes a second; a larger one's age is unknown."""


@attrs.frozen(kw_only=True)
class Entry:
    """Something in the base directory, as the directory itself tells."""

    name: str
    path: str
    identity: Identity
    mode: int
    changed_at_ms: int
    is_mounted: bool = False
    """It is not of the base's device."""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


@attrs.frozen(kw_only=True)
class Found:
    """An entry, whose it is, and what it is to git."""

    entry: Entry
    claim: Claim
    form: Form = Form.PLAIN

    @property
    def generation(self) -> int:
        """Of the workspace for which it was made; 0 for a stranger's."""
        return self.claim.made.value.generation if isinstance(self.claim.made, Known) else 0

    @property
    def is_for_git(self) -> bool:
        """The kind `worktrees` looks after it."""
        return self.form is not Form.PLAIN


class Base:
    """Looks at the base directory."""

    def __init__(self, index: Index, path: Path) -> None:
        self._index = index
        self._path = path
        self._last: tuple[Look, Mapping[str, Found]] | None = None

    async def look(self, look: Look) -> Mapping[str, Found]:
        """Return everything that is in it, by name; the second kind of a pass gets what the first one saw.

        Raises:
            PtydError: path_refused, when it cannot be read. One that is missing is empty.
        """
        if self._last is None or self._last[0] is not look:
            entries = await trio.to_thread.run_sync(scan, self._path)
            self._last = look, await self._judge(entries)
        return self._last[1]

    async def look_at(self, name: str) -> Found | None:
        """Look at one entry once more, from all sides; None when it is gone.

        Raises:
            PtydError: path_refused, when it cannot be seen.
        """
        entries = await trio.to_thread.run_sync(scan, self._path, [name])
        return (await self._judge(entries)).get(name)

    async def _judge(self, entries: Sequence[Entry]) -> Mapping[str, Found]:
        """Ownership is looked up after the directory was read: what was made since is not in question."""
        made, living = await self._index.read(ownership.find, [entry.path for entry in entries])
        return await trio.to_thread.run_sync(self._put_together, entries, made, living)

    def _put_together(
        self, entries: Sequence[Entry], made: Sequence[MadePath], living: Sequence[Living]
    ) -> Mapping[str, Found]:
        real = os.path.realpath(self._path)
        deeds = _by_path(made)
        owners = _owners(living, {str(self._path), real})
        identities = {one.inode: one.id for one in living if one.inode is not None}
        found = {}
        for entry in entries:
            mine = deeds.get(entry.path, [])
            owner = _owner(entry, mine, owners, identities)
            claim = Claim(made=_made(entry, mine), owner=owner, user=ABSENT)
            found[entry.name] = Found(entry=entry, claim=claim)
        left = [one for one in found.values() if is_left_behind(one.claim) and one.entry.is_folder]
        users = processes.inside([f"{real}/{one.entry.name}" for one in left])
        is_covered = bool(left) and _has_repository_above(real)
        for one in left:
            pid = users.get(f"{real}/{one.entry.name}")
            was_worktree = any(deed.is_worktree for deed in deeds.get(one.entry.path, []))
            found[one.entry.name] = attrs.evolve(
                one,
                claim=attrs.evolve(one.claim, user=ABSENT if pid is None else Known(pid)),
                form=_form(one, is_covered, was_worktree),
            )
        return found


# --- reading the directory -----------------------------------------------------------------------


def scan(base: Path, names: Iterable[str] | None = None) -> list[Entry]:
    """Read the base directory, or only some entries of it; the trash is none.

    Raises:
        PtydError: path_refused.
    """
    entries = []
    try:
        fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(base, error) from error
    try:
        device = os.fstat(fd).st_dev
        for name in os.listdir(fd) if names is None else names:
            with contextlib.suppress(FileNotFoundError):  # somebody was quicker: it is not there
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if name != TRASH:
                    entries.append(_entry(base, name, found, device))
    except OSError as error:
        raise _unreadable(base, error) from error
    finally:
        os.close(fd)
    return entries


def _entry(base: Path, name: str, found: os.stat_result, device: int) -> Entry:
    return Entry(
        name=name,
        path=str(base / name),
        identity=Identity(found.st_dev, found.st_ino),
        mode=found.st_mode,
        changed_at_ms=found.st_mtime_ns // 1_000_000,
        is_mounted=found.st_dev != device,
    )


def _unreadable(base: Path, error: OSError) -> PtydError:
    return PtydError(Code.PATH_REFUSED, f"base directory {base} cannot be read: {error.strerror}")


def newest_change(entry: Entry, fresh_ms: int) -> Fact[int]:
    """Return when something in an entry has last changed; it ends the search at the first that is fresh.

    A folder's own time does not move when something inside of it changes.
    """
    newest = entry.changed_at_ms
    folders = [entry.path] if entry.is_folder else []
    seen = 0
    while folders and newest < fresh_ms:
        folder = folders.pop()
        try:
            with os.scandir(folder) as inner:
                for one in inner:
                    found = one.stat(follow_symlinks=False)
                    newest = max(newest, found.st_mtime_ns // 1_000_000)
                    if stat.S_ISDIR(found.st_mode) and found.st_dev == entry.identity.device:
                        folders.append(one.path)
                    seen += 1
        except FileNotFoundError:
            continue  # its parent's time tells that it went
        except OSError as error:
            return Unknown(f"it cannot be looked into: {error.strerror}")
        if seen > MOST_LOOKED_INTO:
            return Unknown(f"it has more than {MOST_LOOKED_INTO} entries")
    return Known(newest)


def _form(found: Found, is_covered: bool, was_worktree: bool) -> Form:
    if not isinstance(found.claim.made, Known) or found.claim.made.value.role is not PathRole.FOLDER:
        return Form.PLAIN
    try:
        mode = os.lstat(f"{found.entry.path}/.git").st_mode
    except FileNotFoundError:
        return Form.COVERED if is_covered else Form.LINKED if was_worktree else Form.PLAIN
    except OSError:
        return Form.LINKED  # the look at its link says that it cannot be read
    return Form.REPOSITORY if stat.S_ISDIR(mode) else Form.LINKED


def _has_repository_above(base: str) -> bool:
    place = Path(base)
    return any(os.path.lexists(above / ".git") for above in (place, *place.parents))


# --- whose it is ---------------------------------------------------------------------------------


def _by_path(made: Sequence[MadePath]) -> Mapping[str, list[MadePath]]:
    found = defaultdict(list)
    for deed in made:
        found[deed.path].append(deed)
    return found


def _made(entry: Entry, deeds: Sequence[MadePath]) -> Fact[Made]:
    """Find the newest deed that an entry fits: something else of the same name is a stranger's."""
    for deed in reversed(deeds):
        if _fits(entry, deed):
            return Known(
                Made(
                    role=PathRole(deed.role),
                    workspace_id=deed.workspace_id,
                    generation=deed.generation,
                    created_at_ms=deed.created_at_ms,
                    is_deleted=deed.is_deleted,
                )
            )
    return ABSENT


def _fits(entry: Entry, deed: MadePath) -> bool:
    """One that was never identified may be somebody's who was there before us.

    A device may have another number after a boot, so that what is stored of it tells nothing.
    """
    is_like = stat.S_ISREG(entry.mode) if deed.role == PathRole.CREDENTIAL else entry.is_folder
    return is_like and not entry.is_mounted and entry.identity.inode == deed.inode


def _owner(
    entry: Entry,
    deeds: Sequence[MadePath],
    owners: Mapping[str, str],
    identities: Mapping[int, str],
) -> Fact[str]:
    stem = entry.name
    for suffix in SIBLING_SUFFIXES:
        stem = stem.removesuffix(suffix)
    wanted = next((deed.workspace_id for deed in deeds if deed.is_wanted), None)
    owner = wanted or owners.get(stem) or owners.get(entry.name) or identities.get(entry.identity.inode)
    return ABSENT if owner is None else Known(owner)


def _owners(living: Sequence[Living], bases: Iterable[str]) -> Mapping[str, str]:
    """Return which workspace has to do with which name in the base: its folder is that, or lies inside."""
    found = {}
    for one in living:
        for base in bases:
            if one.path.startswith(base + "/"):
                found[one.path.removeprefix(base + "/").split("/")[0]] = one.id
    return found
