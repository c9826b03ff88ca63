"""What a client receives: the messages that `codec.Decoder` makes of it, made faster. A client's end only.

A list of a thousand sessions has 58 000 values, and a look at each of them in Python costs twice what
msgpack needs to build them all. Here msgpack also finds where a message ends, by skipping, which builds
nothing; so what is incomplete is held as bytes, and bytes that come one by one cost no more than bytes that
come at once. A message is built when all of it is there, and looked at as it was built, level by level.

This way only ever says yes. What it does not take (a long message, an odd value, no MessagePack at all) goes,
with all that follows, to a Decoder, which judges it and says why: nothing is taken that a Decoder would
refuse.

The limits on bytes and values cannot be checked while skipping, and need not be: a message of at most
`quick_bytes` has no room for a length or a number of values that is over a limit.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import msgpack

from ptyd.protocol.codec import UNPACK, Decoder, FramingError, Message, message_from
from ptyd.protocol.limits import TO_CLIENT, FrameLimits

_CONTAINERS: Final = frozenset([list, dict])
_SCALARS: Final = frozenset([type(None), bool, int, str, bytes])
"""Besides there are floats, of which NaN is refused and which nothing here has, and extension types."""
_SKIPPER_BYTES: Final = 256 * 1024
"""Of the skipper's buffer at first; its default is a MiB for each connection. It grows as it has to."""


class ReplyDecoder:
    """A stream of bytes in, whole messages out: as `Decoder`, errors included.

    But that a length or a count over a limit is only refused when more than `quick_bytes` have come.
    """

    def __init__(self, limits: FrameLimits = TO_CLIENT) -> None:
        self.quick_bytes = min(limits.frame_bytes, limits.items, limits.array_items, limits.map_items)
        self._depth = limits.depth
        self._strict = Decoder(limits)
        self._is_strict = False  # since something that was not taken here, until all of it is handed out
        self._begin()

    def _begin(self) -> None:
        self._buffer = bytearray()
        self._start = 0  # of the first message that was not handed out
        self._skipper = msgpack.Unpacker(read_size=_SKIPPER_BYTES, max_buffer_size=0)
        self._skipped = 0  # by the skipper, of what is not in the buffer any more

    def feed(self, data: bytes) -> None:
        """Add bytes as they came: any part of a message, or many of them."""
        if self._is_strict:
            self._strict.feed(data)
            return
        if self._start:
            del self._buffer[: self._start]
            self._skipped += self._start
            self._start = 0
        self._buffer += data
        self._skipper.feed(data)

    def __iter__(self) -> Iterator[Message]:
        """Every message that is complete.

        Raises:
            FramingError: after the messages before it were handed out.
        """
        while not self._is_strict and (message := self._next()):
            yield message
        if self._is_strict:
            yield from self._strict
            if not self._strict.pending_bytes:
                self._is_strict = False
                self._begin()

    def _next(self) -> Message | None:
        """The next message; None if it is not all here, or is not taken."""
        try:
            if end := self._find_end():
                message = self._build(end)
                self._start = end
                return message
        except (ValueError, FramingError):
            self._is_strict = True
            self._strict.feed(bytes(self._buffer[self._start :]))
        return None

    def _find_end(self) -> int:
        """Where the next message ends; 0 if it is not all here."""
        try:
            self._skipper.skip()
            end: int = self._skipper.tell() - self._skipped
        except msgpack.OutOfData:
            end = 0
        if (end or len(self._buffer)) - self._start > self.quick_bytes:
            raise ValueError("too long to be taken unseen")
        return end

    def _build(self, end: int) -> Message:
        with memoryview(self._buffer) as whole, whole[self._start : end] as frame:
            values = msgpack.unpackb(frame, **UNPACK)
        if not _is_plain(values, self._depth):
            raise ValueError("it has what is not plain, or is too deep")
        return message_from(values)


def _is_plain(values: Any, depth: int) -> bool:
    """Tell whether it is made of these scalars, at most `depth` containers inside one another."""
    level: list[Any] = [[values]]
    for _ in range(depth + 1):
        inside = chain.from_iterable([one.values() if type(one) is dict else one for one in level])
        level = [one for one in inside if type(one) not in _SCALARS]
        if not level:
            return True
        if not _CONTAINERS.issuperset(map(type, level)):
            return False
    return False
