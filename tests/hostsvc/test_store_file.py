"""The index's file: trusted or refused at the start, in use, broken, backed up and restored."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hostsvc.store import database, migrations, sessions, workspaces
from hostsvc.store.database import (
    DIRTY,
    FILE,
    IndexUnusable,
    backup_file,
    check_file,
    close_database,
    open_database,
    writing,
)
from tests.hostsvc.store import add_session, add_workspace, damage, dump, fill, fresh, opened, restore
from tests.hostsvc.values import NOW


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return fresh(tmp_path / "state")


def refusal(directory: Path) -> str:
    with pytest.raises(IndexUnusable) as refused:
        open_database(directory)
    return str(refused.value)


# --- opening -------------------------------------------------------------------------------------


def test_a_new_index_is_ours_alone(tmp_path: Path) -> None:
    db = open_database(tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert database.integrity_faults(db) == []
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert db.execute("PRAGMA synchronous").fetchone()[0] == 2, "an intent is on the disk before its effect"
    assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    db.close()


def test_the_index_keeps_its_id(state: Path) -> None:
    found = []
    for _ in range(2):
        db = open_database(state)
        found.append(database.index_id(db))
        close_database(db, state)
    assert found[0] == found[1]
    assert len(found[0]) == 16


def test_a_file_that_a_crash_left_empty_is_made_whole(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    db = open_database(tmp_path)
    assert migrations.schema_faults(db) == []
    db.close()


def test_a_missing_trigger_is_refused(state: Path) -> None:
    db = open_database(state)
    db.execute("DROP TRIGGER audit_is_not_edited")
    close_database(db, state)
    assert "lacks its rules: trigger audit_is_not_edited is missing" in refusal(state)
    assert check_file(state / FILE) == ["trigger audit_is_not_edited is missing"]


def test_a_newer_schema_is_refused_and_untouched(state: Path) -> None:
    db = open_database(state)
    db.execute(f"PRAGMA user_version = {migrations.SCHEMA_VERSION + 1}")
    close_database(db, state)
    before = (state / FILE).read_bytes()
    assert "newer hostsvc" in refusal(state)
    assert (state / FILE).read_bytes() == before
    assert f"this hostsvc knows {migrations.SCHEMA_VERSION}" in check_file(state / FILE)[0]


def test_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"dear diary\n" * 1000)
    assert "hostsvc db check" in refusal(tmp_path)
    assert check_file(path) == ["file is not a database"]
    assert path.read_bytes() == b"dear diary\n" * 1000


def test_somebody_elses_database_is_not_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("CREATE TABLE sessions (mine TEXT)")
    other.close()
    refusal(tmp_path)
    assert "sessions" in dump(tmp_path / FILE)
    assert "audit" not in dump(tmp_path / FILE)


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    refusal(tmp_path)
    assert check_file(tmp_path / FILE)


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    refusal(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_corrupt_is_refused_after_an_unclean_stop(state: Path) -> None:
    fill(state)
    damage(state / FILE, is_late=True)
    (state / DIRTY).touch()
    assert "corrupt" in refusal(state)
    assert check_file(state / FILE)


def test_the_thorough_look_is_only_taken_after_an_unclean_stop(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    real = database.integrity_faults
    monkeypatch.setattr(database, "integrity_faults", lambda db: looks.append(1) or real(db))
    close_database(open_database(state), state)
    assert not looks
    open_database(state).close()  # as a SIGKILL would: not in order
    assert (state / DIRTY).exists()
    close_database(open_database(state), state)
    assert len(looks) == 1
    assert not (state / DIRTY).exists()


def test_a_transaction_holds_the_lock_before_it_reads(state: Path) -> None:
    """One that began to read, and wrote after somebody else, would fail for good: BUSY_SNAPSHOT."""
    db = open_database(state)
    other = sqlite3.connect(state / FILE, timeout=0, isolation_level=None)
    with writing(db), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()
    close_database(db, state)


def test_a_refused_index_is_not_taken_for_one_in_use(state: Path) -> None:
    fill(state)
    damage(state / FILE)
    (state / DIRTY).touch()
    for _ in range(2):
        assert "corrupt" in refusal(state), "the mark of the unclean stop stays"


def test_a_directory_that_nobody_may_write_is_refused(state: Path) -> None:
    """In a process without root's rights: root may write anywhere."""
    fill(state, 1)
    state.chmod(0o555)
    (state / FILE).chmod(0o444)
    code = (
        "import os, sys; from pathlib import Path; from hostsvc.store.database import *\n"
        "state = os.open(sys.argv[1], os.O_RDONLY); os.fchdir(state)\n"
        "os.geteuid() or os.setresuid(65534, 65534, 65534)\n"
        "try: open_database(Path('.'))\nexcept IndexUnusable as refused: print(refused)"
    )
    os.chmod(state.parent, 0o755)
    said = subprocess.run(
        [sys.executable, "-c", code, str(state)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    ).stdout
    state.chmod(0o700)
    assert "index.db cannot be used" in said


# --- backup --------------------------------------------------------------------------------------


def test_C22_backup_of_an_index_in_use_and_restore(tmp_path: Path) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy.db"
    db = opened(state)
    add_workspace(db)
    add_session(db, "before")
    db.conn.execute("BEGIN IMMEDIATE")  # a writer half way
    db.execute("DELETE FROM meta")
    backup_file(state / FILE, copy)
    db.conn.execute("ROLLBACK")
    add_session(db, "after")
    owner = database.index_id(db)
    db.close()  # as a SIGKILL would
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert check_file(copy) == []
    restore(state, copy)
    again = open_database(state)
    assert [row.id for row in sessions.find_open(again)] == ["before"]
    assert database.index_id(again) == owner
    close_database(again, state)


def test_a_backup_never_overwrites(tmp_path: Path, state: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        backup_file(state / FILE, target)
    assert target.read_text() == "precious"


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, state: Path) -> None:
    (state / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.Error):
        backup_file(state / FILE, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_names_that_mean_something_in_a_uri(tmp_path: Path) -> None:
    state = fresh(tmp_path / "a ?mode=rw#%41")
    assert check_file(state / FILE) == []
    backup_file(state / FILE, state / "copy?x=1.db")
    assert check_file(state / "copy?x=1.db") == []


def test_a_check_changes_nothing(state: Path) -> None:
    fill(state, 3)
    before = (state / FILE).read_bytes()
    assert check_file(state / FILE) == []
    assert (state / FILE).read_bytes() == before
    assert check_file(state / "none.db") == [f"{state}/none.db does not exist"]


def test_a_check_of_one_in_use(state: Path) -> None:
    db = open_database(state)
    with writing(db):
        workspaces.bury_unknown(db, "x", NOW)
    assert check_file(state / FILE) == []
    db.close()
