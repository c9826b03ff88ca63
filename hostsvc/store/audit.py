"""The audit: what was done to whom, with the evidence. Append-only, by the schema's own rule.

Never holds a secret: no environment, no input, no output, no credential ever comes this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlite_utils import Database

from hostsvc.store.rows import from_json, to_json


def append(
    db: Database,
    *,
    at_ms: int,
    event: str,
    kind: str,
    subject: str,
    generation: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add one line."""
    db.execute(
        "INSERT INTO audit (at_ms, event, kind, subject, generation, detail) VALUES (?, ?, ?, ?, ?, ?)",
        [at_ms, event, kind, subject, generation, to_json(detail or {})],
    )


def tail(db: Database, limit: int, subject: str | None = None) -> list[dict[str, Any]]:
    """Return the newest lines, oldest first."""
    where = "WHERE subject = :subject" if subject else ""
    rows = db.query(
        f"SELECT * FROM (SELECT * FROM audit {where} ORDER BY seq DESC LIMIT :limit) ORDER BY seq",
        {"subject": subject, "limit": limit},
    )
    return [{**row, "detail": from_json(row["detail"])} for row in rows]
