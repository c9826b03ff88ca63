"""The paths of a workspace: made when it is, and taken back when it cannot be.

Owns the triple (folder, credential, artifacts) until the workspace is in use. What it makes is written to the
index before it is there; what was half made can be taken back, now or by whoever comes after a crash. A
worktree is unregistered exactly; a branch that was made for it goes too, unless somebody has committed to it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from hostsvc import removal, tree
from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.places import find_place, find_repository
from hostsvc.git.worktree import (
    SHORT,
    add_worktree,
    check_idle,
    check_unregistered,
    delete_branch,
    find_branch,
    read_commit,
    read_head,
    unregister_unfinished,
)
from hostsvc.index import Index
from hostsvc.model import Workspace
from hostsvc.owned import OwnedPath, PathRole
from hostsvc.store import paths, trash
from hostsvc.trashcan import TrashCan
from hostsvc.tree import ARTIFACTS, CREDENTIAL, Identity, PathRefused
from ptyd.protocol.errors import Code, PtydError

Identities = Mapping[PathRole, Identity]
ENTRY_OF_ARTIFACTS = ".artifacts"
"""After a trash entry's id: the entry of the same workspace's artifacts."""


@attrs.frozen(kw_only=True)
class Made:
    """What a workspace's paths have become."""

    identities: Identities
    common_dir: str | None = None
    branch: str | None = None


class Provision:
    """Makes the paths of workspaces."""

    def __init__(self, index: Index, git: Git, base: Path, base_fd: int, can: TrashCan) -> None:
        self._index = index
        self._git = git
        self._base = base
        self._base_fd = base_fd
        self._can = can

    # -- what is to be made ------------------------------------------------------------------------

    def paths_of(self, folder: str, *, has_credential: bool) -> dict[PathRole, str]:
        """Return the triple of a folder below the base."""
        made = {PathRole.FOLDER: folder, PathRole.ARTIFACTS: folder + ARTIFACTS}
        if has_credential:
            made[PathRole.CREDENTIAL] = folder + CREDENTIAL
        return made

    async def plan(
        self,
        folder: str,
        repository: str | None,
        branch: str | None,
        start: str | None,
        *,
        has_credential: bool,
    ) -> dict[str, Any]:
        """Find out what making it will mean, and change nothing.

        Raises:
            PtydError: path_refused, for the repository, or a folder that it still has a worktree for;
                invalid_params, for branch or start.
        """
        plan: dict[str, Any] = {"undo": secrets.token_hex(8), "has_credential": has_credential}
        if repository is None:
            return plan
        try:
            tree.identify(repository)
            common_dir = str(await trio.to_thread.run_sync(find_repository, Path(repository)))
            assert branch is not None
            await trio.to_thread.run_sync(check_unregistered, Path(common_dir), Path(folder))
            plan |= {"common_dir": common_dir, "branch": branch, "base": None}
            if await find_branch(self._git, common_dir, branch):
                if start is not None:
                    raise _wrong("start", f"branch {branch!a} is there already; leave out where to start it")
            else:
                plan["base"] = await self._find_start(common_dir, start)
        except (GitUnknown, PathRefused) as error:
            raise PtydError(Code.PATH_REFUSED, f"{repository[:256]!a}: {error}") from error
        except ValueError as error:
            raise _wrong("branch", str(error)) from error
        return plan

    async def _find_start(self, common_dir: str, start: str | None) -> str:
        name = start or "HEAD"
        found = None if name.startswith("-") else await read_commit(self._git, Path(common_dir), name)
        if found is None:
            raise _wrong("start", f"{name[:64]!a} is no commit of {common_dir}; see: git log")
        return found

    # -- making it ---------------------------------------------------------------------------------

    async def make(self, workspace: Workspace, credential: bytes | None = None) -> Made:
        """Make what the plan says; for an adopted folder, only look.

        Raises:
            PtydError: path_refused; something may be half made.

        Cancellation: as an error.
        """
        try:
            return await (self._make(workspace, credential) if workspace.is_ours else self._adopt(workspace))
        except (PathRefused, GitUnknown) as error:
            raise PtydError(Code.PATH_REFUSED, str(error)) from error

    async def _make(self, workspace: Workspace, credential: bytes | None) -> Made:
        plan = workspace.plan or {}
        if "restore" in plan:
            return await self._restore(workspace, plan["restore"])
        folder = Path(workspace.path)
        made = {
            PathRole.FOLDER: await trio.to_thread.run_sync(tree.make_folder, self._base_fd, folder.name),
            PathRole.ARTIFACTS: await self._make_artifacts(workspace),
        }
        if credential is not None:
            name = folder.name + CREDENTIAL
            made[PathRole.CREDENTIAL] = await trio.to_thread.run_sync(tree.make_file, self._base_fd, name)
        await self._index.write(paths.identify, workspace, made)
        common_dir, branch = plan.get("common_dir"), plan.get("branch")
        if common_dir is not None and branch is not None:
            await add_worktree(self._git, Path(common_dir), folder, branch, plan["base"])
        if credential is not None:
            fill = partial(tree.fill_file, self._base_fd, name, made[PathRole.CREDENTIAL], credential)
            await trio.to_thread.run_sync(fill)
        return Made(identities=made, common_dir=common_dir, branch=branch)

    async def _make_artifacts(self, workspace: Workspace) -> Identity:
        name = Path(workspace.path).name + ARTIFACTS
        return await trio.to_thread.run_sync(tree.make_folder, self._base_fd, name)

    async def _adopt(self, workspace: Workspace) -> Made:
        identity = await trio.to_thread.run_sync(tree.identify, workspace.path)
        found = {PathRole.FOLDER: identity}
        try:
            place = await trio.to_thread.run_sync(find_place, Path(workspace.path))
            _, branch = await read_head(self._git, place.folder)
        except GitUnknown:
            return Made(identities=found)
        return Made(
            identities=found,
            common_dir=str(place.common_dir),
            branch=branch and branch.removeprefix(SHORT),
        )

    async def _restore(self, workspace: Workspace, entry_id: str) -> Made:
        entry = await self._index.read(trash.find, entry_id)
        assert entry is not None
        artifacts = await self._index.read(trash.find, entry_id + ENTRY_OF_ARTIFACTS)
        is_on_branch = await self._can.restore(entry)
        if artifacts is not None and artifacts["purged_at_ms"] is None:
            await self._can.restore(artifacts)
            place = tree.identity_below(self._base_fd, artifacts["inode"])
        else:
            place = await self._make_artifacts(workspace)
        manifest = entry["manifest"]
        branch = manifest["branch"] if is_on_branch else None
        return Made(
            identities={
                PathRole.FOLDER: tree.identity_below(self._base_fd, entry["inode"]),
                PathRole.ARTIFACTS: place,
            },
            common_dir=manifest.get("common_dir"),
            branch=branch and branch.removeprefix(SHORT),
        )

    # -- taking it back ----------------------------------------------------------------------------

    async def take_back(self, workspace: Workspace, *, for_good: bool) -> None:
        """Remove what was half made.

        Args:
            workspace: Whose it was to be; it was never in use.
            for_good: We have just made it ourselves. Otherwise what is not empty stays in the trash.

        Raises:
            PathRefused: part of it cannot be removed now.
        """
        plan = workspace.plan
        if plan is None or not workspace.is_ours:
            return
        if "restore" in plan:
            await self._put_back(plan["restore"])
            return
        owned = await self._index.read(paths.find, workspace)
        entries = {
            PathRole.FOLDER: plan["undo"],
            PathRole.ARTIFACTS: plan["undo"] + ENTRY_OF_ARTIFACTS,
        }
        try:
            await self.remove_credential(owned.get(PathRole.CREDENTIAL))
            if plan.get("common_dir") is not None and not for_good:
                common_dir = Path(plan["common_dir"])
                await trio.to_thread.run_sync(check_idle, common_dir, Path(workspace.path))
            for role, entry_id in entries.items():
                await self._clear(workspace, owned[role], entry_id, for_good=for_good)
            if plan.get("common_dir") is not None:
                await self._leave_repository(workspace, plan)
        except (GitUnknown, OSError) as error:
            raise PathRefused(f"cannot take back {workspace.path}: {error}") from error

    async def remove_credential(self, owned: OwnedPath | None) -> bool:
        """Unlink a credential; it is never trashed. False when it is gone, or was never ours.

        Raises:
            PathRefused: it is another file by now, or cannot be removed.
        """
        if owned is None:
            return False
        name = os.path.basename(owned.path)
        expected = None if owned.inode is None else tree.identity_below(self._base_fd, owned.inode)
        was_there = await trio.to_thread.run_sync(removal.unlink, self._base_fd, name, expected)
        await self.forget(owned)
        return was_there

    async def forget(self, owned: OwnedPath) -> None:
        """Enter that one of its paths is gone: what comes to be there is not ours, whatever its inode."""
        if owned.inode is not None:
            await self._index.write(paths.forget, owned.path, owned.inode)

    async def _clear(self, workspace: Workspace, owned: OwnedPath, entry_id: str, *, for_good: bool) -> None:
        name, identity = os.path.basename(owned.path), owned.identity
        if await trio.to_thread.run_sync(removal.remove_empty, self._base_fd, name):
            await self.forget(owned)
            return
        if identity is None:
            return
        entry = await self._can.put(
            entry_id,
            path=owned.path,
            identity=Identity(*identity),
            why="it was never finished",
            who="workspace.create",
            workspace_id=workspace.id,
            generation=workspace.generation,
        )
        if for_good and entry["purged_at_ms"] is None:
            await self._can.purge(entry)  # if that fails, the reaper does it

    async def _leave_repository(self, workspace: Workspace, plan: Mapping[str, Any]) -> None:
        """Unregister what git had begun to make, and delete the branch that was made for it."""
        common_dir, folder = Path(plan["common_dir"]), Path(workspace.path)
        await trio.to_thread.run_sync(unregister_unfinished, common_dir, folder)
        if plan["base"] is not None:
            await delete_branch(self._git, str(common_dir), plan["branch"], plan["base"])

    async def _put_back(self, entry_id: str) -> None:
        for one in (entry_id, entry_id + ENTRY_OF_ARTIFACTS):
            entry = await self._index.read(trash.find, one)
            if entry is not None and entry["purged_at_ms"] is None:
                await self._can.put_again(entry)


def check_adoptable(path: str, base: Path, forbidden: Sequence[Path]) -> None:
    """Refuse what is no plain folder of somebody's: the host service's own, or in the trash.

    Raises:
        PathRefused: says which.
    """
    tree.identify(path)
    for own in forbidden:
        if own.is_relative_to(path) or (own != base and Path(path).is_relative_to(own)):
            raise PathRefused(f"{path} is or holds {own}, which is the host service's own")
    if Path(path).is_relative_to(base / tree.TRASH):
        raise PathRefused(f"{path} is in the trash")


def _wrong(field: str, text: str) -> PtydError:
    return PtydError(Code.INVALID_PARAMS, f"{field}: {text}", field=field)
