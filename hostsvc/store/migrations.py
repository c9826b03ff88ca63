"""The index's schema: its tables, and how a database comes to it.

Owns the tables; `triggers` owns the rules on their rows. `schema_faults` compares what a database has with
what a fresh one would have, triggers included: a tool that rebuilds a table drops them.

Source: https://sqlite.org/stricttables.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sqlite_utils import Database, Migrations

from hostsvc import states
from hostsvc.store.triggers import TRIGGERS

SCHEMA_VERSION: Final = 2
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
    CHECK (status NOT IN ('disposed', 'exited') OR coalesce(kill_evidence, '') GLOB '*"proof":[ "]*'),
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
    finished_at_ms INTEGER,
    CHECK ((state IN ('done', 'compensated')) = (finished_at_ms IS NOT NULL))
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

ON_DISK: Final = """
ALTER TABLE workspaces ADD COLUMN common_dir TEXT;
ALTER TABLE workspaces ADD COLUMN branch TEXT;
ALTER TABLE workspaces ADD COLUMN is_ephemeral INTEGER NOT NULL DEFAULT 0 CHECK (is_ephemeral IN (0, 1));
ALTER TABLE workspaces ADD COLUMN plan TEXT;
ALTER TABLE workspaces ADD COLUMN run TEXT;
ALTER TABLE workspaces ADD COLUMN is_expendable INTEGER NOT NULL DEFAULT 0 CHECK (is_expendable IN (0, 1));

CREATE TABLE paths (
    path TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('folder', 'credential', 'artifacts')),
    workspace_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    device INTEGER,
    inode INTEGER,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (path, workspace_id, generation)
) STRICT;

ALTER TABLE trash ADD COLUMN manifest TEXT NOT NULL DEFAULT '{}';
ALTER TABLE trash ADD COLUMN restored_at_ms INTEGER;
ALTER TABLE trash ADD COLUMN restored_as TEXT;
ALTER TABLE trash ADD COLUMN restored_generation INTEGER;

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ({run_states})),
    holder_pid INTEGER,
    holder_start INTEGER,
    boot_id TEXT,
    created_at_ms INTEGER NOT NULL,
    deadline_at_ms INTEGER,
    end_requested_at_ms INTEGER,
    ended_at_ms INTEGER,
    last_error TEXT
) STRICT;
ALTER TABLE sessions ADD COLUMN run TEXT;
CREATE INDEX sessions_of_a_run ON sessions (run) WHERE run IS NOT NULL;

ALTER TABLE sessions ADD COLUMN restart TEXT NOT NULL DEFAULT 'never'
    CHECK (restart IN ('never', 'on-failure', 'always'));
ALTER TABLE sessions ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0 CHECK (restarts >= 0);

CREATE TABLE launches (
    session_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    most_restarts INTEGER NOT NULL CHECK (most_restarts >= 1),
    due_at_ms INTEGER,
    spec TEXT NOT NULL,
    PRIMARY KEY (session_id, generation)
) STRICT;
"""
"""What workspaces leave on the disk and in memory: paths that we made, runs, how to start a session again."""


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
    _execute(db, ddl)


@migrations()
def what_is_on_the_disk(db: Database) -> None:
    """Worktrees and path triples, manifests, runs, launches."""
    _execute(db, ON_DISK.replace("{run_states}", _quoted(states.RunState)))


def _execute(db: Database, ddl: str) -> None:
    for statement in filter(str.strip, ddl.split(";\n")):
        db.execute(statement)


def create_triggers(db: Database) -> None:
    """Make every trigger anew: a migration that rebuilds a table drops them."""
    for trigger in TRIGGERS:
        name = trigger.split()[2]
        db.execute(f"DROP TRIGGER IF EXISTS {name}")
        db.execute(trigger)


def migrate(db: Database) -> None:
    """Bring a database to the newest schema."""
    migrations.apply(db)
    create_triggers(db)
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
