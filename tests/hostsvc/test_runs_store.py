"""The statements on runs, each a compare-and-set: what is asked for twice, too late, or out of order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from hostsvc.run import Run
from hostsvc.states import RunState, SessionStatus
from hostsvc.store import runs, sessions, workspaces
from hostsvc.store.database import writing
from ptyd.protocol.errors import PtydError
from tests.hostsvc.store import PROOF, add_session, add_workspace, opened
from tests.hostsvc.values import NOW


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = opened(tmp_path / "state")
    add_workspace(db)
    yield db
    db.close()


def run(id_: str = "a", **fields: Any) -> Run:
    plain: dict[str, Any] = {
        "state": RunState.OPEN,
        "holder_pid": 7,
        "holder_start": 8,
        "boot_id": "b",
        "created_at_ms": NOW,
        "deadline_at_ms": None,
    }
    return Run(id=id_, **{**plain, **fields})


def test_an_id_serves_once(db: Database) -> None:
    first = run()
    assert runs.insert(db, first)
    assert not runs.insert(db, run(holder_pid=9))
    assert runs.find(db, "a") == first
    assert runs.find(db, "b") is None


def test_the_first_intent_stays_and_is_on_every_session(db: Database) -> None:
    for id_ in ("a", "b"):
        runs.insert(db, run(id_))
    for id_ in ("one", "two", "over"):
        add_session(db, id_, run="a")
    add_session(db, "others", run="b")
    add_session(db, "nobodys")
    sessions.settle(db, ("over", 1), SessionStatus.EXITED, evidence=PROOF, exit_=None, now_ms=NOW)
    ending = runs.request_end(db, "a", NOW + 1)
    assert ending is not None
    assert (ending.state, ending.end_requested_at_ms) == (RunState.ENDING, NOW + 1)
    again = runs.request_end(db, "a", NOW + 2)
    assert again == ending
    asked = {row.id: row.dispose_requested_at_ms for row in sessions.find_all(db)}
    assert asked == {"one": NOW + 1, "two": NOW + 1, "over": None, "others": None, "nobodys": None}
    assert runs.count_sessions(db) == {"a": 2, "b": 1}
    assert runs.request_end(db, "never-was", NOW) is None


def test_given_up_is_no_intent(db: Database) -> None:
    runs.insert(db, run())
    add_session(db, run="a")
    assert runs.give_up(db, "a", "its run's holder is gone", NOW)
    assert not runs.give_up(db, "a", "again", NOW)
    found = runs.find(db, "a")
    assert found is not None
    assert (found.state, found.end_requested_at_ms) == (RunState.ENDING, None)
    [row] = sessions.find_of_run(db, "a")
    assert not row.is_unwanted
    asked = runs.request_end(db, "a", NOW + 1)
    assert asked is not None
    assert asked.end_requested_at_ms == NOW + 1
    [row] = sessions.find_of_run(db, "a")
    assert row.is_unwanted


def test_D5_only_an_open_run_takes_anything(db: Database) -> None:
    runs.insert(db, run())
    runs.require_open(db, "a")
    runs.require_open(db, None)
    place: dict[str, Any] = {
        "generation": None,
        "name": None,
        "is_ours": True,
        "labels": {},
        "teardown": None,
        "is_protected": False,
        "now_ms": NOW,
        "run": "a",
    }
    workspaces.insert(db, id_="v", path="/base/v", **place)
    for ends, code in ((runs.request_end, "being_deleted"), (runs.finish, "destroyed")):
        ends(db, "a", NOW)
        with pytest.raises(PtydError) as refused:
            add_session(db, "late", run="a")
        assert refused.value.code == code
        with pytest.raises(PtydError) as refused:
            workspaces.insert(db, id_="late", path="/base/late", **place)
        assert refused.value.code == code
    with pytest.raises(PtydError) as refused:
        add_session(db, "late", run="never-was")
    assert refused.value.code == "not_found"
    assert sessions.find_all(db) == []
    assert workspaces.find(db, "late") is None


def test_a_run_is_over_only_when_nothing_of_it_is_left(db: Database) -> None:
    runs.insert(db, run())
    add_session(db, run="a")
    add_workspace(db, "v", run="a", is_ephemeral=True)
    add_workspace(db, "kept", run="a")
    assert not runs.finish(db, "a", NOW), "nobody has asked for it"
    runs.request_end(db, "a", NOW)
    assert not runs.finish(db, "a", NOW)
    sessions.settle(db, ("s", 1), SessionStatus.DISPOSED, evidence=PROOF, exit_=None, now_ms=NOW)
    assert not runs.finish(db, "a", NOW)
    with writing(db):
        db.execute("UPDATE workspaces SET state = 'deleting' WHERE id = 'v'")
        db.execute("UPDATE workspaces SET state = 'deleted' WHERE id = 'v'")
    runs.note(db, "a", "it took so long")
    assert runs.finish(db, "a", NOW + 1)
    assert not runs.finish(db, "a", NOW + 2)
    found = runs.find(db, "a")
    assert found is not None
    assert (found.state, found.ended_at_ms, found.last_error) == (RunState.ENDED, NOW + 1, None)
    assert runs.find_unfinished(db) == []
    assert [one.id for one in runs.find_last(db, 9)] == ["a"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET state = 'open' WHERE id = 'ending'",
        "UPDATE runs SET state = 'ended' WHERE id = 'open'",
        "UPDATE runs SET state = 'ending' WHERE id = 'ended'",
        "UPDATE runs SET state = 'gone' WHERE id = 'open'",
        "DELETE FROM runs WHERE id = 'ended'",
        "REPLACE INTO runs (id, state, created_at_ms) VALUES ('ended', 'open', 1)",
        "UPDATE runs SET end_requested_at_ms = NULL WHERE id = 'ending'",
        "UPDATE runs SET end_requested_at_ms = 5 WHERE id = 'ended'",
    ],
)
def test_M_what_no_statement_may_do(db: Database, statement: str) -> None:
    for id_ in ("open", "ending", "ended"):
        runs.insert(db, run(id_))
    for id_ in ("ending", "ended"):
        runs.request_end(db, id_, NOW)
    runs.finish(db, "ended", NOW)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
