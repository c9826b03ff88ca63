"""Methods on workspaces."""

from __future__ import annotations

import re
from typing import NoReturn

from hostsvc import views
from hostsvc.api.handlers import Answer, Handlers
from hostsvc.messages import workspaces as asked
from hostsvc.model import Workspace
from hostsvc.service import Service
from hostsvc.states import SagaState, WorkspaceState
from hostsvc.store import sagas, sessions, workspaces
from ptyd.protocol import limits
from ptyd.protocol.errors import Code, PtydError


class Workspaces:
    """Handlers, by the type of what they answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._index = service.index
        self.handlers: Handlers = {
            asked.WorkspaceCreate: self._create_workspace,
            asked.WorkspaceList: self._list_workspaces,
            asked.WorkspaceGet: self._get_workspace,
            asked.WorkspaceUpdate: self._update_workspace,
            asked.WorkspaceDelete: self._delete_workspace,
            asked.WorkspaceRisk: self._check_risk,
            asked.WorkspaceRestore: self._restore_workspace,
        }

    async def _create_workspace(self, request: asked.WorkspaceCreate) -> Answer:
        made = await self._service.places.create(
            id_=request.id,
            generation=request.generation,
            name=request.name,
            path=request.path,
            labels=request.labels,
            teardown=request.teardown,
            is_protected=request.is_protected,
            is_ephemeral=request.is_ephemeral,
            repository=request.repository,
            branch=request.branch,
            start=request.start,
            credential=request.credential,
        )
        return await self._view(made)

    async def _list_workspaces(self, request: asked.WorkspaceList) -> Answer:
        found = await self._index.read(workspaces.find_all, with_deleted=request.deleted)
        wanted = (request.labels or {}).items()
        matching = [workspace for workspace in found if wanted <= workspace.labels.items()]
        open_ = await self._index.read(sessions.count_open_by_workspace)
        return {"workspaces": [views.workspace_view(one, open_.get(one.id, 0)) for one in matching]}

    async def _get_workspace(self, request: asked.WorkspaceGet) -> Answer:
        return await self._view(await self._service.places.find(request.id))

    async def _update_workspace(self, request: asked.WorkspaceUpdate) -> Answer:
        found = await self._service.places.find(request.id)
        try:
            await self._index.write(
                workspaces.update,
                found.id,
                name=request.name,
                labels=request.labels,
                is_protected=request.is_protected,
            )
        except workspaces.Taken as error:
            raise PtydError(Code.NAME_TAKEN, f"{error}; see: hostsvc workspace ls") from error
        self._service.events.emit("workspace.updated", found.id)
        return await self._view(await self._service.places.find(found.id))

    async def _view(self, workspace: Workspace) -> Answer:
        open_ = await self._index.read(sessions.count_open_by_workspace)
        return views.workspace_view(workspace, open_.get(workspace.id, 0))

    async def _delete_workspace(self, request: asked.WorkspaceDelete) -> Answer:
        workspace = await self._index.read(workspaces.find, request.id)
        if workspace is None or workspace.deleted_at_ms is not None:
            return await self._delete_what_is_gone(request, workspace)
        if request.generation not in (None, workspace.generation):
            self._refuse_generation(request, workspace)
        if self._service.places.is_being_made(workspace):
            await self._service.places.until_made(workspace)
            return await self._delete_workspace(request)
        if workspace.state is WorkspaceState.PROVISIONING:  # a crash left it so: finish it, or take it back
            settled = await self._service.places.settle(workspace)
            if settled is None:
                return await self._delete_what_is_gone(request, None)
            workspace = settled
        if request.dry_run:
            plan = await self._service.deletion.plan(workspace, skips_teardown=request.skip_teardown)
            return {"saga": None, "state": "planned", "warnings": [], "plan": views.plan_view(plan)}
        saga = await self._service.deletion.delete(
            workspace, is_forced=request.force, skips_teardown=request.skip_teardown
        )
        if saga.state is SagaState.DONE:
            return {"saga": saga.id, "state": "deleted", "warnings": list(saga.warnings)}
        is_partial = await self._service.deletion.has_only_folder_left(saga)
        return {
            "saga": saga.id,
            "state": "partial" if is_partial else "deleting",
            "warnings": [*saga.warnings, *([saga.last_error] if saga.last_error else [])],
        }

    async def _check_risk(self, request: asked.WorkspaceRisk) -> Answer:
        workspace = await self._service.places.find(request.id)
        return views.risk_view(await self._service.places.disk.risk(workspace))

    async def _restore_workspace(self, request: asked.WorkspaceRestore) -> Answer:
        return await self._view(await self._service.places.restore(request.id))

    def _refuse_generation(self, request: asked.WorkspaceDelete, workspace: Workspace) -> NoReturn:
        lives = workspace.generation
        asked = f"generation {request.generation} of {request.id}"
        if request.generation is not None and request.generation > lives:
            raise PtydError(Code.NOT_FOUND, f"{asked} never was; {lives} lives")
        raise PtydError(Code.DESTROYED, f"{asked} was destroyed; {lives} lives", generation=lives)

    async def _delete_what_is_gone(
        self, request: asked.WorkspaceDelete, workspace: Workspace | None
    ) -> Answer:
        """Twice is once. What never was is remembered, so that a creation that comes late is refused."""
        if request.dry_run:
            return {"saga": None, "state": "planned", "warnings": [], "plan": []}
        gone = workspace or await self._index.read(workspaces.find_deleted, request.id)
        if gone is None and re.fullmatch(limits.ID_PATTERN, request.id):
            await self._index.write(workspaces.bury_unknown, request.id, self._service.now_ms())
        saga = None if gone is None else await self._index.read(sagas.find_finished, gone.id)
        warnings = [] if saga is None else list(saga.warnings)
        return {"saga": None if saga is None else saga.id, "state": "deleted", "warnings": warnings}
