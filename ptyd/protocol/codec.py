"""Framing: bytes to MessagePack-RPC messages and back. Only this and `replies` import msgpack.

Strategy: `scanner` finds where a message ends, and msgpack gets the bytes of whole messages only. So
an incomplete message holds its bytes in memory, never a tree of objects; and one that msgpack
cannot build (a duplicate key, an ext type) has known bounds all the same: its sender gets a typed
answer and the stream goes on. (An exception inside msgpack's own streaming Unpacker leaves that
unusable.)

What cannot be framed is fatal: `FramingError`. What can be framed but not accepted has
`Unacceptable` for its params.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md,
https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md; protocol.md, "Framing".
"""

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgpack

from ptyd.protocol.errors import PtydError
from ptyd.protocol.limits import MAX_MSGID, TO_DAEMON, FrameLimits
from ptyd.protocol.scanner import FramingError, Scanner

__all__ = [
    "UNPACK",
    "Decoder",
    "FramingError",
    "Message",
    "Notification",
    "Packed",
    "Request",
    "Response",
    "Unacceptable",
    "message_from",
    "open_list",
    "open_map",
    "pack_error",
    "pack_notification",
    "pack_output_header",
    "pack_pairs",
    "pack_request",
    "pack_response",
    "valid_utf8",
]

REQUEST: Final = 0  # [0, msgid, method, params]
RESPONSE: Final = 1  # [1, msgid, error, result]
NOTIFICATION: Final = 2  # [2, method, params]


class Unacceptable(NamedTuple):
    """Stands for params that were framed but cannot be used at all."""

    reason: str


class Request(NamedTuple):
    msgid: int
    method: str
    params: object


class Response(NamedTuple):
    msgid: int
    error: object
    result: object


class Notification(NamedTuple):
    method: str
    params: object


Message = Request | Response | Notification


# --- bytes to messages ---------------------------------------------------------------------------


class _BadMap(ValueError):
    """Raised out of msgpack by `_build_map`. Its own ValueError is about a key: the scanner saw the rest."""


def _build_map(pairs: list[tuple[str | bytes, Any]]) -> dict[str | bytes, Any]:
    # Two readers of {"force": false, "force": true} may see different things: refused.
    built = dict(pairs)
    if len(built) != len(pairs):
        raise _BadMap("a map has the same key twice")
    return built


UNPACK: Final[dict[str, Any]] = {
    "raw": False,
    "unicode_errors": "surrogateescape",  # bytes in a str survive: Neovim sends every string so
    "strict_map_key": True,  # str or bytes, looked at before the map is built
    "object_pairs_hook": _build_map,
}


class Decoder:
    """A stream of bytes in, whole messages out. Iterate after each `feed`.

    An instance is of no use any more once it has raised FramingError; it raises it again.
    """

    def __init__(self, limits: FrameLimits = TO_DAEMON) -> None:
        self._buffer = bytearray()
        self._start = 0  # of the first message that was not handed out
        self._scanner = Scanner(limits)
        self._dead: FramingError | None = None

    def feed(self, data: bytes) -> None:
        """Add bytes as they came: any part of a message, or many of them."""
        if self._start:
            del self._buffer[: self._start]
            self._scanner.shift(self._start)
            self._start = 0
        self._buffer += data

    @property
    def pending_bytes(self) -> int:
        """Bytes held of messages not handed out yet."""
        return len(self._buffer) - self._start

    def __iter__(self) -> Iterator[Message]:
        """Every message that is complete.

        Raises:
            FramingError: after the messages before it were handed out.
        """
        if self._dead:
            raise self._dead
        try:
            while self._scanner.scan(self._buffer):
                yield self._take()
        except FramingError as error:
            self._dead = error
            self._buffer.clear()
            self._start = 0
            raise

    def _take(self) -> Message:
        start, end, fault = self._start, self._scanner.end, self._scanner.fault
        self._start = end
        self._scanner.reset(end)
        with memoryview(self._buffer) as whole, whole[start:end] as frame:
            return _decode(frame, fault)


def _decode(frame: memoryview, fault: str) -> Message:
    if not fault:
        try:
            return message_from(msgpack.unpackb(frame, **UNPACK))
        except _BadMap as error:
            fault = str(error)
        except ValueError:
            fault = "a map has a key that is no string"
    return _message_without_params(frame, fault)


def message_from(values: object) -> Message:
    if type(values) is list and values and type(values[0]) is int:  # a pattern takes True for 1
        match values:
            case [0, msgid, str(method), params]:
                return Request(_checked_msgid(msgid), method, params)
            case [2, str(method), params]:
                return Notification(method, params)
            case [1, msgid, error, result]:
                return Response(_checked_msgid(msgid), error, result)
    raise FramingError("a message is no MessagePack-RPC request, response or notification")


def _checked_msgid(msgid: object) -> int:
    if type(msgid) is int and 0 <= msgid <= MAX_MSGID:
        return msgid
    raise FramingError("a message id is no unsigned integer of 32 bits")


def _message_without_params(frame: memoryview, fault: str) -> Message:
    """A request or notification whose envelope is sound, with its params left out.

    Raises:
        FramingError: the fault is in the envelope, or in a response.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(frame), **UNPACK)
    unpacker.feed(frame)
    try:
        count = unpacker.read_array_header()
        envelope = [unpacker.unpack() for _ in range(count - 1)]
    except (msgpack.UnpackException, ValueError):
        raise FramingError(fault) from None
    if envelope[:1] == [RESPONSE]:
        raise FramingError(fault)
    return message_from([*envelope, Unacceptable(fault)])


def valid_utf8(text: str) -> str:
    """What came as a str, fit to be sent back as one: bytes that are no UTF-8 become U+FFFD.

    Many a client decodes strictly: an echo of its own bytes must not break it.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# --- messages to bytes ---------------------------------------------------------------------------

# One for all: a new Packer allocates its buffer anew. The first takes half the time, but no str with bytes
# that are no UTF-8, which come from the wire and go back as they came.
_packer: Final = msgpack.Packer()
_lenient_packer: Final = msgpack.Packer(unicode_errors="surrogateescape")


def _pack(value: object) -> bytes:
    try:
        return _packer.pack(value)  # type: ignore[no-any-return]
    except UnicodeEncodeError:
        return _lenient_packer.pack(value)  # type: ignore[no-any-return]


_FIXMAP_PAIRS: Final = 15  # up to here a map's header is one byte, and above three


class Packed:
    """A value that is packed already, in pieces: an answer made of it is put together once."""

    __slots__ = ("pieces",)

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces


def open_map(pairs: dict[str, Any], more: int) -> bytes:
    """A map's header and its first pairs. `more` others must follow, packed without a header."""
    return _packer.pack_map_header(len(pairs) + more) + pack_pairs(pairs)  # type: ignore[no-any-return]


def pack_pairs(pairs: dict[str, Any]) -> bytes:
    """The pairs of a map without its header."""
    return _pack(pairs)[1 if len(pairs) <= _FIXMAP_PAIRS else 3 :]


def open_list(key: str, count: int) -> bytes:
    """A pair's key and the header of the array that is its value. `count` packed items must follow."""
    return _pack(key) + _packer.pack_array_header(count)  # type: ignore[no-any-return]


def pack_request(msgid: int, method: str, params: dict[str, Any]) -> bytes:
    return _pack((REQUEST, msgid, method, (params,)))


def pack_response(msgid: int, result: object) -> bytes:
    if type(result) is not Packed:
        return _pack((RESPONSE, msgid, None, result))
    return b"".join((_pack((RESPONSE, msgid, None, None))[:-1], *result.pieces))


def pack_error(msgid: int, error: PtydError, as_map: bool) -> bytes:
    return _pack((RESPONSE, msgid, error.to_wire(as_map), None))


def pack_notification(method: str, params: dict[str, Any]) -> bytes:
    return _pack((NOTIFICATION, method, (params,)))


def _fixstr(text: str) -> bytes:
    return bytes([0xA0 | len(text)]) + text.encode()


# [2, "session.output", [{"attachment": uint32, "offset": uint64, "data": bin32}]]
_OUTPUT_TO_ATTACHMENT: Final = (
    b"\x93\x02" + _fixstr("session.output") + b"\x91\x83" + _fixstr("attachment") + b"\xce"
)
_OUTPUT_TO_OFFSET: Final = _fixstr("offset") + b"\xcf"
_OUTPUT_TO_LENGTH: Final = _fixstr("data") + b"\xc6"
_OUTPUT: Final = struct.Struct(
    f">{len(_OUTPUT_TO_ATTACHMENT)}sI{len(_OUTPUT_TO_OFFSET)}sQ{len(_OUTPUT_TO_LENGTH)}sI"
)


def pack_output_header(attachment: int, offset: int, length: int) -> bytes:
    """All of a `session.output` but its data; exactly `length` raw bytes must follow on the wire.

    The data comes last in the message so that the two can leave by one sendmsg, uncopied.
    """
    return _OUTPUT.pack(
        _OUTPUT_TO_ATTACHMENT, attachment, _OUTPUT_TO_OFFSET, offset, _OUTPUT_TO_LENGTH, length
    )
