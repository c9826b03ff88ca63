"""Statements on a birth: a session's row and how to start it again, in one transaction."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from hostsvc.model import Key
from hostsvc.restart import Launch
from hostsvc.store import launches, sessions


def insert(db: Database, /, *, launch: Launch | None, again: Key | None, restarts: int, **row: Any) -> bool:
    """Write a session's row before its spawn.

    Args:
        db: The index.
        launch: How to start it again; None for one that never is.
        again: The generation that it follows, whose launch is spent with that.
        restarts: So many starts in a row did not last.
        row: As `sessions.insert_spawning`.

    Returns:
        False when its workspace takes nothing, or nobody wants the other one started again any more.
    """
    if again is not None and not launches.remove(db, again):
        return False
    if not sessions.insert_spawning(db, **row):
        return False
    if launch is not None:
        launches.insert(db, (row["id_"], row["generation"]), launch, restarts)
    return True
