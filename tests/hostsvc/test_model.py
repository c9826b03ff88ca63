"""Group M: the real service, index and reaper over a world that goes wrong in every way, step by step.

A step is something that happens: a spawn, an exit, a deletion, a pass, a crash at some write, a reboot, an
old backup restored, a ptyd that is silent or loses its answers. After each the promises are checked against
what is true; at the end, once faults have stopped, everything unwanted must be gone within two passes.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import attrs
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlite_utils import Database
from structlog.testing import capture_logs

from hostsvc import births, processes
from hostsvc.config import read_config
from hostsvc.model import Key, SessionRow
from hostsvc.reaper import stale_rows
from hostsvc.reaper.record import Pass
from hostsvc.service import Service
from hostsvc.states import ENDED, PROVEN, SESSION_MOVES, SessionStatus
from hostsvc.store import database, sagas, sessions, workspaces
from hostsvc.store.database import FILE
from ptyd.protocol.errors import Code, PtydError
from tests.hostsvc.store import InlineIndex, dump, fresh, restore
from tests.hostsvc.world import Crash, FakePtyd, Fault, Shell, World
from tests.support.waiting import soak

CAP = 3
FLOOR_MS = 60_000
HOUR_MS = 3_600_000
GIVEN_UP = (Code.BEING_DELETED, Code.SPAWN_FAILED, Code.NO_PTYD, Code.WRONG_INSTANCE)
UNPROVEN = (Code.KILL_UNCONFIRMED, Code.NO_PTYD, Code.WRONG_INSTANCE)

Work = Callable[[Service], Awaitable[Any]]


class CrashingIndex(InlineIndex):
    """Dies at a write that was chosen, just before or just after it is on the disk."""

    def __init__(self, db: Database, directory: Path, world: World) -> None:
        super().__init__(db, directory)
        self._world = world
        self.writes_left: int | None = None
        self.is_after = False

    async def _run(self, work: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        if self._world.is_crashed:
            raise Crash
        return self._translated(work)

    async def write(self, work: Any, *args: Any, **kwargs: Any) -> Any:
        is_last = self.writes_left == 0
        if self.writes_left is not None:
            self.writes_left -= 1
        if is_last and not self.is_after:
            self._crash()
        written = await super().write(work, *args, **kwargs)
        if is_last:
            self._crash()
        return written

    def _crash(self) -> None:
        self._world.is_crashed = True
        raise Crash


@attrs.define
class Beliefs:
    """What clients were told and have asked for: what the service should know."""

    told: set[Key] = attrs.Factory(set)
    unwanted: set[Key] = attrs.Factory(set)
    deleted: set[str] = attrs.Factory(set)
    unsure: set[Key] = attrs.Factory(set)
    """A crash came before anybody was told, or an index that is older was restored."""

    def copy(self) -> Beliefs:
        return Beliefs(*(set(value) for value in attrs.astuple(self, recurse=False)))

    def wants(self, shell: Shell) -> bool:
        return (
            shell.key in self.told
            and shell.key not in self.unwanted | self.unsure
            and shell.workspace_id not in self.deleted
        )


class Machine(RuleBasedStateMachine):
    """One host service's life."""

    places = Bundle("places")
    next_run: str | None = None
    """What the next spawn belongs to; see test_runs_model."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="model-"))
        self.stack.callback(shutil.rmtree, self.directory)
        self.world = World()
        self.ptyd = FakePtyd(self.world)
        self.beliefs = Beliefs()
        self.backup: Beliefs | None = None
        self.names = (f"n{number}" for number in itertools.count())
        self.config = read_config(
            env={
                "HOME": str(self.directory),
                "HOSTSVC_CONFIG": "/dev/null",
                "HOSTSVC_STATE_DIR": str(self.directory / "state"),
                "HOSTSVC_BASE_DIR": str(self.directory / "base"),
                "PTYD_RUNTIME_DIR": str(self.directory / "run"),
                "HOSTSVC_INFERRED_CAP": str(CAP),
            }
        )
        fresh(self.directory / "state")
        fake_procs = SimpleNamespace(is_alive=self.world.has_process, boot_id=lambda: self.world.boot)
        for module in (processes, stale_rows, births):
            self.stack.enter_context(mock.patch.object(module, "procs", fake_procs))
        self.stack.enter_context(mock.patch.object(processes, "look_for_marks", self.world.marks))
        self.stack.enter_context(mock.patch.object(stale_rows, "trio", _threadless()))
        self.stack.enter_context(capture_logs())
        self.open()
        self.rows: dict[Key, SessionRow] = {}

    def open(self) -> None:
        db = database.open_database(self.directory / "state")
        db.execute("PRAGMA synchronous = OFF")
        self.index = CrashingIndex(db, self.directory / "state", self.world)
        self.owner = database.index_id(db)

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.index.close()
            self.stack.close()

    # -- doing something ---------------------------------------------------------------------------

    def do(self, work: Work) -> Any:
        """Run something in the service; what is killed meanwhile is checked. None after a crash."""
        self.world.killed.clear()
        done: list[Any] = []

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                service = Service(
                    self.config,
                    self.index,
                    self.owner,
                    self.ptyd,  # type: ignore[arg-type]
                    nursery,
                    self.world.clock,
                )
                try:
                    await sagas_are_free(service)
                    done.append(await work(service))
                finally:
                    service.places.close()

        try:
            trio.run(run)
        except Crash:
            pass
        except BaseExceptionGroup as error:
            if not _is_only_crashes(error):
                raise _single(error) from None
        if self.world.is_crashed:
            self.start_again()
            done = []
        self.check_kills()
        return done[0] if done else None

    def start_again(self) -> None:
        """Another process takes over what a dead one has left."""
        self.world.is_crashed = False
        self.index.writes_left = None
        self.ptyd.held = self.ptyd.go = None
        killed = list(self.world.killed)
        self.reap("startup")
        self.world.killed[:0] = killed

    def reap(self, origin: str = "interval", **params: Any) -> Pass | None:
        recorded: Pass | None = self.do(lambda service: service.reaper.run_pass(origin, **params))
        if recorded is not None:
            self.check_pass(recorded, is_accepted="accepted" in params)
        return recorded

    async def spawn(self, service: Service, place: str) -> None:
        found = await service.index.read(workspaces.find, place)
        if found is None:
            return
        before = {shell.key for shell in self.world.shells}
        try:
            row = await service.births.spawn(
                found,
                argv=[b"sh"],
                cwd=None,
                name=None,
                labels={},
                run=self.next_run,
                on_leader_exit="keep",
            )
            self.beliefs.told.add(row.key)
        except PtydError as error:
            assert error.code in GIVEN_UP, error
            for row in await service.index.read(sessions.find_of_workspace, place):
                if row.key not in before | self.beliefs.told:
                    self.beliefs.unwanted.add(row.key)
        except BaseException:
            self.beliefs.unsure |= {shell.key for shell in self.world.shells} - before
            raise

    async def dispose(self, service: Service, key: Key) -> None:
        before = await service.index.read(sessions.find, *key)
        self.beliefs.unwanted.add(key)
        living = self.world.is_living(key)
        try:
            await service.disposal.dispose(key, reason="asked")
        except PtydError as error:
            assert error.code in (*UNPROVEN, Code.NOT_FOUND), error
            after = await service.index.read(sessions.find, *key)
            if before is not None and after is not None:
                assert after.status is before.status, "an unproven kill changes no status"
            return
        except BaseException:
            row = sessions.find(self.index._db, *key)
            if row is not None and not row.is_unwanted:
                self.beliefs.unwanted.discard(key)  # the crash came before the intent was written
            raise
        assert not (living and self.world.is_living(key)), "said to be done, and it lives"

    async def delete(self, service: Service, place: str) -> None:
        found = await service.index.read(workspaces.find, place)
        if found is None or found.deleted_at_ms is not None:
            return
        self.beliefs.deleted.add(place)
        try:
            await service.deletion.delete(found, is_forced=False, skips_teardown=False)
        except BaseException:
            if not sagas.find_open(self.index._db, place) and not sagas.find_finished(self.index._db, place):
                self.beliefs.deleted.discard(place)  # the crash came before its saga was written
            raise

    # -- what happens ------------------------------------------------------------------------------

    @rule(target=places)
    def make(self) -> str:
        name = next(self.names)

        async def work(service: Service) -> None:
            await service.places.create(
                id_=name,
                generation=None,
                name=name,
                path=None,
                labels={},
                teardown=None,
                is_protected=False,
            )

        self.do(work)
        return name

    @rule(place=places, times=st.integers(1, 3))
    def spawns(self, place: str, times: int) -> None:
        async def work(service: Service) -> None:
            for _ in range(times):
                await self.spawn(service, place)

        self.do(work)

    @rule(place=places, holds_answer=st.booleans(), meanwhile=st.sampled_from(["reap", "delete", "spawn"]))
    def spawns_while(self, place: str, holds_answer: bool, meanwhile: str) -> None:
        """C20: a spawn is under way, held before its effect or before its answer, and something happens."""
        self.ptyd.held, self.ptyd.go, self.ptyd.holds_answer = trio.Event(), trio.Event(), holds_answer

        async def work(service: Service) -> None:
            over = trio.Event()

            async def spawn() -> None:
                await self.spawn(service, place)
                over.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(spawn)
                held, go = self.ptyd.held, self.ptyd.go
                assert held is not None
                assert go is not None
                await either(held, over)
                self.ptyd.held = self.ptyd.go = None
                try:
                    await self._meanwhile(service, place, meanwhile)
                finally:
                    go.set()

        self.do(work)

    async def _meanwhile(self, service: Service, place: str, what: str) -> None:
        match what:
            case "reap":
                self.check_pass(await service.reaper.run_pass("interval"))
            case "delete":
                await self.delete(service, place)
            case _:
                await self.spawn(service, place)

    @rule(place=consumes(places))
    def deletes(self, place: str) -> None:
        self.do(lambda service: self.delete(service, place))

    @rule(pick=st.integers(0, 1000))
    def disposes(self, pick: int) -> None:
        rows = sessions.find_all(self.index._db)
        if rows:
            key = rows[pick % len(rows)].key
            self.do(lambda service: self.dispose(service, key))

    @rule(pick=st.integers(0, 1000), is_forgotten=st.booleans())
    def exits(self, pick: int, is_forgotten: bool) -> None:
        living = [shell for shell in self.world.shells if shell.is_alive]
        if living:
            living[pick % len(living)].end()
            living[pick % len(living)].is_recorded = not is_forgotten

    @rule(owner=st.sampled_from(["stranger", None, "ours"]))
    def somebody_spawns(self, owner: str | None) -> None:
        """A stranger, or a host service of ours whose index is lost."""
        self.world.add((next(self.names), 1), self.owner if owner == "ours" else owner)

    @rule()
    def a_late_spawn_is_done(self) -> None:
        while self.world.late:
            wanted = self.world.late.pop()
            self.world.add(**wanted)

    @rule(fault=st.sampled_from(Fault))
    def lists_fail(self, fault: Fault) -> None:
        self.ptyd.list_fault = fault

    @rule(fault=st.sampled_from([Fault.SILENT, Fault.REFUSES, Fault.ANSWER_LOST]))
    def kills_fail(self, fault: Fault) -> None:
        self.ptyd.kill_fault = fault

    @rule(fault=st.sampled_from([Fault.SILENT, Fault.REFUSES, Fault.ANSWER_LOST, Fault.LATE]))
    def spawns_fail(self, fault: Fault) -> None:
        self.ptyd.spawn_fault = fault

    @rule()
    def heals(self) -> None:
        self.ptyd.heal()

    @rule(ms=st.sampled_from([1, 30_000, FLOOR_MS + 1, 300_000, HOUR_MS]))
    def time_goes_by(self, ms: int) -> None:
        self.world.now_ms += ms

    @rule()
    def passes(self) -> None:
        self.reap()

    @rule()
    def rehearses(self) -> None:
        own = frozenset({"passes", "sqlite_sequence"})
        before = dump(self.directory / "state" / FILE, own)
        if self.reap("manual", is_dry=True) is not None:
            assert not self.world.killed
            assert dump(self.directory / "state" / FILE, own) == before

    @rule(writes=st.integers(0, 12), is_after=st.booleans())
    def will_crash(self, writes: int, is_after: bool) -> None:
        self.index.writes_left, self.index.is_after = writes, is_after

    @rule()
    def restarts(self) -> None:
        self.index.writes_left = None
        self.world.killed.clear()
        self.start_again()
        self.check_kills()

    @rule(instance=st.sampled_from(["i1", "i2"]))
    def another_runtime_directory(self, instance: str) -> None:
        self.world.instance = instance

    @rule()
    def reboots(self) -> None:
        self.world.reboot()
        self.restarts()

    @rule()
    def backs_up(self) -> None:
        (self.directory / "backup").unlink(missing_ok=True)
        database.backup_file(self.directory / "state" / FILE, self.directory / "backup")
        self.backup = self.beliefs.copy()

    @rule()
    def restores(self) -> None:
        """C22: whatever came after the backup is nobody's now, and may go only as orphans do."""
        if self.backup is None:
            return
        self.index.close()
        restore(self.directory / "state", self.directory / "backup")
        later = (self.beliefs.told | self.beliefs.unsure) - self.backup.told
        self.beliefs = self.backup.copy()
        self.beliefs.unsure |= later
        self.rows = {}
        self.open()
        self.restarts()

    # -- what must hold ----------------------------------------------------------------------------

    def check_kills(self) -> None:
        for shell in self.world.killed:
            assert shell.owner == self.owner, "foreign"
            assert not self.beliefs.wants(shell), "wanted"

    def check_pass(self, recorded: Pass, *, is_accepted: bool = False) -> None:
        done = [act for act in recorded["acts"] if act["outcome"] in ("done", "failed", "skipped")]
        inferred = [act for act in done if act["basis"] == "absence"]
        assert is_accepted or len([act for act in inferred if act["action"] == "kill"]) <= CAP
        if recorded["refusals"] or recorded["origin"] == "startup":
            assert not [act for act in inferred if act["action"] == "kill"]
        if self.ptyd.list_fault in (Fault.SILENT, Fault.ANSWER_LOST, Fault.REFUSES):
            assert {"sessions", "rows"} <= recorded["errors"].keys()
            assert not [act for act in done if act["kind"] in ("sessions", "rows")], "unknown, and acted"

    @invariant()
    def what_is_over_is_dead(self) -> None:
        for row in sessions.find_all(self.index._db):
            if row.status in ENDED:
                assert not self.world.is_living(row.key), f"{row.status} and alive"
            if row.status in (SessionStatus.DISPOSED, SessionStatus.EXITED):
                assert row.kill_evidence is not None

    @invariant()
    def rows_only_go_forward(self) -> None:
        rows = {row.key: row for row in sessions.find_all(self.index._db)}
        for key, before in self.rows.items():
            after = rows.get(key)
            if after is None:
                stone = workspaces.find_tombstone(self.index._db, "session", key[0])
                assert stone is not None
                assert SessionStatus(stone["detail"]["status"]) in PROVEN
                assert not self.world.is_living(key)
                continue
            if before.status is not after.status:
                moves = _reachable(before.status)
                assert after.status in moves, f"{before.status} to {after.status}"
            if before.is_unwanted:
                assert after.dispose_requested_at_ms == before.dispose_requested_at_ms
            if before.kill_evidence is not None:
                assert after.kill_evidence == before.kill_evidence
        self.rows = rows

    # -- once faults stop --------------------------------------------------------------------------

    def settle(self) -> None:
        """Liveness: two good passes and nothing unwanted lives; a third has nothing to do."""
        self.ptyd.heal()
        self.index.writes_left = None
        for instance in sorted({shell.instance for shell in self.world.shells} | {self.world.instance}):
            self.world.instance = instance
            self.a_late_spawn_is_done()
            self.restarts()
            for _ in range(2):
                self.world.now_ms += HOUR_MS
                recorded = self.reap()
                assert recorded is not None
                if recorded["state"] == "refused":
                    recorded = self.reap("manual", accepted=recorded["plan_hash"])
                    assert recorded is not None
                assert recorded["state"] == "ok", recorded
            self.world.now_ms += HOUR_MS
            last = self.reap()
            assert last is not None
            # That a run has nothing any more is seen twice before its row is closed: one pass later.
            acts = [act for act in last["acts"] if act["kind"] != "trash" and "run/" not in act["subject"]]
            assert acts == [], f"a further pass acts on nothing, not {acts}"
            self.what_is_over_is_dead()
            self.rows_only_go_forward()
            self.nothing_unwanted_lives()
        assert sagas.find_open(self.index._db) == []

    def nothing_unwanted_lives(self) -> None:
        for shell in self.world.here():
            if shell.is_alive and shell.owner == self.owner:
                row = sessions.find(self.index._db, *shell.key)
                assert row is not None, "nobody's, and alive"
                assert row.status is SessionStatus.ACTIVE
                assert shell.key not in self.beliefs.unwanted
                assert shell.workspace_id not in self.beliefs.deleted
        for row in sessions.find_open(self.index._db):
            if row.instance_id == self.world.instance:
                assert self.world.is_living(row.key), f"{row.status}, and nothing lives"


def _threadless() -> SimpleNamespace:
    """What a kind would do in a thread is done at once: the world is not real."""

    async def run_sync(work: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return work()

    return SimpleNamespace(to_thread=SimpleNamespace(run_sync=run_sync))


async def sagas_are_free(service: Service) -> None:
    """As a start does: whoever held a lease is dead."""
    await service.index.read(_void_leases, service.run_id)


def _void_leases(db: Database, holder: str) -> None:
    with database.writing(db):
        sagas.void_leases(db, holder)


async def either(first: trio.Event, second: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, first)
        nursery.start_soon(wait, second)


def _is_only_crashes(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_only_crashes(one) for one in error.exceptions)
    return isinstance(error, Crash)


def _single(error: BaseException) -> BaseException:
    """Return what the nurseries have wrapped, if it is one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _reachable(status: SessionStatus) -> set[SessionStatus]:
    found = {after for before, after in SESSION_MOVES if before is status}
    return found | {after for one in found for after in _reachable(one)}


TestModel = Machine.TestCase
TestModel.settings = settings(
    max_examples=soak(100, 3000),
    stateful_step_count=50,
    deadline=None,
    derandomize=soak(1, 0) == 1,
    database=None,
    suppress_health_check=list(HealthCheck),
)
