"""The datagrams between a shim and whoever is linked to it: a small, frozen protocol.

Owns their layout. A message is one datagram: a byte that says its kind, then a body. Input and wake-ups are
bare bytes because every keystroke pays for them; everything else is JSON, whose unknown keys are ignored, so
that a newer daemon can serve older shims. Kinds are never given a new meaning. Numbers are little-endian.

A daemon's link carries all of them; the end of a direct attachment only INPUT, SIZE and CREDIT to the shim,
and STATE, WAKE, TAKEN, ROOM and DETACHED from it.

Facts travel as the *whole* state of a session and not as events: a lost link costs nothing, the next one
begins with the same message.

Standard library only: every shim imports this.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import Any

VERSION = 1
MAX_INPUT_BYTES = 64 << 10  # of one input message: far below the smallest socket buffer default
MAX_DATAGRAM_BYTES = 160 << 10  # 32 labels at their longest, escaped; below the default socket buffer

Body = dict[str, Any]


class Kind(enum.IntEnum):
    """The first byte of every message."""

    # daemon to shim
    INPUT = ord("i")  # u32 seq, u8 wants an answer, data
    CREDIT = ord("c")  # u64 offset up to which to read the PTY, u32 for how many ms
    # JSON {seq, do: "kill" | "resize" | "signal" | "update" | "look" | "direct" | "detach" | "leave", ...}
    ASK = ord("?")
    HELLO = ord("h")  # JSON {version}; answered by STATE
    WATCH = ord("o")  # u8: whether WAKE is wanted from now on; at first it is not
    SIZE = ord("z")  # u16 rows, u16 cols: the window of a direct attachment that types
    BIND = ord("b")  # the socket file vanished: bind it again
    # shim to daemon
    STATE = ord("S")  # JSON: every fact that changes; the first one carries the ring's memfd
    FAILED = ord("F")  # JSON {code, message}: the program never ran, and nothing is left
    WAKE = ord("w")  # the ring's head has moved; droppable, any other message means it too
    TAKEN = ord("t")  # u32 seq, u8 verdict: the answer to INPUT
    ROOM = ord("r")  # an input queue that refused has room again
    DETACHED = ord("d")  # the last to a direct attachment that somebody ended
    ANSWER = ord("a")  # JSON {seq, ...}: the answer to ASK


class Verdict(enum.IntEnum):
    """What became of an input message. All of it or none of it is taken."""

    ACCEPTED = 0
    FULL = 1
    ENDED = 2
    READ_ONLY = 3
    """Told to a direct attachment only, which may not type."""


_INPUT = struct.Struct("<BIB")
_TAKEN = struct.Struct("<BIB")
_CREDIT = struct.Struct("<BQI")
_SIZE = struct.Struct("<BHH")

WAKE_MESSAGE = bytes([Kind.WAKE])
ROOM_MESSAGE = bytes([Kind.ROOM])
BIND_MESSAGE = bytes([Kind.BIND])
DETACHED_MESSAGE = bytes([Kind.DETACHED])
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


def pack_size(rows: int, cols: int) -> bytes:
    return _SIZE.pack(Kind.SIZE, rows, cols)


def unpack_size(message: bytes) -> tuple[int, int]:
    """Decode a window's size; both are at least 1.

    Raises:
        ValueError: one is 0.
    """
    _, rows, cols = _SIZE.unpack(message)
    if not rows or not cols:
        raise ValueError("a window has at least one row and one column")
    return rows, cols
