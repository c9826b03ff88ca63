"""Rows of the index as values, and back: JSON columns, booleans, enums. Owns no statement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hostsvc.model import Observation, Saga, SessionRow, Workspace
from hostsvc.run import Run
from hostsvc.states import RunState, SagaState, SessionStatus, WorkspaceState

Raw = Mapping[str, Any]


def to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


_JSON = ("labels", "argv", "kill_evidence", "exit")


def decode_all(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sessions' rows as plain maps: their JSON columns as what they hold, each column parsed as one array."""
    for name in _JSON:
        texts = (raw[name] or "null" for raw in found)
        for raw, value in zip(found, json.loads(f"[{','.join(texts)}]"), strict=True):
            raw[name] = value
    return found


def workspace(raw: Raw) -> Workspace:
    return Workspace(
        **{
            **raw,
            "state": WorkspaceState(raw["state"]),
            "labels": from_json(raw["labels"]),
            "teardown": tuple(from_json(raw["teardown"])) if raw["teardown"] else None,
            "is_ours": bool(raw["is_ours"]),
            "is_protected": bool(raw["is_protected"]),
            "is_ephemeral": bool(raw["is_ephemeral"]),
            "is_expendable": bool(raw["is_expendable"]),
            "plan": from_json(raw["plan"]),
        }
    )


def session(raw: Raw) -> SessionRow:
    return SessionRow(
        **{
            **raw,
            "status": SessionStatus(raw["status"]),
            "labels": from_json(raw["labels"]),
            "argv": tuple(from_json(raw["argv"])),
            "is_forced": bool(raw["is_forced"]),
            "kill_evidence": from_json(raw["kill_evidence"]),
            "exit": from_json(raw["exit"]),
        }
    )


def run(raw: Raw) -> Run:
    return Run(**{**raw, "state": RunState(raw["state"])})


def saga(raw: Raw) -> Saga:
    return Saga(
        **{
            **raw,
            "state": SagaState(raw["state"]),
            "is_forced": bool(raw["is_forced"]),
            "skips_teardown": bool(raw["skips_teardown"]),
            "warnings": tuple(from_json(raw["warnings"])),
        }
    )


def observation(raw: Raw) -> Observation:
    return Observation(**raw)
