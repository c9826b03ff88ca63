"""Deletion of a workspace: the saga's journal and its life.

`hostsvc.saga` says which step is next and what a failure means, `deletion_steps` does them; here each is
written to the journal before and after. Owns who is at which saga. A saga runs in the service's own nursery:
a client that leaves does not stop it, a service that dies leaves it to the next.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

import attrs
import trio

from hostsvc import saga as steps
from hostsvc.clock import NowMs
from hostsvc.deletion_steps import DeletionSteps, Job, StepFailed
from hostsvc.index import Index
from hostsvc.model import Saga, Workspace
from hostsvc.policy import next_retry
from hostsvc.saga import OnFailure, Step
from hostsvc.states import SagaState
from hostsvc.store import paths, sagas, sessions, workspaces
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog

log = get_logger()

LEASE_MS: Final = 600_000
"""Longer than any step: within one service the lease is renewed at each."""


@attrs.define
class _Work:
    """Somebody is at a saga: when that is over, and what stopped it."""

    over: trio.Event = attrs.Factory(trio.Event)
    error: PtydError | None = None


class Deletion:
    """Deletes workspaces."""

    def __init__(
        self,
        index: Index,
        effects: DeletionSteps,
        events: EventLog,
        now_ms: NowMs,
        nursery: trio.Nursery,
        *,
        run_id: str,
    ) -> None:
        self._index = index
        self._effects = effects.by_step
        self._events = events
        self._now_ms = now_ms
        self._nursery = nursery
        self._run_id = run_id
        self._at_work: dict[str, _Work] = {}

    # -- asking ------------------------------------------------------------------------------------

    async def plan(self, workspace: Workspace, *, skips_teardown: bool) -> tuple[steps.Planned, ...]:
        """Say what a deletion would do, and touch nothing."""
        rows = await self._index.read(sessions.find_of_workspace, workspace.id)
        owned = await self._index.read(paths.find, workspace)
        return steps.plan_delete(workspace, rows, skips_teardown=skips_teardown, owned=owned)

    async def has_only_folder_left(self, saga: Saga) -> bool:
        """Tell whether a deletion that is not done waits for nothing but the folder."""
        return steps.has_only_folder_left(await self._index.read(sagas.done_steps, saga.id))

    async def delete(self, workspace: Workspace, *, is_forced: bool, skips_teardown: bool) -> Saga:
        """Delete a workspace and wait for it, as far as it goes; joins a deletion that is under way.

        Returns:
            The saga: done; or open or stuck, when something after the point of no return failed.

        Raises:
            PtydError: protected; at_risk or another reason why it was undone; index_failed.

        Cancellation: the deletion goes on.
        """
        if workspace.is_protected:
            text = f"workspace {workspace.id} is protected; hostsvc workspace update --no-protect first"
            raise PtydError(Code.PROTECTED, text)
        saga = await self._index.write(
            sagas.open_saga,
            id_=secrets.token_hex(8),
            workspace=workspace,
            is_forced=is_forced,
            skips_teardown=skips_teardown,
            now_ms=self._now_ms(),
        )
        return await self.run(saga)

    async def run(self, saga: Saga) -> Saga:
        """Carry a saga on, or wait for whoever is at it; otherwise as `delete`."""
        work = self._at_work.get(saga.id)
        if work is None:
            work = self._at_work[saga.id] = _Work()
            self._nursery.start_soon(self._work, saga.id, work)
        await work.over.wait()
        if work.error is not None:
            raise work.error
        found = await self._index.read(sagas.find, saga.id)
        assert found is not None
        if found.state is SagaState.COMPENSATED:
            raise PtydError(_undone_code(found), f"not deleted: {found.last_error}", saga=found.id)
        return found

    def is_at_work(self, saga: Saga) -> bool:
        return saga.id in self._at_work

    # -- the saga's life ---------------------------------------------------------------------------

    async def _work(self, saga_id: str, work: _Work) -> None:
        try:
            await self._advance(saga_id)
        except PtydError as error:  # the index: nothing can be written now, a later pass goes on
            log.error("a deletion cannot go on", saga=saga_id, error=str(error))
            work.error = error
        except Exception as error:
            log.exception("a deletion failed", saga=saga_id)
            work.error = PtydError(
                Code.INTERNAL, f"{type(error).__name__} in saga {saga_id}; see hostsvc.log"
            )
        finally:
            del self._at_work[saga_id]
            work.over.set()

    async def _advance(self, saga_id: str) -> None:
        """Do step after step until it is finished, undone, or has to wait."""
        while (job := await self._lease(saga_id)) is not None:
            done = await self._index.read(sagas.done_steps, saga_id)
            step = steps.next_step(done)
            if step is None:
                return
            await self._index.write(sagas.begin_step, saga_id, step, self._now_ms())
            self._events.emit("saga.step", job.workspace.id, saga=saga_id, step=step.value)
            try:
                detail = await self._do(step, job)
            except StepFailed as error:
                if steps.on_failure(step, done) is OnFailure.COMPENSATE:
                    await self._compensate(job, step, error)
                else:
                    await self._postpone(job, step, error)
                return
            if step not in (Step.SEAL, Step.FINISH):  # these journal themselves, in their transaction
                await self._index.write(sagas.finish_step, saga_id, step, self._now_ms(), detail)

    async def _do(self, step: Step, job: Job) -> Mapping[str, Any] | None:
        """Do a step. What nobody expects of it is a failure as any other.

        Raises:
            StepFailed: it could not be done.
            PtydError: index_failed, among others: nothing can be written now.
        """
        try:
            return await self._effects[step](job)
        except (StepFailed, PtydError):
            raise
        except Exception as error:
            log.exception("a step of a deletion failed", saga=job.saga.id, step=step.value)
            raise StepFailed(Code.INTERNAL, f"{type(error).__name__}; see hostsvc.log") from error

    async def _lease(self, saga_id: str) -> Job | None:
        now_ms = self._now_ms()
        is_ours = await self._index.write(
            sagas.take_lease, saga_id, holder=self._run_id, until_ms=now_ms + LEASE_MS, now_ms=now_ms
        )
        if not is_ours:
            return None
        saga = await self._index.read(sagas.find, saga_id)
        assert saga is not None
        workspace = await self._index.read(workspaces.find, saga.workspace_id)
        assert workspace is not None
        return Job(saga=saga, workspace=workspace)

    async def _compensate(self, job: Job, step: Step, error: StepFailed) -> None:
        text = f"{step}: {error.code}: {error}"
        await self._index.write(sagas.compensate, job.saga, text, self._now_ms())
        log.warning("a deletion was undone", workspace=job.workspace.id, error=text)
        self._events.emit("workspace.deletion_undone", job.workspace.id, saga=job.saga.id, error=text)

    async def _postpone(self, job: Job, step: Step, error: StepFailed) -> None:
        retry = next_retry(job.saga.attempts + 1, self._now_ms())
        text = f"{step}: {error}"
        await self._index.write(sagas.record_failure, job.saga.id, error=text, retry=retry)
        if retry.is_stuck and job.saga.state is not SagaState.STUCK:
            log.error("a deletion is stuck", workspace=job.workspace.id, saga=job.saga.id, error=text)
            self._events.emit("saga.stuck", job.workspace.id, saga=job.saga.id, error=text)

    # -- by hand -----------------------------------------------------------------------------------

    async def give_up_step(self, saga: Saga) -> Saga:
        """Finish a stuck deletion without the step that fails; what it leaves is recorded as a warning.

        Raises:
            PtydError: still_running, when it has not failed; or is not past its point of no return.
        """
        done = await self._index.read(sagas.done_steps, saga.id)
        step = steps.next_step(done)
        if step is None or step is Step.FINISH or not steps.is_past_return(done) or not saga.attempts:
            raise PtydError(
                Code.STILL_RUNNING, f"saga {saga.id} is not held up by a step that can be left out"
            )
        warning = f"{step} was left out by hand: {saga.last_error}"
        await self._index.write(sagas.add_warnings, saga.id, [warning])
        await self._index.write(
            sagas.finish_step, saga.id, step, self._now_ms(), {"left_out": saga.last_error}
        )
        return await self.run(saga)

    async def undo(self, saga: Saga, reason: str) -> bool:
        """Undo a deletion that nobody is at; False when somebody is, or it can only go forward."""
        if self.is_at_work(saga):
            return False
        work = self._at_work[saga.id] = _Work()
        try:
            current = await self._index.read(sagas.find, saga.id)
            done = await self._index.read(sagas.done_steps, saga.id)
            if current is None or current.finished_at_ms is not None or steps.is_past_return(done):
                return False
            text = f"{steps.next_step(done)}: {Code.BUSY}: {reason}"
            await self._index.write(sagas.compensate, current, text, self._now_ms())
        finally:
            del self._at_work[saga.id]
            work.over.set()
        self._events.emit("workspace.deletion_undone", saga.workspace_id, saga=saga.id, error=text)
        return True


def _undone_code(saga: Saga) -> Code:
    """The code that the failing step gave, which stands in its recorded error."""
    words = (saga.last_error or "").split(": ")
    try:
        return Code(words[1])
    except (IndexError, ValueError):
        return Code.INTERNAL
