"""The rules on rows that the database itself enforces: not even a mistake of ours can write what they forbid.

Those on states are generated from `states`.

Source: https://sqlite.org/lang_createtrigger.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hostsvc import states


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
    _guard_moves("runs", "state", states.RUN_MOVES),
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
        "sessions_not_over_stay",
        "sessions",
        "DELETE",
        "OLD.status IN ('spawning', 'active')",
        "sessions: what may be alive keeps its row",
    ),
    _refuse(
        "workspaces_in_use_stay",  # without it all of its sessions would be nobody's, and reaped
        "workspaces",
        "DELETE",
        "OLD.state IN ('active', 'deleting')",
        "workspaces: one that is in use keeps its row",
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
    _refuse(
        "tombstones_are_not_edited",
        "tombstones",
        "UPDATE",
        "OLD.is_confirmed",
        "tombstones: a confirmed one is never changed",
    ),
    _refuse("runs_stay", "runs", "DELETE", "1", "runs: one that is over refuses what comes late"),
    _refuse(
        "runs_intent_is_never_cleared",
        "runs",
        "UPDATE OF end_requested_at_ms",
        "OLD.end_requested_at_ms IS NOT NULL AND NEW.end_requested_at_ms IS NOT OLD.end_requested_at_ms",
        "runs: an intent to end is never changed",
    ),
    _refuse("paths_stay", "paths", "DELETE", "1", "paths: what we made once is not forgotten"),
    _refuse("audit_is_not_edited", "audit", "UPDATE", "1", "audit: it is only appended to"),
    _refuse("audit_is_not_shortened", "audit", "DELETE", "1", "audit: it is only appended to"),
)
