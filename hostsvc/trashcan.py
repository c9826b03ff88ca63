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
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import trio

from hostsvc import processes, removal, tree
from hostsvc.clock import NowMs
from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.keep import keep, let_go
from hostsvc.git.worktree import (
    check_branch,
    check_repository,
    detach,
    is_on_branch,
    register,
    unregister,
)
from hostsvc.index import Index
from hostsvc.manifest import GONE, describe, taken_of
from hostsvc.store import nesting, trash
from hostsvc.store.rows import to_json
from hostsvc.store.trash import Entry
from hostsvc.tree import Identity, PathRefused

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
        self._at_work: set[str] = set()

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
            identity: Which directory it has to be; it is the base's device, whatever number that had.
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
        with self.alone(entry_id):
            entry = await self._index.read(trash.find, entry_id)
            if entry is None or await trio.to_thread.run_sync(self._is_in_place, entry):
                told, owner = {"why": why, "who": who}, (workspace_id, generation)
                entry = await self._enter(entry_id, path, identity, keep_ms, told, owner)
            if entry["purged_at_ms"] is None:
                await self.put_again(entry)
        found = await self._index.read(trash.find, entry_id)
        assert found is not None
        return found

    async def _enter(
        self,
        id_: str,
        path: str,
        identity: Identity,
        keep_ms: int | None,
        told: Entry,
        owner: tuple[str, int],
    ) -> Entry:
        """Write what is to be moved, and until when it is kept, which counts from the move.

        From then on nothing comes to be inside. What a failed attempt has written is out of date.
        """
        now_ms = self._now_ms()
        name = self._name(path)
        identity = tree.identity_below(self._base_fd, identity.inode)
        manifest = await describe(self._git, self._base, self._base_fd, name, identity)
        try:
            return await self._index.write(
                trash.insert,
                id_=id_,
                workspace_id=owner[0],
                generation=owner[1],
                path=path,
                aliases=tree.aliases(path, str(self._base)),
                trash_path=str(self._path(id_)),
                identity=identity,
                manifest={**manifest, **told},
                now_ms=now_ms,
                purge_at_ms=now_ms + (self._keep_ms if keep_ms is None else keep_ms),
            )
        except nesting.Inhabited as error:
            raise PathRefused(f"cannot move {path} to the trash: {error}") from error

    async def restore(self, entry: Entry) -> bool:
        """Put an entry back where it was; also when half of that was done before.

        Returns:
            Whether a worktree is on its branch again; if not, it is at the same commit without one, since the
            branch has moved or is checked out elsewhere by now.

        Raises:
            PathRefused: something else is there by now, or its repository is gone. It stays in the trash.
        """
        taken, admin = taken_of(entry["manifest"]), self._path(entry["id"] + ADMIN)
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
        """Move what an entry says into the trash, however far that, or its way back, has come.

        Raises:
            PathRefused: it cannot be moved.
        """
        if not await self._take(entry):
            await self._tidy(entry)
            await self._index.write(trash.purged, entry["id"], self._now_ms())  # somebody has removed it

    async def purge(self, entry: Entry) -> str | None:
        """Remove an entry for good, unless a process is inside; return why not."""
        try:
            with self.alone(entry["id"]):
                await self._purge(entry)
        except PathRefused as error:
            await self._index.write(trash.failed, entry["id"], str(error))
            return str(error)
        return None

    @contextlib.contextmanager
    def alone(self, entry_id: str) -> Iterator[None]:
        """Let nobody else move, restore or purge an entry for the block.

        Raises:
            PathRefused: somebody is at it.
        """
        if entry_id in self._at_work:
            raise PathRefused(f"{entry_id} is being moved, restored or purged just now")
        self._at_work.add(entry_id)
        try:
            yield
        finally:
            self._at_work.discard(entry_id)

    async def _purge(self, entry: Entry) -> None:
        if await self._index.read(trash.find_in_trash, entry["id"]) is None:
            return  # purged or restored meanwhile
        used = await trio.to_thread.run_sync(processes.inside, [entry["trash_path"]])
        if used:
            raise PathRefused(f"process {used[entry['trash_path']]} is inside")
        identity = tree.identity_below(self._base_fd, entry["inode"])
        if not await trio.to_thread.run_sync(removal.purge, self._base_fd, entry["id"], identity):
            await trio.to_thread.run_sync(self._check_moved, entry)
        await trio.to_thread.run_sync(self._remove_admin, entry["id"] + ADMIN)
        await self._tidy(entry)
        await self._index.write(trash.purged, entry["id"], self._now_ms())

    def _check_moved(self, entry: Entry) -> None:
        """Make sure that what is not in the trash is not still where it was: then it is yet to be moved."""
        if self._is_in_place(entry):
            raise PathRefused(f"{entry['path']} was not moved yet")

    def _is_in_place(self, entry: Entry) -> bool:
        with contextlib.suppress(OSError):
            found = os.stat(os.path.basename(entry["path"]), dir_fd=self._base_fd, follow_symlinks=False)
            return tree.identity_of(found) == tree.identity_below(self._base_fd, entry["inode"])
        return False

    # -- there and back ----------------------------------------------------------------------------

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

    async def _take(self, entry: Entry) -> bool:
        """Carry out what the row says; False when the folder is gone."""
        manifest, id_ = entry["manifest"], entry["id"]
        if manifest["kind"] == GONE:
            return False
        identity = tree.identity_below(self._base_fd, entry["inode"])
        move = partial(tree.move_to_trash, self._base_fd, self._name(entry["path"]), id_, identity)
        taken = taken_of(entry["manifest"])
        try:
            await trio.to_thread.run_sync(self._write_manifest, entry)
            if taken is not None and not self._path(id_).exists():
                await keep(self._git, taken, Path(entry["path"]), id_)
            if not await trio.to_thread.run_sync(move):
                return False
            if taken is not None:
                await trio.to_thread.run_sync(unregister, taken, self._path(id_ + ADMIN))
        except (GitUnknown, OSError) as error:
            raise PathRefused(f"cannot move {entry['path']} to the trash: {_text(error)}") from error
        return True

    def _move_back(self, entry: Entry) -> None:
        identity = tree.identity_below(self._base_fd, entry["inode"])
        if not tree.move_back(self._base_fd, entry["id"], self._name(entry["path"]), identity):
            raise PathRefused(f"{entry['trash_path']} is gone")

    def _write_manifest(self, entry: Entry) -> None:
        shown = {key: entry[key] for key in _SHOWN}
        with tree.open_trash(self._base_fd) as fd:
            tree.write_file(fd, entry["id"] + MANIFEST, to_json({**shown, **entry["manifest"]}).encode())

    async def _tidy(self, entry: Entry) -> None:
        """Drop what was only kept for the way back."""
        taken = taken_of(entry["manifest"])
        if taken is not None and await trio.to_thread.run_sync(os.path.isdir, taken.common_dir):
            try:
                await let_go(self._git, taken.common_dir, entry["id"])
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


def _text(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
