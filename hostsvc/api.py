"""The methods: what each request does, and how its answer looks. One handler a method, found by its type.

Owns no state. Whoever calls `handle` lets it finish: the server does, whether its client stays or not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import trio

from hostsvc import kinds, messages, views
from hostsvc.checkup import check_up
from hostsvc.model import LiveSession, SessionRow, Workspace
from hostsvc.service import Service
from hostsvc.shown import Seen, Viewer
from hostsvc.states import SagaState, WorkspaceState
from hostsvc.store import passes, sagas, sessions, workspaces
from ptyd import __version__
from ptyd.protocol import limits
from ptyd.protocol.errors import Code, PtydError

Answer = dict[str, Any]
LOOK_S: Final = 5.0  # for what ptyd says of one session, beside its row


class Api:
    """Serves requests."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._index = service.index
        self._viewer = Viewer(service.live)
        self._handlers: Mapping[type, Callable[[Any], Awaitable[Answer]]] = {
            messages.Hello: self._hello,
            messages.WorkspaceCreate: self._create_workspace,
            messages.WorkspaceList: self._list_workspaces,
            messages.WorkspaceGet: self._get_workspace,
            messages.WorkspaceUpdate: self._update_workspace,
            messages.WorkspaceDelete: self._delete_workspace,
            messages.SessionCreate: self._create_session,
            messages.SessionList: self._list_sessions,
            messages.SessionDispose: self._dispose_session,
            messages.SessionAdopt: self._adopt_sessions,
            messages.SagaList: self._list_sagas,
            messages.SagaGet: self._get_saga,
            messages.SagaResume: self._resume_saga,
            messages.Reap: self._reap,
            messages.Passes: self._list_passes,
            messages.Health: self._check_up,
        }

    async def handle(self, request: Any) -> Answer:
        """Return the answer to a request.

        Raises:
            PtydError: the refusal to send.
        """
        return await self._handlers[type(request)](request)

    async def _hello(self, _: messages.Hello) -> Answer:
        return {
            "server": "hostsvc",
            "version": __version__,
            "protocol": limits.PROTOCOL,
            "daemon_id": self._service.run_id,
            "index_id": self._service.owner,
            "pid": os.getpid(),
            "features": [],
            "limits": kinds.LIMITS,
        }

    # -- workspaces --------------------------------------------------------------------------------

    async def _create_workspace(self, request: messages.WorkspaceCreate) -> Answer:
        made = await self._service.places.create(
            id_=request.id,
            generation=request.generation,
            name=request.name,
            path=request.path,
            labels=request.labels,
            teardown=request.teardown,
            is_protected=request.is_protected,
        )
        return await self._view(made)

    async def _list_workspaces(self, request: messages.WorkspaceList) -> Answer:
        found = await self._index.read(workspaces.find_all, with_deleted=request.deleted)
        wanted = (request.labels or {}).items()
        matching = [workspace for workspace in found if wanted <= workspace.labels.items()]
        open_ = await self._index.read(sessions.count_open_by_workspace)
        return {"workspaces": [views.workspace_view(one, open_.get(one.id, 0)) for one in matching]}

    async def _get_workspace(self, request: messages.WorkspaceGet) -> Answer:
        return await self._view(await self._service.places.find(request.id))

    async def _update_workspace(self, request: messages.WorkspaceUpdate) -> Answer:
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

    async def _delete_workspace(self, request: messages.WorkspaceDelete) -> Answer:
        workspace = await self._index.read(workspaces.find, request.id)
        if workspace is None or workspace.deleted_at_ms is not None:
            return await self._delete_what_is_gone(request, workspace)
        if request.generation not in (None, workspace.generation):
            self._refuse_generation(request, workspace)
        if self._service.places.is_being_made(workspace):
            raise PtydError(Code.BUSY, f"workspace {workspace.id} is just being made; try again")
        if (
            workspace.state is WorkspaceState.PROVISIONING
        ):  # a crash left it so: finish it, to remove all of it
            workspace = await self._service.places.provide(workspace)
        if request.dry_run:
            plan = await self._service.deletion.plan(workspace, skips_teardown=request.skip_teardown)
            return {"saga": None, "state": "planned", "warnings": [], "plan": views.plan_view(plan)}
        saga = await self._service.deletion.delete(
            workspace, is_forced=request.force, skips_teardown=request.skip_teardown
        )
        state = "deleted" if saga.state is SagaState.DONE else "deleting"
        return {"saga": saga.id, "state": state, "warnings": list(saga.warnings)}

    def _refuse_generation(self, request: messages.WorkspaceDelete, workspace: Workspace) -> NoReturn:
        lives = workspace.generation
        asked = f"generation {request.generation} of {request.id}"
        if request.generation is not None and request.generation > lives:
            raise PtydError(Code.NOT_FOUND, f"{asked} never was; {lives} lives")
        raise PtydError(Code.DESTROYED, f"{asked} was destroyed; {lives} lives", generation=lives)

    async def _delete_what_is_gone(
        self, request: messages.WorkspaceDelete, workspace: Workspace | None
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

    # -- sessions ----------------------------------------------------------------------------------

    async def _create_session(self, request: messages.SessionCreate) -> Answer:
        workspace = await self._service.places.find(request.workspace)
        row = await self._service.births.spawn(
            workspace,
            argv=request.argv,
            cwd=request.cwd,
            name=request.name,
            labels=request.labels,
            env={name.decode(errors="surrogateescape"): text for name, text in request.env.items()},
            rows=request.rows,
            cols=request.cols,
            on_leader_exit=request.on_leader_exit,
        )
        return await self._row_view(row)

    async def _row_view(self, row: SessionRow) -> Answer:
        """A row with what ptyd says of it just now."""
        stored = views.stored_view(row)
        try:
            with trio.fail_after(LOOK_S):
                live = await self._service.live.client().get(row.id)
        except trio.TooSlowError:
            return views.row_view(stored, None, f"ptyd did not answer within {LOOK_S:g} s")
        except PtydError as error:
            return views.row_view(stored, None, None if error.code is Code.NOT_FOUND else str(error))
        is_it = live.generation == row.generation
        return views.row_view(stored, views.live_view(live) if is_it else None, None)

    async def _list_sessions(self, request: messages.SessionList) -> Answer:
        workspace = None
        if request.workspace is not None:
            workspace = (await self._service.places.find(request.workspace)).id
        # Rows first: so a row that says `disposed` is never shown with a view from when it lived.
        rows = await self._index.read(
            sessions.find_stored, views.STORED, workspace_id=workspace, status=request.status
        )
        seen = await self._viewer.look()
        foreign = [] if workspace or request.status else self._foreign(seen, rows)
        return {
            "sessions": [
                views.row_view(
                    row, view := seen.view((row["id"], row["generation"])), None if view else seen.unknown
                )
                for row in rows
            ],
            "foreign": [views.foreign_view(one) for one in foreign],
        }

    def _foreign(self, seen: Seen, rows: Sequence[Mapping[str, Any]]) -> list[LiveSession]:
        """Living sessions of others, and ours without a row, which an older index does not know."""
        known = {(row["id"], row["generation"]) for row in rows}
        found = (one.live for one in seen.sessions.values() if one.live.is_alive)
        others = (live for live in found if live.owner != self._service.owner or live.key not in known)
        return [live for live in others if not self._service.births.is_being_born(live.key)]

    async def _dispose_session(self, request: messages.SessionDispose) -> Answer:
        row = await self._index.read(sessions.find, request.id, request.generation)
        if row is None:
            return await self._dispose_archived(request)
        reason = "it was disposed of"
        after = await self._service.disposal.dispose(row.key, reason=reason, is_forced=request.force)
        return await self._row_view(after)

    async def _dispose_archived(self, request: messages.SessionDispose) -> Answer:
        stone = await self._index.read(workspaces.find_tombstone, "session", request.id)
        if stone is None or request.generation not in (None, stone["generation"]):
            raise PtydError(Code.NOT_FOUND, f"no session {request.id[:64]}; see: hostsvc session ls")
        return views.archived_view(stone["id"], stone["generation"], stone["created_at_ms"], stone["detail"])

    async def _adopt_sessions(self, request: messages.SessionAdopt) -> Answer:
        workspace = await self._service.places.find(request.workspace)
        found = await self._service.adoption.find(request.owner)
        if not request.dry_run:
            for live in found:
                await self._service.adoption.adopt(live, workspace)
        return {"sessions": [views.foreign_view(live) for live in found], "adopted": not request.dry_run}

    # -- sagas -------------------------------------------------------------------------------------

    async def _list_sagas(self, request: messages.SagaList) -> Answer:
        found = await self._index.read(sagas.find_last, request.limit)
        return {"sagas": [views.saga_view(saga) for saga in found]}

    async def _get_saga(self, request: messages.SagaGet) -> Answer:
        saga = await self._index.read(sagas.find, request.id)
        if saga is None:
            raise PtydError(Code.NOT_FOUND, f"no saga {request.id}; see: hostsvc saga ls")
        steps = await self._index.read(sagas.journal, saga.id)
        shown = ("step", "begun_at_ms", "done_at_ms", "detail")
        return {
            "saga": views.saga_view(saga),
            "steps": [{key: step[key] for key in shown} for step in steps],
        }

    async def _resume_saga(self, request: messages.SagaResume) -> Answer:
        saga = await self._index.read(sagas.find, request.id)
        if saga is None:
            raise PtydError(Code.NOT_FOUND, f"no saga {request.id}; see: hostsvc saga ls")
        if saga.finished_at_ms is not None:
            return views.saga_view(saga)
        deletion = self._service.deletion
        after = await (deletion.give_up_step(saga) if request.leave_out else deletion.run(saga))
        return views.saga_view(after)

    # -- the reaper --------------------------------------------------------------------------------

    async def _reap(self, request: messages.Reap) -> Answer:
        return await self._service.reaper.run_pass(
            "manual", kinds=request.kinds, is_dry=request.dry_run, accepted=request.accept
        )

    async def _list_passes(self, request: messages.Passes) -> Answer:
        return {"passes": await self._index.read(passes.find_last, request.limit)}

    async def _check_up(self, _: messages.Health) -> Answer:
        return await check_up(self._service)
