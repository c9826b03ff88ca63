"""Rows, live sessions and candidates as tests of what decides make them: each names only what matters."""

from __future__ import annotations

from typing import Any, Final

from hostsvc.model import Action, Basis, Candidate, LiveSession, Observation, SessionRow, Workspace
from hostsvc.states import SessionStatus, WorkspaceState

NOW: Final = 1_000_000_000
OLD: Final = NOW - 3_600_000
FLOOR: Final = 60_000
US: Final = "us"
INSTANCE: Final = "i1"
BOOT: Final = "boot-1"


def row(status: SessionStatus | str = SessionStatus.ACTIVE, **fields: Any) -> SessionRow:
    """A wanted session's row, of an hour ago."""
    plain: dict[str, Any] = {
        "id": "s",
        "generation": 1,
        "workspace_id": "w",
        "origin_workspace_id": "w",
        "status": SessionStatus(status),
        "name": None,
        "labels": {},
        "argv": ("sh",),
        "cwd": None,
        "run_id": "run",
        "instance_id": INSTANCE,
        "boot_id": BOOT,
        "shim_pid": 100,
        "shim_start": 1000,
        "pid": 101,
        "pid_start": 1001,
        "created_at_ms": OLD,
    }
    return SessionRow(**{**plain, **fields})


def unwanted(status: SessionStatus | str = SessionStatus.ACTIVE, **fields: Any) -> SessionRow:
    return row(status, **{"dispose_requested_at_ms": OLD, "dispose_reason": "asked", **fields})


def live(state: str = "running", **fields: Any) -> LiveSession:
    """What ptyd lists of a session of ours."""
    plain: dict[str, Any] = {
        "id": "s",
        "generation": 1,
        "state": state,
        "owner": US,
        "workspace_id": "w",
        "created_at_ms": OLD,
        "shim_pid": 100,
        "shim_start": 1000,
        "boot_id": BOOT,
        "pid": 101,
        "pid_start": 1001,
    }
    return LiveSession(**{**plain, **fields})


def dead(**fields: Any) -> LiveSession:
    return live("exited", **{"proof": "echild", "ended_at_ms": NOW, **fields})


def seen(count: int, first_at_ms: int = OLD) -> Observation:
    """Earlier observations of something."""
    return Observation(kind="k", subject="s:1", first_at_ms=first_at_ms, last_at_ms=NOW - 1, count=count)


def workspace(id_: str = "w", **fields: Any) -> Workspace:
    plain: dict[str, Any] = {
        "id": id_,
        "generation": 1,
        "name": None,
        "path": f"/base/{id_}",
        "is_ours": True,
        "state": WorkspaceState.ACTIVE,
        "labels": {},
        "created_at_ms": OLD,
    }
    return Workspace(**{**plain, **fields})


def candidate(subject: str = "s", **fields: Any) -> Candidate:
    """An inferred kill, unless told otherwise."""
    plain: dict[str, Any] = {
        "kind": "sessions",
        "subject": subject,
        "generation": 1,
        "action": Action.KILL,
        "basis": Basis.ABSENCE,
        "reason": "it is ours and has no row",
    }
    return Candidate(**{**plain, **fields})
