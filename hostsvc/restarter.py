"""Sessions that end by themselves are started again, if that was asked for: decided, written down, done.

Owns when: the time of the next start is on the disk before it is waited for, so that a service that dies in
between does not start anew at once. Wakes when the index has entered something, and when a start is due.
"""

from __future__ import annotations

import math
from typing import Final

import trio

from hostsvc.births import Births
from hostsvc.clock import NowMs
from hostsvc.index import Index
from hostsvc.model import SessionRow
from hostsvc.restart import Ended, GiveUp, LeaveIt, Policy, StartAgain, decide_restart
from hostsvc.states import SessionStatus
from hostsvc.store import launches, workspaces
from hostsvc.store.launches import Waiting
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog

log = get_logger()

LATER_MS: Final = 10_000
"""Until the next try when nothing can be started at all: no ptyd, or no room."""
AFTER_FAULT_S: Final = 10.0
AT_ONCE: Final = 4


class Restarter:
    """Starts them. Run `run` in a nursery."""

    def __init__(self, index: Index, births: Births, events: EventLog, now_ms: NowMs) -> None:
        self._index = index
        self._births = births
        self._events = events
        self._now_ms = now_ms
        self._news = trio.Event()

    async def run(self) -> None:
        """Look at what has ended, whenever something happens or is due, for ever."""
        self._events.listen(self._wake)
        try:
            while True:
                self._news = trio.Event()  # what happens during the look makes for another one
                pause_s = await self._look()
                with trio.move_on_after(pause_s):
                    await self._news.wait()
        finally:
            self._events.unlisten(self._wake)

    def _wake(self) -> None:
        self._news.set()

    async def _look(self) -> float:
        """Do what is due; return in how many seconds something will be."""
        try:
            return await self.step()
        except PtydError as error:  # the index: health tells
            log.error("what has ended cannot be looked at", error=str(error))
        except Exception:
            log.exception("starting sessions again failed")
        return AFTER_FAULT_S

    async def step(self) -> float:
        """Decide on what has ended and start what is due.

        Returns:
            The seconds until the next one is due.

        Raises:
            PtydError: index_failed.
        """
        limiter = trio.CapacityLimiter(AT_ONCE)
        next_ms = math.inf
        async with trio.open_nursery() as nursery:
            for waiting in await self._index.read(launches.find_waiting):
                match _decide(waiting):
                    case StartAgain(pause_s, restarts):
                        due_at_ms = await self._due_at_ms(waiting, pause_s)
                        if due_at_ms <= self._now_ms():
                            nursery.start_soon(self._start, waiting, restarts, limiter)
                        else:
                            next_ms = min(next_ms, due_at_ms - self._now_ms())
                    case decided:
                        await self._leave(waiting.row, decided)
        return max(0.0, next_ms / 1000)

    async def _due_at_ms(self, waiting: Waiting, pause_s: float) -> int:
        if waiting.due_at_ms is not None:
            return waiting.due_at_ms
        due_at_ms = self._now_ms() + int(pause_s * 1000)
        await self._index.write(launches.set_due, waiting.row.key, due_at_ms)
        return due_at_ms

    async def _leave(self, row: SessionRow, decided: LeaveIt | GiveUp) -> None:
        was_there = await self._index.write(launches.remove, row.key)
        if was_there and isinstance(decided, GiveUp):
            log.error("a session is not started again", session=row.id, reason=decided.reason)
            self._events.emit(
                "session.restart_given_up", row.id, generation=row.generation, reason=decided.reason
            )

    # -- starting ----------------------------------------------------------------------------------

    async def _start(self, waiting: Waiting, restarts: int, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                started = await self._spawn(waiting, restarts)
            except PtydError as error:
                await self._not_started(waiting.row, error)
                return
        log.info("a session was started again", session=started.id, restarts=restarts)
        self._events.emit("session.restarted", started.id, generation=started.generation, restarts=restarts)

    async def _spawn(self, waiting: Waiting, restarts: int) -> SessionRow:
        row, launch = waiting.row, waiting.launch
        place = await self._index.read(workspaces.find, row.origin_workspace_id)
        if place is None:
            raise PtydError(Code.BEING_DELETED, f"the workspace of session {row.id} is gone")
        return await self._births.spawn(
            place,
            argv=launch.argv,
            cwd=launch.cwd,
            name=row.name,
            labels=row.labels,
            launch=launch,
            again=row,
            restarts=restarts,
            env={name.decode(errors="surrogateescape"): text for name, text in launch.env.items()},
            rows=launch.rows,
            cols=launch.cols,
            on_leader_exit=launch.on_leader_exit,
            **({} if row.run is None else {"run": row.run}),
        )

    async def _not_started(self, row: SessionRow, error: PtydError) -> None:
        """Try later if nothing was written. A new row is over by now, and decided on like any other."""
        log.warning("a session could not be started again", session=row.id, error=str(error))
        try:
            if error.code in (Code.BEING_DELETED, Code.DESTROYED):
                await self._index.write(launches.remove, row.key)
            else:
                await self._index.write(launches.set_due, row.key, self._now_ms() + LATER_MS)
        except PtydError as failure:
            log.error("the next start cannot be written down", session=row.id, error=str(failure))
        self._wake()


def _decide(waiting: Waiting) -> StartAgain | LeaveIt | GiveUp:
    row = waiting.row
    if not row.restarts and (row.status is SessionStatus.FAILED or row.is_unwanted):
        return LeaveIt("it never ran, or nobody knew; whoever asked for it was told")
    return decide_restart(
        Ended(
            policy=Policy(row.restart),
            limit=waiting.launch.limit,
            restarts=row.restarts,
            ran_s=((row.ended_at_ms or row.created_at_ms) - row.created_at_ms) / 1000,
            exit=row.exit,
            was_unwanted=row.workspace_id is None or not waiting.is_run_open,
        )
    )
