"""Taking over living sessions that the index does not know: only after they were shown, only when asked.

They are those of an index that was lost; or our own that were started after the backup that we come from.

Owns the change of a session's owner label. Its row is written first: interrupted between the two, the session
is still the lost index's, nobody touches it, and asking again finishes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostsvc.births import Births
from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.model import (
    OWNER_LABEL,
    RESERVED_LABELS,
    RUN_LABEL,
    WORKSPACE_LABEL,
    Known,
    LiveSession,
    Workspace,
)
from hostsvc.store import sessions
from hostsvc.store.rows import to_json
from ptyd.client import Session
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog


class Adoption:
    """Adopts sessions."""

    def __init__(
        self, index: Index, live: Live, births: Births, events: EventLog, *, owner: str, run_id: str
    ) -> None:
        self._index = index
        self._live = live
        self._births = births
        self._events = events
        self._owner = owner
        self._run_id = run_id

    async def find(self, owner: str) -> list[LiveSession]:
        """Return the living sessions of an owner; of this index's own those that have no row.

        Raises:
            PtydError: ptyd_unreachable, when they cannot all be seen.
        """
        view = await self._live.view()
        if not isinstance(view, Known):
            raise PtydError(Code.NO_PTYD, getattr(view, "why", "ptyd has no list"))
        found = [live for live in view.value.sessions.values() if live.is_alive and live.owner == owner]
        if owner != self._owner:
            return found
        rows = await self._index.read(sessions.find_keys, [live.key for live in found])
        return [live for live in found if live.key not in rows and not self._births.is_being_born(live.key)]

    async def adopt(self, live: LiveSession, workspace: Workspace) -> None:
        """Take one over: its row first, then its label.

        Raises:
            PtydError: being_deleted; ptyd_unreachable.
        """
        client = self._live.client()
        session = await client.get(live.id)
        fields = {**_fields(session), "run_id": self._run_id, "instance_id": self._live.instance()}
        row = await self._index.read(sessions.find, *live.key)
        if row is None and not await self._index.write(sessions.insert_adopted, live, workspace.id, fields):
            raise PtydError(Code.BEING_DELETED, f"workspace {workspace.id} takes no sessions")
        labels = {**_own(session.labels), OWNER_LABEL: self._owner, WORKSPACE_LABEL: workspace.id}
        await client.update(live.id, labels=labels)
        self._events.emit("session.adopted", live.id, generation=live.generation)


def _fields(session: Session) -> dict[str, Any]:
    return {
        "name": session.name,
        "labels": to_json(_own(session.labels)),
        "argv": to_json(list(session.argv)),
        "cwd": session.cwd,
        "created_at_ms": session.created_at_ms,
    }


def _own(labels: Mapping[str, str]) -> dict[str, str]:
    """Leave out what the lost index said of it; its run too, which nobody knows here: it would be swept."""
    return {
        key: value
        for key, value in labels.items()
        if not key.startswith(RESERVED_LABELS) and key != RUN_LABEL
    }
