"""Reconciliation with a control plane: what follows from its list is looked at once more, and done.

Owns that there is one at a time. What is dropped goes by the same deletion as everything else, without
force: at risk, protected or just made, it is kept and the reason told. What was destroyed is never revived.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import trio

from hostsvc.clock import NowMs
from hostsvc.crowd import Crowd
from hostsvc.deletion import Deletion
from hostsvc.index import Index
from hostsvc.model import Fact, Workspace
from hostsvc.reconcile import Entry, LiveList, Plan, plan_reconcile
from hostsvc.states import SagaState, WorkspaceState
from hostsvc.store import sagas, sessions, workspaces
from ptyd.log import get_logger
from ptyd.protocol.errors import PtydError

log = get_logger()

AT_ONCE: Final = 4


@attrs.define(kw_only=True)
class Done:
    """What became of a plan."""

    dropped: list[str] = attrs.Factory(list)
    healed: list[str] = attrs.Factory(list)
    kept: dict[str, str] = attrs.Factory(dict)


class Reconciler:
    """Carries plans out."""

    def __init__(
        self, index: Index, crowd: Crowd, deletion: Deletion, now_ms: NowMs, *, cap: int, age_floor_ms: int
    ) -> None:
        self._index = index
        self._crowd = crowd
        self._deletion = deletion
        self._now_ms = now_ms
        self._cap = cap
        self._age_floor_ms = age_floor_ms
        self._alone = trio.Lock()

    async def reconcile(self, live: Fact[LiveList], *, is_dry: bool) -> tuple[Plan, Done]:
        """Compare, and do what follows unless `is_dry`.

        Raises:
            PtydError: index_failed.

        Cancellation: deletions that have begun go on.
        """
        async with self._alone:
            found = {one.id: one for one in await self._index.read(workspaces.find_all)}
            busy = await self._busy()
            entries = [self._entry(one, busy) for one in found.values()]
            destroyed = await self._index.read(workspaces.find_destroyed)
            plan = plan_reconcile(live, entries, destroyed, cap=self._cap)
            done = Done()
            if plan.refusal is not None:
                log.warning("a reconciliation was refused", reason=plan.refusal)
            elif is_dry:
                done = Done(dropped=list(plan.drop), healed=list(plan.heal))
            else:
                await self._apply(plan, found, done)
            return plan, done

    def _entry(self, workspace: Workspace, busy: Mapping[str, bool | None] | None) -> Entry:
        return Entry(
            id=workspace.id,
            is_busy=None if busy is None else busy.get(workspace.id, False),
            is_deleting=workspace.state is WorkspaceState.DELETING,
            is_young=workspace.state is WorkspaceState.PROVISIONING
            or self._now_ms() - workspace.created_at_ms < self._age_floor_ms,
        )

    async def _busy(self) -> dict[str, bool | None] | None:
        """Return which workspaces have sessions, and whether one of those is busy; None: nobody can tell."""
        try:
            alive = await self._crowd.look()
        except PtydError as error:
            log.warning("whether workspaces are in use is not known", error=str(error))
            return None
        idle = {one.key for one in alive if one.is_busy is False}
        busy: dict[str, bool | None] = {}
        for row in await self._index.read(sessions.find_open):
            if row.workspace_id is not None and not row.is_unwanted:
                busy[row.workspace_id] = busy.get(row.workspace_id, False) or row.key not in idle
        return busy

    # -- doing -------------------------------------------------------------------------------------

    async def _apply(self, plan: Plan, found: Mapping[str, Workspace], done: Done) -> None:
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def act(work: Any, id_: str) -> None:
            async with limiter:
                try:
                    await work(found[id_], done)
                except PtydError as error:
                    done.kept[id_] = str(error)

        async with trio.open_nursery() as nursery:
            for id_ in plan.drop:
                nursery.start_soon(act, self._drop, id_)
            for id_ in plan.heal:
                nursery.start_soon(act, self._heal, id_)
        done.dropped.sort()
        done.healed.sort()

    async def _drop(self, workspace: Workspace, done: Done) -> None:
        busy = await self._busy()
        if busy is None or busy.get(workspace.id, False):
            done.kept[workspace.id] = "it came into use meanwhile, or may have"
            return
        saga = await self._deletion.delete(workspace, is_forced=False, skips_teardown=False)
        if saga.state is SagaState.DONE:
            done.dropped.append(workspace.id)
        else:
            done.kept[workspace.id] = f"its deletion goes on; see: hostsvc saga show {saga.id}"

    async def _heal(self, workspace: Workspace, done: Done) -> None:
        for saga in await self._index.read(sagas.find_open, workspace.id):
            if not await self._deletion.undo(saga, "it is live at the control plane"):
                done.kept[workspace.id] = f"its deletion goes on; see: hostsvc saga show {saga.id}"
                return
        done.healed.append(workspace.id)
