"""The database file: opening it, trusting it or refusing it, and transactions.

Owns the connection's settings and the checks at start. Refuses what it cannot trust (corrupt, newer, with
rules missing) instead of repairing it: an index that guesses would kill the wrong thing.

Source: https://sqlite.org/pragma.html, https://sqlite.org/wal.html
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from hostsvc.store import migrations

FILE: Final = "index.db"
DIRTY: Final = "index.dirty"  # there while somebody has the index open: found at a start, it was not closed
LOCKED_WAIT_MS: Final = 5_000  # somebody else's backup or shell may hold the file for a moment


class IndexUnusable(Exception):
    """The index cannot be opened or trusted; the message says why and what to do."""


def open_database(directory: Path) -> Database:
    """Open the index in `directory` (0700, ours), making it when there is none.

    Raises:
        IndexUnusable: it is corrupt, of a newer version, lacks its rules, or cannot be read or written.
    """
    path = directory / FILE
    is_new = not path.exists()
    try:
        if is_new:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = _connect(path)
        try:
            _check(db, path, is_new, thorough=(directory / DIRTY).exists())
            (directory / DIRTY).touch(0o600)
        except BaseException:
            db.close()
            raise
    except (sqlite3.Error, OSError) as error:
        is_corrupt = getattr(error, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        )
        what = "is corrupt, restore a backup" if is_corrupt else "cannot be used"
        raise IndexUnusable(f"{path} {what}: {error} (see: hostsvc db check)") from error
    return db


def close_database(db: Database, directory: Path) -> None:
    """Close it in order; the next start can trust it without a thorough look."""
    db.close()
    (directory / DIRTY).unlink(missing_ok=True)


def _connect(path: Path) -> Database:
    # Used by one thread at a time, not always the same one: see `hostsvc.index`.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {LOCKED_WAIT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # an intent is on the disk before its effect
    connection.execute("PRAGMA trusted_schema = OFF")
    # Its triggers are recursive, or REPLACE would delete past our rules.
    return Database(connection, recursive_triggers=True)


def _check(db: Database, path: Path, is_new: bool, thorough: bool) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > migrations.SCHEMA_VERSION:
        raise IndexUnusable(
            f"{path} was written by a newer hostsvc (schema {version}, this one knows "
            f"{migrations.SCHEMA_VERSION}); upgrade, or point HOSTSVC_STATE_DIR elsewhere"
        )
    if thorough and (faults := integrity_faults(db)):
        raise IndexUnusable(f"{path} is corrupt: {faults[0]}; restore a backup (see: hostsvc db check)")
    if is_new or version < migrations.SCHEMA_VERSION:
        db.execute("PRAGMA journal_mode = WAL")
        migrations.migrate(db)
    if faults := migrations.schema_faults(db):
        raise IndexUnusable(f"{path} lacks its rules: {faults[0]}; restore a backup (see: hostsvc db check)")
    with writing(db):
        db.execute("INSERT OR IGNORE INTO meta VALUES ('index_id', ?)", [secrets.token_hex(8)])


def integrity_faults(db: Database) -> list[str]:
    """Return what quick_check and the foreign keys complain of; empty when the file is sound."""
    found = [row[0] for row in db.execute("PRAGMA quick_check(20)").fetchall()]
    found += [
        f"{row[0]} row {row[1]} refers to nothing"
        for row in db.execute("PRAGMA foreign_key_check").fetchall()
    ]
    return [fault for fault in found if fault != "ok"]


@contextlib.contextmanager
def writing(db: Database) -> Iterator[None]:
    """Run a transaction that holds the write lock from its first statement on.

    A deferred one, as sqlite-utils begins them, fails at once when somebody else wrote after its first
    read. Source: https://sqlite.org/isolation.html (SQLITE_BUSY_SNAPSHOT)
    """
    db.conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.conn.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        raise


def index_id(db: Database) -> str:
    """Return what marks the sessions of this index as its own."""
    found: str = db.execute("SELECT value FROM meta WHERE key = 'index_id'").fetchone()[0]
    return found


def check_file(path: Path) -> list[str]:
    """Return every fault of an index file, without changing it; for `hostsvc db check`."""
    if not path.exists():
        return [f"{path} does not exist"]
    try:
        with contextlib.closing(_connect_to_read(path)) as connection:
            return _faults(Database(connection))
    except sqlite3.Error as error:
        return [str(error)]


def _faults(db: Database) -> list[str]:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != migrations.SCHEMA_VERSION:
        return [f"its schema is {version}, this hostsvc knows {migrations.SCHEMA_VERSION}"]
    return integrity_faults(db) + migrations.schema_faults(db)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def backup_file(path: Path, target: Path) -> None:
    """Write a consistent copy of an index, in use or not, to a new file of ours alone.

    Raises:
        FileExistsError: there is a file already.
        sqlite3.Error: it cannot be read or written; nothing is left of the copy.
    """
    with contextlib.closing(_connect_to_read(path)) as source:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        try:
            with contextlib.closing(sqlite3.connect(target)) as copy:
                source.backup(copy)
        except BaseException:
            target.unlink()
            raise
