"""Params that are right, for tests that make them wrong in one place each."""

import struct
from typing import Any, Final

from ptyd.protocol.codec import Decoder, Message

SMALLEST: Final[dict[str, dict[str, Any]]] = {
    "hello": {"client": "test/1", "protocols": [1]},
    "session.spawn": {"argv": ["sh"]},
    "session.list": {},
    "session.get": {"id": "a"},
    "session.attach": {"id": "a"},
    "session.detach": {"attachment": 1},
    "session.input": {"id": "a", "data": b"x"},
    "session.resize": {"id": "a", "rows": 24, "cols": 80},
    "session.read": {"id": "a", "offset": 0},
    "session.signal": {"id": "a", "signal": 2},
    "session.kill": {"id": "a"},
    "session.wait": {"id": "a"},
    "session.update": {"id": "a"},
    "session.forget": {"id": "a"},
    "events.subscribe": {},
    "daemon.stats": {},
    "daemon.stop": {},
}
"""For each method the required fields, and nothing else."""

HOST_SMALLEST: Final[dict[str, dict[str, Any]]] = {
    "hello": {"client": "test/1", "protocols": [1]},
    "events.subscribe": {},
    "workspace.create": {},
    "workspace.list": {},
    "workspace.get": {"id": "a"},
    "workspace.update": {"id": "a"},
    "workspace.delete": {"id": "a"},
    "workspace.risk": {"id": "a"},
    "workspace.restore": {"id": "a"},
    "trash.list": {},
    "trash.purge": {"id": "a"},
    "session.create": {"workspace": "a", "argv": ["sh"]},
    "session.list": {},
    "session.dispose": {"id": "a"},
    "session.adopt": {"owner": "a", "workspace": "a"},
    "saga.list": {},
    "saga.get": {"id": "a"},
    "saga.resume": {"id": "a"},
    "reap": {},
    "passes": {},
    "health": {},
}
"""The same of the host service's methods."""

HEADERS_OF_4_GIB: Final[dict[str, bytes]] = {
    "str32": b"\xdb\xff\xff\xff\xff",
    "bin32": b"\xc6\xff\xff\xff\xff",
    "array32": b"\xdd\xff\xff\xff\xff",
    "map32": b"\xdf\xff\xff\xff\xff",
    "ext32": b"\xc9\xff\xff\xff\xff\x05",
}

EXT_TYPES: Final[dict[str, bytes]] = {
    "fixext1": b"\xd4\x05x",
    "fixext2": b"\xd5\x05xx",
    "fixext4": b"\xd6\x05xxxx",
    "fixext8": b"\xd7\x05" + b"x" * 8,
    "fixext16": b"\xd8\x05" + b"x" * 16,
    "ext8": b"\xc7\x03\x05xxx",
    "ext16": b"\xc8\x00\x03\x05xxx",
    "ext32": b"\xc9\x00\x00\x00\x03\x05xxx",
    "timestamp32": b"\xd6\xff\x00\x00\x00\x01",
    "timestamp of a wrong size": b"\xc7\x03\xffxxx",
}

NANS: Final[dict[str, bytes]] = {
    "float32": b"\xca" + struct.pack(">f", float("nan")),
    "float64": b"\xcb" + struct.pack(">d", float("nan")),
}


def request_with(value: bytes, msgid: int = 7, method: str = "session.list") -> bytes:
    """A request whose one param has these bytes as its value."""
    name = method.encode()
    return b"\x94\x00" + bytes([msgid, 0xA0 + len(name)]) + name + b"\x91\x81\xa1x" + value


def decode_whole(data: bytes) -> list[Message]:
    decoder = Decoder()
    decoder.feed(data)
    return list(decoder)


def decode_by_byte(data: bytes) -> list[Message]:
    decoder = Decoder()
    messages: list[Message] = []
    for at in range(len(data)):
        decoder.feed(data[at : at + 1])
        messages += decoder
    return messages
