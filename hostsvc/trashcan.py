"""The base's trash: what is put there can be put back as it was, until it is purged.

Owns `.trash` below the base directory. Of each entry there are `ID`, the folder itself; `ID.git`, for a
linked worktree: its administrative directory, taken out of its repository; and `ID.json`, the manifest, for a
person who has lost the index. A worktree's commits are kept by a ref of ours in its repository meanwhile.

Everything can be repeated: the row is written before anything is moved, and whoever comes after a crash goes
on with what the row says. Never touches a repository for a folder whose links to it do not agree.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from hostsvc import processes, removal, tree
from hostsvc.clock import NowMs
from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.places import Place, find_place
from hostsvc.git.worktree import (
    KEEP_REF,
    Taken,
    check_branch,
    check_repository,
    detach,
    drop_commits,
    is_on_branch,
    keep_commits,
    read_taken,
    register,
    unregister,
)
from hostsvc.index import Index
from hostsvc.store import trash
from hostsvc.store.rows import to_json
from hostsvc.store.trash import Entry
from hostsvc.tree import Identity, PathRefused

WORKTREE, FOLDER, REPOSITORY, BROKEN, GONE = "worktree", "folder", "repository", "broken", "gone"
"""Kinds of entries: a linked worktree; a plain folder; one with a repository of its own; a folder whose
`.git` cannot be followed, moved as it is; one that was not there any more."""
ADMIN: Final = ".git"
MANIFEST: Final = ".json"


class TrashCan:
    """Puts folders of the base into the trash, back, and away."""

    def __init__(
        self, index: Index, git: Git, base: Path, base_fd: int, now_ms: NowMs, *, keep_ms: int
    ) -> None:
        self._index = index
        self._git = git
        self._base = base
        self._base_fd = base_fd
        self._now_ms = now_ms
        self._keep_ms = keep_ms

    async def put(
        self,
        entry_id: str,
        *,
        path: str,
        identity: Identity,
        why: str,
        who: str,
        workspace_id: str = "",
        generation: int = 0,
        keep_ms: int | None = None,
    ) -> Entry:
        """Move a folder of the base into the trash; also when half of that was done before.

        Args:
            entry_id: Names the entry; the same again goes on with it.
            path: The folder or the artifacts, directly below the base.
            identity: Which directory it has to be.
            why: For people: the reason.
            who: What asked for it.
            workspace_id: Whose it was; empty for nobody's.
            generation: Of that workspace.
            keep_ms: How long it is kept, if not as the settings say.

        Returns:
            The entry; it is purged already when there was nothing to move any more.

        Raises:
            PathRefused: it is another by now, or cannot be moved, or git does not answer. It is left alone.
        """
        entry = await self._index.read(trash.find, entry_id)
        if entry is None:
            now_ms = self._now_ms()
            manifest = await self._describe(entry_id, path, identity)
            entry = await self._index.write(
                trash.insert,
                id_=entry_id,
                workspace_id=workspace_id,
                generation=generation,
                path=path,
                trash_path=str(self._path(entry_id)),
                identity=identity,
                manifest={**manifest, "why": why, "who": who},
                now_ms=now_ms,
                purge_at_ms=now_ms + (self._keep_ms if keep_ms is None else keep_ms),
            )
        if entry["purged_at_ms"] is None and not await self._take(entry):
            await self._tidy(entry)
            await self._index.write(trash.purged, entry_id, self._now_ms())  # somebody removed it before us
        found = await self._index.read(trash.find, entry_id)
        assert found is not None
        return found

    async def restore(self, entry: Entry) -> bool:
        """Put an entry back where it was; also when half of that was done before.

        Returns:
            Whether a worktree is on its branch again; if not, it is at the same commit without one, since the
            branch has moved or is checked out elsewhere by now.

        Raises:
            PathRefused: something else is there by now, or its repository is gone. It stays in the trash.
        """
        taken, admin = _taken(entry), self._path(entry["id"] + ADMIN)
        try:
            if taken is not None:
                await trio.to_thread.run_sync(check_repository, taken)
                if admin.exists() and not await check_branch(self._git, taken):
                    await trio.to_thread.run_sync(detach, taken, admin)
            await trio.to_thread.run_sync(self._move_back, entry)
            if taken is not None:
                await trio.to_thread.run_sync(register, taken, Path(entry["path"]), admin)
        except (GitUnknown, OSError) as error:
            raise PathRefused(f"cannot restore {entry['id']}: {_text(error)}") from error
        await self._tidy(entry)
        return taken is None or await trio.to_thread.run_sync(is_on_branch, taken, Path(entry["path"]))

    async def put_again(self, entry: Entry) -> None:
        """Undo `restore`, however far it came.

        Raises:
            PathRefused: it cannot be moved.
        """
        if not await self._take(entry):
            raise PathRefused(f"{entry['path']} is gone, and {entry['trash_path']} too")

    async def purge(self, entry: Entry) -> str | None:
        """Remove an entry for good, unless a process is inside; return why not."""
        try:
            used = await trio.to_thread.run_sync(processes.inside, [entry["trash_path"]])
            if used:
                raise PathRefused(f"process {used[entry['trash_path']]} is inside")
            identity = Identity(entry["device"], entry["inode"])
            await trio.to_thread.run_sync(removal.purge, self._base_fd, entry["id"], identity)
            await trio.to_thread.run_sync(self._remove_admin, entry["id"] + ADMIN)
            await self._tidy(entry)
        except PathRefused as error:
            await self._index.write(trash.failed, entry["id"], str(error))
            return str(error)
        await self._index.write(trash.purged, entry["id"], self._now_ms())
        return None

    # -- before it is moved ------------------------------------------------------------------------

    async def _describe(self, entry_id: str, path: str, identity: Identity) -> Mapping[str, Any]:
        """Return the manifest: what somebody needs to put it back."""
        name = self._name(path)
        kind, place = await trio.to_thread.run_sync(self._look, name, identity)
        plain = {"kind": kind, "head": None, "branch": None, "ref": None, "size_bytes": 0}
        if kind == GONE:
            return plain
        plain["size_bytes"] = await trio.to_thread.run_sync(removal.measure, path)
        if place is None:
            return plain
        try:
            taken = await read_taken(self._git, place)
        except GitUnknown as error:
            raise PathRefused(f"{name} cannot be moved: {error}") from error
        return {**plain, **attrs.asdict(taken), "ref": taken.head and KEEP_REF + entry_id}

    def _look(self, name: str, identity: Identity) -> tuple[str, Place | None]:
        folder = self._base / name
        try:
            with tree.opened(self._base_fd, name, tree.PLACE) as fd:
                tree.check(os.fstat(fd), identity, name)
        except FileNotFoundError:
            return GONE, None
        except OSError as error:
            raise PathRefused(f"cannot look at {name}: {error.strerror}") from error
        if not os.path.lexists(folder / ".git"):
            return FOLDER, None
        try:
            place = find_place(folder)
        except GitUnknown:
            return BROKEN, None
        return (WORKTREE, place) if place.is_linked else (REPOSITORY, None)

    def _name(self, path: str) -> str:
        """Return what a path is called below the base.

        Raises:
            PathRefused: it is not directly below it.
        """
        name = os.path.basename(path)
        if str(self._base / name) != path:
            raise PathRefused(f"{path[:256]!a} is not directly below {self._base}")
        tree.check_entry_name(name)
        return name

    # -- there and back ----------------------------------------------------------------------------

    async def _take(self, entry: Entry) -> bool:
        """Carry out what the row says; False when the folder is gone."""
        manifest, id_ = entry["manifest"], entry["id"]
        if manifest["kind"] == GONE:
            return False
        identity = Identity(entry["device"], entry["inode"])
        move = partial(tree.move_to_trash, self._base_fd, self._name(entry["path"]), id_, identity)
        taken = _taken(entry)
        try:
            await trio.to_thread.run_sync(self._write_manifest, entry)
            if taken is not None and taken.head is not None:
                await keep_commits(self._git, taken.common_dir, id_, taken.head)
            if not await trio.to_thread.run_sync(move):
                return False
            if taken is not None:
                await trio.to_thread.run_sync(unregister, taken, self._path(id_ + ADMIN))
        except (GitUnknown, OSError) as error:
            raise PathRefused(f"cannot move {entry['path']} to the trash: {_text(error)}") from error
        return True

    def _move_back(self, entry: Entry) -> None:
        identity = Identity(entry["device"], entry["inode"])
        if not tree.move_back(self._base_fd, entry["id"], self._name(entry["path"]), identity):
            raise PathRefused(f"{entry['trash_path']} is gone")

    def _write_manifest(self, entry: Entry) -> None:
        shown = {key: entry[key] for key in _SHOWN}
        with tree.open_trash(self._base_fd) as fd:
            tree.write_file(fd, entry["id"] + MANIFEST, to_json({**shown, **entry["manifest"]}).encode())

    async def _tidy(self, entry: Entry) -> None:
        """Drop what was only kept for the way back."""
        taken = _taken(entry)
        if taken is not None and taken.head is not None and os.path.isdir(taken.common_dir):
            try:
                await drop_commits(self._git, taken.common_dir, entry["id"])
            except GitUnknown as error:
                raise PathRefused(f"its commits in {taken.common_dir} cannot be let go: {error}") from error
        await trio.to_thread.run_sync(self._remove_manifest, entry["id"] + MANIFEST)

    def _remove_manifest(self, name: str) -> None:
        with tree.open_trash(self._base_fd) as fd, contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)

    def _remove_admin(self, name: str) -> None:
        try:
            with tree.open_trash(self._base_fd) as fd, contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                removal.remove_folder(fd, name, tree.identity_of(found))
        except OSError as error:
            raise PathRefused(f"cannot purge {name}: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        return self._base / tree.TRASH / name


_SHOWN: Final = (
    "id",
    "path",
    "workspace_id",
    "generation",
    "device",
    "inode",
    "trashed_at_ms",
    "purge_at_ms",
)


def _taken(entry: Entry) -> Taken | None:
    """Return what a worktree's manifest says of its registration; None for anything else."""
    manifest = entry["manifest"]
    if manifest.get("kind") != WORKTREE:
        return None
    return Taken(**{field.name: manifest[field.name] for field in attrs.fields(Taken)})


def _text(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
