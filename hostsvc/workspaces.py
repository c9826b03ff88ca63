"""Workspaces on disk and in the index: making one, adopting a folder, and its way to the trash.

Owns the base directory and its trash. A folder that we made is ours to move; one that was there before is
only remembered and forgotten, never touched.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from hostsvc import tree
from hostsvc.clock import NowMs
from hostsvc.git.command import Git
from hostsvc.index import Index
from hostsvc.model import Workspace
from hostsvc.store import workspaces
from hostsvc.trashcan import TrashCan
from hostsvc.tree import Identity, PathRefused
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog


class Workspaces:
    """Makes, finds and trashes workspaces."""

    def __init__(
        self,
        index: Index,
        base: Path,
        events: EventLog,
        now_ms: NowMs,
        *,
        git: Git,
        keep_trash_ms: int,
        forbidden: Sequence[Path],
    ) -> None:
        self._index = index
        self._base = base
        self._base_fd = tree.open_base(str(base))
        self._forbidden = [*forbidden, base]
        self._events = events
        self._now_ms = now_ms
        self.can = TrashCan(index, git, base, self._base_fd, now_ms, keep_ms=keep_trash_ms)
        self._under_way: set[str] = set()

    def close(self) -> None:
        os.close(self._base_fd)

    def is_being_made(self, workspace: Workspace) -> bool:
        return workspace.id in self._under_way

    # -- finding -----------------------------------------------------------------------------------

    async def find(self, ref: str, generation: int | None = None) -> Workspace:
        """Return a workspace that is not destroyed.

        Raises:
            PtydError: destroyed, not_found. Looking creates nothing.
        """
        found = await self._index.read(workspaces.find, ref)
        if found is None:
            found = await self._index.read(workspaces.find_deleted, ref)
        if found is not None and found.deleted_at_ms is None and generation in (None, found.generation):
            return found
        stone = await self._index.read(workspaces.find_tombstone, "workspace", ref)
        if found is not None or (stone is not None and stone["is_confirmed"]):
            at = generation or (
                found.generation if found is not None else stone["generation"] if stone else 1
            )
            raise PtydError(Code.DESTROYED, f"workspace {ref} was destroyed (generation {at})", generation=at)
        raise PtydError(Code.NOT_FOUND, f"no workspace {ref[:64]}; see: hostsvc workspace ls")

    # -- making ------------------------------------------------------------------------------------

    async def create(
        self,
        *,
        id_: str | None,
        generation: int | None,
        name: str | None,
        path: str | None,
        labels: Mapping[str, str],
        teardown: Sequence[str] | None,
        is_protected: bool,
    ) -> Workspace:
        """Make a folder below the base (named as the workspace), or adopt the one at `path`.

        Raises:
            PtydError: path_refused; exists; name_taken; destroyed.
        """
        id_ = id_ or secrets.token_hex(8)
        folder = name or id_
        is_ours = path is None
        try:
            if path is None:
                tree.check_folder_name(folder)
                path = str(self._base / folder)
            else:
                self._check_adoptable(path)
        except PathRefused as error:
            raise PtydError(Code.PATH_REFUSED, str(error)) from error
        self._under_way.add(id_)
        try:
            workspace = await self._insert(
                id_, generation, name, path, is_ours, labels, teardown, is_protected
            )
            with trio.CancelScope(shield=True):
                provided = await self.provide(workspace)
        finally:
            self._under_way.discard(id_)
        return provided

    def _check_adoptable(self, path: str) -> None:
        tree.identify(path)
        for forbidden in self._forbidden:
            if forbidden.is_relative_to(path) or (
                forbidden != self._base and Path(path).is_relative_to(forbidden)
            ):
                raise PathRefused(f"{path} is or holds {forbidden}, which is the host service's own")
        if Path(path).is_relative_to(self._base / tree.TRASH):
            raise PathRefused(f"{path} is in the trash")

    async def _insert(
        self,
        id_: str,
        generation: int | None,
        name: str | None,
        path: str,
        is_ours: bool,
        labels: Mapping[str, str],
        teardown: Sequence[str] | None,
        is_protected: bool,
    ) -> Workspace:
        try:
            return await self._index.write(
                workspaces.insert,
                id_=id_,
                generation=generation,
                name=name,
                path=path,
                is_ours=is_ours,
                labels=labels,
                teardown=teardown,
                is_protected=is_protected,
                now_ms=self._now_ms(),
            )
        except workspaces.Taken as error:
            code = Code.NAME_TAKEN if error.what == "name" else Code.EXISTS
            raise PtydError(code, f"{error}; see: hostsvc workspace ls", workspace=error.by) from error
        except workspaces.Destroyed as error:
            text = f"{error}; to make a new one, give generation {error.generation + 1}"
            raise PtydError(Code.DESTROYED, text, generation=error.generation) from error

    async def provide(self, workspace: Workspace) -> Workspace:
        """Make sure of a provisioned workspace's folder and put it to use; also after a crash.

        Raises:
            PtydError: path_refused, and the row is taken back.
        """
        self._under_way.add(workspace.id)
        try:
            identity = await self._folder(workspace)
            await self._enter(workspace, identity)
        finally:
            self._under_way.discard(workspace.id)
        self._events.emit("workspace.created", workspace.id, generation=workspace.generation)
        return await self.find(workspace.id)

    async def _enter(self, workspace: Workspace, identity: Identity | PathRefused) -> None:
        if isinstance(identity, PathRefused):
            await self._index.write(workspaces.abandon, workspace, str(identity), self._now_ms())
            raise PtydError(Code.PATH_REFUSED, str(identity)) from identity
        await self._index.write(workspaces.activate, workspace, *identity)

    async def _folder(self, workspace: Workspace) -> Identity | PathRefused:
        try:
            if workspace.is_ours:
                name = Path(workspace.path).name
                return await trio.to_thread.run_sync(tree.make_folder, self._base_fd, name)
            return await trio.to_thread.run_sync(tree.identify, workspace.path)
        except PathRefused as refused:
            return refused

    # -- the trash ---------------------------------------------------------------------------------

    async def trash(self, workspace: Workspace, saga_id: str) -> None:
        """Move a workspace's folder to the trash, if it is ours; also when half of that was done before.

        Raises:
            PathRefused: it is not the folder that we made, or cannot be moved. It is left alone.
        """
        if not workspace.is_ours or workspace.device is None or workspace.inode is None:
            return
        await self.can.put(
            saga_id,
            path=workspace.path,
            identity=Identity(workspace.device, workspace.inode),
            why="its workspace was deleted",
            who="workspace.delete",
            workspace_id=workspace.id,
            generation=workspace.generation,
        )
