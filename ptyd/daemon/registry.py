"""The registry: every session of this runtime directory, by id and by name.

Owns the table of sessions, their births and ends in it, and what is kept of the ended ones. All that it
knows it can learn again from the runtime directory: a daemon that dies takes nothing along.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterator

import trio

from ptyd import paths, procs, records
from ptyd.daemon import adoption
from ptyd.daemon.config import Config
from ptyd.daemon.ended import EndedSessions
from ptyd.daemon.fences import Fences
from ptyd.daemon.poller import Poller
from ptyd.daemon.session import Session
from ptyd.datagrams import Body
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog
from ptyd.protocol.states import SessionState

log = get_logger()

BIRTH_DEADLINE_S = 30.0  # a program on a filesystem that hangs; its session stays `starting` meanwhile
RING_LOOK_S = 1.0  # how often a ring that outlived its shim is looked at for readers


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Registry:
    """The table of sessions."""

    def __init__(
        self,
        runtime: paths.Runtime,
        config: Config,
        poller: Poller,
        events: EventLog,
        nursery: trio.Nursery,
    ) -> None:
        self.sessions: dict[str, Session] = {}
        self.fences = Fences(runtime.sessions_fd, now_ms)
        self.unreadable: set[str] = set()
        self.unborn: set[str] = set()  # ids that may get a record any moment; nobody has told us of them
        self.on_adopted: Callable[[Session], Awaitable[None]] | None = None
        self.progress = trio.Event()
        self._runtime = runtime
        self.config = config
        self._poller = poller
        self._events = events
        self._nursery = nursery
        self._boot_id = procs.boot_id()
        self._ended = EndedSessions()

    # -- looking up ------------------------------------------------------------------------------------

    def find(self, id_or_name: str) -> Session | None:
        """Find by id, then by the name of a living session, then by that of the newest ended one."""
        if session := self.sessions.get(id_or_name):
            return session
        named = [session for session in self.sessions.values() if session.name == id_or_name]
        return max(
            named,
            key=lambda session: (session.is_living, session.record["created_at_ms"]),
            default=None,
        )

    def get(self, id_or_name: str) -> Session:
        """Find a session.

        Raises:
            PtydError: `not_found`.
        """
        if session := self.find(id_or_name):
            return session
        raise PtydError(Code.NOT_FOUND, f"no session {id_or_name}; see: ptyd ls --all")

    def get_living(self, id_or_name: str) -> Session:
        """Find a session that has not ended.

        Raises:
            PtydError: `not_found` or `ended`.
        """
        session = self.get(id_or_name)
        if not session.is_living:
            raise session.gone()
        return session

    def select(self, labels: dict[str, str]) -> list[Session]:
        if not labels:
            return [*self.sessions.values()]
        return [s for s in self.sessions.values() if labels.items() <= s.labels.items()]

    @property
    def is_complete(self) -> bool:
        unknown = self.unreadable or self.unborn
        return not unknown and all(session.is_resolved for session in self.sessions.values())

    def living(self) -> Iterator[Session]:
        return (session for session in self.sessions.values() if session.is_living)

    def add(self, record: Body) -> Session:
        """Enter a session into the table; what it is will be told by its shim or its record."""
        session = self.sessions[record["id"]] = Session(record, self._poller, self._changed)
        return session

    # -- change ----------------------------------------------------------------------------------------

    def _changed(self, session: Session, before: Body) -> None:
        """A session's facts or link changed: say so, and follow up."""
        facts = session.facts
        if facts and not before:
            self._events.emit(
                "session.spawned", session.id, generation=session.generation, pid=facts.get("pid")
            )
        self._tell_direct(session, set(before.get("direct") or ()) if before else set(session.direct))
        if facts.get("exit") and not before.get("exit"):
            self._events.emit("session.exited", session.id, exit=facts["exit"])
        if facts.get("killing") and not before.get("killing"):
            self._events.emit("session.killing", session.id)
        if facts.get("ended") and not before.get("ended"):
            self._events.emit("session.ended", session.id, exit=facts.get("exit"), proof=facts.get("proof"))
            self._nursery.start_soon(self._settle_end, session)
        if not session.is_linked:
            self._link_lost(session)
        self._note_progress()

    def _tell_direct(self, session: Session, before: set[int]) -> None:
        """Tell of direct attachments that came and went: they do so without us."""
        now = set(session.direct)
        for number in sorted(now - before):
            self._events.emit("session.attached", session.id, attachment=number)
        for number in sorted(before - now):
            self._events.emit("session.detached", session.id, attachment=number)

    def _note_progress(self) -> None:
        self.progress.set()
        self.progress = trio.Event()

    def _link_lost(self, session: Session) -> None:
        if session.failure is not None:
            self.drop(session)  # it never ran, and its shim has said so
        elif session.is_living:
            self._nursery.start_soon(self._look_again, session)
        elif session.holds_ring:
            self._nursery.start_soon(self._release_ring, session)

    async def _release_ring(self, session: Session) -> None:
        """Give an ended session's ring back, but not under a reader, nor sooner than a shim would."""
        if session.fact("proof") == "zygote_echild":
            await trio.sleep(self.config.ring_linger_s)
        while session.attached:  # noqa: ASYNC110 - an ended session: rare, and nobody is in a hurry
            await trio.sleep(RING_LOOK_S)
        session.release_ring(self._kept_tail(session))

    def _kept_tail(self, session: Session) -> bytes:
        """Return the tail of output that an ended session's record keeps."""
        try:
            record = records.read_record(self._runtime.sessions_fd, session.id)
        except records.RecordError as err:
            log.warning("record", error=str(err))
            record = None
        return records.record_tail(record or {})

    async def _look_again(self, session: Session) -> None:
        """A link broke: the shim died, or dropped us; its record and its pid tell which."""
        try:
            record = records.read_record(self._runtime.sessions_fd, session.id)
        except records.RecordError as err:
            log.error("record", error=str(err))
            self.unreadable.add(session.id)
            return
        if record is not None:
            session.record = {
                **session.record,
                **{k: record[k] for k in ("shim_pid", "shim_start", "boot_id")},
            }
            await adoption.adopt(self._runtime, session)
        elif not session.has_run:
            records.close_birth(self._runtime.sessions_fd, session.id, ())
            adoption.settle_gone(self._runtime, session)
        else:
            log.error("a living session's record was removed", session=session.id)
            self.unreadable.add(session.id)
        if session.failure is not None:
            self.drop(session)
        if session.state is SessionState.UNSUPERVISED:
            self._events.emit("session.unsupervised", session.id)
            log.warning("shim lost", session=session.id)
        self._note_progress()

    async def _settle_end(self, session: Session) -> None:
        """Keep ended sessions within their bounds."""
        if self.sessions.get(session.id) is not session:
            return  # it is forgotten already
        for old in self._ended.add(session):
            self._dismiss(old)
        limit_ms = now_ms() - int(self.config.keep_ended_s * 1000)
        for old in self._ended.overdue(self.config.keep_ended, limit_ms):
            self.forget(old)
        self.fences.expire(lambda session_id: session_id in self.sessions)

    def dismiss_ended(self) -> None:
        """Let the shims of all ended sessions leave; what is left to read is what the records keep."""
        for session in self.sessions.values():
            if not session.is_living:
                self._dismiss(session)

    def _dismiss(self, session: Session) -> None:
        """Tell the shim of an ended session that nobody needs its ring any more."""
        try:
            session.post({"do": "leave"})
        except PtydError:
            return

    def forget(self, session: Session) -> None:
        """Drop an ended session: its record, its ring, its shim."""
        self._dismiss(session)
        records.remove(self._runtime.sessions_fd, session.id + records.RECORD_SUFFIX)
        records.remove(self._runtime.sessions_fd, session.id + records.SOCKET_SUFFIX)
        self.drop(session)
        self._events.emit("session.forgotten", session.id)

    def drop(self, session: Session) -> None:
        """Take a session out of the table: it never ran, or nothing is to be known of it any more."""
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id]
        self._ended.discard(session)
        session.disconnect()
        session.born.set()
        self._note_progress()

    # -- finding what is there -------------------------------------------------------------------------

    def load(self) -> None:
        """List the runtime directory once and begin to adopt what it holds."""
        # Births before records: whoever is born meanwhile is found as the one or as the other.
        for session_id in records.list_sessions(self._runtime.sessions_fd).births:
            if session_id not in self.unborn and session_id not in self.sessions:
                self.unborn.add(session_id)
                self._nursery.start_soon(self._await_birth, session_id)
        listing = records.list_sessions(self._runtime.sessions_fd)
        for complaint in self.fences.load(listing.fences):
            log.error("fence", error=complaint)
        for draft in listing.drafts:
            if procs.read_stat(records.draft_writer(draft)) is None:
                records.remove(self._runtime.sessions_fd, draft)
        for session_id in listing.records:
            self.notice(session_id)

    async def _await_birth(self, session_id: str) -> None:
        """Somebody whom the daemon before us asked for a session may still create its record."""
        while records.is_birth_pending(  # noqa: ASYNC110 - a file's lock gives no event
            self._runtime.sessions_fd, session_id
        ):
            await trio.sleep(adoption.RETRY_S)
        self.notice(session_id)
        self.unborn.discard(session_id)
        self._note_progress()

    def notice(self, session_id: str) -> None:
        """A record was seen: take it in, unless its shim tells us more than it could."""
        known = self.sessions.get(session_id)
        if known is not None and known.is_linked:
            return
        try:
            record = records.read_record(self._runtime.sessions_fd, session_id)
        except records.RecordError as err:
            log.error("record", error=str(err))
            self.unreadable.add(session_id)
            return
        self.unreadable.discard(session_id)
        if record is None:
            return
        if known is not None:
            # While its shim lives, an adoption is under way: it brings the ring, and not only a tail.
            if record.get("ended") and known.is_living and adoption.shim_is_gone(record):
                known.take_end(record)
            return
        session = self.add({**record, "tail": None})
        end = record if record.get("ended") else adoption.end_by_reboot(record, self._boot_id)
        if end is not None and adoption.shim_is_gone(record):
            session.take_end(end)
        else:
            self._nursery.start_soon(self._adopt, session, end)

    async def _adopt(self, session: Session, end: Body | None) -> None:
        """Link a session to its shim; an ended one, whose shim keeps the ring a while, has its record too."""
        with trio.move_on_after(math.inf if end is None else adoption.RING_DEADLINE_S):
            await adoption.adopt(self._runtime, session)
            if session.failure is not None:
                self.drop(session)
            await session.born.wait()
        if end is not None and session.is_living:
            session.disconnect()
            session.take_end(end)
        self._note_progress()
        if self.on_adopted is not None:
            await self.on_adopted(session)

    async def settle(self) -> None:
        """Wait until every session is resolved, or no more seem to be about to be."""
        while not self.is_complete:
            with trio.move_on_after(adoption.SETTLE_S) as scope:
                await self.progress.wait()
            if scope.cancelled_caught:
                return

    def unsupervised_ended(self, session_id: str) -> None:
        """The zygote says that nobody is left of a session without a shim."""
        self.notice(session_id)
        session = self.sessions.get(session_id)
        if session is not None and session.holds_ring and not session.is_living:
            self._keep_output(session)

    def _keep_output(self, session: Session) -> None:
        """Complete the zygote's exit record by what only we can still see: where the output ended."""
        output, end_offset = session.output, session.facts["end_offset"]
        assert output is not None
        _, tail = output.read(max(output.start, end_offset - records.TAIL_BYTES), records.TAIL_BYTES)
        try:
            record = records.read_record(self._runtime.sessions_fd, session.id)
            if record is not None and record.get("ended") and "end_offset" not in record:
                offsets = {"exit_offset": session.facts["exit_offset"], "end_offset": end_offset}
                records.write_exit(self._runtime.sessions_fd, session.id, {**record, **offsets}, tail)
        except (OSError, records.RecordError) as err:
            log.warning("record", session=session.id, error=str(err))

    def socket_vanished(self, session_id: str) -> None:
        """Somebody removed a shim's socket file: have it bound again."""
        session = self.sessions.get(session_id)
        if session is not None and session.is_living:
            session.send_bind()
