"""Runs: starting one, ending exactly that one, and finding what carries any run's label.

Owns the order of an end: the intent on the disk, from which on the run takes nothing; its sessions' rows by
disposal; what every plug-in finds of it; and `ended` only when a last look finds nothing. Whatever fails
leaves the run `ending`, and the reaper goes on.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs
import trio

from hostsvc.clock import NowMs
from hostsvc.disposal import Disposal
from hostsvc.index import Index
from hostsvc.lanes import Lanes
from hostsvc.model import ABSENT, Fact, Known, Unknown
from hostsvc.run import Run
from hostsvc.runs.plugins import Plugin
from hostsvc.runs.policy import NOBODY_NEEDED, Resource
from hostsvc.states import RunState
from hostsvc.store import runs, sessions
from ptyd import procs
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog

log = get_logger()

AT_ONCE: Final = 8


@attrs.define(kw_only=True)
class Ending:
    """How far the end of a run has come."""

    run: Run
    ended: int = 0
    failures: dict[str, str] = attrs.Factory(dict)
    """What is not proven to be gone, or could not be looked at, and why."""

    @property
    def is_partial(self) -> bool:
        return bool(self.failures)

    @property
    def warnings(self) -> list[str]:
        return [f"{what}: {why}" for what, why in sorted(self.failures.items())]


class Runs:
    """Starts and ends runs."""

    def __init__(
        self, index: Index, disposal: Disposal, plugins: Sequence[Plugin], events: EventLog, now_ms: NowMs
    ) -> None:
        self._index = index
        self._disposal = disposal
        self.plugins = {plugin.name: plugin for plugin in plugins}
        self._events = events
        self._now_ms = now_ms
        self._boot_id = procs.boot_id()
        self._lanes = Lanes()
        self._limiter = trio.CapacityLimiter(AT_ONCE)

    async def start(self, id_: str | None, holder_pid: int | None, deadline_s: float | None) -> Run:
        """Begin a run.

        Raises:
            PtydError: exists; destroyed, when that id had ended; not_found, when there is no such process.
        """
        stat = None if holder_pid is None else procs.read_stat(holder_pid)
        if holder_pid is not None and (stat is None or stat.state in "ZX"):
            raise PtydError(Code.NOT_FOUND, f"no process {holder_pid} is there to hold a run")
        now_ms = self._now_ms()
        run = Run(
            id=id_ or secrets.token_hex(8),
            state=RunState.OPEN,
            holder_pid=holder_pid,
            holder_start=None if stat is None else stat.start_ticks,
            boot_id=None if stat is None else self._boot_id,
            created_at_ms=now_ms,
            deadline_at_ms=None if deadline_s is None else now_ms + int(deadline_s * 1000),
        )
        if not await self._index.write(runs.insert, run):
            raise _taken(await self.find(run.id))
        self._events.emit("run.started", run.id)
        return run

    async def find(self, id_: str) -> Run:
        """Return a run, over or not.

        Raises:
            PtydError: not_found.
        """
        found = await self._index.read(runs.find, id_)
        if found is None:
            raise PtydError(Code.NOT_FOUND, f"no run {id_}; see: hostsvc run ls")
        return found

    # -- the end -----------------------------------------------------------------------------------

    async def end(self, id_: str) -> Ending:
        """End everything of exactly one run and wait for it; twice is once.

        Raises:
            PtydError: not_found; index_failed.

        Cancellation: the intent stands, and the reaper carries it out.
        """
        before = await self.find(id_)
        if before.state is RunState.ENDED:
            return Ending(run=before)
        if before.end_requested_at_ms is None:
            await self._index.write(runs.request_end, id_, self._now_ms())
            self._events.emit("run.ending", id_)
        async with self._lanes.alone(id_):
            ending = Ending(run=await self.find(id_))
            if ending.run.state is not RunState.ENDED:  # by somebody who was faster
                await self._end_all(ending)
        return ending

    async def _end_all(self, ending: Ending) -> None:
        id_, error_before = ending.run.id, ending.run.last_error
        await self._dispose(ending)
        for plugin in self.plugins.values():
            await self._end_found(ending, plugin)
        if not ending.is_partial and not await self._index.write(runs.finish, id_, self._now_ms()):
            ending.failures["index"] = "a row of it is not over"
        if ending.is_partial:
            await self._index.write(runs.note, id_, ending.warnings[0])
        ending.run = await self.find(id_)
        if ending.run.last_error != error_before or not ending.is_partial:
            self._tell(ending)

    async def _dispose(self, ending: Ending) -> None:
        """End the sessions that have rows: their intents were stamped with the run's."""
        rows = await self._index.read(sessions.find_of_run, ending.run.id)
        acts = {f"sessions/{row.id}": partial(self._disposal.carry_out, row.key) for row in rows}
        await self._each(ending, acts)

    async def _end_found(self, ending: Ending, plugin: Plugin) -> None:
        """End what a plug-in finds, then look again: what is still there was not ended."""
        try:
            found = await plugin.find(ending.run.id) if await plugin.check() else ()
            todo = [one for one in found if one.subject not in ending.failures]
            await self._each(ending, {one.subject: partial(plugin.end, one) for one in todo})
            for one in await plugin.find(ending.run.id) if found else ():
                ending.failures.setdefault(one.subject, "it is still there")
        except PtydError as error:
            ending.failures[plugin.name] = str(error)

    async def _each(self, ending: Ending, acts: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        async def act(subject: str, end: Callable[[], Awaitable[object]]) -> None:
            async with self._limiter:
                try:
                    await end()
                except PtydError as error:
                    ending.failures[subject] = str(error)
                else:
                    ending.ended += 1

        async with trio.open_nursery() as nursery:
            for subject, end in acts.items():
                nursery.start_soon(act, subject, end)

    def _tell(self, ending: Ending) -> None:
        told: dict[str, Any] = {"partial": ending.is_partial, "ended": ending.ended}
        if ending.is_partial:
            log.warning("a run is not over", run=ending.run.id, warnings=ending.warnings)
        self._events.emit("run.ended", ending.run.id, **told)

    # -- the sweep ---------------------------------------------------------------------------------

    async def find_all(self) -> tuple[list[Resource], list[str]]:
        """Return what carries any run's label, and which plug-ins could not tell, with why."""
        found: list[Resource] = []
        errors: list[str] = []
        for plugin in self.plugins.values():
            try:
                if await plugin.check():
                    found += await plugin.find(None)
            except PtydError as error:
                errors.append(f"{plugin.name}: {error}")
        return found, errors

    def holder_of(self, run: Run | None) -> Fact[int]:
        """Look whether the process that holds a run is there: exactly that one, of this boot."""
        if run is None or run.holder_pid is None or run.holder_start is None:
            return NOBODY_NEEDED
        try:
            lives = run.boot_id == self._boot_id and procs.is_alive(run.holder_pid, run.holder_start)
        except OSError as error:
            return Unknown(f"its holder cannot be looked at: {error.strerror}")
        return Known(run.holder_pid) if lives else ABSENT

    async def give_up(self, run: Run, reason: str) -> None:
        """Let a run that nobody holds take nothing any more; what it has is looked at one by one."""
        if await self._index.write(runs.give_up, run.id, reason, self._now_ms()):
            self._events.emit("run.ending", run.id, reason=reason)

    async def settle(self, id_: str) -> Run:
        """Enter that a run is over, if every plug-in finds nothing of it any more.

        Raises:
            PtydError: something is left, or nobody can tell.
        """
        async with self._lanes.alone(id_):
            for plugin in self.plugins.values():
                if await plugin.check() and (left := await plugin.find(id_)):
                    raise PtydError(Code.STILL_RUNNING, f"{left[0].subject} is left of run {id_}")
            if await self._index.write(runs.finish, id_, self._now_ms()):
                self._tell(Ending(run=await self.find(id_)))
            return await self.find(id_)


def _taken(run: Run) -> PtydError:
    if run.state is RunState.ENDED:
        return PtydError(Code.DESTROYED, f"run {run.id} has ended; an id serves once, choose another")
    return PtydError(Code.EXISTS, f"run {run.id} is {run.state} already; see: hostsvc run ls")
