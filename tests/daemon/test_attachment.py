"""A streamed attachment's turns: when it goes on by itself, and when it waits to be told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ptyd.daemon.attachment import Attachment
from ptyd.protocol.limits import OUTPUT_CHUNK_BYTES

STEP_BYTES = 4096


class Flood:
    """Output whose head has moved on whenever it was read."""

    capacity, start = 1 << 20, 0

    def __init__(self) -> None:
        self.head = OUTPUT_CHUNK_BYTES + STEP_BYTES

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        size = min(limit, self.head - offset)
        self.head += STEP_BYTES
        return offset, b"x" * size


def take(attachment: Attachment) -> int:
    return len(attachment.next_frames()[1])


def test_it_goes_on_after_a_whole_chunk_only() -> None:
    """What comes while it reads, a wake-up tells of: to run after the head costs a message for every read."""
    session: Any = SimpleNamespace(output=Flood(), facts={})
    attachment = Attachment(1, session, 0, is_paced=False, may_write=True)
    assert take(attachment) == OUTPUT_CHUNK_BYTES
    assert attachment.has_more()
    assert take(attachment) == 2 * STEP_BYTES
    assert session.output.head > attachment.cursor
    assert not attachment.has_more()


def test_it_goes_on_until_an_end_is_told() -> None:
    output = Flood()
    session: Any = SimpleNamespace(output=output, facts={})
    attachment = Attachment(1, session, OUTPUT_CHUNK_BYTES, is_paced=False, may_write=True)
    take(attachment)
    assert not attachment.has_more()
    session.facts = {"ended": True, "end_offset": output.head}
    assert attachment.has_more()
