"""The monitor of ptyd: asks it at intervals whether it answers, and replaces its process when it does not.

Owns the watch (`watchdog` says what follows from a probe) and that one restart happens at a time. A restart
costs no session: the zygote starts another daemon, which takes over every shim. Never touches one that has
not answered this service yet, nor starts one that somebody has stopped on purpose.
"""

from __future__ import annotations

from typing import Any, Final

import trio

from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.ptyd_process import Identity, PtydProcess, identify
from hostsvc.store import meta
from hostsvc.watchdog import GiveUp, Patience, Probe, Restart, Watch, closed, judge, restarted
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog

log = get_logger()

LONGEST_PROBE_S: Final = 5.0
NO_ANSWERS: Final = frozenset(
    {
        Code.NO_PTYD,
        Code.UNREACHABLE,
        Code.MAYBE_APPLIED,
        Code.NESTED,
        Code.BUSY,
        Code.TIMEOUT,
        Code.PROTOCOL_VIOLATION,
    }
)
"""What our own end makes up when the daemon says nothing; any other refusal is an answer."""


class Monitor:
    """Watches ptyd. Run `run` in a nursery."""

    def __init__(
        self, index: Index, live: Live, process: PtydProcess, events: EventLog, patience: Patience
    ) -> None:
        self._index = index
        self._live = live
        self._process = process
        self._events = events
        self._patience = patience
        self._known: Identity | None = None
        self._last: Probe | None = None
        self.watch = Watch()

    async def run(self) -> None:
        """Look, and look again after an interval, for ever."""
        await self.remember()
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("watching ptyd failed")
            await trio.sleep(self._patience.interval_s)

    async def remember(self) -> None:
        """Take over what the service before us has given up."""
        try:
            because = await self._index.read(meta.find, meta.CIRCUIT)
        except PtydError as error:
            log.error("whether ptyd may be restarted is not known; it is", error=str(error))
            return
        self.watch = Watch(open_because=because)

    async def look(self) -> None:
        """Probe once, and do what follows. Several at once do no more than one."""
        probe = self._last = await self._probe()
        self.watch, verdict = judge(self.watch, probe, trio.current_time(), self._patience)
        match verdict:
            case Restart(reason):
                await self._restart(reason)
            case GiveUp(reason):
                await self._give_up(reason)

    async def reset(self) -> None:
        """A person has looked and says: try again.

        Raises:
            PtydError: index_failed; nothing has changed.
        """
        await self._index.write(meta.remove, meta.CIRCUIT)
        if self.watch.is_open:
            log.info("ptyd may be restarted again")
            self._events.emit("ptyd.circuit_closed")
        self.watch = closed(self.watch)

    @property
    def view(self) -> dict[str, Any]:
        """The watch, as `health` shows it."""
        now_s, watch = trio.current_time(), self.watch
        busy_since_s, budget_s = watch.busy_since_s, self._patience.budget_s
        return {
            "last": None if self._last is None else self._last.value,
            "failures": watch.failures,
            "busy_ms": None if busy_since_s is None else int((now_s - busy_since_s) * 1000),
            "is_restarting": watch.is_restarting,
            "restarts": sum(now_s - at_s < budget_s for at_s in watch.restarted_at_s),
            "most_restarts": self._patience.restarts,
            "open_because": watch.open_because,
        }

    # -- looking -----------------------------------------------------------------------------------

    async def _probe(self) -> Probe:
        known = self._known
        before = None if known is None else known.cpu_ticks()
        if await self._answers():
            return Probe.ANSWERED
        if known is not None and known.is_alive:
            return Probe.FAILED if known.cpu_ticks() == before else Probe.BUSY
        if self._live.was_stopped:
            return Probe.STOPPED
        return Probe.STARTING if self._process.has_successor() else Probe.GONE

    async def _answers(self) -> bool:
        try:
            with trio.fail_after(min(LONGEST_PROBE_S, self._patience.interval_s)):
                told = await self._live.client().stats()
        except trio.TooSlowError:
            return False
        except PtydError as error:
            return error.code not in NO_ANSWERS
        self._known = identify(told.get("pid"))
        return True

    # -- acting ------------------------------------------------------------------------------------

    async def _restart(self, reason: str) -> None:
        """Replace its process. Who starts the next one is the zygote, or `Live` when that is gone too."""
        log.error("ptyd is restarted", reason=reason)
        known, self._known = self._known, None
        try:
            if known is not None and not await self._process.kill(known):
                log.error("who answered is not who holds ptyd's lock; it is left alone", pid=known.pid)
        finally:
            self.watch = restarted(self.watch)
        self._events.emit("ptyd.restarted", reason=reason)

    async def _give_up(self, reason: str) -> None:
        log.error("ptyd is not restarted any more; see: ptyd doctor, hostsvc health --reset", reason=reason)
        self._events.emit("ptyd.circuit_opened", reason=reason)
        try:
            await self._index.write(meta.put, meta.CIRCUIT, reason)
        except PtydError as error:
            log.error("that ptyd is not restarted any more is forgotten at the next start", error=str(error))
