"""Launches: there exactly as long as a restart is wanted, and what is in them comes back byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from hostsvc.model import SessionRow
from hostsvc.restart import Launch, Policy
from hostsvc.states import SessionStatus
from hostsvc.store import archive, births, launches, sessions
from hostsvc.store.database import writing
from hostsvc.store.launches import _from_spec, _to_spec
from hostsvc.store.rows import from_json, to_json
from tests.hostsvc.store import PROOF, add_workspace, opened
from tests.hostsvc.values import BOOT, INSTANCE, NOW

LAUNCH = Launch(
    policy=Policy.ALWAYS,
    limit=5,
    argv=(b"sh",),
    cwd=None,
    env={b"A": b"\xff"},
    rows=24,
    cols=80,
    on_leader_exit="keep",
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = opened(tmp_path)
    add_workspace(db)
    yield db
    db.close()


def start(
    db: Database, generation: int = 1, again: SessionRow | None = None, launch: Launch | None = LAUNCH
) -> SessionRow | None:
    row: dict[str, Any] = {"name": None, "labels": {}, "argv": ["sh"], "cwd": None, "run_id": "run"}
    with writing(db):
        is_started = births.insert(
            db,
            launch=launch,
            again=None if again is None else again.key,
            restarts=generation - 1,
            id_="s",
            generation=generation,
            workspace_id="w",
            instance_id=INSTANCE,
            boot_id=BOOT,
            now_ms=NOW,
            **row,
        )
    return sessions.find(db, "s", generation) if is_started else None


def end(db: Database, row: SessionRow) -> None:
    with writing(db):
        sessions.settle(db, row.key, SessionStatus.EXITED, evidence=PROOF, exit_={"code": 1}, now_ms=NOW)


def first(db: Database) -> SessionRow:
    row = start(db)
    assert row is not None
    return row


def dispose(db: Database, row: SessionRow, *, is_doubt: bool = False) -> None:
    with writing(db):
        sessions.request_dispose(db, row.key, reason="r", is_forced=False, is_doubt=is_doubt, now_ms=NOW)


@given(
    st.lists(st.binary(min_size=1), min_size=1),
    st.none() | st.binary(),
    st.dictionaries(st.binary(min_size=1), st.binary()),
)
def test_every_byte_comes_back(argv: list[bytes], cwd: bytes | None, env: dict[bytes, bytes]) -> None:
    launch = attrs.evolve(LAUNCH, argv=tuple(argv), cwd=cwd, env=env)
    stored = from_json(to_json(_to_spec(launch)))
    assert _from_spec(stored, launch.policy, launch.limit) == launch


def test_what_is_in_it_is_not_in_its_text() -> None:
    assert "xff" not in repr(LAUNCH)
    assert "sh" not in repr(LAUNCH)


def test_only_what_is_over_waits(db: Database) -> None:
    row = first(db)
    assert launches.find_waiting(db) == []
    end(db, row)
    [waiting] = launches.find_waiting(db)
    assert (waiting.row.key, waiting.launch, waiting.due_at_ms, waiting.is_run_open) == (
        ("s", 1), LAUNCH, None, True,
    )  # fmt: skip


def test_the_next_generation_takes_its_place_in_one(db: Database) -> None:
    row = first(db)
    end(db, row)
    again = start(db, 2, row)
    assert again is not None
    assert (again.restart, again.restarts) == ("always", 1)
    assert launches.find_waiting(db) == []
    assert start(db, 3, row) is None, "twice is once"
    assert sessions.find(db, "s", 3) is None


@pytest.mark.parametrize("is_over", [True, False])
def test_B42_what_somebody_ends_is_not_started_again(db: Database, is_over: bool) -> None:
    """Also when it was over already, and between the decision and the start."""
    row = first(db)
    if is_over:
        end(db, row)
    dispose(db, row)
    assert not launches.remove(db, row.key)
    assert start(db, 2, row) is None


def test_our_own_doubt_is_nobodys_wish(db: Database) -> None:
    row = first(db)
    dispose(db, row, is_doubt=True)
    assert launches.remove(db, row.key)


def test_a_workspace_takes_its_launches_along(db: Database) -> None:
    row = first(db)
    end(db, row)
    with writing(db):
        sessions.request_dispose_all(db, "w", reason="it goes", now_ms=NOW)
    assert launches.find_waiting(db) == []


def test_one_that_waits_keeps_its_row(db: Database) -> None:
    row = first(db)
    end(db, row)
    assert archive.count_prunable(db, NOW + 1) == 0
    with writing(db):
        assert archive.prune(db, NOW + 1, NOW) == 0
        launches.remove(db, row.key)
        assert archive.prune(db, NOW + 1, NOW) == 1


@pytest.mark.parametrize("state, is_open", [("open", True), ("ending", False), ("ended", False)])
def test_what_belongs_to_a_run_that_ends_is_told(db: Database, state: str, is_open: bool) -> None:
    row = first(db)
    end(db, row)
    with writing(db):
        db.execute("INSERT INTO runs (id, state, created_at_ms) VALUES ('r', ?, 1)", [state])
        db.execute("UPDATE sessions SET run = 'r'")
    [waiting] = launches.find_waiting(db)
    assert waiting.is_run_open is is_open
