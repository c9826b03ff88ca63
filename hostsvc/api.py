"""The methods: what each request does, and how its answer looks. One handler a method, found by its type.

Owns no state. What takes long runs in the service's own nursery: a client that leaves stops nothing half way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import trio

from hostsvc import messages, views
from hostsvc.health import Signs, counts, decide_health
from hostsvc.live import live_session
from hostsvc.model import Known, LiveSession, SessionRow, Workspace
from hostsvc.service import Service
from hostsvc.states import SagaState, WorkspaceState
from hostsvc.store import passes, sagas, sessions, workspaces
from ptyd import __version__, client
from ptyd.protocol import limits
from ptyd.protocol.errors import Code, PtydError

T = TypeVar("T")
Answer = dict[str, Any]


class Api:
    """Serves requests."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._index = service.index
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
            messages.Health: self._health,
        }

    async def handle(self, request: Any) -> Answer:
        """Return the answer to a request.

        Raises:
            PtydError: the refusal to send.
        """
        return await self._handlers[type(request)](request)

    async def _to_the_end(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` whether its client stays or not."""
        over = trio.Event()
        done: list[T] = []
        failed: list[Exception] = []

        async def run() -> None:
            try:
                done.append(await work())
            except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
                failed.append(error)
            over.set()

        self._service.nursery.start_soon(run)
        await over.wait()
        if failed:
            raise failed[0]
        return done[0]

    async def _hello(self, request: messages.Hello) -> Answer:
        if limits.PROTOCOL not in request.protocols:
            text = f"protocol {limits.PROTOCOL} is spoken here, none of {request.protocols}"
            raise PtydError(Code.BAD_REQUEST, text)
        return {
            "server": "hostsvc",
            "version": __version__,
            "protocol": limits.PROTOCOL,
            "daemon_id": self._service.run_id,
            "index_id": self._service.owner,
            "pid": os.getpid(),
            "features": [],
            "limits": {"max_frame_bytes": limits.MAX_FRAME_BYTES},
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
        if request.generation is not None and request.generation != workspace.generation:
            text = (
                f"generation {request.generation} of {request.id} was destroyed; {workspace.generation} lives"
            )
            raise PtydError(Code.DESTROYED, text, generation=workspace.generation)
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
        row = await self._to_the_end(
            lambda: self._service.births.spawn(
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
        )
        return await self._row_view(row)

    async def _row_view(self, row: SessionRow) -> Answer:
        """A row with what ptyd says of it just now."""
        try:
            with trio.fail_after(5):
                live = await self._service.live.client().get(row.id)
        except trio.TooSlowError:
            return views.row_view(row, None, "ptyd did not answer in time")
        except PtydError as error:
            return views.row_view(row, None, None if error.code is Code.NOT_FOUND else str(error))
        is_it = live.generation == row.generation
        return views.row_view(row, live if is_it else None, None)

    async def _list_sessions(self, request: messages.SessionList) -> Answer:
        workspace = None
        if request.workspace is not None:
            workspace = (await self._service.places.find(request.workspace)).id
        live, foreign, unknown = await self._list_live()
        rows = await self._index.read(sessions.find_all, workspace_id=workspace, status=request.status)
        shown = [] if workspace or request.status else foreign
        return {
            "sessions": [
                views.row_view(row, found := live.get(row.key), None if found else unknown) for row in rows
            ],
            "foreign": [views.foreign_view(one) for one in shown],
        }

    async def _list_live(self) -> tuple[dict[tuple[str, int], client.Session], list[LiveSession], str | None]:
        """Everything that ptyd lists, and why that may not be all."""
        listing = await self._service.live.listing()
        if not isinstance(listing, Known):
            return {}, [], getattr(listing, "why", "ptyd has no list")
        found = listing.value.sessions
        foreign = [one for one in map(live_session, found) if one.owner != self._service.owner]
        unknown = None if listing.value.complete else "ptyd's list is not complete"
        by_key = {(one.id, one.generation): one for one in found}
        return by_key, [one for one in foreign if one.is_alive], unknown

    async def _dispose_session(self, request: messages.SessionDispose) -> Answer:
        row = await self._index.read(sessions.find, request.id, request.generation)
        if row is None:
            return await self._dispose_archived(request)
        reason = "it was disposed of"
        after = await self._service.disposal.dispose(row.key, reason=reason, is_forced=request.force)
        return await self._row_view(after)

    async def _dispose_archived(self, request: messages.SessionDispose) -> Answer:
        stone = await self._index.read(workspaces.find_tombstone, "session", request.id)
        if stone is None:
            raise PtydError(Code.NOT_FOUND, f"no session {request.id[:64]}; see: hostsvc session ls")
        return views.archived_view(stone["id"], stone["generation"], stone["created_at_ms"], stone["detail"])

    async def _adopt_sessions(self, request: messages.SessionAdopt) -> Answer:
        workspace = await self._service.places.find(request.workspace)
        if request.owner == self._service.owner:
            raise PtydError(Code.INVALID_PARAMS, "that owner is this index itself", field="owner")
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
        return await self._to_the_end(
            lambda: self._service.reaper.run_pass(
                "manual", kinds=request.kinds, is_dry=request.dry_run, accepted=request.accept
            )
        )

    async def _list_passes(self, request: messages.Passes) -> Answer:
        return {"passes": await self._index.read(passes.find_last, request.limit)}

    async def _health(self, _: messages.Health) -> Answer:
        service = self._service
        trouble = await service.live.trouble()
        last = await self._index.read(passes.find_last, 1)
        open_sagas = await self._index.read(sagas.find_open)
        stuck_sagas = sum(saga.state is SagaState.STUCK for saga in open_sagas)
        unwanted = await self._index.read(sessions.count_unwanted)
        status, reasons = decide_health(
            Signs(
                index_trouble=self._index.trouble,
                ptyd_trouble=trouble,
                last_pass_state=last[0]["state"] if last else None,
                missed=service.reaper.missed,
                stuck_sagas=stuck_sagas,
                stuck_sessions=unwanted[1],
            )
        )
        hello = service.live.hello
        return {
            "status": status,
            "reasons": reasons,
            "ptyd": {
                "reachable": trouble is None,
                **{key: hello.get(key) for key in ("instance_id", "daemon_id", "pid", "version")},
            },
            "reaper": {
                "last": last[0] if last else None,
                "missed": service.reaper.missed,
                "running": service.reaper.progress,
                "interval_s": service.config.reaper_interval_s,
            },
            "sagas": {"open": len(open_sagas), "stuck": stuck_sagas},
            "sessions": counts(await self._index.read(sessions.count_by_status), unwanted),
            "index": {"id": service.owner, "path": str(service.config.state_dir)},
            "pid": os.getpid(),
            "uptime_ms": int((trio.current_time() - service.started_at_s) * 1000),
        }
