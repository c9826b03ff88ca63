"""Kind: stale rows. The index says that something goes on, and it does not; or a crash left it half done."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from hostsvc import processes
from hostsvc.births import Births
from hostsvc.disposal import Disposal
from hostsvc.index import Index
from hostsvc.model import (
    ABSENT,
    Act,
    Action,
    Basis,
    Candidate,
    Fact,
    Known,
    LiveSession,
    LiveView,
    SessionRow,
    Workspace,
)
from hostsvc.policy import Limits, decide_row
from hostsvc.reaper.kinds import Findings, Look, Skipped, seen_view, subject_key
from hostsvc.states import SessionStatus, WorkspaceState
from hostsvc.store import archive, passes, sessions, workspaces
from hostsvc.workspaces import Workspaces
from ptyd import procs


class StaleRows:
    """Finds and settles them."""

    name = "rows"

    def __init__(
        self,
        index: Index,
        disposal: Disposal,
        births: Births,
        places: Workspaces,
        limits: Limits,
        keep_ms: int,
    ) -> None:
        self._index = index
        self._disposal = disposal
        self._births = births
        self._places = places
        self._limits = limits
        self._keep_ms = keep_ms
        self._boot_id = procs.boot_id()

    async def find(self, look: Look) -> Findings:
        view = seen_view(look)
        findings = Findings(kind=self.name)
        await self._find_provisioning(findings)
        if await self._index.read(archive.count_prunable, look.at_ms - self._keep_ms):
            findings.take(_OLD, 0, Act(Action.ARCHIVE, Basis.INTENT, "rows that are over for long"))
        rows = await self._index.read(sessions.find_open)
        findings.inventory = len(rows)
        seen = await self._index.read(passes.observations, self.name)
        deaths = await self._deaths([row for row in rows if row.key not in view.sessions])
        for row in rows:
            live = view.sessions.get(row.key)
            decision = decide_row(
                row,
                ABSENT if live is None else Known(live),
                is_being_born=self._births.is_being_born(row.key),
                is_same_instance=row.instance_id == view.instance_id,
                death=deaths.get(row.key, ABSENT),
                seen=seen.get(subject_key(*row.key)),
                now_ms=look.at_ms,
                limits=self._limits,
            )
            findings.take(*row.key, decision)
        return findings

    async def _find_provisioning(self, findings: Findings) -> None:
        for workspace in await self._index.read(workspaces.find_all):
            if workspace.state is WorkspaceState.PROVISIONING and not self._places.is_being_made(workspace):
                decision = Act(Action.CONFIRM, Basis.ROW, "a crash came before its folder was there")
                findings.take(_PLACE + workspace.id, workspace.generation, decision)

    async def _deaths(self, rows: list[SessionRow]) -> dict[tuple[str, int], Fact[str]]:
        """Look for signs of life of those that ptyd does not list; one walk over all processes."""
        if not rows:
            return {}

        def look() -> dict[tuple[str, int], Fact[str]]:
            marks = processes.look_for_marks()
            return {row.key: processes.death_of(row, self._boot_id, marks) for row in rows}

        return await trio.to_thread.run_sync(look)

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        if candidate.subject.startswith(_PLACE):
            return await self._provide(candidate)
        if candidate.subject == _OLD:
            count = await self._index.write(archive.prune, look.at_ms - self._keep_ms, look.at_ms)
            return {"archived": count}
        if self._births.is_being_born(candidate.key):  # asked before its row is read: a birth ends only once
            raise Skipped("it is being born")
        row = await self._index.read(sessions.find, *candidate.key)
        if row is None or row.is_ended:
            raise Skipped("its row is over by now")
        after = await self._settle(row, candidate, seen_view(look))
        return {"status": after.status.value, **(after.kill_evidence or {})}

    async def _settle(self, row: SessionRow, candidate: Candidate, view: LiveView) -> SessionRow:
        match candidate.action:
            case Action.FENCE:
                if row.status is not SessionStatus.SPAWNING:
                    raise Skipped("its spawn was answered by now")
                return await self._disposal.dispose(
                    row.key, reason="a crash came before its spawn was answered", is_doubt=True
                )
            case Action.KILL:
                return await self._disposal.carry_out(row.key)
            case Action.BURY:
                death = (await self._deaths([row]))[row.key]
                if not isinstance(death, Known):
                    raise Skipped("a sign of life was seen" if death is ABSENT else "nobody can tell")
                return await self._disposal.bury(row, death.value)
            case _:
                return await self._believe(row, view.sessions.get(row.key))

    async def _believe(self, row: SessionRow, live: LiveSession | None) -> SessionRow:
        """Enter what ptyd has said of it."""
        if live is None:
            raise Skipped("ptyd does not list it")
        if not live.is_alive:
            return await self._disposal.settle_end(row, live.evidence, live.exit)
        return await self._index.write(sessions.confirm, live) or row

    async def _provide(self, candidate: Candidate) -> Mapping[str, object]:
        workspace: Workspace | None = await self._index.read(
            workspaces.find, candidate.subject.removeprefix(_PLACE)
        )
        if workspace is None or workspace.state is not WorkspaceState.PROVISIONING:
            raise Skipped("it is provisioned by now")
        if self._places.is_being_made(workspace):
            raise Skipped("somebody is at it")
        settled = await self._places.settle(workspace)
        return {"state": "taken back" if settled is None else settled.state.value}


_PLACE = "workspace/"  # before the id of a workspace among the subjects; ids have no slash
_OLD = "rows/over"
