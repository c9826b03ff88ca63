"""The index's schema: tables, and the rules that the database itself enforces.

Owns every DDL statement. The rules on states are generated from `states`. `schema_faults` compares what a
database has with what a fresh one would have, triggers included: a tool that rebuilds a table drops them.

Source: https://sqlite.org/lang_createtrigger.html, https://sqlite.org/stricttables.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sqlite_utils import Database, Migrations

from hostsvc import states

SCHEMA_VERSION: Final = 1
"""`user_version` of the newest schema that this code can read; a higher one is refused."""


TABLES: Final = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE workspaces (
    id TEXT PRIMARY KEY,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    name TEXT,
    path TEXT NOT NULL,
    is_ours INTEGER NOT NULL CHECK (is_ours IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN ({workspace_states})),
    labels TEXT NOT NULL DEFAULT '{{}}',
    teardown TEXT,
    is_protected INTEGER NOT NULL DEFAULT 0 CHECK (is_protected IN (0, 1)),
    device INTEGER,
    inode INTEGER,
    created_at_ms INTEGER NOT NULL,
    deleted_at_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX workspaces_one_owner_per_path ON workspaces (path) WHERE state <> 'deleted';
CREATE UNIQUE INDEX workspaces_one_of_a_name ON workspaces (name) WHERE state <> 'deleted';

CREATE TABLE sessions (
    id TEXT NOT NULL,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    workspace_id TEXT REFERENCES workspaces (id) ON DELETE SET NULL,
    origin_workspace_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ({session_states})),
    name TEXT,
    labels TEXT NOT NULL DEFAULT '{{}}',
    argv TEXT NOT NULL,
    cwd TEXT,
    run_id TEXT NOT NULL,
    instance_id TEXT,
    boot_id TEXT,
    shim_pid INTEGER,
    shim_start INTEGER,
    pid INTEGER,
    pid_start INTEGER,
    created_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    dispose_requested_at_ms INTEGER,
    dispose_reason TEXT,
    is_forced INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at_ms INTEGER,
    last_error TEXT,
    stuck_at_ms INTEGER,
    kill_evidence TEXT,
    exit TEXT,
    PRIMARY KEY (id, generation),
    CHECK (status NOT IN ('disposed', 'exited') OR kill_evidence IS NOT NULL),
    CHECK (status <> 'disposed' OR dispose_requested_at_ms IS NOT NULL)
) STRICT;
CREATE INDEX sessions_open ON sessions (status) WHERE status IN ('spawning', 'active');
CREATE INDEX sessions_of_a_workspace ON sessions (workspace_id);

CREATE TABLE tombstones (
    kind TEXT NOT NULL CHECK (kind IN ('workspace', 'session')),
    id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    is_confirmed INTEGER NOT NULL CHECK (is_confirmed IN (0, 1)),
    created_at_ms INTEGER NOT NULL,
    detail TEXT NOT NULL DEFAULT '{{}}',
    PRIMARY KEY (kind, id, generation)
) STRICT;

CREATE TABLE sagas (
    id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ({saga_states})),
    is_forced INTEGER NOT NULL DEFAULT 0,
    skips_teardown INTEGER NOT NULL DEFAULT 0,
    lease TEXT,
    lease_until_ms INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at_ms INTEGER,
    last_error TEXT,
    warnings TEXT NOT NULL DEFAULT '[]',
    created_at_ms INTEGER NOT NULL,
    finished_at_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX sagas_one_open_per_subject ON sagas (workspace_id) WHERE finished_at_ms IS NULL;

CREATE TABLE saga_steps (
    saga_id TEXT NOT NULL REFERENCES sagas (id),
    step TEXT NOT NULL,
    begun_at_ms INTEGER NOT NULL,
    done_at_ms INTEGER,
    detail TEXT,
    PRIMARY KEY (saga_id, step)
) STRICT;

CREATE TABLE trash (
    id TEXT PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    path TEXT NOT NULL,
    trash_path TEXT NOT NULL,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    trashed_at_ms INTEGER NOT NULL,
    purge_at_ms INTEGER NOT NULL,
    purged_at_ms INTEGER,
    last_error TEXT
) STRICT;

CREATE TABLE observations (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    first_at_ms INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT;

CREATE TABLE passes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at_ms INTEGER NOT NULL,
    finished_at_ms INTEGER,
    origin TEXT NOT NULL,
    is_dry INTEGER NOT NULL,
    kinds TEXT NOT NULL,
    state TEXT NOT NULL,
    plan_hash TEXT,
    body TEXT NOT NULL DEFAULT '{{}}'
) STRICT;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    generation INTEGER,
    detail TEXT NOT NULL DEFAULT '{{}}'
) STRICT;
"""


def _refuse(name: str, table: str, when: str, condition: str, message: str) -> str:
    return (
        f"CREATE TRIGGER {name} BEFORE {when} ON {table}\nWHEN {condition}\n"
        f"BEGIN SELECT RAISE(ABORT, '{message}'); END;"
    )


def _guard_moves(table: str, column: str, moves: Iterable[tuple[str, str]]) -> str:
    allowed = " OR ".join(
        f"(OLD.{column} = '{before}' AND NEW.{column} = '{after}')" for before, after in sorted(moves)
    )
    condition = f"NEW.{column} <> OLD.{column} AND NOT ({allowed})"
    return _refuse(f"{table}_moves", table, f"UPDATE OF {column}", condition, f"{table}: no such move")


_SESSION_GENERATION_IS_OLD: Final = (
    "NEW.generation <= (SELECT max(generation) FROM sessions WHERE id = NEW.id)"
    " OR NEW.generation <= (SELECT max(generation) FROM tombstones WHERE kind = 'session' AND id = NEW.id)"
)
_WORKSPACE_GENERATION_IS_OLD: Final = (
    "NEW.generation <= (SELECT max(generation) FROM tombstones WHERE kind = 'workspace' AND id = NEW.id)"
)

TRIGGERS: Final = (
    _guard_moves("workspaces", "state", states.WORKSPACE_MOVES),
    _guard_moves("sessions", "status", states.SESSION_MOVES),
    _guard_moves("sagas", "state", states.SAGA_MOVES),
    _refuse(
        "sessions_intent_is_never_cleared",
        "sessions",
        "UPDATE OF dispose_requested_at_ms",
        "OLD.dispose_requested_at_ms IS NOT NULL"
        " AND NEW.dispose_requested_at_ms IS NOT OLD.dispose_requested_at_ms",
        "sessions: an intent to dispose is never changed",
    ),
    _refuse(
        "sessions_evidence_is_never_cleared",
        "sessions",
        "UPDATE OF kill_evidence",
        "OLD.kill_evidence IS NOT NULL AND NEW.kill_evidence IS NOT OLD.kill_evidence",
        "sessions: evidence is never changed",
    ),
    _refuse(
        "sessions_keep_their_identity",
        "sessions",
        "UPDATE OF id, generation, origin_workspace_id",
        "NEW.id <> OLD.id OR NEW.generation <> OLD.generation"
        " OR NEW.origin_workspace_id <> OLD.origin_workspace_id",
        "sessions: id, generation and origin are never changed",
    ),
    _refuse(
        "sessions_generation_rises",
        "sessions",
        "INSERT",
        _SESSION_GENERATION_IS_OLD,
        "sessions: that generation was used",
    ),
    _refuse(
        "workspaces_keep_their_identity",
        "workspaces",
        "UPDATE OF id, generation",
        "NEW.id <> OLD.id OR NEW.generation <> OLD.generation",
        "workspaces: id and generation are never changed",
    ),
    _refuse(
        "workspaces_generation_rises",
        "workspaces",
        "INSERT",
        _WORKSPACE_GENERATION_IS_OLD,
        "workspaces: that generation was destroyed",
    ),
    _refuse(
        "tombstones_stay_confirmed",
        "tombstones",
        "DELETE",
        "OLD.is_confirmed",
        "tombstones: a confirmed one stays",
    ),
    _refuse("audit_is_not_edited", "audit", "UPDATE", "1", "audit: it is only appended to"),
    _refuse("audit_is_not_shortened", "audit", "DELETE", "1", "audit: it is only appended to"),
)

migrations = Migrations("hostsvc")


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


@migrations()
def first_schema(db: Database) -> None:
    """Everything."""
    ddl = TABLES.format(
        workspace_states=_quoted(states.WorkspaceState),
        session_states=_quoted(states.SessionStatus),
        saga_states=_quoted(states.SagaState),
    )
    for statement in filter(str.strip, ddl.split(";\n")):
        db.execute(statement)
    create_triggers(db)


def create_triggers(db: Database) -> None:
    """Make every trigger anew: to be called at the end of any migration that rebuilds a table."""
    for trigger in TRIGGERS:
        name = trigger.split()[2]
        db.execute(f"DROP TRIGGER IF EXISTS {name}")
        db.execute(trigger)


def migrate(db: Database) -> None:
    """Bring a database to the newest schema."""
    migrations.apply(db)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def schema_faults(db: Database) -> list[str]:
    """Say what of the expected schema a database lacks, or has otherwise."""
    fresh = Database(memory=True)
    migrate(fresh)
    expected, found = _objects(fresh), _objects(db)
    fresh.close()
    return [
        f"{name} is missing" if name not in found else f"{name} is not as it should be"
        for name, sql in sorted(expected.items())
        if found.get(name) != sql
    ]


def _objects(db: Database) -> dict[str, str]:
    rows = db.query("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {f"{row['type']} {row['name']}": re.sub(r"\s+", " ", row["sql"]) for row in rows}
