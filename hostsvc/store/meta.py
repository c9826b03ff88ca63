"""Statements on the few facts that are the index's as a whole."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

CIRCUIT: Final = "ptyd_circuit"
"""Why ptyd is not restarted any more until a person says so; absent as long as it is."""


def find(db: Database, key: str) -> str | None:
    found = db.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
    return None if found is None else str(found[0])


def put(db: Database, key: str, value: str) -> None:
    db.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", [key, value]
    )


def remove(db: Database, key: str) -> None:
    db.execute("DELETE FROM meta WHERE key = ?", [key])
