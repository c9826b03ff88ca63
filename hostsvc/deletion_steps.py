"""What each step of a deletion does; every one can be repeated.

Knows neither which is next nor what a failure means: `saga` does, and `deletion` journals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import attrs
import trio

from hostsvc.clock import NowMs
from hostsvc.deletion_disk import DeletionDisk
from hostsvc.disposal import Disposal
from hostsvc.index import Index
from hostsvc.model import Saga, Workspace
from hostsvc.saga import Step
from hostsvc.store import sagas, sessions
from hostsvc.teardown import Teardown
from hostsvc.tree import PathRefused
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog


class StepFailed(Exception):
    """A step could not be done; the message says why."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


@attrs.frozen(kw_only=True)
class Job:
    """A saga at work."""

    saga: Saga
    workspace: Workspace


class DeletionSteps:
    """The effects, by their step; what one returns goes into the journal."""

    def __init__(
        self,
        index: Index,
        disposal: Disposal,
        disk: DeletionDisk,
        teardown: Teardown,
        events: EventLog,
        now_ms: NowMs,
    ) -> None:
        self._index = index
        self._disposal = disposal
        self._disk = disk
        self._teardown = teardown
        self._events = events
        self._now_ms = now_ms
        self.by_step: Mapping[Step, Callable[[Job], Awaitable[Mapping[str, Any] | None]]] = {
            Step.PREFLIGHT: self._check_risk,
            Step.SEAL: self._seal,
            Step.TEARDOWN: self._tear_down,
            Step.DISPOSE: self._dispose,
            Step.RECHECK: self._check_risk,
            Step.COMMIT: self._commit,
            Step.CREDENTIAL: self._unlink_credential,
            Step.ARTIFACTS: self._trash_artifacts,
            Step.FOLDER: self._trash_folder,
            Step.FINISH: self._finish,
        }

    async def _check_risk(self, job: Job) -> Mapping[str, Any] | None:
        """An adopted folder is only forgotten, and a plain one goes to the trash as it is."""
        if not job.workspace.is_ours:
            return None
        with _refusals():
            await self._disk.check(job.workspace)
        if job.saga.is_forced:
            return None
        risk = await self._disk.risk(job.workspace)
        if not risk.is_safe:
            raise StepFailed(Code.AT_RISK, "; ".join(reason.text for reason in risk.reasons))
        return {"head": risk.head, "branch": risk.branch} if risk.head is not None else None

    async def _seal(self, job: Job) -> None:
        if not await self._index.write(sagas.seal, job.saga, job.workspace, self._now_ms()):
            raise StepFailed(Code.PROTECTED, "somebody has protected it meanwhile")
        self._events.emit("workspace.deleting", job.workspace.id, saga=job.saga.id)

    async def _tear_down(self, job: Job) -> Mapping[str, Any] | None:
        command = job.workspace.teardown
        if command is None or job.saga.skips_teardown:
            return None
        try:
            await self._teardown.run(job.saga, job.workspace)
        except PtydError as error:
            text = f"{error.message} (hostsvc workspace rm --skip-teardown goes without it)"
            raise StepFailed(error.code, text) from error
        return {"status": 0}

    async def _dispose(self, job: Job) -> Mapping[str, Any]:
        """End all sessions at once; what does not die is a warning, and the reaper's from here on."""
        found = await self._index.read(sessions.find_of_workspace, job.workspace.id)
        rows = [row for row in found if not row.is_ended]
        warnings: list[str] = []

        async def end(key: tuple[str, int]) -> None:
            try:
                await self._disposal.carry_out(key)
            except PtydError as error:
                warnings.append(f"session {key[0]} is not proven dead: {error}")

        async with trio.open_nursery() as nursery:
            for row in rows:
                nursery.start_soon(end, row.key)
        await self._index.write(sagas.add_warnings, job.saga.id, sorted(warnings))
        return {"ended": len(rows) - len(warnings), "left": len(warnings)}

    async def _commit(self, job: Job) -> None:
        """Nothing to do: that it is in the journal is the point of no return."""

    async def _unlink_credential(self, job: Job) -> Mapping[str, Any] | None:
        with _refusals():
            return {"removed": True} if await self._disk.unlink_credential(job.workspace) else None

    async def _trash_artifacts(self, job: Job) -> Mapping[str, Any] | None:
        with _refusals():
            return {"trashed": True} if await self._disk.trash_artifacts(job.workspace, job.saga) else None

    async def _trash_folder(self, job: Job) -> Mapping[str, Any] | None:
        with _refusals():
            return {"trashed": True} if await self._disk.trash_folder(job.workspace, job.saga) else None

    async def _finish(self, job: Job) -> None:
        detail = {"saga": job.saga.id, "warnings": list(job.saga.warnings)}
        left = await self._index.write(sagas.finish, job.saga, job.workspace, detail, self._now_ms())
        self._events.emit("workspace.deleted", job.workspace.id, saga=job.saga.id, left=len(left))


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What the disk refuses is a step that failed."""
    try:
        yield
    except PathRefused as error:
        raise StepFailed(Code.PATH_REFUSED, str(error)) from error
