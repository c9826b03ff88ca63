"""Plug-in: ephemeral workspaces, which go with their run. By the same saga as any other, and as carefully.

One in which work is at risk stays, and its run is not over; unless whoever made it said that it is
expendable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hostsvc.deletion import Deletion
from hostsvc.index import Index
from hostsvc.model import Workspace
from hostsvc.policy import next_retry
from hostsvc.runs.policy import Resource
from hostsvc.states import SagaState, WorkspaceState
from hostsvc.store import sagas, sessions, workspaces
from hostsvc.workspaces import Workspaces as Places
from ptyd.protocol.errors import Code, PtydError


class Workspaces:
    """Finds and deletes them."""

    name = "workspaces"

    def __init__(self, index: Index, places: Places, deletion: Deletion) -> None:
        self._index = index
        self._places = places
        self._deletion = deletion

    async def check(self) -> bool:
        return True

    async def find(self, run: str | None) -> Sequence[Resource]:
        return [await self._resource(one) for one in await self._index.read(workspaces.find_ephemeral, run)]

    async def look(self, resource: Resource) -> Resource | None:
        found = await self._find(resource)
        return None if found is None else await self._resource(found)

    async def end(self, resource: Resource) -> Mapping[str, object]:
        workspace = await self._find(resource)
        if workspace is not None and workspace.state is WorkspaceState.PROVISIONING:  # a crash left it so
            workspace = await self._places.settle(workspace)
        if workspace is None:
            return {"state": WorkspaceState.DELETED.value}
        saga = await self._deletion.delete(workspace, is_forced=workspace.is_expendable, skips_teardown=False)
        if saga.state is not SagaState.DONE:
            raise PtydError(Code.BUSY, f"its deletion is not done: {saga.last_error or 'it has to wait'}")
        return {"state": WorkspaceState.DELETED.value, "saga": saga.id, "warnings": list(saga.warnings)}

    async def _find(self, resource: Resource) -> Workspace | None:
        found = await self._index.read(workspaces.find_ephemeral, resource.run)
        return next((one for one in found if (one.id, one.generation) == _key(resource)), None)

    async def _resource(self, workspace: Workspace) -> Resource:
        assert workspace.run is not None
        undone, last_ms = await self._index.read(sagas.find_undone, workspace)
        inside = await self._index.read(sessions.find_of_workspace, workspace.id)
        return Resource(
            plugin=self.name,
            id=workspace.id,
            generation=workspace.generation,
            run=workspace.run,
            # Its deletion ends what runs in it: none of that may be too young.
            created_at_ms=max(
                [workspace.created_at_ms, *(row.created_at_ms for row in inside if not row.is_ended)]
            ),
            is_being_born=self._places.is_being_made(workspace),
            next_attempt_at_ms=next_retry(undone, last_ms).at_ms if undone else None,
        )


def _key(resource: Resource) -> tuple[str, int]:
    return resource.id, resource.generation
