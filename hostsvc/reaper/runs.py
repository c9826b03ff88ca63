"""Kind: labelled runs. What belongs to a run that was ended, or that nobody holds; and the runs themselves.

A subject is `PLUGIN/ID` for a thing that carries a run's label, and `run/ID` for a run that has nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
import trio

from hostsvc.index import Index
from hostsvc.model import ABSENT, Act, Basis, Candidate, Decision, Fact, Keep, Observation
from hostsvc.reaper.kinds import Findings, Look, Skipped, subject_key
from hostsvc.run import Run
from hostsvc.runs.lifecycle import Runs
from hostsvc.runs.policy import Resource, RunLimits, decide_resource, decide_run
from hostsvc.states import RunState
from hostsvc.store import passes, runs

RUN: Final = "run/"
_NOT_OVER: Final = "a session of it is not over, by its row"


@attrs.frozen(kw_only=True)
class _Seen:
    """What is known beside a resource: the runs, who holds them, and what was observed before."""

    runs: Mapping[str, Run]
    holders: Mapping[str, Fact[int]]
    observed: Mapping[str, Observation]
    at_ms: int


class LabelledRuns:
    """Finds and ends them."""

    name = "runs"

    def __init__(self, index: Index, runs: Runs, limits: RunLimits) -> None:
        self._index = index
        self._runs = runs
        self._limits = limits
        self._found: dict[str, Resource] = {}

    async def find(self, look: Look) -> Findings:
        resources, errors = await self._runs.find_all()
        self._found = {subject_key(one.subject, one.generation): one for one in resources}
        findings = Findings(kind=self.name, inventory=len(resources), trouble="; ".join(errors) or None)
        seen = await self._look({one.run for one in resources}, look)
        for one in resources:
            findings.take(one.subject, one.generation, self._decide(one, seen))
        if not errors:  # a run of which not everything could be seen may have something
            used = {one.run for one in resources}
            unsettled = await self._index.read(runs.count_sessions)  # of another ptyd, or just being settled
            for id_ in sorted(set(seen.runs) - used):
                waits = id_ in unsettled
                decision = Keep(_NOT_OVER) if waits else self._decide_run(seen.runs[id_], seen)
                findings.take(RUN + id_, 0, decision)
        return findings

    async def _look(self, ids: set[str], look: Look) -> _Seen:
        """Look up the runs of what was found and all that are not over: after what they own was looked at."""
        found = await self._index.read(runs.find_these, ids)
        found |= {run.id: run for run in await self._index.read(runs.find_unfinished)}
        holders = await trio.to_thread.run_sync(
            lambda: {id_: self._runs.holder_of(run) for id_, run in found.items()}
        )
        observed = await self._index.read(passes.observations, self.name)
        return _Seen(runs=found, holders=holders, observed=observed, at_ms=look.at_ms)

    def _decide(self, one: Resource, seen: _Seen) -> Decision:
        return decide_resource(
            one,
            seen.runs.get(one.run),
            holder=seen.holders.get(one.run, ABSENT),
            seen=seen.observed.get(subject_key(one.subject, one.generation)),
            now_ms=seen.at_ms,
            limits=self._limits,
        )

    def _decide_run(self, run: Run, seen: _Seen) -> Decision:
        return decide_run(
            run,
            holder=seen.holders[run.id],
            seen=seen.observed.get(subject_key(RUN + run.id, 0)),
            now_ms=seen.at_ms,
            limits=self._limits,
        )

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        if candidate.subject.startswith(RUN):
            return await self._finish(candidate.subject.removeprefix(RUN), look)
        known = self._found[subject_key(*candidate.key)]
        plugin = self._runs.plugins[known.plugin]
        resource = await plugin.look(known) if await plugin.check() else None
        if resource is None or resource.run != known.run:
            raise Skipped("it is gone by now")
        seen = await self._look({resource.run}, look)
        act = _still(self._decide(resource, seen), candidate.basis)
        run = seen.runs.get(resource.run)
        if act.basis is Basis.ABSENCE and run is not None:
            await self._runs.give_up(run, act.reason)
        return await plugin.end(resource)

    async def _finish(self, id_: str, look: Look) -> Mapping[str, object]:
        seen = await self._look({id_}, look)
        act = _still(self._decide_run(seen.runs[id_], seen), None)
        if act.basis is Basis.ABSENCE:
            await self._runs.give_up(seen.runs[id_], act.reason)
        after = await self._runs.settle(id_)
        if after.state is not RunState.ENDED:
            raise Skipped(_NOT_OVER)
        return {"state": after.state.value}


def _still(decision: Decision, basis: Basis | None) -> Act:
    """Return what was decided, seen again just before the act.

    Raises:
        Skipped: it is not to be done any more; or now only an absence speaks for it, and that did not
            pass the gate.
    """
    if not isinstance(decision, Act):
        raise Skipped(decision.reason if isinstance(decision, Keep) else "it is not believed yet")
    if basis is not None and basis is not Basis.ABSENCE and decision.basis is Basis.ABSENCE:
        raise Skipped("nobody has asked for it any more")
    return decision
