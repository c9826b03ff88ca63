"""One session as the daemon sees it: its record, its shim's facts, its link and its ring.

Owns the daemon's end of the link. Every fact in here is the shim's or the
record's; this module derives the state from them by the one table and invents nothing.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import trio

from ptyd import records
from ptyd.daemon.output import Output, RingView, Tail
from ptyd.daemon.pending import ASK_DEADLINE_S, Pending
from ptyd.daemon.poller import Poller
from ptyd.daemon.verdicts import OnVerdict, Verdicts
from ptyd.datagrams import (
    BIND_MESSAGE,
    UNWATCH_MESSAGE,
    WAKE_MESSAGE,
    WATCH_MESSAGE,
    Body,
    Kind,
    Verdict,
    pack_credit,
    pack_input,
    pack_json,
    unpack_json,
    unpack_taken,
)
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.states import SessionEvent, SessionState, next_state
from ptyd.ring import RingError
from ptyd.shim.link import Link, LinkClosed, Passed

MESSAGES_PER_TURN = 32  # of one link
INPUT_BACKLOG_BYTES = 4 << 20  # of input that a shim does not take; half of the link is left for a kill


class Follower(Protocol):
    """Somebody who wants to know when a session's output, facts or input room change."""

    def session_changed(self) -> None: ...


class Stream(Follower, Protocol):
    """A streamed attachment."""

    number: int

    @property
    def detach(self) -> Callable[[], None]: ...


Answer = Callable[[Body | None], None]  # None: the link broke before the answer came


class Session:
    """A session; `record` holds what hardly ever changes, `facts` what the shim said last."""

    def __init__(self, record: Body, poller: Poller, on_change: Callable[[Session, Body], None]) -> None:
        self.id: str = record["id"]
        self._record = record
        self._facts: Body = {}
        self._known: Body | None = None
        self.packed: bytes | None = None  # by `row`, for lists; dropped when anything of it changes
        self.state = SessionState.STARTING
        self._followers: set[Follower] = set()
        self.streams: set[Stream] = set()  # attachments that we serve; direct ones are the shim's to tell
        self.is_resolved = False
        self.born = trio.Event()
        self.room = trio.Event()  # the shim's input queue, which refused, has room again
        self.failure: PtydError | None = None
        self._poller = poller
        self._on_change = on_change
        self._link: Link | None = None
        self._is_deaf = False  # the other end of the link has closed, and may still have said something
        self._mask = select.EPOLLIN
        self._next_seq = 0
        self._answers: dict[int, Answer] = {}
        self._passing = 0  # answers that are to bring descriptors
        self._verdicts = Verdicts()
        self._ring = RingView()
        self._tail: Tail | None = None  # in place of a ring that is gone

    # -- facts -----------------------------------------------------------------------------------------

    @property
    def record(self) -> Body:
        return self._record

    @record.setter
    def record(self, record: Body) -> None:
        self._record, self._known, self.packed = record, None, None

    @property
    def facts(self) -> Body:
        return self._facts

    @facts.setter
    def facts(self, facts: Body) -> None:
        self._facts, self._known, self.packed = facts, None, None

    @property
    def known(self) -> Body:
        """The record, and over it the facts; put together once, for a list of a thousand sessions."""
        if self._known is None:
            self._known = {**self._record, **self._facts}
        return self._known

    @property
    def generation(self) -> int:
        return int(self.record["generation"])

    @property
    def name(self) -> str | None:
        name = self.record.get("name")
        return str(name) if name else None

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.record.get("labels") or {})

    @property
    def is_living(self) -> bool:
        return self.state is not SessionState.EXITED

    def is_reachable(self) -> bool:
        """Tell whether it is known whom to ask: a shim, or, since it is gone for good, somebody else."""
        if self.is_linked:
            return not self._is_deaf
        return self.failure is not None or self.state in (SessionState.EXITED, SessionState.UNSUPERVISED)

    @property
    def has_run(self) -> bool:
        """Tell whether its program is known to have been started."""
        return bool(self.fact("pid"))

    @property
    def is_linked(self) -> bool:
        return self._link is not None

    @property
    def attached(self) -> int:
        """How many attachments there are, streamed and direct."""
        return len(self.streams) + len(self.direct)

    @property
    def direct(self) -> Sequence[int]:
        """The numbers of the direct attachments; none once the shim that has them is gone."""
        found: Sequence[int] | None = self._facts.get("direct") if self._link is not None else None
        return found or ()

    @property
    def exit(self) -> dict[str, int] | None:
        found: dict[str, int] | None = self.known.get("exit")
        return found

    def fact(self, key: str) -> Any:
        return self.known.get(key)

    def move(self, event: SessionEvent) -> None:
        self.state, self.packed = next_state(self.state, event), None

    def take_facts(self, facts: Body) -> None:
        """Take over what the shim says and move through the states it implies."""
        before, self.facts = self.facts, facts
        self.is_resolved = True
        if not before:
            self.move(SessionEvent.FORKED)
        if facts.get("exit") and not before.get("exit"):
            self.move(SessionEvent.LEADER_EXITED)
        if facts.get("killing") and not before.get("killing"):
            self.move(SessionEvent.KILL_REQUESTED)
        if facts.get("ended"):
            self.move(SessionEvent.PROVEN_DEAD)
        self._on_change(self, before)
        self.born.set()

    def take_end(self, record: Body) -> None:
        """Take over an exit record, found at start or written by the zygote."""
        before = self.facts
        end_offset = record.get("end_offset", self.output.head if self.output else 0)
        keys = ("exit", "proof", "ended_at_ms", "pid", "pid_start", "rows", "cols")
        self.record = {**record, "tail": None}
        self.facts = {
            **before,
            **{key: record.get(key) for key in keys},
            "ended": True,
            "killing": False,
        }
        self.facts |= {
            "end_offset": end_offset,
            "exit_offset": record.get("exit_offset") or end_offset,
        }
        if self.output is None:
            self._tail = Tail(records.record_tail(record), end_offset)
        self.is_resolved = True
        self.move(SessionEvent.PROVEN_DEAD)
        self._on_change(self, before)
        self.born.set()
        self.tell_followers()

    # -- the link --------------------------------------------------------------------------------------

    def connect(self, link: Link) -> None:
        """Start listening to the shim at the other end of `link`."""
        self._link = link
        self._is_deaf = False
        self._poller.add(link.fileno(), select.EPOLLIN, self._ready)
        if self._followers:
            self._send(WATCH_MESSAGE)

    def _ready(self, mask: int) -> None:
        link = self._link
        assert link is not None
        try:
            if mask & select.EPOLLOUT:
                link.flush()
                self._want_write(link.wants_write)
            for _ in range(MESSAGES_PER_TURN):
                got = self._receive(link)
                if got is None or got[0] == WAKE_MESSAGE:
                    break  # output first: what else has come, epoll tells again
                self._take(*got)
        except (LinkClosed, RingError, ValueError, LookupError, TypeError, struct.error):
            self._link_lost()
        self.tell_followers()

    def _receive(self, link: Link) -> tuple[bytes, list[int]] | None:
        if not self._ring.is_mapped or self._passing:
            return link.receive_with_fds()
        message = link.receive()
        return None if message is None else (message, [])

    def _take(self, message: bytes, fds: list[int]) -> None:
        match message[0]:
            case Kind.STATE:
                if fds:
                    self._ring.take(fds)
                self.take_facts(unpack_json(message))
            case Kind.TAKEN:
                self._verdicts.take(*unpack_taken(message))
            case Kind.ANSWER:
                body = unpack_json(message)
                if fds:
                    body["fds"] = Passed(fds)
                if settle := self._answers.pop(body["seq"], None):
                    settle(body)
            case Kind.ROOM:
                self.room.set()
                self.room = trio.Event()
            case Kind.FAILED:
                body = unpack_json(message)
                self.failure = PtydError(Code(body["code"]), body["message"])

    @property
    def output(self) -> Output | None:
        """Where to read; None while nobody has said, or while there is no memory to see it."""
        return self._tail or self._ring.reader

    def _want_write(self, wanted: bool) -> None:
        mask = select.EPOLLIN | (select.EPOLLOUT if wanted else 0)
        if self._link is not None and mask != self._mask:
            self._mask = mask
            self._poller.change(self._link.fileno(), mask)

    def _link_lost(self) -> None:
        self.disconnect()
        for answer in [*self._answers.values()]:
            answer(None)
        self._answers.clear()
        self._verdicts.break_off()
        self._on_change(self, self.facts)

    def disconnect(self) -> None:
        if self._link is not None:
            self._poller.remove(self._link.fileno())
            self._link.close()
            self._link = None
            self._mask = select.EPOLLIN
            self._ring.close()

    @property
    def holds_ring(self) -> bool:
        """Tell whether the whole ring is at hand, and not only a tail of it."""
        return self._ring.is_mapped

    def release_ring(self, tail: bytes) -> None:
        """Give the ring's memory back; what is left to read is the tail that the record keeps."""
        if self._ring.is_mapped:
            self._ring.release()
            self._tail = Tail(tail, self.facts["end_offset"])

    def quiet_ms(self) -> int | None:
        """How long ago output came, in ms; None when none ever did, or nobody knows."""
        ring = self._ring.reader
        last = ring.last_output_ms if ring is not None else 0
        return max(0, time.monotonic_ns() // 1_000_000 - last) if last else None

    def tell_followers(self) -> None:
        for follower in list(self._followers):
            follower.session_changed()

    @property
    def is_followed(self) -> bool:
        """Tell whether an attachment or a waiting request is served from it just now."""
        return bool(self._followers)

    def follow(self, follower: Follower) -> None:
        """Begin to be told of changes. Without followers a flooding session does not even wake us."""
        self._followers.add(follower)
        if len(self._followers) == 1:
            self._send(WATCH_MESSAGE)

    def unfollow(self, follower: Follower) -> None:
        self._followers.discard(follower)
        if not self._followers:
            self._send(UNWATCH_MESSAGE)

    # -- asking the shim -------------------------------------------------------------------------------

    def _send(self, message: bytes) -> bool:
        if self._link is None:
            return False
        try:
            sent = self._link.send(message)
        except LinkClosed:
            self._is_deaf = True
            return False  # its end of file comes as an event, and is dealt with there
        self._want_write(self._link.wants_write)
        return sent

    def send_input(self, data: bytes, on_verdict: OnVerdict, is_answered: bool = True) -> None:
        """Pass input on; `on_verdict` gets what became of it (None: not known, the link broke).

        Args:
            is_answered: Otherwise only a refusal is told: one message less for each keystroke.
        """
        if self._link is not None and self._link.backlog_bytes > INPUT_BACKLOG_BYTES:
            on_verdict(Verdict.FULL)
            return
        seq = self._sequence()
        wants_answer = self._verdicts.expect(seq, on_verdict, is_answered)
        if not self._send(pack_input(seq, wants_answer, data)):
            self._verdicts.cancel(seq)
            on_verdict(None if self._link is None else Verdict.FULL)

    def send_credit(self, offset: int, ms: int) -> None:
        self._send(pack_credit(offset, ms))

    def send_bind(self) -> None:
        self._send(BIND_MESSAGE)

    def post(self, body: Body) -> Pending:
        """Send a question now, so that it keeps its place among inputs; the answer is awaited after.

        Raises:
            PtydError: there is no living shim to send it to.
        """
        pending = Pending(self.id, lambda: self.failure or self.gone())
        seq = self._sequence()
        self._answers[seq] = pending.settle
        if not self._send(pack_json(Kind.ASK, {**body, "seq": seq})):
            del self._answers[seq]
            raise self.gone()
        return pending

    async def ask_for_fds(self, body: Body) -> Body:
        """Ask for what comes as descriptors: `fds` of the answer; raises like `ask`."""
        self._passing += 1
        try:
            return await self.ask(body)
        finally:
            self._passing -= 1

    async def ask(self, body: Body, deadline_s: float = ASK_DEADLINE_S) -> Body:
        """Ask the shim and wait for its answer; raises like `post` and `Pending.answer`."""
        return await self.post(body).answer(deadline_s)

    def gone(self) -> PtydError:
        """The error for what only a living shim could do."""
        if self.state is SessionState.EXITED:
            return PtydError(Code.ENDED, f"session {self.id} has ended; its output: ptyd logs {self.id}")
        if self.state is SessionState.UNSUPERVISED:
            return PtydError(
                Code.UNSUPERVISED, f"session {self.id} lost its shim; end it: ptyd kill {self.id}"
            )
        if self._ring.is_out_of_memory:
            return PtydError(Code.BUSY, f"no memory is left for the output of session {self.id}; try again")
        return PtydError(Code.BUSY, f"the shim of session {self.id} has not reported yet; try again")

    def _sequence(self) -> int:
        self._next_seq = (self._next_seq + 1) & 0xFFFFFFFF
        return self._next_seq
