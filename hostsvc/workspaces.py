"""Workspaces on disk and in the index: making one, adopting a folder, and getting one back from the trash.

Owns the base directory, and who is being made. A folder that we made is ours to move; one that was there
before is only remembered and forgotten, never touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from hostsvc import tree
from hostsvc.clock import NowMs
from hostsvc.deletion_disk import DeletionDisk
from hostsvc.git.command import Git
from hostsvc.index import Index
from hostsvc.model import Workspace
from hostsvc.provision import Provision, check_adoptable
from hostsvc.run import OF_NO_RUN, Membership
from hostsvc.states import WorkspaceState
from hostsvc.store import nesting, trash, workspaces
from hostsvc.trashcan import TrashCan
from hostsvc.tree import PathRefused
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog

log = get_logger()

TAKE_BACK_S: Final = 10.0
"""What a stop waits for one that is half made; what is left then is the reaper's."""


class Workspaces:
    """Makes, finds and restores workspaces."""

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
        self.can = TrashCan(index, git, base, self._base_fd, now_ms, keep_ms=keep_trash_ms)
        self.provision = Provision(index, git, base, self._base_fd, self.can)
        self.disk = DeletionDisk(index, git, base, self._base_fd, self.can, self.provision)
        self._events = events
        self._now_ms = now_ms
        self._under_way: dict[str, trio.Event] = {}

    def close(self) -> None:
        os.close(self._base_fd)

    def is_being_made(self, workspace: Workspace) -> bool:
        return workspace.id in self._under_way

    async def until_made(self, workspace: Workspace) -> None:
        """Wait until nobody is making, settling or restoring it; it may be there then, or not."""
        while (over := self._under_way.get(workspace.id)) is not None:
            await over.wait()

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
        if found is None and not (stone and stone["is_confirmed"]):
            raise PtydError(Code.NOT_FOUND, f"no workspace {ref[:64]}; see: hostsvc workspace ls")
        at = generation or (found.generation if found else stone["generation"] if stone else 1)
        raise PtydError(Code.DESTROYED, f"workspace {ref} was destroyed (generation {at})", generation=at)

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
        membership: Membership = OF_NO_RUN,
        repository: str | None = None,
        branch: str | None = None,
        start: str | None = None,
        credential: bytes | None = None,
    ) -> Workspace:
        """Make a folder below the base (named as the workspace), or adopt the one at `path`.

        Args:
            repository: Make the folder a worktree of this one, on `branch` (the folder's name if not given).
            branch: One that is there, or one to be made at `start` (HEAD if not given).
            credential: What its helper script has in it; never told again.

        Raises:
            PtydError: path_refused; exists; name_taken; destroyed; invalid_params; the run's refusal.

        Cancellation: takes back what was made.
        """
        id_ = id_ or secrets.token_hex(8)
        folder = name or id_
        is_ours = path is None
        if path is not None and (repository or branch or start or credential is not None):
            raise _wrong("path", "a folder that is adopted stays as it is: neither repository nor credential")
        if repository is None and (branch or start):
            raise _wrong("repository", "which one's branch?")
        path = self._check_path(path, folder)
        plan, made = None, {}
        if is_ours:
            has_credential = credential is not None
            plan = await self.provision.plan(
                path, repository, branch or folder, start, has_credential=has_credential
            )
            made = self.provision.paths_of(path, has_credential=has_credential)
        with self._making(id_):
            workspace = await self._insert(
                id_=id_,
                generation=generation,
                name=name,
                path=path,
                aliases=tree.aliases(path, str(self._base)),
                is_ours=is_ours,
                labels=labels,
                teardown=teardown,
                is_protected=is_protected,
                **membership.columns,
                plan=plan,
                made=made,
            )
            return await self._provide_or_take_back(workspace, credential)

    @contextlib.contextmanager
    def _making(self, id_: str) -> Iterator[None]:
        if id_ in self._under_way:
            raise PtydError(Code.EXISTS, f"workspace {id_} is just being made", workspace=id_)
        over = self._under_way[id_] = trio.Event()
        try:
            yield
        finally:
            del self._under_way[id_]
            over.set()

    def _check_path(self, path: str | None, folder: str) -> str:
        """Return where its folder is, or is to be.

        Raises:
            PtydError: path_refused.
        """
        try:
            if path is None:
                tree.check_folder_name(folder)
                return str(self._base / folder)
            check_adoptable(path, self._base, self._forbidden)
        except PathRefused as error:
            raise PtydError(Code.PATH_REFUSED, str(error)) from error
        return path

    async def _insert(self, **fields: Any) -> Workspace:
        try:
            return await self._index.write(workspaces.insert, now_ms=self._now_ms(), **fields)
        except (workspaces.Taken, nesting.Leaving) as error:
            raise _taken(error) from error
        except workspaces.Destroyed as error:
            text = f"{error}; to make a new one, give generation {error.generation + 1}"
            raise PtydError(Code.DESTROYED, text, generation=error.generation) from error

    async def _provide_or_take_back(self, workspace: Workspace, credential: bytes | None) -> Workspace:
        try:
            return await self._provide(workspace, credential)
        except BaseException as error:
            with trio.move_on_after(TAKE_BACK_S, shield=True):
                await self._take_back(workspace, _reason(error), for_good=True)
            raise

    async def _provide(self, workspace: Workspace, credential: bytes | None = None) -> Workspace:
        made = await self.provision.make(workspace, credential)
        await self._index.write(
            workspaces.activate,
            workspace,
            made.identities,
            common_dir=made.common_dir,
            branch=made.branch,
        )
        event = "workspace.restored" if "restore" in (workspace.plan or {}) else "workspace.created"
        self._events.emit(event, workspace.id, generation=workspace.generation)
        return await self.find(workspace.id)

    async def _take_back(self, workspace: Workspace, reason: str, *, for_good: bool) -> None:
        """Leave nothing of one that was never in use; what cannot go now is left to the reaper."""
        found = await self._index.read(workspaces.find, workspace.id)
        if found is None or found.state is not WorkspaceState.PROVISIONING:
            return  # it came to be in use at the last moment
        try:
            await self.provision.take_back(workspace, for_good=for_good)
        except PathRefused as error:
            log.warning("a workspace cannot be taken back yet", workspace=workspace.id, error=str(error))
            return
        await self._index.write(workspaces.abandon, workspace, reason, self._now_ms())

    async def settle(self, workspace: Workspace) -> Workspace | None:
        """Finish one that a crash left half made; None when that cannot be, and it was taken back.

        Raises:
            PtydError: path_refused, busy: it has to be tried again.
        """
        with self._making(workspace.id):
            plan = workspace.plan or {}
            if plan.get("common_dir") is None and not plan.get("has_credential"):
                try:
                    return await self._provide(workspace)
                except PtydError as error:
                    if error.code is not Code.PATH_REFUSED:
                        raise
                    reason = error.message
            else:
                reason = "a crash came before it was made"
            await self._take_back(workspace, reason, for_good=False)
        left = await self._index.read(workspaces.find, workspace.id)
        if left is not None and left.state is WorkspaceState.PROVISIONING:
            raise PtydError(Code.BUSY, f"workspace {workspace.id} cannot be taken back yet; see the log")
        return None

    # -- back from the trash -----------------------------------------------------------------------

    async def restore(self, ref: str) -> Workspace:
        """Make a workspace anew of what is in the trash: folder, artifacts, place in the repository.

        Args:
            ref: An entry of the trash, or the id or name of the workspace that was deleted.

        Raises:
            PtydError: not_found; exists, name_taken: it, or its name or path, lives again; path_refused.

        Cancellation: goes on.
        """
        entry = await self._index.read(trash.find_restorable, ref)
        if entry is None:
            raise PtydError(Code.NOT_FOUND, f"nothing of {ref[:64]!a} is in the trash; see: hostsvc trash ls")
        try:
            with self.can.alone(entry["id"]), trio.CancelScope(shield=True):
                restored = await self._restore(entry)
        except PathRefused as error:
            raise PtydError(Code.BUSY, str(error)) from error
        return restored

    async def _restore(self, entry: trash.Entry) -> Workspace:
        id_ = entry["workspace_id"] or secrets.token_hex(8)
        with self._making(id_):
            try:
                workspace = await self._index.write(
                    workspaces.reclaim,
                    entry,
                    id_=id_,
                    made=self.provision.paths_of(entry["path"], has_credential=False),
                    now_ms=self._now_ms(),
                )
            except (workspaces.Taken, nesting.Leaving) as error:
                raise _taken(error) from error
            return await self._provide_or_take_back(workspace, None)


def _taken(error: workspaces.Taken | nesting.Leaving) -> PtydError:
    code = Code.NAME_TAKEN if error.what == "name" else Code.EXISTS
    return PtydError(code, f"{error}; see: hostsvc workspace ls", workspace=error.by)


def _reason(error: BaseException) -> str:
    return error.message if isinstance(error, PtydError) else type(error).__name__


def _wrong(field: str, text: str) -> PtydError:
    return PtydError(Code.INVALID_PARAMS, f"{field}: {text}", field=field)
