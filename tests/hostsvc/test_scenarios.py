"""Group C as short stories: the real service, index and reaper over the model's world, one case each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hostsvc.model import SessionRow
from hostsvc.states import SessionStatus
from hostsvc.store import sagas, sessions, workspaces
from ptyd.protocol.errors import Code, PtydError
from tests.hostsvc.test_model import CAP, FLOOR_MS, HOUR_MS, Machine
from tests.hostsvc.world import Fault, Shell


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.teardown()


def born(machine: Machine, count: int = 1) -> list[Shell]:
    """Sessions in a workspace of their own."""
    before = len(machine.world.shells)
    place = machine.make()
    for _ in range(count):
        machine.spawns(place=place, times=1)
    return machine.world.shells[before:]


def row(machine: Machine, shell: Shell) -> SessionRow:
    found = sessions.find(machine.index._db, *shell.key)
    assert found is not None
    return found


def write(machine: Machine, what: str, shell: Shell) -> None:
    machine.index._db.execute(f"UPDATE sessions SET {what} WHERE id = ?", [shell.id])
    machine.rows = {}


def outcomes(recorded: dict[str, object] | None) -> list[tuple[str, str, str]]:
    assert recorded is not None
    return [(act["action"], act["basis"], act["outcome"]) for act in recorded["acts"]]  # type: ignore[attr-defined]


def test_C10_a_kill_that_fails_leaves_one_warning_and_the_next_pass_finishes_it(machine: Machine) -> None:
    one, other = born(machine, 2)
    machine.world.is_immortal = True
    assert one.workspace_id is not None
    machine.deletes(place=one.workspace_id)
    saga = sagas.find_finished(machine.index._db, one.workspace_id)
    assert saga is not None
    assert len(saga.warnings) == 2
    assert {row(machine, one).status, row(machine, other).status} == {SessionStatus.ACTIVE}
    assert row(machine, one).workspace_id is None
    stone = workspaces.find_tombstone(machine.index._db, "workspace", one.workspace_id)
    assert stone is not None
    assert stone["is_confirmed"]
    machine.heals()
    assert outcomes(machine.reap()) == [("kill", "intent", "done")] * 2
    assert row(machine, one).status is SessionStatus.DISPOSED
    assert not one.is_alive


@pytest.mark.parametrize("was", ["disposed", "exited", "lost"])
def test_C11_C12_what_is_over_and_lives_is_killed_in_one_pass(machine: Machine, was: str) -> None:
    [shell] = born(machine)
    if was != "exited":
        write(machine, "dispose_requested_at_ms = 1", shell)
    write(machine, f"""kill_evidence = '{{"proof":"echild"}}', status = '{was}'""", shell)
    machine.beliefs.unwanted.add(shell.key)
    assert outcomes(machine.reap()) == [("kill", "row", "done")]
    assert not shell.is_alive


def test_C12_no_workspace_and_no_intent(machine: Machine) -> None:
    [shell] = born(machine)
    write(machine, "workspace_id = NULL", shell)
    machine.beliefs.unwanted.add(shell.key)
    assert outcomes(machine.reap()) == [("kill", "row", "done")]
    assert row(machine, shell).status is SessionStatus.DISPOSED


def test_C13_wanted_for_a_hundred_passes(machine: Machine) -> None:
    shells = born(machine, 3)
    for _ in range(100):
        machine.time_goes_by(ms=HOUR_MS)
        assert outcomes(machine.reap()) == []
    assert all(shell.is_alive for shell in shells)


def test_C14_C16_an_orphan_is_seen_twice_killed_and_tried_again_at_once(machine: Machine) -> None:
    machine.somebody_spawns(owner="ours")
    [shell] = machine.world.shells
    assert outcomes(machine.reap()) == []
    machine.time_goes_by(ms=FLOOR_MS + 1)
    machine.kills_fail(fault=Fault.REFUSES)
    assert outcomes(machine.reap()) == [("kill", "absence", "failed")]
    machine.heals()
    assert outcomes(machine.reap()) == [("kill", "absence", "done")]
    assert not shell.is_alive


def test_C16_backing_off(machine: Machine) -> None:
    """The very next passes try again at once; then time must go by."""
    [shell] = born(machine)
    machine.kills_fail(fault=Fault.SILENT)
    machine.disposes(pick=0)
    assert [bool(outcomes(machine.reap())) for _ in range(4)] == [True, True, False, False]
    machine.time_goes_by(ms=30_000)
    assert outcomes(machine.reap()) == [("kill", "intent", "failed")]
    assert row(machine, shell).attempts == 4
    assert row(machine, shell).status is SessionStatus.ACTIVE
    machine.time_goes_by(ms=HOUR_MS)
    machine.heals()
    assert outcomes(machine.reap()) == [("kill", "intent", "done")]


def test_C18_a_list_that_fails_begins_observations_anew(machine: Machine) -> None:
    machine.somebody_spawns(owner="ours")
    machine.passes()
    machine.time_goes_by(ms=FLOOR_MS + 1)
    machine.lists_fail(fault=Fault.REFUSES)
    recorded = machine.reap()
    assert recorded is not None
    assert recorded["state"] == "error"
    machine.heals()
    assert outcomes(machine.reap()) == [], "the first look again"
    machine.time_goes_by(ms=FLOOR_MS + 1)
    assert outcomes(machine.reap()) == [("kill", "absence", "done")]


@pytest.mark.parametrize("is_intended", [False, True])
def test_C19_C5_gone_is_believed_the_second_time(machine: Machine, is_intended: bool) -> None:
    [shell] = born(machine)
    if is_intended:
        write(machine, "dispose_requested_at_ms = 1", shell)
        machine.beliefs.unwanted.add(shell.key)
    machine.world.instance = "i2"  # its list is complete, and empty
    machine.time_goes_by(ms=HOUR_MS)
    for _ in range(3):
        machine.time_goes_by(ms=HOUR_MS)
        assert outcomes(machine.reap()) == [], "its processes live in the old runtime directory"
    shell.end(proof=None)
    assert outcomes(machine.reap()) == []
    machine.time_goes_by(ms=HOUR_MS)
    assert outcomes(machine.reap()) == [("bury", "absence", "done")]
    after = row(machine, shell)
    assert after.status is (SessionStatus.DISPOSED if is_intended else SessionStatus.LOST)
    assert after.kill_evidence == {"proof": "processes_gone", "by": "hostsvc", "looks": 2}


def test_C22_an_old_backup_makes_orphans_which_only_a_person_may_end(machine: Machine) -> None:
    machine.backs_up()
    shells = born(machine, 2 * CAP)
    machine.restores()
    for _ in range(3):
        machine.time_goes_by(ms=FLOOR_MS + 1)
        refused = machine.reap()
    assert refused is not None
    assert refused["state"] == "refused"
    assert all(shell.is_alive for shell in shells)
    [changed] = born(machine)
    accepted = machine.reap("manual", accepted=refused["plan_hash"])
    assert accepted is not None
    assert {act["subject"] for act in accepted["acts"]} == {shell.id for shell in shells}
    assert not any(shell.is_alive for shell in shells)
    assert changed.is_alive


def test_C22_an_empty_index_and_many_sessions_of_a_lost_one(machine: Machine) -> None:
    for _ in range(50):
        machine.world.add((next(machine.names), 1), "the lost index")
    for _ in range(3):
        machine.time_goes_by(ms=HOUR_MS)
        recorded = machine.reap()
    assert recorded is not None
    assert recorded["kept"]["sessions"] == {"foreign": 50}
    assert recorded["counts"]["seen"] == 0
    assert all(shell.is_alive for shell in machine.world.shells)


def test_C20_nothing_is_born_in_a_workspace_that_is_being_deleted(machine: Machine) -> None:
    place = machine.make()
    machine.deletes(place=place)

    async def spawn(service: object) -> None:
        found = workspaces.find(machine.index._db, place)
        assert found is not None
        with pytest.raises(PtydError) as refused:
            await service.births.spawn(  # type: ignore[attr-defined]
                found, argv=[b"sh"], cwd=None, name=None, labels={}, on_leader_exit="keep"
            )
        assert refused.value.code is Code.BEING_DELETED

    machine.do(spawn)
    assert machine.world.shells == []


@pytest.mark.parametrize("holds_answer", [False, True])
def test_C20_a_spawn_in_flight_when_its_workspace_goes(machine: Machine, holds_answer: bool) -> None:
    machine.spawns_while(place=machine.make(), holds_answer=holds_answer, meanwhile="delete")
    assert machine.beliefs.told == set()
    assert not any(shell.is_alive for shell in machine.world.shells)


def test_C20_a_spawn_that_nothing_could_end_in_time_is_told_to_nobody(machine: Machine) -> None:
    machine.kills_fail(fault=Fault.SILENT)
    machine.spawns_while(place=machine.make(), holds_answer=True, meanwhile="delete")
    assert machine.beliefs.told == set(), "who asked for it was told that its workspace goes"
    [shell] = machine.world.shells
    assert shell.is_alive
    machine.heals()
    machine.passes()
    assert not shell.is_alive


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("writes", range(16))
def test_C23_a_deletion_killed_at_any_write_ends_as_one_that_was_not(
    machine: Machine, writes: int, is_after: bool
) -> None:
    shells = born(machine, 2)
    place = shells[0].workspace_id
    assert place is not None
    machine.will_crash(writes=writes, is_after=is_after)
    machine.deletes(place=place)
    if place not in machine.beliefs.deleted:  # nobody had written it down yet: asked again, as a person would
        machine.deletes(place=place)
    machine.time_goes_by(ms=HOUR_MS)
    machine.reap()
    found = workspaces.find(machine.index._db, place)
    assert found is not None
    assert found.deleted_at_ms is not None
    assert not any(shell.is_alive for shell in shells)
    assert not (machine.directory / "base" / place).exists()
    assert len(list((machine.directory / "base" / ".trash").glob("*.json"))) == 1
    assert sessions.find_all(machine.index._db, workspace_id=place) == []
