"""Methods on sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import trio

from hostsvc import views
from hostsvc.api.handlers import Answer, Handlers
from hostsvc.messages import sessions as asked
from hostsvc.model import LiveSession, SessionRow
from hostsvc.restart import Launch, Policy
from hostsvc.service import Service
from hostsvc.shown import Seen, Viewer
from hostsvc.store import sessions, workspaces
from ptyd.protocol.errors import Code, PtydError

LOOK_S: Final = 5.0  # for what ptyd says of one session, beside its row


class Sessions:
    """Handlers, by the type of what they answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._index = service.index
        self._viewer = Viewer(service.live)
        self.handlers: Handlers = {
            asked.SessionCreate: self._create_session,
            asked.SessionList: self._list_sessions,
            asked.SessionDispose: self._dispose_session,
            asked.SessionAdopt: self._adopt_sessions,
        }

    async def _create_session(self, request: asked.SessionCreate) -> Answer:
        workspace = await self._service.places.find(request.workspace)
        row = await self._service.births.spawn(
            workspace,
            argv=request.argv,
            cwd=request.cwd,
            name=request.name,
            labels=request.labels,
            run=request.run,
            env={name.decode(errors="surrogateescape"): text for name, text in request.env.items()},
            rows=request.rows,
            cols=request.cols,
            on_leader_exit=request.on_leader_exit,
            launch=_launch(request),
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

    async def _list_sessions(self, request: asked.SessionList) -> Answer:
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

    async def _dispose_session(self, request: asked.SessionDispose) -> Answer:
        row = await self._index.read(sessions.find, request.id, request.generation)
        if row is None:
            return await self._dispose_archived(request)
        reason = "it was disposed of"
        after = await self._service.disposal.dispose(row.key, reason=reason, is_forced=request.force)
        newest = await self._index.read(sessions.find, after.id)
        if request.generation is None and newest is not None and newest.generation > after.generation:
            return await self._dispose_session(request)  # it was just being started again
        return await self._row_view(after)

    async def _dispose_archived(self, request: asked.SessionDispose) -> Answer:
        stone = await self._index.read(workspaces.find_tombstone, "session", request.id)
        if stone is None or request.generation not in (None, stone["generation"]):
            raise PtydError(Code.NOT_FOUND, f"no session {request.id[:64]}; see: hostsvc session ls")
        return views.archived_view(stone["id"], stone["generation"], stone["created_at_ms"], stone["detail"])

    async def _adopt_sessions(self, request: asked.SessionAdopt) -> Answer:
        workspace = await self._service.places.find(request.workspace)
        found = await self._service.adoption.find(request.owner)
        if not request.dry_run:
            for live in found:
                await self._service.adoption.adopt(live, workspace)
        return {"sessions": [views.foreign_view(live) for live in found], "adopted": not request.dry_run}


def _launch(request: asked.SessionCreate) -> Launch | None:
    """How to start it again; None when it is not to be."""
    policy = Policy(request.restart)
    if policy is Policy.NEVER:
        return None
    return Launch(
        policy=policy,
        limit=request.restart_limit,
        argv=tuple(request.argv),
        cwd=request.cwd,
        env=request.env,
        rows=request.rows,
        cols=request.cols,
        on_leader_exit=request.on_leader_exit,
    )
