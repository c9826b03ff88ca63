"""Values as the wire shows them. Pure: the plain maps that `shapes` declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from hostsvc import shapes
from hostsvc.git.risk import Risk
from hostsvc.model import LiveSession, Saga, SessionRow, Workspace
from hostsvc.run import Run
from hostsvc.saga import Planned
from ptyd.client import Session


def workspace_view(workspace: Workspace, sessions: int) -> dict[str, Any]:
    return {
        "id": workspace.id,
        "generation": workspace.generation,
        "name": workspace.name,
        "path": workspace.path,
        "is_ours": workspace.is_ours,
        "state": workspace.state.value,
        "labels": dict(workspace.labels),
        "teardown": None if workspace.teardown is None else list(workspace.teardown),
        "is_protected": workspace.is_protected,
        "run": workspace.run,
        "is_ephemeral": workspace.is_ephemeral,
        "is_expendable": workspace.is_expendable,
        "repository": workspace.common_dir,
        "branch": workspace.branch,
        "sessions": sessions,
        "created_at_ms": workspace.created_at_ms,
        "deleted_at_ms": workspace.deleted_at_ms,
    }


def stored_view(row: SessionRow) -> dict[str, Any]:
    """What `STORED` has of a row; `hostsvc.store.sessions.find_stored` gives the same of many."""
    return {
        "id": row.id,
        "generation": row.generation,
        "workspace_id": row.workspace_id,
        "origin_workspace_id": row.origin_workspace_id,
        "status": row.status.value,
        "name": row.name,
        "labels": dict(row.labels),
        "argv": list(row.argv),
        "run": row.run,
        "created_at_ms": row.created_at_ms,
        "ended_at_ms": row.ended_at_ms,
        "dispose_requested_at_ms": row.dispose_requested_at_ms,
        "dispose_reason": row.dispose_reason,
        "attempts": row.attempts,
        "next_attempt_at_ms": row.next_attempt_at_ms,
        "last_error": row.last_error,
        "stuck_at_ms": row.stuck_at_ms,
        "kill_evidence": row.kill_evidence,
        "exit": row.exit,
        "restart": row.restart,
        "restarts": row.restarts,
    }


STORED: Final = tuple(field.name for field in attrs.fields(shapes.SessionRow) if "live" not in field.name)
"""What a row's shape has from the index; its columns are called the same."""


def row_view(
    stored: Mapping[str, Any], live: Mapping[str, Any] | None, unknown: str | None
) -> dict[str, Any]:
    """A row with ptyd's view of its session, or why there is none."""
    return {**stored, "live": live, "live_unknown": unknown}


def live_view(session: Session) -> dict[str, Any]:
    """What ptyd says of a session: all that does not change without an event of ptyd's (see `shown`)."""
    return {
        "state": session.state,
        "pid": session.pid,
        "attached": session.attached,
        "cwd": session.cwd,
        "proof": session.proof,
    }


def archived_view(id_: str, generation: int, created_at_ms: int, kept: Mapping[str, Any]) -> dict[str, Any]:
    """A session whose row has moved to the audit, as its row was."""
    return {
        "id": id_,
        "generation": generation,
        "workspace_id": None,
        "origin_workspace_id": kept["workspace_id"],
        "status": kept["status"],
        "name": kept["name"],
        "labels": {},
        "argv": [],
        "created_at_ms": created_at_ms,
        "ended_at_ms": kept["ended_at_ms"],
        "attempts": 0,
        "kill_evidence": kept["kill_evidence"],
        "exit": kept["exit"],
        "live": None,
    }


def foreign_view(live: LiveSession) -> dict[str, Any]:
    return {"id": live.id, "generation": live.generation, "state": live.state, "owner": live.owner}


def saga_view(saga: Saga) -> dict[str, Any]:
    return {
        "id": saga.id,
        "workspace_id": saga.workspace_id,
        "generation": saga.generation,
        "state": saga.state.value,
        "attempts": saga.attempts,
        "next_attempt_at_ms": saga.next_attempt_at_ms,
        "last_error": saga.last_error,
        "warnings": list(saga.warnings),
        "created_at_ms": saga.created_at_ms,
        "finished_at_ms": saga.finished_at_ms,
    }


def run_view(run: Run, sessions: int) -> dict[str, Any]:
    return {
        "id": run.id,
        "state": run.state.value,
        "sessions": sessions,
        "created_at_ms": run.created_at_ms,
        "deadline_at_ms": run.deadline_at_ms,
        "holder_pid": run.holder_pid,
        "end_requested_at_ms": run.end_requested_at_ms,
        "ended_at_ms": run.ended_at_ms,
        "last_error": run.last_error,
    }


def plan_view(plan: Sequence[Planned]) -> list[dict[str, Any]]:
    return [{"step": one.step.value, "text": one.text, "subjects": list(one.subjects)} for one in plan]


def trash_view(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the trash with what its manifest says."""
    manifest = entry["manifest"]
    return {
        **{name: entry[name] for name in _OF_ENTRY},
        **{name: manifest.get(name) for name in ("kind", "head", "branch", "size_bytes", "why", "who")},
        "repository": manifest.get("common_dir"),
    }


_OF_ENTRY: Final = (
    "id",
    "workspace_id",
    "generation",
    "path",
    "trash_path",
    "trashed_at_ms",
    "purge_at_ms",
    "last_error",
)


def risk_view(risk: Risk) -> dict[str, Any]:
    return {
        "safe": risk.is_safe,
        "reasons": [{"code": reason.code, "text": reason.text} for reason in risk.reasons],
        "head": risk.head,
        "branch": risk.branch,
    }
