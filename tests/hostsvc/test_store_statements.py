"""The statements: compare-and-set, intents, leases, observations, tombstones and what leaves a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database

from hostsvc import views
from hostsvc.model import Saga, SessionRow, Workspace
from hostsvc.policy import Retry
from hostsvc.saga import STEPS, Step
from hostsvc.states import ENDED, PROVEN, SagaState, SessionStatus, WorkspaceState
from hostsvc.store import archive, audit, passes, sagas, sessions, trash, workspaces
from hostsvc.store.database import writing
from hostsvc.store.workspaces import Destroyed, Taken
from tests.hostsvc.store import PROOF, add_session, add_workspace, dump, opened
from tests.hostsvc.values import NOW, live

LATER = NOW + 1000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = opened(tmp_path / "state")
    add_workspace(db)
    yield db
    db.close()


def end(db: Database, row: SessionRow, status: SessionStatus, now_ms: int = NOW) -> SessionRow:
    if status is SessionStatus.DISPOSED:
        request(db, row)
    with writing(db):
        settled = sessions.settle(db, row.key, status, evidence=PROOF, exit_={"code": 0}, now_ms=now_ms)
    assert settled is not None
    return settled


def request(db: Database, row: SessionRow, reason: str = "asked", now_ms: int = NOW) -> SessionRow:
    with writing(db):
        found = sessions.request_dispose(db, row.key, reason=reason, is_forced=False, now_ms=now_ms)
    assert found is not None
    return found


def ended(db: Database, status: SessionStatus, id_: str = "s") -> SessionRow:
    return end(db, add_session(db, id_), status)


# --- sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [None, *SessionStatus])
@pytest.mark.parametrize("workspace_id", [None, "w", "v", "nope"])
def test_a_list_has_what_is_asked_for(db: Database, workspace_id: str | None, status: str | None) -> None:
    add_workspace(db, "v")
    add_session(db, "born")
    for at, id_ in enumerate(("here", "there")):
        add_session(db, id_, workspace_id="wv"[at])
        sessions.confirm(db, live(id=id_))
        ended(db, SessionStatus.EXITED, f"{id_}-ended")
    everything = sessions.find_all(db)
    assert len(everything) == 5
    expected = [
        row for row in everything if workspace_id in (None, row.workspace_id) and status in (None, row.status)
    ]
    assert sessions.find_all(db, workspace_id=workspace_id, status=status) == expected
    stored = sessions.find_stored(db, views.STORED, workspace_id=workspace_id, status=status)
    assert stored == [views.stored_view(row) for row in expected]


@pytest.mark.parametrize(
    "asked, index",
    [
        ({"status": "active"}, "sessions_open"),
        ({"status": "spawning"}, "sessions_open"),
        ({"workspace_id": "w"}, "sessions_of_a_workspace"),
    ],
)
def test_a_list_of_few_does_not_read_every_row_there_ever_was(
    db: Database, asked: dict[str, str], index: str
) -> None:
    said: list[str] = []
    db.conn.set_trace_callback(said.append)
    sessions.find_stored(db, ["id"], **asked)
    db.conn.set_trace_callback(None)
    plan = db.execute(f"EXPLAIN QUERY PLAN {said[0]}").fetchall()
    assert any(f"USING INDEX {index} " in step[-1] for step in plan), plan


def test_a_birth_and_its_end(db: Database) -> None:
    row = add_session(db)
    assert (row.status, row.boot_id, row.shim_pid) == (SessionStatus.SPAWNING, "boot-1", None)
    confirmed = sessions.confirm(db, live())
    assert confirmed is not None
    assert (confirmed.status, confirmed.shim_pid) == (SessionStatus.ACTIVE, 100)
    assert end(db, confirmed, SessionStatus.EXITED).exit == {"code": 0}
    assert [line["event"] for line in audit.tail(db, 9, "s")] == ["exited"]


@pytest.mark.parametrize("state", ["deleting", "deleted", "provisioning"])
def test_C20_a_workspace_that_is_not_in_use_takes_no_sessions(db: Database, state: str) -> None:
    with writing(db):
        made = workspaces.insert(
            db,
            id_="v",
            generation=None,
            name=None,
            path="/v",
            is_ours=True,
            labels={},
            teardown=None,
            is_protected=False,
            now_ms=NOW,
        )
        if state != "provisioning":
            workspaces.set_state(db, made, WorkspaceState.DELETING, NOW)
        if state == "deleted":
            workspaces.set_state(db, made, WorkspaceState.DELETED, NOW)
    with pytest.raises(AssertionError):
        add_session(db, workspace_id="v")


@pytest.mark.parametrize("status", sorted(ENDED))
def test_M_what_is_over_stays_as_it_is(db: Database, tmp_path: Path, status: SessionStatus) -> None:
    row = ended(db, status)
    before = dump(tmp_path / "state/index.db", frozenset({"audit"}))
    with writing(db):
        assert (
            sessions.settle(db, row.key, SessionStatus.LOST, evidence=None, exit_=None, now_ms=LATER) is None
        )
        sessions.confirm(db, live())
        retry = Retry(at_ms=LATER, is_stuck=True)
        assert not sessions.record_attempt(db, row.key, error="x", retry=retry, now_ms=LATER)
        if status in PROVEN:
            sessions.request_dispose(db, row.key, reason="late", is_forced=True, now_ms=LATER)
    assert dump(tmp_path / "state/index.db", frozenset({"audit"})) == before


def test_the_first_intent_stays_and_a_new_one_is_due_at_once(db: Database) -> None:
    row = request(db, add_session(db), "first")
    with writing(db):
        sessions.record_attempt(db, row.key, error="no", retry=Retry(at_ms=LATER, is_stuck=False), now_ms=NOW)
    again = request(db, row, "second", LATER)
    assert (again.dispose_requested_at_ms, again.dispose_reason) == (NOW, "first")
    assert (again.next_attempt_at_ms, again.attempts) == (None, 1)


def test_a_lost_session_can_still_be_unwanted(db: Database) -> None:
    row = request(db, ended(db, SessionStatus.LOST))
    assert (row.status, row.is_unwanted) == (SessionStatus.LOST, True)


def test_C2_a_failed_attempt_changes_nothing_else_and_stuck_is_news_once(db: Database) -> None:
    row = request(db, add_session(db))
    stuck = Retry(at_ms=LATER, is_stuck=True)
    with writing(db):
        assert sessions.record_attempt(db, row.key, error="no", retry=stuck, now_ms=NOW)
        assert not sessions.record_attempt(db, row.key, error="no", retry=stuck, now_ms=LATER)
    found = sessions.find(db, *row.key)
    assert found is not None
    assert (found.status, found.attempts, found.last_error) == (row.status, 2, "no")
    assert (found.next_attempt_at_ms, found.stuck_at_ms) == (LATER, NOW)
    assert sessions.count_unwanted(db) == (1, 1)


def test_a_key_never_leads_to_a_session_of_that_name(db: Database) -> None:
    add_session(db, "other", name="s")
    assert sessions.find(db, "s", 1) is None
    found = sessions.find(db, "s")
    assert found is not None
    assert found.id == "other"
    add_session(db, "s")
    found = sessions.find(db, "s")
    assert found is not None
    assert found.id == "s", "an id before a name"


def test_the_newest_generation_is_found_unless_one_is_given(db: Database) -> None:
    end(db, add_session(db), SessionStatus.FAILED)
    add_session(db, generation=2)
    newest, older = sessions.find(db, "s"), sessions.find(db, "s", 1)
    assert newest is not None
    assert older is not None
    assert (newest.generation, older.status) == (2, SessionStatus.FAILED)
    assert set(sessions.find_keys(db, [("s", 1), ("s", 2), ("s", 3)])) == {("s", 1), ("s", 2)}


# --- what leaves ---------------------------------------------------------------------------------


def test_C9_C10_a_workspace_leaves_with_what_is_proven_dead(db: Database) -> None:
    rows = {status: ended(db, status, status) for status in ENDED}
    alive = add_session(db, "alive")
    with writing(db):
        left = archive.take_leave(db, "w", NOW)
    assert {row.id for row in left} == {"alive", "lost"}
    assert {row.id for row in sessions.find_all(db)} == {"alive", "lost"}
    assert {row.workspace_id for row in sessions.find_all(db)} == {None}
    assert {row.origin_workspace_id for row in sessions.find_all(db)} == {"w"}
    for status in PROVEN:
        stone = workspaces.find_tombstone(db, "session", rows[status].id)
        assert stone is not None
        assert stone["detail"]["status"] == status
        assert audit.tail(db, 1, rows[status].id)[0]["detail"]["kill_evidence"] == PROOF
    assert workspaces.find_tombstone(db, "session", alive.id) is None


def test_only_what_is_proven_and_old_is_pruned(db: Database) -> None:
    ended(db, SessionStatus.EXITED, "old")
    ended(db, SessionStatus.LOST, "lost")
    end(db, add_session(db, "young"), SessionStatus.EXITED, LATER)
    add_session(db, "alive")
    assert archive.count_prunable(db, NOW + 1) == 1
    with writing(db):
        assert archive.prune(db, NOW + 1, LATER) == 1
        assert archive.prune(db, NOW + 1, LATER) == 0
    assert {row.id for row in sessions.find_all(db)} == {"lost", "young", "alive"}


# --- workspaces and tombstones -------------------------------------------------------------------


def delete(db: Database, workspace: Workspace) -> Saga:
    """Delete a workspace as its saga does, without the effects."""
    with writing(db):
        saga = open_saga(db, workspace)
        sagas.seal(db, saga, workspace, NOW)
        sagas.finish(db, saga, workspace, {}, NOW)
    return saga


def open_saga(db: Database, workspace: Workspace, id_: str = "") -> Saga:
    return sagas.open_saga(
        db,
        id_=id_ or f"saga-{workspace.id}-{workspace.generation}",
        workspace=workspace,
        is_forced=False,
        skips_teardown=False,
        now_ms=NOW,
    )


def test_E1_reading_the_destroyed_creates_nothing(db: Database, tmp_path: Path) -> None:
    delete(db, add_workspace(db, "v", name="called"))
    before = dump(tmp_path / "state/index.db")
    found = workspaces.find(db, "v")
    assert found is not None
    assert found.state is WorkspaceState.DELETED
    assert workspaces.find(db, "called") is None
    assert workspaces.find(db, "never") is None
    assert workspaces.find_tombstone(db, "workspace", "never") is None
    assert dump(tmp_path / "state/index.db") == before


def test_E2_destroying_what_never_was_is_remembered_once(db: Database) -> None:
    with writing(db):
        workspaces.bury_unknown(db, "never", NOW)
        workspaces.bury_unknown(db, "never", LATER)
    stone = workspaces.find_tombstone(db, "workspace", "never")
    assert stone is not None
    assert (stone["generation"], stone["is_confirmed"], stone["created_at_ms"]) == (1, 1, NOW)
    with pytest.raises(Destroyed):
        add_workspace(db, "never")
    assert add_workspace(db, "never", generation=2).generation == 2


def test_E3_an_undone_deletion_leaves_it_usable_and_no_tombstone(db: Database) -> None:
    workspace = add_workspace(db, "v")
    row = add_session(db, "in-v", workspace_id="v")
    with writing(db):
        saga = open_saga(db, workspace)
        sagas.seal(db, saga, workspace, NOW)
    assert workspaces.find_tombstone(db, "workspace", "v") is not None
    with writing(db):
        sagas.compensate(db, saga, "teardown: spawn_failed: no", NOW)
    assert workspaces.find(db, "v") == workspace
    assert workspaces.find_tombstone(db, "workspace", "v") is None
    after = sessions.find(db, *row.key)
    assert after is not None
    assert after.is_unwanted, "an intent is never cleared"
    with writing(db):
        assert open_saga(db, workspace, "again").id == "again"


@pytest.mark.parametrize("generation", [None, 1, 2])
def test_E6_only_a_new_generation_makes_it_anew(db: Database, generation: int | None) -> None:
    delete(db, add_workspace(db, "v"))
    delete(db, add_workspace(db, "v", generation=2))
    with pytest.raises(Destroyed) as destroyed:
        add_workspace(db, "v", generation=generation)
    assert destroyed.value.generation == 2
    assert add_workspace(db, "v", generation=3).generation == 3


@pytest.mark.parametrize(
    "fields, what",
    [({"id_": "w"}, "id"), ({"id_": "v", "path": "/base/w"}, "path"), ({"id_": "v", "name": "n"}, "name")],
)
def test_one_owner_of_an_id_a_name_and_a_path(db: Database, fields: dict[str, str], what: str) -> None:
    workspaces.update(db, "w", name="n", labels=None, is_protected=None)
    with pytest.raises(Taken) as taken:
        add_workspace(db, **fields)  # type: ignore[arg-type]
    assert (taken.value.what, taken.value.by) == (what, "w")


def test_a_path_and_a_name_are_free_again_after_the_end(db: Database) -> None:
    delete(db, add_workspace(db, "v", name="n", path="/p"))
    assert add_workspace(db, "u", name="n", path="/p").id == "u"


# --- sagas ---------------------------------------------------------------------------------------


def test_two_deletions_of_one_workspace_are_one(db: Database) -> None:
    workspace = add_workspace(db, "v")
    with writing(db):
        first, second = open_saga(db, workspace, "first"), open_saga(db, workspace, "second")
    assert first.id == second.id == "first"
    assert sagas.find(db, "second") is None
    delete(db, workspace)
    with writing(db):
        assert open_saga(db, workspace, "late").id == "first", "asked for before it was over"


def test_a_lease_is_one_holders_until_its_time_is_up(db: Database) -> None:
    with writing(db):
        saga = open_saga(db, add_workspace_row(db))
        assert sagas.take_lease(db, saga.id, holder="a", until_ms=LATER, now_ms=NOW)
        assert sagas.take_lease(db, saga.id, holder="a", until_ms=LATER, now_ms=NOW), "renewed"
        assert not sagas.take_lease(db, saga.id, holder="b", until_ms=LATER, now_ms=LATER)
        assert sagas.take_lease(db, saga.id, holder="b", until_ms=LATER + 9, now_ms=LATER + 1)
        sagas.void_leases(db, "c")
        assert sagas.take_lease(db, saga.id, holder="c", until_ms=LATER, now_ms=NOW)


def add_workspace_row(db: Database) -> Workspace:
    found = workspaces.find(db, "w")
    assert found is not None
    return found


def test_nobody_takes_a_lease_on_what_is_finished(db: Database) -> None:
    saga = delete(db, add_workspace(db, "v"))
    with writing(db):
        assert not sagas.take_lease(db, saga.id, holder="a", until_ms=LATER, now_ms=NOW)


def test_the_journal_keeps_what_was_begun_and_what_is_done(db: Database) -> None:
    with writing(db):
        saga = open_saga(db, add_workspace_row(db))
        for step in STEPS[:2]:
            sagas.begin_step(db, saga.id, step, NOW)
        sagas.finish_step(db, saga.id, STEPS[0], NOW, {"n": 1})
        sagas.begin_step(db, saga.id, STEPS[0], LATER)  # a repeated begin takes nothing back
    assert sagas.done_steps(db, saga.id) == {Step.PREFLIGHT}
    assert [(line["step"], line["detail"]) for line in sagas.journal(db, saga.id)] == [
        ("preflight", {"n": 1}),
        ("seal", None),
    ]


def test_a_stuck_saga_is_open_and_its_warnings_are_told_once(db: Database) -> None:
    with writing(db):
        saga = open_saga(db, add_workspace_row(db))
        for _ in range(2):
            sagas.add_warnings(db, saga.id, ["a", "b"])
        sagas.record_failure(db, saga.id, error="no", retry=Retry(at_ms=LATER, is_stuck=True))
    [found] = sagas.find_open(db)
    assert (found.state, found.warnings, found.lease) == (SagaState.STUCK, ("a", "b"), None)
    assert (found.attempts, found.next_attempt_at_ms) == (1, LATER)


# --- the reaper's memory and the trash -----------------------------------------------------------


def test_C14_observations_count_looks_and_forget_what_was_not_seen_again(db: Database) -> None:
    passes.observe(db, "k", ["a", "b"], NOW)
    passes.observe(db, "k", ["a", "a"], LATER)
    passes.observe(db, "other", ["b"], LATER)
    assert {key: (seen.count, seen.first_at_ms, seen.last_at_ms) for key, seen in
            passes.observations(db, "k").items()} == {"a": (2, NOW, LATER)}  # fmt: skip
    passes.observe(db, "k", [], LATER)
    assert passes.observations(db, "k") == {}
    assert set(passes.observations(db, "other")) == {"b"}


@pytest.mark.parametrize("origin, is_kept", [("startup", False), ("interval", True), ("manual", True)])
def test_C22_a_new_process_trusts_no_look_but_its_own(db: Database, origin: str, is_kept: bool) -> None:
    passes.observe(db, "k", ["a"], NOW)
    passes.begin(db, origin=origin, is_dry=False, kinds=[], now_ms=LATER)
    assert bool(passes.observations(db, "k")) == is_kept


def test_passes_are_recorded_and_the_last_real_one_is_known(db: Database) -> None:
    first = passes.begin(db, origin="startup", is_dry=False, kinds=["a"], now_ms=NOW)
    passes.finish(db, first, state="error", plan_hash=None, body={"counts": {}}, now_ms=NOW)
    dry = passes.begin(db, origin="manual", is_dry=True, kinds=[], now_ms=NOW)
    passes.finish(db, dry, state="ok", plan_hash="h", body={}, now_ms=NOW)
    killed = passes.begin(db, origin="interval", is_dry=False, kinds=[], now_ms=NOW)
    assert passes.find_last_done(db) == passes.find_last(db, 9)[-1]
    running = passes.begin(db, origin="interval", is_dry=False, kinds=[], now_ms=NOW)
    found = {one["id"]: one["state"] for one in passes.find_last(db, 9)}
    assert found == {first: "error", dry: "ok", killed: "interrupted", running: "running"}


def test_old_passes_leave(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "PASSES_KEPT", 3)
    for _ in range(10):
        passes.begin(db, origin="manual", is_dry=False, kinds=[], now_ms=NOW)
    assert [one["id"] for one in passes.find_last(db, 99)] == [10, 9, 8]


def test_trash_waits_for_its_time_and_for_every_survivor(db: Database) -> None:
    workspace = add_workspace_row(db)
    for now_ms in (NOW - 5, NOW):  # a repeated step begins anew
        trash.insert(
            db,
            id_="t",
            workspace_id=workspace.id,
            generation=1,
            path="/base/w",
            trash_path="/t",
            identity=(1, 2),
            manifest={"kind": "folder"},
            now_ms=now_ms,
            purge_at_ms=now_ms + 10,
        )
    row = add_session(db)
    assert trash.find_due(db, NOW + 10) == [], "a session of it may be alive"
    end(db, row, SessionStatus.EXITED)
    assert trash.find_due(db, NOW + 9) == []
    [entry] = trash.find_due(db, NOW + 10)
    trash.failed(db, entry["id"], "busy")
    assert [one["last_error"] for one in trash.find_all(db)] == ["busy"]
    trash.purged(db, entry["id"], LATER)
    assert trash.find_due(db, LATER) == trash.find_all(db) == []
