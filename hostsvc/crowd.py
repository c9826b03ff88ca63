"""The wanted sessions that live at once: how idle each is, ending idle ones, and room for one more.

Owns the order of admissions, so that two at once do not overshoot a cap: one at a time counts, and nobody
else does before what counts from then on is there, its new row, or its seat and the intents of those that
make room. Whoever waits for a death holds a seat, and nobody up: under the lock intents are only written.
Whoever is to go is looked at again just before; what ptyd cannot tell counts as busy.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import trio

from hostsvc.believed import live_session
from hostsvc.disposal import Disposal
from hostsvc.idle import Idleness, Room, admission
from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.model import OWNER_LABEL, Key, Known, SessionRow
from hostsvc.states import SessionStatus
from hostsvc.store import sessions
from ptyd.client import Session
from ptyd.protocol.errors import Code, PtydError

YOUNG_MS: Final = 2_000
"""Whoever has just made a session is about to attach to it."""
TRIES: Final = 3
"""How often room is looked for again because what was idle came into use."""
PATIENCE_S: Final = 5.0
"""How long an admission waits for a list that is complete."""
PAUSE_S: Final = 0.05


class InUse(Exception):
    """Looked at again just before its end, it is not what it was; the message says how. It was left alone."""


class Crowd:
    """Counts them, and ends idle ones."""

    def __init__(self, index: Index, live: Live, disposal: Disposal, room: Room, *, owner: str) -> None:
        self._index = index
        self._live = live
        self._disposal = disposal
        self._owner = owner
        self._alone = trio.Lock()
        self._seats: dict[object, str] = {}  # the workspace of each one that waits for a death to begin
        self._left_at_s: dict[str, float] = {}
        self.room = room

    # -- looking -----------------------------------------------------------------------------------

    def note_use(self, id_: str) -> None:
        """Somebody has attached to it or left it just now."""
        self._left_at_s[id_] = trio.current_time()

    def forget_use(self, id_: str) -> None:
        self._left_at_s.pop(id_, None)

    async def look(self) -> list[Idleness]:
        """Return every wanted session that may be alive, in a look of its own.

        Raises:
            PtydError: ptyd_unreachable, without a whole list that can be believed.
        """
        listing = await self._live.listing(labels={OWNER_LABEL: self._owner}, detail=True)
        if not isinstance(listing, Known):
            raise PtydError(Code.NO_PTYD, getattr(listing, "why", "ptyd has no list"))
        if not listing.value.complete:
            raise PtydError(Code.NO_PTYD, "ptyd's list is not complete")
        seen = {(one.id, one.generation): one for one in listing.value.sessions}
        rows = await self._index.read(sessions.find_wanted)
        return [
            self._idleness(row, seen.get(row.key))
            for row in rows
            if row.key not in seen or live_session(seen[row.key]).is_alive
        ]

    def _idleness(self, row: SessionRow, session: Session | None) -> Idleness:
        is_known = session is not None and row.status is SessionStatus.ACTIVE
        return Idleness(
            key=row.key,
            workspace_id=row.origin_workspace_id,
            is_busy=_is_busy(session) if is_known and session is not None else None,
            idle_ms=None if session is None else self._idle_ms(session),
        )

    def _idle_ms(self, session: Session) -> int | None:
        """Since its last output or attachment, or since it was made; None when that cannot be told."""
        signs = [session.age_ms]
        if session.last_output_age_ms is not None:
            signs.append(session.last_output_age_ms)
        elif session.output_offset:
            return None
        if (left_at_s := self._left_at_s.get(session.id)) is not None:
            signs.append(int((trio.current_time() - left_at_s) * 1000))
        return min(signs)

    # -- ending ------------------------------------------------------------------------------------

    async def evict(self, key: Key, reason: str) -> Mapping[str, Any]:
        """End an idle session, after one more look at it and at how many there are; return the evidence.

        Raises:
            InUse: it is not idle, or nothing is over any limit, by now.
            PtydError: its death is not proven; the intent stands, and the reaper goes on.
        """
        async with self._alone:
            one = await self._look_again(key)
            wanted = await self._index.read(sessions.find_wanted)
            if not self._is_over(one, wanted):
                raise InUse("nothing is over its limit any more")
            await self._disposal.request(key, reason=reason)
        row = await self._disposal.carry_out(key)
        return {"status": row.status.value, **(row.kill_evidence or {})}

    def _is_over(self, one: Idleness, wanted: list[SessionRow]) -> bool:
        here = sum(row.origin_workspace_id == one.workspace_id for row in wanted)
        limits = (
            (self.room.ttl_ms, one.idle_ms or 0),
            (self.room.per_workspace, here - 1),
            (self.room.per_host, len(wanted) - 1),
        )
        return any(limit is not None and found >= limit for limit, found in limits)

    async def _look_again(self, key: Key) -> Idleness:
        row = await self._index.read(sessions.find, *key)
        if row is None or row.is_ended or row.is_unwanted:
            raise InUse("its end was entered, or asked for, meanwhile")
        found = await self._live.look_at(key[0])
        if not isinstance(found, Known):
            raise InUse(f"ptyd does not tell whether it is idle: {getattr(found, 'why', 'it is gone')}")
        if (found.value.id, found.value.generation) != key or not live_session(found.value).is_alive:
            raise InUse("ptyd does not list it any more")
        one = self._idleness(row, found.value)
        if not one.may_go:
            raise InUse("it is in use")
        return one

    # -- admitting ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def admitted(self, workspace_id: str) -> AsyncIterator[None]:
        """Hold room for one more session in a workspace; write its row within the block.

        Raises:
            PtydError: too_many_sessions, when all are busy, or the idle one does not die;
                ptyd_unreachable.

        Cancellation: the intents of those that were to make room stand, and the reaper carries them out.
        """
        if self.room.per_workspace is None and self.room.per_host is None:
            yield
            return
        seat = object()
        try:
            async with self._alone:
                dying = await self._make_room(workspace_id)
                if not dying:
                    yield
                    return
                self._seats[seat] = workspace_id
            await self._see_dead(dying)
            async with self._alone:
                del self._seats[seat]  # its row is there before anybody counts again
                yield
        finally:
            self._seats.pop(seat, None)

    async def _make_room(self, workspace_id: str) -> list[Key]:
        """Ask for the end of as many as have to go; return them."""
        wanted = await self._index.read(sessions.find_wanted)
        rows = [self._idleness(row, None) for row in wanted]
        if admission(rows + self._seated(), workspace_id, self.room) == ({}, None):
            return []  # by the rows alone: nobody has to be looked at
        dying: list[Key] = []
        for _ in range(TRIES):
            alive = await self._look_patiently()
            evicted, refusal = admission(alive + self._seated(), workspace_id, self.room)
            if refusal is not None:
                raise PtydError(Code.TOO_MANY_SESSIONS, f"{refusal}; see: hostsvc session ls")
            if await self._condemn(evicted, dying):
                return dying
        raise PtydError(Code.TOO_MANY_SESSIONS, "what was idle came into use again; try again")

    def _seated(self) -> list[Idleness]:
        """Return a stand-in for each session that waits for a death to begin."""
        return [
            Idleness(key=("", 0), workspace_id=id_, is_busy=True, idle_ms=0) for id_ in self._seats.values()
        ]

    async def _look_patiently(self) -> list[Idleness]:
        """Look; a list is not complete as long as some spawn is under way."""
        ends_at_s = trio.current_time() + PATIENCE_S
        while True:
            try:
                return await self.look()
            except PtydError:
                if trio.current_time() >= ends_at_s:
                    raise
            await trio.sleep(PAUSE_S)

    async def _condemn(self, evicted: Mapping[Key, str], dying: list[Key]) -> bool:
        """Ask for the end of these, and note whose was; False when one of them is in use by now."""
        for key, reason in evicted.items():
            try:
                await self._look_again(key)
            except InUse:
                return False
            await self._disposal.request(key, reason=reason)
            dying.append(key)
        return True

    async def _see_dead(self, dying: Sequence[Key]) -> None:
        """End these, proven."""
        errors: dict[str, PtydError] = {}

        async def end(key: Key) -> None:
            try:
                await self._disposal.carry_out(key)
            except PtydError as error:
                errors[key[0]] = error

        async with trio.open_nursery() as nursery:
            for key in dying:
                nursery.start_soon(end, key)
        for id_, error in errors.items():
            text = f"session {id_} was to make room and is not proven dead: {error}"
            raise PtydError(Code.TOO_MANY_SESSIONS, text) from error


def _is_busy(session: Session) -> bool | None:
    if session.attached or session.age_ms < YOUNG_MS:
        return True
    return session.busy
