"""Where does a MessagePack message end? Reads headers, builds nothing, counts, and refuses early.

MessagePack has no length prefix: the end of a message is only known once every header in it was
read. The scanner walks them as bytes arrive and goes on where it ran out, so bytes that come one by
one cost no more than bytes that come at once. A limit is refused at the header that announces it: a
4 GiB length costs its sender five bytes and us nothing.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md, "Formats".
"""

import math
import struct
from typing import Final

from ptyd.protocol.limits import FrameLimits


class FramingError(Exception):
    """The stream is no MessagePack-RPC, or over a limit: close it, there is no way to go on."""


# --- tables by first byte ------------------------------------------------------------------------

_FLOATS: Final = {0xCA: struct.Struct(">f"), 0xCB: struct.Struct(">d")}
_U8: Final = struct.Struct(">B")
_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_EXTS: Final = frozenset([0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8])


def _whole_sizes() -> list[int]:
    """How many bytes a value that starts with this byte has; 0 where one has to look further."""
    sizes = [0] * 256
    sizes[0x00:0x80] = [1] * 0x80  # positive fixint
    sizes[0xA0:0xC0] = range(1, 33)  # fixstr
    sizes[0xE0:0x100] = [1] * 0x20  # negative fixint
    sizes[0xC0] = sizes[0xC2] = sizes[0xC3] = 1  # nil, false, true
    for first, width in zip(range(0xCC, 0xD4), (1, 2, 4, 8) * 2, strict=True):  # uint, int
        sizes[first] = 1 + width
    return sizes


_WHOLE_SIZE: Final = _whole_sizes()

_BYTE_LENGTH: Final = {  # how a length is written, and how many bytes of header come after it
    0xD9: (_U8, 0), 0xDA: (_U16, 0), 0xDB: (_U32, 0),  # str
    0xC4: (_U8, 0), 0xC5: (_U16, 0), 0xC6: (_U32, 0),  # bin
    0xC7: (_U8, 1), 0xC8: (_U16, 1), 0xC9: (_U32, 1),  # ext
}  # fmt: skip
_FIXEXT_LENGTH: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_COUNT: Final = {0xDC: _U16, 0xDD: _U32, 0xDE: _U16, 0xDF: _U32}
_MAP_HEADERS: Final = frozenset([0xDE, 0xDF])


class Scanner:
    """Finds where the message at the start of a buffer ends; resumes where it ran out of bytes."""

    def __init__(self, limits: FrameLimits) -> None:
        self._limits = limits
        self.reset(0)

    def reset(self, start: int) -> None:
        """Expect a new message at `start`."""
        self._start = start
        self.end = start  # of what was scanned; may lie beyond the buffer
        self._left = 1  # values still to come in the innermost open container
        self._outer: list[int] = []  # the same for those around it
        self._items = 0
        self._floats: list[int] = []
        self.fault = ""  # why the message cannot be accepted, although it can be framed

    def shift(self, count: int) -> None:
        """The buffer has lost `count` bytes at its front."""
        self._start -= count
        self.end -= count
        self._floats = [at - count for at in self._floats]

    def scan(self, buffer: bytearray) -> bool:
        """Go on; True once the whole message is in the buffer.

        Raises:
            FramingError: it is no MessagePack, or over a limit.
        """
        size = len(buffer)
        last = self._start + self._limits.frame_bytes
        # The loop runs once per value of every message: its state is in locals meanwhile.
        end, left, items = self.end, self._left, self._items
        while left and end < size:
            first = buffer[end]
            if whole := _WHOLE_SIZE[first]:
                end += whole
                left -= 1
            else:
                self.end, self._left = end, left
                if not self._scan_long(buffer, first):
                    break
                end, left = self.end, self._left
            items += 1
            if end > last or items > self._limits.items:
                raise FramingError(self._over(items))
            while not left and self._outer:
                left = self._outer.pop()
        self.end, self._left, self._items = end, left, items
        if left or end > size:
            return False
        self._check_floats(buffer)
        return True

    def _scan_long(self, buffer: bytearray, first: int) -> bool:
        """One value with a length, a count or a float; False if its header is not all here."""
        at = self.end + 1
        if first <= 0x9F:
            is_map = first <= 0x8F
            self._open(first & 0x0F, is_map, at)
        elif first in _COUNT:
            count = _COUNT[first]
            if len(buffer) < at + count.size:
                return False
            self._open(count.unpack_from(buffer, at)[0], first in _MAP_HEADERS, at + count.size)
        elif first in _BYTE_LENGTH:
            length, more = _BYTE_LENGTH[first]
            if len(buffer) < at + length.size:
                return False
            self._skip(first, at + length.size + more + length.unpack_from(buffer, at)[0])
        elif first in _FIXEXT_LENGTH:
            self._skip(first, at + 1 + _FIXEXT_LENGTH[first])
        elif first in _FLOATS:
            self._floats.append(self.end)
            self._skip(first, at + _FLOATS[first].size)
        else:
            raise FramingError(f"byte 0x{first:02x} starts no MessagePack value")
        return True

    def _skip(self, first: int, end: int) -> None:
        self.end = end
        self._left -= 1
        if first in _EXTS:
            self.fault = "extension types are not used here"

    def _open(self, count: int, is_map: bool, end: int) -> None:
        limits = self._limits
        most = limits.map_items if is_map else limits.array_items
        if count > most:
            kind = "a map" if is_map else "an array"
            raise FramingError(f"{kind} of {count} items; at most {most} are allowed")
        self.end = end
        self._outer.append(self._left - 1)
        self._left = 2 * count if is_map else count
        if len(self._outer) > limits.depth:
            self.fault = f"it nests deeper than {limits.depth} arrays and maps"

    def _over(self, items: int) -> str:
        limits = self._limits
        if items > limits.items:
            return f"a message has more than {limits.items} values"
        return f"a message has more than {limits.frame_bytes} bytes"

    def _check_floats(self, buffer: bytearray) -> None:
        for at in self._floats:
            if math.isnan(_FLOATS[buffer[at]].unpack_from(buffer, at + 1)[0]):
                self.fault = "NaN is no value here"
