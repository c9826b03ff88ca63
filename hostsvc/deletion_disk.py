"""The steps of a deletion that concern the disk: is work at risk, and what goes where.

Owns no order and no journal (`saga` and `deletion` do). Each step can be repeated. An adopted folder is never
touched: nothing here does anything for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import trio

from hostsvc import removal, tree
from hostsvc.git.command import Git
from hostsvc.git.risk import Risk, check_risk
from hostsvc.index import Index
from hostsvc.model import Saga, Workspace
from hostsvc.owned import OwnedPath, PathRole
from hostsvc.provision import ENTRY_OF_ARTIFACTS, Provision
from hostsvc.store import nesting, paths
from hostsvc.trashcan import TrashCan
from hostsvc.tree import Identity, PathRefused


class DeletionDisk:
    """What a deletion does on the disk."""

    def __init__(
        self,
        index: Index,
        git: Git,
        base: Path,
        base_fd: int,
        can: TrashCan,
        provision: Provision,
    ) -> None:
        self._index = index
        self._git = git
        self._base = base
        self._base_fd = base_fd
        self._can = can
        self._provision = provision

    async def risk(self, workspace: Workspace) -> Risk:
        """Find out what would be lost with its folder; with a plain one nothing, the trash keeps it."""
        if not await trio.to_thread.run_sync(_has_repository, workspace):
            return Risk()
        return await check_risk(self._git, Path(workspace.path))

    async def check(self, workspace: Workspace) -> None:
        """Make sure that what would go is what we made, and that no other workspace would go along.

        Raises:
            PathRefused: it is another by now, or one would.
        """
        owned = await self._index.read(paths.find, workspace)
        places = {workspace.path, *(one.path for one in owned.values())}
        called = [*places, *(alias for place in places for alias in tree.aliases(place, str(self._base)))]
        try:
            key = (workspace.id, workspace.generation)
            await self._index.read(nesting.check_uninhabited, called, key)
        except nesting.Inhabited as error:
            raise PathRefused(str(error)) from error
        await trio.to_thread.run_sync(self._check_identities, list(owned.values()))

    def _check_identities(self, owned: Sequence[OwnedPath]) -> None:
        for one in owned:
            name = os.path.basename(one.path)
            try:
                found = os.stat(name, dir_fd=self._base_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise PathRefused(f"cannot look at {one.path}: {error.strerror}") from error
            if one.inode is not None:
                what = "file" if one.role is PathRole.CREDENTIAL else "directory"
                tree.check(found, tree.identity_below(self._base_fd, one.inode), name, what)

    async def unlink_credential(self, workspace: Workspace) -> bool:
        """Remove its credential for good.

        Raises:
            PathRefused: it is another file by now, or cannot be removed.
        """
        owned = await self._index.read(paths.find, workspace)
        return await self._provision.remove_credential(owned.get(PathRole.CREDENTIAL))

    async def trash_artifacts(self, workspace: Workspace, saga: Saga) -> bool:
        """Move its artifacts to the trash; False when there are none.

        Raises:
            PathRefused: they are not what we made, or cannot be moved.
        """
        owned = (await self._index.read(paths.find, workspace)).get(PathRole.ARTIFACTS)
        if owned is None:
            return False
        if await trio.to_thread.run_sync(self._is_empty_now_gone, owned):
            await self._provision.forget(owned)
            return False
        if owned.identity is None:
            raise PathRefused(f"{owned.path} was never ours")
        identity = Identity(*owned.identity)
        await self._trash(saga.id + ENTRY_OF_ARTIFACTS, workspace, owned.path, identity)
        return True

    def _is_empty_now_gone(self, owned: OwnedPath) -> bool:
        try:
            return removal.remove_empty(self._base_fd, os.path.basename(owned.path))
        except OSError as error:
            raise PathRefused(f"cannot remove {owned.path}: {error.strerror}") from error

    async def trash_folder(self, workspace: Workspace, saga: Saga) -> bool:
        """Move its folder to the trash, a worktree unregistered exactly; False when it is not ours.

        Raises:
            PathRefused: it is not the folder that we made, or cannot be moved. It is left alone.
        """
        if not workspace.is_ours or workspace.device is None or workspace.inode is None:
            return False
        await self._trash(saga.id, workspace, workspace.path, Identity(workspace.device, workspace.inode))
        return True

    async def _trash(self, entry_id: str, workspace: Workspace, path: str, identity: Identity) -> None:
        await self._can.put(
            entry_id,
            path=path,
            identity=identity,
            why="its workspace was deleted",
            who="workspace.delete",
            workspace_id=workspace.id,
            generation=workspace.generation,
        )


def _has_repository(workspace: Workspace) -> bool:
    """Tell whether it is a worktree, or was made as one, or has a repository of its own; if in doubt, yes."""
    try:
        os.lstat(workspace.path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        os.lstat(f"{workspace.path}/.git")
    except FileNotFoundError:
        return workspace.common_dir is not None
    except OSError:
        pass
    return True
