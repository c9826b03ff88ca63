"""ptyd's sessions, for showing: listed once, and after that only what its events tell of is looked at again.

Owns the last look and the number of the last event before it. Nothing is ever decided on what is here: the
reaper, and whoever ends something, asks for a list of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import trio

from hostsvc import views
from hostsvc.believed import live_session
from hostsvc.live import LIST_DEADLINE_S, Live
from hostsvc.model import Key, LiveSession
from ptyd.client import Client, Lost, PtydError, Session
from ptyd.protocol.errors import Code

MANY: Final = 32
"""With more events than this since the last look a new list is quicker."""

Version = tuple[str, int]
"""A daemon, and the number of its last event: while it is the same, so is all that is shown here."""


@attrs.frozen(kw_only=True)
class Shown:
    """One session."""

    live: LiveSession
    view: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Seen:
    """What is shown of every session that ptyd has, by id. `unknown`: why that may not be all."""

    sessions: Mapping[str, Shown]
    unknown: str | None

    def view(self, key: Key) -> Mapping[str, Any] | None:
        """Return what is shown of a session of this id and generation."""
        found = self.sessions.get(key[0])
        return found.view if found is not None and found.live.generation == key[1] else None


class Viewer:
    """Looks."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._alone = trio.Lock()
        self._seen = Seen(sessions={}, unknown=None)
        self._version: Version | None = None

    async def look(self) -> Seen:
        """Return how ptyd's sessions are now, or why that cannot be told."""
        try:
            with trio.fail_after(LIST_DEADLINE_S):
                async with self._alone:
                    await self._refresh(self._live.client())
                    return self._seen
        except trio.TooSlowError:
            return Seen(sessions={}, unknown=f"ptyd did not list within {LIST_DEADLINE_S:g} s")
        except PtydError as error:
            return Seen(sessions={}, unknown=f"ptyd did not list: {error}")

    async def _refresh(self, client: Client) -> None:
        counters = await client.stats()  # first: what happens during the look makes the look old
        version = counters["daemon_id"], counters["events"]
        if version == self._version:
            return
        changed = await self._changed(client, version)
        if changed is None:
            listing = await client.list()
            unknown = None if listing.complete else "ptyd's list is not complete"
            self._seen = Seen(sessions={one.id: _shown(one) for one in listing.sessions}, unknown=unknown)
        else:
            again = {id_: await _find(client, id_) for id_ in changed}
            merged = {**self._seen.sessions, **again}
            self._seen = Seen(sessions={id_: one for id_, one in merged.items() if one}, unknown=None)
        self._version = version if self._seen.unknown is None else None

    async def _changed(self, client: Client, version: Version) -> set[str] | None:
        """Return the sessions that events have told of since the last look; None: look at all of them."""
        since = self._version
        if since is None or since[0] != version[0] or version[1] - since[1] > MANY:
            return None
        changed: set[str] = set()
        async with client.subscribe(since) as events:
            async for event in events:
                if isinstance(event, Lost) or event.id is None:
                    break
                changed.add(event.id)
                if event.seq >= version[1]:
                    return changed
        return None


async def _find(client: Client, id_: str) -> Shown | None:
    try:
        return _shown(await client.get(id_))
    except PtydError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise


def _shown(session: Session) -> Shown:
    return Shown(live=live_session(session), view=views.live_view(session))
