"""The ends of direct attachments: clients that read the ring themselves and type without the daemon.

Owns the shim's half of each pair of sockets, and what its client may do: type and set the size if it may
write, slow its own session down for as long as it makes progress, and nothing else. Whoever says anything
else, or does not take what it is told, loses its end; its session, the daemon and the others notice nothing.

Standard library only.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable

from ptyd.datagrams import (
    DETACHED_MESSAGE,
    ROOM_MESSAGE,
    Body,
    Kind,
    Verdict,
    pack_json,
    pack_taken,
    unpack_credit,
    unpack_input,
    unpack_size,
)
from ptyd.shim.link import Link, LinkClosed
from ptyd.shim.terminal import Terminal

MOST = 64
"""Of one session."""
TELLINGS_BYTES = 1 << 20  # of what one end has not taken: it is told whole states, and may lag by a few
PACE_PROGRESS_BYTES = 64 << 10
TOLD = ("rows", "cols", "exit", "exit_offset", "ended", "proof", "end_offset")
"""Of the session's facts: what a client of ours could not know otherwise."""

Size = tuple[int, int]


class End:
    """The shim's end of one direct attachment."""

    def __init__(self, number: int, sock: socket.socket, may_write: bool, size: Size | None) -> None:
        self.number = number
        self.link = Link(sock, TELLINGS_BYTES)
        self.may_write = may_write
        self.size = size
        self.limit_offset = 0


class DirectEnds:
    """Every direct attachment of one session."""

    def __init__(
        self,
        epoll: select.epoll,
        terminal: Terminal,
        facts: Callable[[], Body],
        resize: Callable[[int, int], None],
        on_change: Callable[[], None],
    ) -> None:
        self._epoll = epoll
        self._terminal = terminal
        self._facts = facts
        self._resize = resize
        self._on_change = on_change
        self._ends: dict[int, End] = {}

    @property
    def numbers(self) -> list[int]:
        """What the attachments are called, oldest first."""
        return [end.number for end in self._ends.values()]

    def open(self, number: int, may_write: bool, size: Size | None) -> socket.socket:
        """Begin an attachment; return the client's half, which is to be closed once it was passed on.

        Raises:
            OSError: there are too many, or no descriptors are left.
        """
        if len(self._ends) >= MOST:
            raise OSError(f"it has {MOST} direct attachments; detach some")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end = End(number, ours, may_write, size)
        self._ends[end.link.fileno()] = end
        self._epoll.register(end.link.fileno(), select.EPOLLIN)
        self._fit(end)
        self._send(end, self._state())
        self._on_change()
        return theirs

    def detach(self, number: int | None) -> int:
        """End the attachment of that number, or all of them; return how many there were."""
        found = [end for end in self._ends.values() if number in (None, end.number)]
        for end in found:
            self._send(end, DETACHED_MESSAGE)
            self._drop(end)
        return len(found)

    # -- telling ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Tell every one that the head has moved."""
        for end in self._ends.values():
            end.link.wake()

    def tell_state(self) -> None:
        self._tell(self._state())

    def tell_room(self) -> None:
        self._tell(ROOM_MESSAGE)

    def _tell(self, message: bytes) -> None:
        for end in list(self._ends.values()):
            self._send(end, message)

    def _state(self) -> bytes:
        facts = self._facts()
        return pack_json(Kind.STATE, {key: facts.get(key) for key in TOLD})

    def _send(self, end: End, message: bytes) -> None:
        try:
            is_taken = end.link.send(message)
        except LinkClosed:
            return  # it is dropped when it was read to its end: its last words may be keys
        if not is_taken:
            self._drop(end)
        elif end.link.wants_write:
            self._epoll.modify(end.link.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _drop(self, end: End) -> None:
        if self._ends.pop(end.link.fileno(), None) is None:
            return
        self._epoll.unregister(end.link.fileno())
        end.link.close()
        self._terminal.lift_limit(end)
        self._on_change()

    # -- hearing ---------------------------------------------------------------------------------------

    def serve(self, fd: int, mask: int) -> None:
        """Deal with what the epoll set said of one of our descriptors; ignores any other."""
        end = self._ends.get(fd)
        if end is None:
            return
        try:
            if mask & select.EPOLLOUT:
                with contextlib.suppress(LinkClosed):
                    end.link.flush()
                if not end.link.wants_write:
                    self._epoll.modify(fd, select.EPOLLIN)
            if mask & ~select.EPOLLOUT and (message := end.link.receive()):
                self._obey(end, message)
        except (LinkClosed, ValueError, struct.error):
            self._drop(end)  # gone, or not speaking our language

    def _obey(self, end: End, message: bytes) -> None:
        match message[0]:
            case Kind.INPUT:
                self._type(end, *unpack_input(message))
            case Kind.SIZE if end.may_write:
                end.size = unpack_size(message)
                self._fit(end)
            case Kind.CREDIT:
                self._limit(end, unpack_credit(message)[0])
            case other:
                raise ValueError(f"no message of a direct attachment: {other}")

    def _type(self, end: End, seq: int, wants_answer: bool, data: bytes) -> None:
        verdict = Verdict.READ_ONLY
        if end.may_write:
            self._fit(end)  # the last one to type sets the size
            verdict = Verdict.ENDED if self._facts()["ended"] else self._terminal.accept(data)
        if wants_answer or verdict is not Verdict.ACCEPTED:
            self._send(end, pack_taken(seq, verdict))

    def _fit(self, end: End) -> None:
        facts = self._facts()
        if end.may_write and end.size not in (None, (facts["rows"], facts["cols"])) and not facts["ended"]:
            assert end.size is not None
            self._resize(*end.size)

    def _limit(self, end: End, offset: int) -> None:
        """Let it hold its session back, but only while it reads on: as the daemon does with its own."""
        facts = self._facts()
        if facts["killing"] or facts["ended"]:
            return
        is_moving = offset - end.limit_offset >= PACE_PROGRESS_BYTES or self._terminal.ring.head < offset
        if is_moving:
            end.limit_offset = offset
            self._terminal.set_limit(end, offset)
