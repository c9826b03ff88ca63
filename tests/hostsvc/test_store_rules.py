"""The rules that the schema itself enforces: raw SQL tries what no statement of ours should ever do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database

from hostsvc.store import migrations, sagas, sessions
from hostsvc.store.database import open_database, writing
from hostsvc.store.migrations import SCHEMA_VERSION, migrate, schema_faults
from hostsvc.store.rows import session as read_session
from hostsvc.store.triggers import TRIGGERS
from tests.hostsvc.store import PROOF, add_session, add_workspace, dump, opened
from tests.hostsvc.values import NOW

EVIDENCE = '{"proof":"echild"}'

ROWS_OF_1 = f"""
INSERT INTO sessions (id, generation, workspace_id, origin_workspace_id, status, argv, run_id, created_at_ms,
    dispose_requested_at_ms, kill_evidence) VALUES
    ('active', 2, 'w', 'w', 'active', '[]', 'r', 1, NULL, NULL),
    ('intended', 2, 'w', 'w', 'active', '[]', 'r', 1, 5, NULL),
    ('disposed', 2, 'w', 'w', 'disposed', '[]', 'r', 1, 5, '{EVIDENCE}'),
    ('lost', 2, 'w', 'w', 'lost', '[]', 'r', 1, NULL, NULL);
INSERT INTO tombstones VALUES ('workspace', 'gone', 3, 1, 1, '{{}}'), ('workspace', 'w', 1, 0, 1, '{{}}'),
    ('session', 'buried', 3, 1, 1, '{{}}');
INSERT INTO sagas (id, workspace_id, generation, state, created_at_ms, finished_at_ms) VALUES
    ('open', 'w', 1, 'open', 1, NULL), ('done', 'x', 1, 'done', 1, 2);
"""
ROWS = f"""{ROWS_OF_1}
INSERT INTO runs (id, state, created_at_ms, end_requested_at_ms) VALUES ('open', 'open', 1, NULL),
    ('asked', 'ending', 1, 2), ('over', 'ended', 1, 2);
INSERT INTO paths (path, role, workspace_id, generation, created_at_ms)
    VALUES ('/base/w', 'folder', 'w', 1, 1);
INSERT INTO audit (at_ms, event, kind, subject) VALUES (1, 'e', 'session', 's'), (2, 'e', 'session', 's');
"""
SESSION = "INSERT INTO sessions (id, generation, origin_workspace_id, status, argv, run_id, created_at_ms)"
WORKSPACE = "INSERT INTO workspaces (id, generation, path, is_ours, state, created_at_ms)"
SAGA = "INSERT INTO sagas (id, workspace_id, generation, state, created_at_ms, finished_at_ms)"

FORBIDDEN = {
    "C1 disposed without evidence": "UPDATE sessions SET status = 'disposed' WHERE id = 'intended'",
    "C1 disposed with empty evidence": "UPDATE sessions SET status = 'disposed', kill_evidence = '{}'"
    " WHERE id = 'intended'",
    "C1 disposed with evidence of nothing": "UPDATE sessions SET status = 'disposed',"
    " kill_evidence = '{\"proof\":null}' WHERE id = 'intended'",
    "C1 exited without evidence": "UPDATE sessions SET status = 'exited' WHERE id = 'active'",
    "C1 disposed without intent": f"UPDATE sessions SET status = 'disposed', kill_evidence = '{EVIDENCE}'"
    " WHERE id = 'active'",
    "C1 born disposed": f"{SESSION} VALUES ('new', 1, 'w', 'disposed', '[]', 'r', 1)",
    "M disposed is absorbing": "UPDATE sessions SET status = 'active' WHERE id = 'disposed'",
    "M lost is absorbing": "UPDATE sessions SET status = 'active' WHERE id = 'lost'",
    "M spawning never comes again": "UPDATE sessions SET status = 'spawning' WHERE id = 'active'",
    "M what ran has not failed": "UPDATE sessions SET status = 'failed' WHERE id = 'active'",
    "an unknown status": "UPDATE sessions SET status = 'gone' WHERE id = 'active'",
    "M intent cleared": "UPDATE sessions SET dispose_requested_at_ms = NULL WHERE id = 'intended'",
    "M intent changed": "UPDATE sessions SET dispose_requested_at_ms = 6 WHERE id = 'intended'",
    "M evidence cleared": "UPDATE sessions SET kill_evidence = NULL WHERE id = 'disposed'",
    "M evidence changed": "UPDATE sessions SET kill_evidence = '{\"proof\":\"x\"}' WHERE id = 'disposed'",
    "M generation lowered": "UPDATE sessions SET generation = 1 WHERE id = 'active'",
    "M generation raised in place": "UPDATE sessions SET generation = 3 WHERE id = 'active'",
    "M generation reused": f"{SESSION} VALUES ('active', 2, 'w', 'spawning', '[]', 'r', 1)",
    "M lower generation": f"{SESSION} VALUES ('active', 1, 'w', 'spawning', '[]', 'r', 1)",
    "E6 generation of a tombstone": f"{SESSION} VALUES ('buried', 3, 'w', 'spawning', '[]', 'r', 1)",
    "a row replaced": SESSION.replace("INSERT", "REPLACE")
    + " VALUES ('active', 2, 'w', 'lost', '[]', 'r', 1)",
    "another origin": "UPDATE sessions SET origin_workspace_id = 'x' WHERE id = 'active'",
    "a row of what may be alive deleted": "DELETE FROM sessions WHERE id = 'active'",
    "a session of no workspace": "UPDATE sessions SET workspace_id = 'nowhere' WHERE id = 'active'",
    "two owners of a path": f"{WORKSPACE} VALUES ('v', 1, '/base/w', 1, 'provisioning', 1)",
    "a workspace in use deleted": "DELETE FROM workspaces WHERE id = 'w'",
    "a workspace in use replaced": WORKSPACE.replace("INSERT", "REPLACE")
    + " VALUES ('w', 2, '/base/w', 1, 'active', 1)",
    "a workspace's generation lowered": "UPDATE workspaces SET generation = 0 WHERE id = 'w'",
    "a workspace's generation raised in place": "UPDATE workspaces SET generation = 2 WHERE id = 'w'",
    "E6 generation of a destroyed workspace": f"{WORKSPACE} VALUES ('gone', 3, '/g', 1, 'provisioning', 1)",
    "M deleted without deleting": "UPDATE workspaces SET state = 'deleted' WHERE id = 'w'",
    "M a run opened again": "UPDATE runs SET state = 'open' WHERE id = 'over'",
    "M a run's intent cleared": "UPDATE runs SET end_requested_at_ms = NULL WHERE id = 'asked'",
    "M a run that ends without an intent": "UPDATE runs SET state = 'ended' WHERE id = 'open'",
    "D5 a run forgotten": "DELETE FROM runs WHERE id = 'over'",
    "a run replaced": "REPLACE INTO runs (id, state, created_at_ms) VALUES ('over', 'open', 2)",
    "a path forgotten": "DELETE FROM paths WHERE path = '/base/w'",
    "a path of an unknown role": "UPDATE paths SET role = 'other' WHERE path = '/base/w'",
    "two open sagas": f"{SAGA} VALUES ('second', 'w', 1, 'open', 1, NULL)",
    "M done is absorbing": "UPDATE sagas SET state = 'open', finished_at_ms = NULL WHERE id = 'done'",
    "done and not finished": "UPDATE sagas SET state = 'done' WHERE id = 'open'",
    "finished and not done": "UPDATE sagas SET finished_at_ms = 9 WHERE id = 'open'",
    "E5 a confirmed tombstone deleted": "DELETE FROM tombstones WHERE id = 'gone'",
    "E5 a confirmed tombstone edited": "UPDATE tombstones SET is_confirmed = 0 WHERE id = 'gone'",
    "the audit edited": "UPDATE audit SET event = 'x' WHERE seq = 1",
    "the audit shortened": "DELETE FROM audit WHERE seq = 1",
    "the audit replaced": "REPLACE INTO audit (seq, at_ms, event, kind, subject) VALUES (1, 1, 'x', '', '')",
    "a text where a number belongs": "UPDATE sessions SET attempts = 'many' WHERE id = 'active'",
}
ALLOWED = {
    "an unconfirmed tombstone goes": "DELETE FROM tombstones WHERE id = 'w'",
    "a tombstone is confirmed": "UPDATE tombstones SET is_confirmed = 1 WHERE id = 'w'",
    "the next generation": f"{SESSION} VALUES ('active', 3, 'w', 'spawning', '[]', 'r', 1)",
    "a row that is over leaves": "DELETE FROM sessions WHERE id = 'disposed'",
    "an intent on what was lost": "UPDATE sessions SET dispose_requested_at_ms = 7 WHERE id = 'lost'",
}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = opened(tmp_path / "state")
    add_workspace(db)
    for statement in filter(str.strip, ROWS.split(";\n")):
        db.execute(statement)
    yield db
    db.close()


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_refused(db: Database, tmp_path: Path, rule: str) -> None:
    before = dump(tmp_path / "state/index.db")
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(FORBIDDEN[rule])
    assert dump(tmp_path / "state/index.db") == before


@pytest.mark.parametrize("rule", ALLOWED)
def test_allowed(db: Database, rule: str) -> None:
    assert db.execute(ALLOWED[rule]).rowcount == 1


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda text: text.split()[2])
def test_each_trigger_is_needed(db: Database, trigger: str) -> None:
    """Without it something of the above is let through: no rule is there twice, and none is untested."""
    db.execute(f"DROP TRIGGER {trigger.split()[2]}")
    let_through = []
    for rule, statement in FORBIDDEN.items():
        db.conn.execute("BEGIN")
        try:
            db.execute(statement)
            let_through.append(rule)
        except sqlite3.IntegrityError:
            pass
        finally:
            db.conn.execute("ROLLBACK")
    assert let_through


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda text: text.split()[2])
def test_a_missing_trigger_is_found(db: Database, trigger: str) -> None:
    name = trigger.split()[2]
    db.execute(f"DROP TRIGGER {name}")
    assert schema_faults(db) == [f"trigger {name} is missing"]


def test_a_changed_table_is_found(db: Database) -> None:
    db.execute("ALTER TABLE sessions ADD COLUMN mood TEXT")
    assert schema_faults(db) == ["table sessions is not as it should be"]


def test_a_rebuilt_table_loses_its_triggers_and_that_is_found(db: Database) -> None:
    """sqlite-utils' transform() makes a new table and drops the old one, with its rules."""
    db["audit"].transform(rename={"event": "what"})
    faults = schema_faults(db)
    assert "trigger audit_is_not_edited is missing" in faults
    assert "trigger audit_is_not_shortened is missing" in faults


def test_migrations_are_idempotent(db: Database, tmp_path: Path) -> None:
    before = dump(tmp_path / "state/index.db")
    migrate(db)
    migrate(db)
    assert dump(tmp_path / "state/index.db") == before
    assert schema_faults(db) == []
    assert db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION


def test_an_interrupted_migration_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(memory=True)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "create_triggers", lambda db: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            migrate(db)
    assert db.execute("PRAGMA user_version").fetchone()[0] == 0, "nobody may take it for finished"
    assert schema_faults(db)
    migrate(db)
    assert schema_faults(db) == []


def test_an_older_schema_is_brought_up_with_all_its_rows(tmp_path: Path) -> None:
    """What the first version wrote is there in this one, and every rule holds for it."""
    state = tmp_path / "old"
    state.mkdir()
    old = Database(state / "index.db")
    migrations.migrations.apply(old, stop_before="what_is_on_the_disk")
    old.execute("PRAGMA user_version = 1")
    old.conn.executescript(f"{WORKSPACE} VALUES ('w', 1, '/base/w', 1, 'active', 1); {ROWS_OF_1}")
    before = {name: [dict(row) for row in old[name].rows] for name in ("workspaces", "sessions")}
    old.close()
    db = open_database(state)
    assert schema_faults(db) == []
    for name, rows in before.items():
        after = list(db[name].rows)
        assert [{key: row[key] for key in rows[0]} for row in after] == rows
    assert [row.run for row in map(read_session, db["sessions"].rows)] == [None] * len(before["sessions"])
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE sessions SET status = 'active' WHERE id = 'disposed'")
    db.close()


def test_a_transaction_that_breaks_a_rule_leaves_nothing(db: Database, tmp_path: Path) -> None:
    """A deletion's seal is one: deleting, tombstone, intents, all or nothing."""
    workspace = add_workspace(db, "v")
    add_session(db, "in-v", workspace_id="v")
    saga = _open(db, workspace)
    db.execute("CREATE TEMP TRIGGER no BEFORE UPDATE OF dispose_requested_at_ms ON sessions"
               " BEGIN SELECT RAISE(ABORT, 'no'); END")  # fmt: skip
    before = dump(tmp_path / "state/index.db")
    with pytest.raises(sqlite3.IntegrityError), writing(db):
        sagas.seal(db, saga, workspace, NOW)
    assert dump(tmp_path / "state/index.db") == before


def _open(db: Database, workspace: object) -> object:
    with writing(db):
        return sagas.open_saga(
            db,
            id_="saga-v",
            workspace=workspace,  # type: ignore[arg-type]
            is_forced=False,
            skips_teardown=False,
            now_ms=NOW,
        )


def test_C1_only_a_proof_disposes(db: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError), writing(db):
        sessions.settle(
            db, ("intended", 2), sessions.SessionStatus.DISPOSED, evidence=None, exit_=None, now_ms=NOW
        )
    with writing(db):
        after = sessions.settle(
            db, ("intended", 2), sessions.SessionStatus.DISPOSED, evidence=PROOF, exit_=None, now_ms=NOW
        )
    assert after is not None
    assert after.kill_evidence == PROOF
