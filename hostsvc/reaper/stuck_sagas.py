"""Kind: stuck sagas. A deletion that nobody is at: a crash left it, or a step failed and is due again."""

from __future__ import annotations

from collections.abc import Mapping

from hostsvc.deletion import Deletion
from hostsvc.index import Index
from hostsvc.model import Act, Action, Basis, Candidate, Keep
from hostsvc.policy import is_due
from hostsvc.reaper.kinds import Findings, Look, Skipped
from hostsvc.states import SagaState
from hostsvc.store import sagas


class StuckSagas:
    """Finds and resumes them."""

    name = "sagas"

    def __init__(self, index: Index, deletion: Deletion) -> None:
        self._index = index
        self._deletion = deletion

    async def find(self, look: Look) -> Findings:
        findings = Findings(kind=self.name)
        for saga in await self._index.read(sagas.find_open):
            findings.inventory += 1
            if self._deletion.is_at_work(saga):
                decision: Act | Keep = Keep("it is under way")
            elif not is_due(saga.next_attempt_at_ms, look.at_ms):
                decision = Keep("its next attempt is not due yet")
            else:
                decision = Act(Action.RESUME, Basis.INTENT, saga.last_error or "it was interrupted")
            findings.take(saga.id, saga.generation, decision)
        return findings

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        saga = await self._index.read(sagas.find, candidate.subject)
        if saga is None or saga.finished_at_ms is not None:
            raise Skipped("it is finished by now")
        after = await self._deletion.run(saga)
        if after.state is not SagaState.DONE:
            raise Skipped(after.last_error or "it has to wait")
        return {"state": after.state.value}
