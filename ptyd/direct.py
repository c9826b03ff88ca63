"""A direct attachment, the client's half: the ring read in place, keys straight to the shim.

Owns the mapping of the ring (which the kernel lets nobody but the shim write) and one socket to the shim. One
process stands between the program and its reader, and the daemon is not it: its end is not even noticed.
Shows what happens as the notifications and responses that a streamed attachment gets, so that whoever
understands those understands this. Never blocks; wait for `fileno()` to be readable, unless there `is_more`.

    daemon ── attach {via: "shm"} ──► reply + [memfd of the ring, end of a socket pair]
    shim   ── "the head has moved", facts ──► us;     us ── input, size, how far we have read ──► shim

Source: protocol.md, "Direct attach"
"""

from __future__ import annotations

import mmap
import os
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from ptyd.datagrams import (
    MAX_DATAGRAM_BYTES,
    WAKE_MESSAGE,
    Body,
    Kind,
    Verdict,
    pack_credit,
    pack_input,
    pack_size,
    unpack_json,
    unpack_taken,
)
from ptyd.protocol.connection import ClientEvent, NotificationReceived, ResponseReceived
from ptyd.protocol.errors import Code, PtydError
from ptyd.reading import Reading
from ptyd.ring import RingError, RingReader

CHUNK_BYTES: Final = 256 << 10
"""Read at a time: the copy of more would only fall out of the processor's cache."""
NOT_DIRECT: Final = frozenset({Code.NO_SHM, Code.NO_SPACE, Code.BUSY, Code.PROTOCOL_VIOLATION})
"""After these an attach by stream may still work."""
FLOOD_BYTES: Final = 4096  # after this much at once more than one wake-up has probably come
DATAGRAMS_PER_TURN: Final = 64


class Direct:
    """A direct attachment.

    Args:
        reply: What the attach answered.
        fds: What came with it: the ring's memory and a socket. Both are ours from now on.
        is_paced: The program waits for us, as long as we read on, before anything is overwritten.

    Raises:
        PtydError: protocol_violation; what came is no ring and no socket.
    """

    def __init__(self, reply: Mapping[str, Any], fds: list[int], *, is_paced: bool) -> None:
        self.number: int = reply["attachment"]
        self.is_lost = False
        self._reading = Reading(reply["offset"])
        self._facts: Body = {}
        self._outgoing: deque[bytes] = deque()
        self._requests: set[int] = set()
        self._seq = 0
        self._is_flooded = False
        self._is_paced = is_paced
        self._credited = 0
        try:
            self._ring, self._memory = _open_ring(fds)
            self._socket = socket.socket(fileno=fds.pop(0))
        except (OSError, ValueError, IndexError, RingError) as error:
            raise PtydError(Code.PROTOCOL_VIOLATION, f"the attach brought no ring: {error}") from error
        finally:
            for fd in fds:
                os.close(fd)
        self._socket.setblocking(False)
        self._credit()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Detach. Harmless when done twice."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            self._ring.release()
            self._memory.close()

    # -- in --------------------------------------------------------------------------------------------

    @property
    def is_more(self) -> bool:
        """Whether `receive` would have something right now, whatever the socket says."""
        return self._reading.has_more(self._ring, self._facts)

    def receive(self, most: int = CHUNK_BYTES) -> list[ClientEvent] | None:
        """Return what has come, perhaps nothing; None when the shim is gone and all it left was read."""
        heard = self._hear()
        due = self._reading.next(self._ring, self._facts, most)
        self._is_flooded = any(len(fields.get("data", b"")) >= FLOOD_BYTES for _, fields in due)
        if self._is_paced:
            self._credit()
        heard += [
            NotificationReceived(method, {"attachment": self.number, **fields}) for method, fields in due
        ]
        return None if self.is_lost and not heard else heard

    def _hear(self) -> list[ClientEvent]:
        heard: list[ClientEvent] = []
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                message = self._socket.recv(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                self.is_lost = True
                break
            if message != WAKE_MESSAGE:
                heard += self._understand(message)
            elif not self._is_flooded:
                break  # output first: what else has come, the next poll tells
        return heard

    def _understand(self, message: bytes) -> list[ClientEvent]:
        match message[0]:
            case Kind.STATE:
                self._facts = unpack_json(message)
            case Kind.TAKEN:
                return [self._verdict(*unpack_taken(message))]
            case Kind.DETACHED:
                self._reading.is_over = True
                fields = {"attachment": self.number, "reason": "requested"}
                return [NotificationReceived("session.detached", fields)]
        return []

    def _verdict(self, seq: int, verdict: Verdict) -> ClientEvent:
        error = _ERRORS.get(verdict)
        if seq in self._requests:
            self._requests.discard(seq)
            return ResponseReceived(seq, None, None if error is None else PtydError(*error))
        code, text = error or _ERRORS[Verdict.ENDED]
        return NotificationReceived("session.input_refused", {"code": code.value, "message": text})

    # -- out -------------------------------------------------------------------------------------------

    @property
    def is_sending(self) -> bool:
        """Whether something waits until the socket is writable."""
        return bool(self._outgoing)

    def type(self, data: bytes, *, is_request: bool = False) -> int:
        """Send input, now or when there is room; with `is_request` a response of this number follows.

        A refusal is told in any case, as `session.input_refused` where nobody asked.

        Args:
            data: At most MAX_INPUT_BYTES (64 KiB); taken whole or not at all.
            is_request: Whether it is to be answered.
        """
        seq = self._next_seq()
        if is_request:
            self._requests.add(seq)
        self._send(pack_input(seq, is_request, data))
        return seq

    def resize(self, rows: int, cols: int) -> None:
        """Tell the size of our window; the last one to type sets the session's."""
        self._send(pack_size(rows, cols))

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        try:
            while self._outgoing:
                self._socket.send(self._outgoing[0])
                self._outgoing.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._outgoing.clear()  # the next `receive` says that the shim is gone

    def _send(self, message: bytes) -> None:
        self._outgoing.append(message)
        self.flush()

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        return self._seq

    def _credit(self) -> None:
        """Say how far the program may write; again only when that is worth a message."""
        limit = self._reading.offset + self._ring.capacity
        if self._is_paced and limit - self._credited >= self._ring.capacity // 4:
            self._credited = limit
            self._send(pack_credit(limit, 0))


_ERRORS: Final = {
    Verdict.FULL: (Code.INPUT_FULL, "the session does not read its input; nothing was accepted"),
    Verdict.ENDED: (Code.ENDED, "the session takes no more input"),
    Verdict.READ_ONLY: (Code.READ_ONLY, "this attachment is for reading only"),
}


def _open_ring(fds: list[int]) -> tuple[RingReader, mmap.mmap]:
    """Map the first of the descriptors and take it off the list."""
    memory = mmap.mmap(fds[0], os.fstat(fds[0]).st_size, prot=mmap.PROT_READ)
    os.close(fds.pop(0))
    return RingReader(memoryview(memory)), memory
