"""The link: the small, frozen protocol between the daemon and a shim.

Owns the messages and the non-blocking SEQPACKET socket they travel in. Decides nothing.

A message is one datagram: a byte that says its kind, then a body. Input and wake-ups are bare bytes
because every keystroke pays for them; everything else is JSON, whose unknown keys are ignored, so that
a newer daemon can serve older shims. Kinds are never given a new meaning.

Facts travel as the *whole* state of a session and not as events: a lost link costs nothing, the next
one begins with the same message.

Standard library only: every shim imports this.
"""

from __future__ import annotations

import array
import enum
import json
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

VERSION = 1
MAX_INPUT_BYTES = 64 << 10  # of one input message: far below the smallest socket buffer default
MAX_DATAGRAM_BYTES = 160 << 10  # 32 labels at their longest, escaped; below the default socket buffer
QUEUE_BYTES = 8 << 20  # of messages that the other end does not take just now
MESSAGE_COST_BYTES = 512  # of each, beside its own: so that a queue of keystrokes is bounded, too
INPUT_QUEUE_BYTES = 1 << 20  # accepted input that the program has not read: a large paste

EXIT_STOPPED, EXIT_TEMPORARY, EXIT_CONFIG = 0, 75, 78
"""What a daemon ends with when its zygote is not to start another. Source: sysexits.h"""

Body = dict[str, Any]


class Kind(enum.IntEnum):
    """The first byte of every message."""

    # daemon to shim
    INPUT = ord("i")  # u32 seq, u8 wants an answer, data
    CREDIT = ord("c")  # u64 offset up to which to read the PTY, u32 for how many ms
    ASK = ord("?")  # JSON {seq, do: "kill" | "resize" | "signal" | "update" | "look" | "leave", ...}
    HELLO = ord("h")  # JSON {version}; answered by STATE
    WATCH = ord("o")  # u8: whether WAKE is wanted from now on; at first it is not
    BIND = ord("b")  # the socket file vanished: bind it again
    # shim to daemon
    STATE = ord("S")  # JSON: every fact that changes; the first one carries the ring's memfd
    FAILED = ord("F")  # JSON {code, message}: the program never ran, and nothing is left
    WAKE = ord("w")  # the ring's head has moved; droppable, any other message means it too
    TAKEN = ord("t")  # u32 seq, u8 verdict: the answer to INPUT
    ROOM = ord("r")  # an input queue that refused has room again
    ANSWER = ord("a")  # JSON {seq, ...}: the answer to ASK


class Verdict(enum.IntEnum):
    """What became of an input message. All of it or none of it is taken."""

    ACCEPTED = 0
    FULL = 1
    ENDED = 2


_INPUT = struct.Struct("<BIB")
_TAKEN = struct.Struct("<BIB")
_CREDIT = struct.Struct("<BQI")
# Room for any message, once for all: an allocation of this size can be a mapping of its own each time.
_ROOM = memoryview(bytearray(MAX_DATAGRAM_BYTES))

WAKE_MESSAGE = bytes([Kind.WAKE])
ROOM_MESSAGE = bytes([Kind.ROOM])
BIND_MESSAGE = bytes([Kind.BIND])
WATCH_MESSAGE = bytes([Kind.WATCH, 1])
UNWATCH_MESSAGE = bytes([Kind.WATCH, 0])


def pack_json(kind: Kind, body: Body) -> bytes:
    return bytes([kind]) + json.dumps(body).encode("ascii")


def unpack_json(message: bytes) -> Body:
    """Decode a JSON body.

    Raises:
        ValueError: it is not a JSON object.
    """
    body = json.loads(message[1:])
    if not isinstance(body, dict):
        raise ValueError("a link message's body must be an object")
    return body


def pack_input(seq: int, wants_answer: bool, data: bytes) -> bytes:
    return _INPUT.pack(Kind.INPUT, seq, wants_answer) + data


def unpack_input(message: bytes) -> tuple[int, bool, bytes]:
    _, seq, wants_answer = _INPUT.unpack_from(message)
    return seq, bool(wants_answer), message[_INPUT.size :]


def pack_taken(seq: int, verdict: Verdict) -> bytes:
    return _TAKEN.pack(Kind.TAKEN, seq, verdict)


def unpack_taken(message: bytes) -> tuple[int, Verdict]:
    _, seq, verdict = _TAKEN.unpack(message)
    return seq, Verdict(verdict)


def pack_credit(limit_offset: int, ms: int) -> bytes:
    return _CREDIT.pack(Kind.CREDIT, limit_offset, ms)


def unpack_credit(message: bytes) -> tuple[int, int]:
    _, limit_offset, ms = _CREDIT.unpack(message)
    return limit_offset, ms


class LinkClosed(Exception):
    """The other end is gone."""


class Link:
    """One end of a link: sends never block, what does not fit now waits in a short queue."""

    def __init__(self, sock: socket.socket, queue_bytes: int = QUEUE_BYTES) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.is_watching = False  # the other end wants to be woken
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._queue_bytes = queue_bytes
        self.backlog_bytes = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._waiting)

    def wake(self) -> None:
        """Tell a reader that the head has moved. A full queue is fine: it will load the head anyway."""
        try:
            self.sock.send(WAKE_MESSAGE)
        except OSError:
            pass  # full, or closed: then reading from it says so

    def send(self, message: bytes, fds: Sequence[int] = ()) -> bool:
        """Send now or queue; False when even the queue is full and nothing was taken.

        Raises:
            LinkClosed: the other end is gone.
        """
        if not self._waiting and self.send_now(message, fds):
            return True
        if self.backlog_bytes > self._queue_bytes:
            return False
        self._waiting.append((message, tuple(fds)))
        self.backlog_bytes += len(message) + MESSAGE_COST_BYTES
        return True

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        while self._waiting and self.send_now(*self._waiting[0]):
            message, _ = self._waiting.popleft()
            self.backlog_bytes -= len(message) + MESSAGE_COST_BYTES

    def send_now(self, message: bytes, fds: Sequence[int] = ()) -> bool:
        """Send without queueing; False when it does not fit now."""
        try:
            if fds:
                self.sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            else:
                self.sock.send(message)
        except BlockingIOError:
            return False
        except OSError as err:
            raise LinkClosed(str(err)) from err
        return True

    def receive(self) -> bytes | None:
        """Receive one message; None when there is none just now.

        Raises:
            LinkClosed: the other end is gone, and everything it had sent was received.
        """
        try:
            count = self.sock.recv_into(_ROOM)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # The other end closed with messages of ours unread. The kernel says so once, *before* what
            # it had sent us: its last words are still to be had.
            return self.receive()
        except OSError as err:
            raise LinkClosed(str(err)) from err
        if not count:
            raise LinkClosed("end of file")
        return _ROOM[:count].tobytes()

    def receive_with_fds(self, most: int = 3) -> tuple[bytes, list[int]] | None:
        """Like `receive`, for messages that may carry descriptors."""
        try:
            # Not socket.recv_fds: in Python 3.11 it drops the flag, and programs would inherit them.
            room = socket.CMSG_LEN(most * array.array("i").itemsize)
            message, told, _, _ = self.sock.recvmsg(MAX_DATAGRAM_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return self.receive_with_fds(most)
        except OSError as err:
            raise LinkClosed(str(err)) from err
        if not message:
            raise LinkClosed("end of file")
        return message, [fd for _, _, data in told for fd in array.array("i", data)]

    def close(self) -> None:
        self.sock.close()
