"""Each guard is needed: with it a scenario keeps its promise, and without it the same scenario breaks it.

The rules of the schema have the same test in test_store_rules.py. The others are in the table GUARDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from hostsvc import disposal, policy, processes
from hostsvc.births import Births
from hostsvc.live import Proven, Unproven
from hostsvc.model import Fact, Known, LiveView, Observation
from hostsvc.reaper import engine, orphans, stale_rows
from hostsvc.reaper.kinds import Findings, Look
from hostsvc.reaper.orphans import Orphans
from hostsvc.reaper.stale_rows import StaleRows
from hostsvc.states import SessionStatus
from hostsvc.store import passes, sessions
from tests.hostsvc.test_model import FLOOR_MS, Machine
from tests.hostsvc.world import FakePtyd, Fault, Shell

Patch = pytest.MonkeyPatch
EVENTUALLY_MS = FLOOR_MS + 1


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.index.close()
    machine.stack.close()


def check(machine: Machine) -> None:
    machine.what_is_over_is_dead()
    machine.rows_only_go_forward()


def orphan(machine: Machine, owner: str = "ours") -> Shell:
    machine.somebody_spawns(owner=owner)
    return machine.world.shells[-1]


def session(machine: Machine) -> Shell:
    machine.spawns(place=machine.make(), times=1)
    return machine.world.shells[-1]


# --- scenarios -----------------------------------------------------------------------------------


def c14_one_look(machine: Machine) -> None:
    shell = orphan(machine)
    machine.time_goes_by(ms=EVENTUALLY_MS)
    machine.passes()
    assert shell.is_alive


def c15_two_looks_at_once(machine: Machine) -> None:
    shell = orphan(machine)
    for _ in range(2):
        machine.passes()
        machine.time_goes_by(ms=1)
    assert shell.is_alive


def c21_a_strangers(machine: Machine) -> None:
    shell = orphan(machine, owner="stranger")
    for _ in range(3):
        machine.passes()
        machine.time_goes_by(ms=EVENTUALLY_MS)
    assert shell.is_alive


def c18_no_list(machine: Machine) -> None:
    machine.will_crash(writes=4, is_after=False)  # before the answer is entered
    session(machine)
    machine.lists_fail(fault=Fault.SILENT)
    for _ in range(3):
        machine.passes()
        machine.time_goes_by(ms=EVENTUALLY_MS)


def p6_being_born(machine: Machine) -> None:
    machine.spawns_while(place=machine.make(), holds_answer=False, meanwhile="reap")
    assert len(machine.beliefs.told) == 1, "its row was fenced while it was being born"


def c22_many_at_once(machine: Machine) -> None:
    shells = [orphan(machine) for _ in range(8)]
    for _ in range(3):
        machine.passes()
        machine.time_goes_by(ms=EVENTUALLY_MS)
    assert all(shell.is_alive for shell in shells)


def c22_at_the_start(machine: Machine) -> None:
    shell = orphan(machine)
    machine.passes()
    machine.time_goes_by(ms=EVENTUALLY_MS)
    machine.restarts()
    assert shell.is_alive, "a drain only observes absence"


def c3_no_answer(machine: Machine) -> None:
    session(machine)
    machine.kills_fail(fault=Fault.SILENT)
    machine.disposes(pick=0)
    check(machine)


def c5_a_list_that_lacks_it(machine: Machine) -> None:
    machine.spawns(place=machine.make(), times=2)
    machine.lists_fail(fault=Fault.OMITS)
    for _ in range(2):
        machine.passes()
        machine.time_goes_by(ms=EVENTUALLY_MS)
    machine.passes()
    check(machine)


def b20_a_row_appears(machine: Machine) -> None:
    """Between the decision and the act somebody adopts it."""
    place, shell = machine.make(), orphan(machine)
    machine.passes()
    machine.time_goes_by(ms=EVENTUALLY_MS)
    real = Orphans.find

    async def find(kind: Orphans, look: Look) -> Findings:
        findings = await real(kind, look)
        fields = {
            "name": None,
            "labels": "{}",
            "argv": "[]",
            "cwd": None,
            "run_id": "r",
            "instance_id": "i1",
            "created_at_ms": 1,
        }
        await machine.index.write(sessions.insert_adopted, shell.listed(), place, fields)
        return findings

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Orphans, "find", find)
        machine.passes()
    assert shell.is_alive


def c1_no_evidence(machine: Machine) -> None:
    shell = session(machine)
    machine.disposes(pick=0)
    row = sessions.find(machine.index._db, *shell.key)
    assert row is not None
    assert row.status is not SessionStatus.DISPOSED or (row.kill_evidence or {}).get("proof")
    assert not shell.is_alive or row.status is SessionStatus.ACTIVE


def c5_another_instance_does_not_know_it(machine: Machine) -> None:
    """That it is not there says nothing of the one that was asked for it."""
    place = machine.make()
    machine.spawns_fail(fault=Fault.LATE)
    machine.kills_fail(fault=Fault.SILENT)
    machine.spawns(place=place, times=1)
    machine.heals()
    machine.another_runtime_directory(instance="i2")
    machine.disposes(pick=0)
    machine.a_late_spawn_is_done()
    check(machine)


# --- taking a guard away -------------------------------------------------------------------------


class Anyone(str):
    """Equal to every owner."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def believe_at_once(patch: Patch, _: Machine) -> None:
    patch.setattr(policy, "absence_is_believed", lambda *_: True)


def believe_the_second_look(patch: Patch, _: Machine) -> None:
    def believed(seen: Observation | None, *_: object) -> bool:
        return seen is not None

    patch.setattr(policy, "absence_is_believed", believed)


def take_everybody_for_ours(patch: Patch, machine: Machine) -> None:
    machine.owner = Anyone(machine.owner)


def take_unknown_for_absent(patch: Patch, _: Machine) -> None:
    def seen_view(look: Look) -> LiveView:
        return look.view.value if isinstance(look.view, Known) else LiveView(instance_id="i1", sessions={})

    patch.setattr(orphans, "seen_view", seen_view)
    patch.setattr(stale_rows, "seen_view", seen_view)


def forget_births(patch: Patch, _: Machine) -> None:
    patch.setattr(Births, "is_being_born", lambda *_: False)


def refuse_nothing(patch: Patch, _: Machine) -> None:
    patch.setattr(engine, "refusals", lambda *_: [])


def start_like_any_pass(patch: Patch, _: Machine) -> None:
    patch.setattr(engine, "STARTUP", "never")
    patch.setattr(passes, "STARTUP", "never")


def take_silence_for_proof(patch: Patch, _: Machine) -> None:
    real = FakePtyd.kill

    async def kill(ptyd: FakePtyd, *args: Any, **kwargs: Any) -> Any:
        found = await real(ptyd, *args, **kwargs)
        return Proven({"proof": "acknowledged"}, None) if isinstance(found, Unproven) else found

    patch.setattr(FakePtyd, "kill", kill)


def ask_any_instance(patch: Patch, _: Machine) -> None:
    real = FakePtyd.kill

    async def kill(ptyd: FakePtyd, key: Any, *, is_forced: bool, instance_id: str | None) -> Any:
        return await real(ptyd, key, is_forced=is_forced, instance_id=None)

    patch.setattr(FakePtyd, "kill", kill)


def look_for_no_signs(patch: Patch, _: Machine) -> None:
    def death_of(*_: object) -> Fact[str]:
        return Known("processes_gone")

    patch.setattr(processes, "death_of", death_of)


def look_only_once(patch: Patch, _: Machine) -> None:
    async def nothing(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(Orphans, "_check_again", nothing)


def accept_anything_as_evidence(patch: Patch, machine: Machine) -> None:
    real = disposal.sessions.settle

    def settle(*args: Any, **kwargs: Any) -> Any:
        return real(*args, **{**kwargs, "evidence": None})

    patch.setattr(disposal.sessions, "settle", settle)
    machine.index._db.execute("PRAGMA ignore_check_constraints = ON")


GUARDS: dict[str, tuple[Callable[[Patch, Machine], None], Callable[[Machine], None]]] = {
    "absence is observed twice": (believe_at_once, c14_one_look),
    "absence has an age floor": (believe_the_second_look, c15_two_looks_at_once),
    "a process believes no look but its own, and a drain none": (start_like_any_pass, c22_at_the_start),
    "the owner's mark": (take_everybody_for_ours, c21_a_strangers),
    "unknown is not absent": (take_unknown_for_absent, c18_no_list),
    "what is being born is left alone": (forget_births, p6_being_born),
    "the caps of the gate": (refuse_nothing, c22_many_at_once),
    "only a proof is a death": (take_silence_for_proof, c3_no_answer),
    "a kill names the instance": (ask_any_instance, c5_another_instance_does_not_know_it),
    "signs of life": (look_for_no_signs, c5_a_list_that_lacks_it),
    "a second look just before the act": (look_only_once, b20_a_row_appears),
    "disposed needs evidence": (accept_anything_as_evidence, c1_no_evidence),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_M_the_promise_is_kept(machine: Machine, guard: str) -> None:
    _, scenario = GUARDS[guard]
    scenario(machine)
    check(machine)


@pytest.mark.parametrize("guard", GUARDS)
def test_M_without_the_guard_it_is_broken(machine: Machine, monkeypatch: Patch, guard: str) -> None:
    remove, scenario = GUARDS[guard]
    remove(monkeypatch, machine)
    with pytest.raises(AssertionError):
        scenario(machine)


# --- races that were found -----------------------------------------------------------------------


def test_P6_a_spawn_that_is_answered_while_a_pass_looks(machine: Machine, monkeypatch: Patch) -> None:
    """Not in the list yet, its row still `spawning` when it was read, and born by the time that is asked."""
    place = machine.make()
    held, go, over = trio.Event(), trio.Event(), trio.Event()
    machine.ptyd.held, machine.ptyd.go = held, go
    real = StaleRows._deaths

    async def deaths(kind: StaleRows, rows: list[Any]) -> Any:
        go.set()
        await over.wait()
        return await real(kind, rows)

    async def work(service: Any) -> None:
        async def spawn() -> None:
            await machine.spawn(service, place)
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawn)
            await held.wait()
            machine.ptyd.held = machine.ptyd.go = None
            recorded = await service.reaper.run_pass("interval")
            assert [act["outcome"] for act in recorded["acts"]] == ["skipped"]

    monkeypatch.setattr(StaleRows, "_deaths", deaths)
    machine.do(work)
    [shell] = machine.world.shells
    assert shell.is_alive
    assert machine.beliefs.wants(shell)


def test_C5_a_spawn_that_a_power_failure_cut_off_ends(machine: Machine) -> None:
    """Nobody was told who ran it; but that it was of another boot is known."""
    place = machine.make()
    machine.will_crash(writes=0, is_after=True)  # its row is written, and nothing else
    machine.spawns_fail(fault=Fault.LATE)
    machine.lists_fail(fault=Fault.SILENT)
    machine.spawns(place=place, times=1)
    [row] = sessions.find_open(machine.index._db)
    machine.reboots()
    machine.heals()
    for _ in range(3):
        machine.passes()
        machine.time_goes_by(ms=EVENTUALLY_MS)
    after = sessions.find(machine.index._db, *row.key)
    assert after is not None
    assert (row.status, after.status) == (SessionStatus.SPAWNING, SessionStatus.LOST)


def test_a_lost_session_that_is_here_again_can_be_ended(machine: Machine) -> None:
    shell = session(machine)
    with machine.index._db.conn:
        machine.index._db.execute("UPDATE sessions SET status = 'lost'")
    machine.passes()
    assert shell.is_alive, "nobody asked for its end"
    machine.beliefs.unwanted.add(shell.key)

    async def ask(service: Any) -> None:
        await service.disposal.request(shell.key, reason="asked")

    machine.do(ask)
    machine.passes()
    assert not shell.is_alive
