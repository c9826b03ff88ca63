"""Group M with runs: they begin, are held and let go, end and are swept, in the world of `test_model`.

Whatever happens, what ends by a run is exactly its own, only after somebody asked or nobody holds it, and in
the second case only at its age; and once faults have stopped nothing of a run that is over is alive.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, invariant, rule

from hostsvc.reaper import runs as reaper_runs
from hostsvc.reaper.record import Pass
from hostsvc.run import Run
from hostsvc.runs import containers, lifecycle
from hostsvc.service import Service
from hostsvc.states import RunState
from hostsvc.store import runs, sessions
from ptyd.protocol.errors import Code, PtydError
from tests.hostsvc import test_model
from tests.hostsvc.test_model import HOUR_MS, Machine, _threadless
from tests.hostsvc.world import Fault
from tests.support.waiting import soak

ORDER = list(RunState)


class RunsMachine(Machine):
    """One host service's life, with runs."""

    open_runs = Bundle("open_runs")

    def __init__(self) -> None:
        super().__init__()
        self.holders: dict[str, int] = {}
        """The runs that somebody holds, and who."""
        self.living: set[int] = set()
        self.asked: set[str] = set()
        self.before: dict[str, Run] = {}
        fake_procs = SimpleNamespace(
            boot_id=lambda: self.world.boot,
            is_alive=lambda pid, start: pid in self.living,
            read_stat=lambda pid: SimpleNamespace(start_ticks=pid, state="S"),
        )
        self.stack.enter_context(mock.patch.object(lifecycle, "procs", fake_procs))
        self.stack.enter_context(mock.patch.object(reaper_runs, "trio", _threadless()))
        nothing = SimpleNamespace(which=lambda _: None)
        self.stack.enter_context(mock.patch.object(containers, "shutil", nothing))
        given_up = (*test_model.GIVEN_UP, Code.NOT_FOUND, Code.DESTROYED)
        self.stack.enter_context(mock.patch.object(test_model, "GIVEN_UP", given_up))

    # -- what happens ------------------------------------------------------------------------------

    @initialize(target=open_runs)
    def first_run(self) -> str:
        return self.begins(is_held=True)

    @rule(target=open_runs, is_held=st.booleans())
    def begins(self, is_held: bool) -> str:
        id_ = next(self.names)
        if is_held:
            pid = int(id_[1:])
            self.holders[id_] = pid
            self.living.add(pid)
        self.do(lambda service: service.runs.start(id_, self.holders.get(id_), None))
        return id_

    @rule(run=open_runs, place=Machine.places, times=st.integers(1, 3))
    def spawns_in_a_run(self, run: str, place: str, times: int) -> None:
        self.next_run = run
        try:
            self.spawns(place, times)
        finally:
            self.next_run = None

    @rule(run=open_runs, place=Machine.places, holds_answer=st.booleans())
    def spawns_while_its_run_ends(self, run: str, place: str, holds_answer: bool) -> None:
        """D5: a spawn is under way, held before its effect or before its answer, and the run ends."""
        self.next_run = run
        try:
            self.spawns_while(place, holds_answer, f"end {run}")
        finally:
            self.next_run = None

    async def _meanwhile(self, service: Service, place: str, what: str) -> None:
        if what.startswith("end "):
            await self._end(service, what.removeprefix("end "))
        else:
            await super()._meanwhile(service, place, what)

    @rule(run=consumes(open_runs))
    def ends_a_run(self, run: str) -> None:
        self.do(lambda service: self._end(service, run))

    async def _end(self, service: Service, run: str) -> None:
        self.asked.add(run)
        try:
            ending = await service.runs.end(run)
        except PtydError as error:
            assert error.code is Code.NOT_FOUND, error  # a crash or an old backup has lost it
            return
        assert ending.is_partial is (ending.run.state is not RunState.ENDED)
        if not ending.is_partial and self.ptyd.list_fault is not Fault.OMITS:
            assert not [one for one in self.world.here() if one.run == run and self._is_ours(one)]

    def _is_ours(self, shell: Any) -> bool:
        return bool(shell.is_alive and shell.owner == self.owner)

    @rule(run=open_runs)
    def its_holder_is_gone(self, run: str) -> None:
        self.living.discard(self.holders.get(run, 0))

    @rule(run=open_runs, ms=st.sampled_from([30_000, test_model.FLOOR_MS + 1, HOUR_MS]))
    def is_looked_at_twice(self, run: str, ms: int) -> None:
        self.its_holder_is_gone(run)
        self.reap()
        self.world.now_ms += ms
        self.reap()

    @rule()
    def reboots(self) -> None:
        self.living.clear()
        super().reboots()

    # -- what must hold ----------------------------------------------------------------------------

    def check_kills(self) -> None:
        for shell in self.world.killed:
            assert shell.owner == self.owner, "foreign"
            assert not self.beliefs.wants(shell) or not self._is_wanted(shell.run), "wanted"

    def _is_wanted(self, run: str | None) -> bool:
        """Nobody asked for the run's end, and whoever holds it lives."""
        if run is None:
            return True
        return run not in self.asked and (run not in self.holders or self.holders[run] in self.living)

    def check_pass(self, recorded: Pass, *, is_accepted: bool = False) -> None:
        super().check_pass(recorded, is_accepted=is_accepted)
        acts = [act for act in recorded["acts"] if act["kind"] == "runs" and act["action"] == "end"]
        done = [act for act in acts if act["outcome"] in ("done", "failed")]
        inferred = [act for act in done if act["basis"] == "absence"]
        assert is_accepted or len(inferred) <= test_model.CAP
        if recorded["refusals"] or recorded["origin"] == "startup":
            assert inferred == []
        born = {shell.id: shell.created_at_ms for shell in self.world.shells}
        for act in inferred:
            age_ms = recorded["finished_at_ms"] - born[act["subject"].removeprefix("sessions/")]
            assert age_ms >= HOUR_MS, "D6: younger than the age"
        if self.ptyd.list_fault in (Fault.SILENT, Fault.ANSWER_LOST, Fault.REFUSES):
            assert "runs" in recorded["errors"], "D12: never clean"
            assert done == []

    @invariant()
    def runs_only_go_forward(self) -> None:
        found = {run.id: run for run in [*runs.find_last(self.index._db, 1000)]}
        for id_, before in self.before.items():
            after = found[id_]
            assert ORDER.index(after.state) >= ORDER.index(before.state)
            if before.end_requested_at_ms is not None:
                assert after.end_requested_at_ms == before.end_requested_at_ms
        self.before = found

    @rule()
    def restores(self) -> None:
        if self.backup is not None:
            self.before = {}
        super().restores()

    @invariant()
    def D5_an_ended_run_takes_nothing(self) -> None:
        for row in sessions.find_all(self.index._db):
            run = None if row.run is None else runs.find(self.index._db, row.run)
            if run is not None and run.state is RunState.ENDED:
                assert row.is_ended, "something of it is left"
            if run is not None and run.end_requested_at_ms is not None:
                assert row.created_at_ms <= run.end_requested_at_ms, "taken in after its end was asked for"
                assert row.is_ended or row.is_unwanted

    def nothing_unwanted_lives(self) -> None:
        super().nothing_unwanted_lives()
        for shell in self.world.here():
            if shell.run is not None and self._is_ours(shell):
                run = runs.find(self.index._db, shell.run)
                assert run is not None
                assert run.state is RunState.OPEN
                assert self._is_wanted(shell.run) or shell.run not in self.holders
        for run in runs.find_unfinished(self.index._db):
            if run.state is RunState.ENDING:
                assert sessions.find_of_run(self.index._db, run.id), "it is not over, with nothing left"


TestRunsModel = RunsMachine.TestCase
TestRunsModel.settings = settings(
    max_examples=soak(60, 2000),
    stateful_step_count=50,
    deadline=None,
    derandomize=soak(1, 0) == 1,
    database=None,
    suppress_health_check=list(HealthCheck),
)
