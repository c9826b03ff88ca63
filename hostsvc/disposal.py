"""Disposal: intent on the disk, then the kill, then the proof; and only with it `disposed`.

Every way to end a session goes through here. Owns the order of the three and the lanes in which they
happen: one at a time for a session, a few at a time for all. An acknowledgement, an error, a timeout or a
ptyd that is not there change nothing but the count of attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from hostsvc.clock import NowMs
from hostsvc.index import Index
from hostsvc.lanes import Lanes
from hostsvc.live import Live, NotThere, Proven, Unproven
from hostsvc.model import Key, SessionRow
from hostsvc.policy import next_retry
from hostsvc.states import SessionStatus
from hostsvc.store import sessions
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog

log = get_logger()

NEVER_RAN = {"proof": "fenced", "by": "ptyd"}


class Disposal:
    """Ends sessions."""

    def __init__(self, index: Index, live: Live, events: EventLog, now_ms: NowMs, concurrency: int) -> None:
        self._index = index
        self._live = live
        self._events = events
        self._now_ms = now_ms
        self._lanes = Lanes()
        self._limiter = trio.CapacityLimiter(concurrency)

    async def request(
        self, key: Key, *, reason: str, is_forced: bool = False, is_doubt: bool = False
    ) -> SessionRow | None:
        """Write the intent down; None when there is no such row. What is over stays as it is."""
        row = await self._index.write(
            sessions.request_dispose,
            key,
            reason=reason,
            is_forced=is_forced,
            is_doubt=is_doubt,
            now_ms=self._now_ms(),
        )
        if row is not None and not row.is_ended:
            self._events.emit("session.dispose_requested", row.id, generation=row.generation, reason=reason)
        return row

    async def dispose(
        self, key: Key, *, reason: str, is_forced: bool = False, is_doubt: bool = False
    ) -> SessionRow:
        """Write the intent down and act on it.

        Args:
            key: Which session.
            reason: Why; the first one stays.
            is_forced: Without graces.
            is_doubt: Nobody wants its end; only whether its start was heard is not known.

        Raises:
            PtydError: not_found; kill_unconfirmed or ptyd_unreachable, after which the row keeps its
                intent and the reaper goes on; index_failed.

        Cancellation: the intent stands, and the reaper carries it out.
        """
        row = await self.request(key, reason=reason, is_forced=is_forced, is_doubt=is_doubt)
        if row is None:
            raise PtydError(
                Code.NOT_FOUND, f"no session {key[0]} (generation {key[1]}); see: hostsvc session ls"
            )
        return await self.carry_out(key)

    async def carry_out(self, key: Key) -> SessionRow:
        """Act on an intent that is on the disk already; otherwise as `dispose`."""
        async with self._lanes.alone(key):
            row = await self._index.read(sessions.find, *key)
            if row is None or (not row.is_unwanted and not row.is_ended):
                raise PtydError(Code.NOT_FOUND, f"nobody asked for the end of session {key[0]}")
            if row.is_ended:
                return row
            async with self._limiter:
                return await self._end(row)

    async def _end(self, row: SessionRow) -> SessionRow:
        match await self._live.kill(row.key, is_forced=row.is_forced, instance_id=row.instance_id):
            case Proven(evidence, exit_):
                return await self._settle(row, SessionStatus.DISPOSED, evidence, exit_)
            case NotThere() if row.status is SessionStatus.SPAWNING:
                # Fenced by that very kill: what was not there cannot come any more.
                return await self._settle(row, SessionStatus.FAILED, NEVER_RAN, None)
            case NotThere():
                text = f"ptyd does not know session {row.id}; its end is not proven by that"
                raise await self._failed(row, PtydError(Code.KILL_UNCONFIRMED, text, survivors=[]))
            case Unproven(error):
                raise await self._failed(row, error)

    async def _settle(
        self,
        row: SessionRow,
        status: SessionStatus,
        evidence: Mapping[str, Any],
        exit_: Mapping[str, int] | None,
    ) -> SessionRow:
        settled = await self._index.write(
            sessions.settle, row.key, status, evidence=evidence, exit_=exit_, now_ms=self._now_ms()
        )
        if settled is None:
            found = await self._index.read(sessions.find, *row.key)
            return row if found is None else found
        self._events.emit(f"session.{status}", row.id, generation=row.generation, evidence=dict(evidence))
        return settled

    async def _failed(self, row: SessionRow, error: PtydError) -> PtydError:
        """Note the attempt; nothing else of the row changes."""
        now_ms = self._now_ms()
        retry = next_retry(row.attempts + 1, now_ms)
        is_news = await self._index.write(
            sessions.record_attempt, row.key, error=str(error), retry=retry, now_ms=now_ms
        )
        if is_news:
            log.error("a session does not die", session=row.id, attempts=row.attempts + 1, error=str(error))
            self._events.emit("session.stuck", row.id, generation=row.generation, error=str(error))
        return error

    # -- what needs no kill ------------------------------------------------------------------------

    async def settle_end(
        self, row: SessionRow, evidence: Mapping[str, Any], exit_: Mapping[str, int] | None
    ) -> SessionRow:
        """Enter an end that is proven: disposed when it was asked for, exited when it was not."""
        async with self._lanes.alone(row.key):
            current = await self._index.read(sessions.find, *row.key) or row
            status = SessionStatus.DISPOSED if current.is_unwanted else SessionStatus.EXITED
            return await self._settle(current, status, evidence, exit_)

    async def bury(self, row: SessionRow, sign: str) -> SessionRow:
        """Enter an end that only its signs prove: disposed when it was asked for, else lost."""
        evidence = {"proof": sign, "by": "hostsvc", "looks": 2}
        async with self._lanes.alone(row.key):
            current = await self._index.read(sessions.find, *row.key) or row
            status = SessionStatus.DISPOSED if current.is_unwanted else SessionStatus.LOST
            return await self._settle(current, status, evidence, None)

    async def kill_orphan(self, key: Key, *, instance_id: str) -> Mapping[str, Any]:
        """End a session whose row is over, or that has none.

        Raises:
            PtydError: its death is not proven; the next pass finds it again.
        """
        async with self._lanes.alone(key), self._limiter:
            match await self._live.kill(key, is_forced=False, instance_id=instance_id):
                case Proven(evidence, _):
                    self._events.emit("session.orphan_killed", key[0], generation=key[1], evidence=evidence)
                    return evidence
                case NotThere():
                    return {"proof": "gone", "by": "ptyd"}
                case Unproven(error):
                    raise error
