"""Births: a row on the disk before the spawn, and its fate settled whatever becomes of the answer.

Owns the set of spawns that are under way in this process; nobody reaps those. A spawn whose answer was
lost is ended: nobody was told its id, so nobody could want it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import trio

from hostsvc.clock import NowMs
from hostsvc.crowd import Crowd
from hostsvc.disposal import Disposal
from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.model import OWNER_LABEL, RUN_LABEL, WORKSPACE_LABEL, Key, LiveSession, SessionRow, Workspace
from hostsvc.owned import PathRole
from hostsvc.restart import Launch
from hostsvc.states import SessionStatus
from hostsvc.store import births, paths, sessions
from ptyd import procs
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog


class Births:
    """Makes sessions."""

    def __init__(
        self,
        index: Index,
        live: Live,
        disposal: Disposal,
        crowd: Crowd,
        events: EventLog,
        now_ms: NowMs,
        *,
        owner: str,
        run_id: str,
    ) -> None:
        self._index = index
        self._live = live
        self._disposal = disposal
        self._crowd = crowd
        self._events = events
        self._now_ms = now_ms
        self._owner = owner
        self._run_id = run_id
        self._boot_id = procs.boot_id()
        self._under_way: set[Key] = set()

    def is_being_born(self, key: Key) -> bool:
        return key in self._under_way

    @contextlib.contextmanager
    def sheltered(self, key: Key) -> Iterator[None]:
        """Let nobody reap a session of ours for the block, whatever the index says of it."""
        self._under_way.add(key)
        try:
            yield
        finally:
            self._under_way.discard(key)

    async def spawn(
        self,
        workspace: Workspace,
        *,
        argv: Sequence[bytes],
        cwd: bytes | None,
        name: str | None,
        labels: Mapping[str, str],
        run: str | None = None,
        launch: Launch | None = None,
        again: SessionRow | None = None,
        restarts: int = 0,
        **fields: Any,
    ) -> SessionRow:
        """Start a session in a workspace, for a run if one is given, and return its row.

        Args:
            workspace: Where.
            argv: The program and its arguments.
            cwd: Working directory; the workspace's folder when None.
            name: Another way to refer to it.
            labels: The caller's own.
            launch: How to start it again, if that is to be.
            again: What it is another generation of; it must still be wanted.
            restarts: So many starts in a row did not last.
            fields: What else ptyd is given.

        Raises:
            PtydError: being_deleted; not_found or destroyed, of the run; too_many_sessions, when a cap is
                reached and all are busy; ptyd's own refusals; ptyd_unreachable.

        Cancellation: waits for the answer, and ends what nobody will hear of.
        """
        instance_id = self._live.instance()
        key = (secrets.token_hex(10), 1) if again is None else (again.id, again.generation + 1)
        fields["env"] = {**await self._surroundings(workspace), **(fields.get("env") or {})}
        with self.sheltered(key):
            async with self._crowd.admitted(workspace.id):
                await self._write_row(
                    key, workspace, instance_id, argv, cwd, name, labels, run, launch, again, restarts
                )
            with trio.CancelScope(shield=True):
                owned = {**labels, OWNER_LABEL: self._owner, WORKSPACE_LABEL: workspace.id}
                if run is not None:
                    owned[RUN_LABEL] = run
                    told = {"HOSTSVC_RUN": run, "HOSTSVC_OWNER": self._owner}
                    fields["env"] = {**fields.get("env", {}), **told}
                row = await self._spawn(
                    key,
                    argv,
                    cwd=cwd or workspace.path.encode(),
                    name=name,
                    labels=owned,
                    expect_instance=instance_id,
                    **fields,
                )
        return row

    async def _surroundings(self, workspace: Workspace) -> dict[str, bytes]:
        """Tell its programs where they are; a credential by its path only."""
        owned = await self._index.read(paths.find, workspace)
        told = {"HOSTSVC_WORKSPACE": workspace.id}
        told |= {name: owned[role].path for role, name in _TOLD.items() if role in owned}
        return {name: value.encode() for name, value in told.items()}

    async def _write_row(
        self,
        key: Key,
        workspace: Workspace,
        instance_id: str,
        argv: Sequence[bytes],
        cwd: bytes | None,
        name: str | None,
        labels: Mapping[str, str],
        run: str | None,
        launch: Launch | None,
        again: SessionRow | None,
        restarts: int,
    ) -> None:
        is_taken_in = await self._index.write(
            births.insert,
            launch=launch,
            again=None if again is None else again.key,
            restarts=restarts,
            id_=key[0],
            generation=key[1],
            workspace_id=workspace.id,
            name=name,
            labels=labels,
            argv=[word.decode(errors="replace") for word in argv],
            cwd=None if cwd is None else cwd.decode(errors="replace"),
            run_id=self._run_id,
            run=run,
            instance_id=instance_id,
            boot_id=self._boot_id,
            now_ms=self._now_ms(),
        )
        if not is_taken_in:
            raise PtydError(
                Code.BEING_DELETED, f"workspace {workspace.id} is being deleted; it takes no sessions"
            )

    async def _spawn(self, key: Key, argv: Sequence[bytes], **fields: Any) -> SessionRow:
        failure: PtydError | None = None
        try:
            live = await self._live.spawn(key, argv, **fields)
        except PtydError as error:
            failure = error
        if failure is not None:
            await self._not_spawned(key, failure)
            raise _overtaken(key) if failure.code is Code.FENCED else failure
        row = await self._confirm(key, live)
        self._events.emit("session.created", key[0], generation=key[1])
        if row is not None and not row.is_unwanted:
            return row
        # Somebody has deleted the workspace, or ended the run, meanwhile: it must not be alive afterwards.
        self._under_way.discard(key)
        try:
            if row is None:
                await self._disposal.kill_orphan(key, instance_id=fields["expect_instance"])
            else:
                await self._disposal.carry_out(key)
        except PtydError:
            pass  # what is written stands: the reaper goes on
        raise _overtaken(key)

    async def _confirm(self, key: Key, live: LiveSession) -> SessionRow | None:
        try:
            return await self._index.write(sessions.confirm, live)
        except PtydError as error:
            failure = error
        # Nobody will be told its id, so nobody could want it. Its row is settled by the reaper.
        await self._live.kill(key, is_forced=True, instance_id=self._live.instance_id)
        raise failure

    async def _not_spawned(self, key: Key, error: PtydError) -> None:
        if error.code is not Code.NO_PTYD:
            await self._index.write(
                sessions.settle,
                key,
                SessionStatus.FAILED,
                evidence=None,
                exit_=None,
                error=str(error),
                now_ms=self._now_ms(),
            )
            return
        self._under_way.discard(key)
        try:
            await self._disposal.dispose(
                key, reason="its spawn was never answered", is_forced=True, is_doubt=True
            )
        except PtydError:
            pass  # the intent is written: the reaper goes on


_TOLD: Final = {PathRole.ARTIFACTS: "HOSTSVC_ARTIFACTS", PathRole.CREDENTIAL: "HOSTSVC_CREDENTIAL"}


def _overtaken(key: Key) -> PtydError:
    return PtydError(
        Code.BEING_DELETED,
        f"the end of session {key[0]} was asked for while it was started: its workspace or its run goes",
    )
