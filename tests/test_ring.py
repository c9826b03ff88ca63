"""The ring: one writer, checking readers, and every way in which they can meet."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyd import ring as ring_module
from ptyd.ring import (
    HEADER_BYTES,
    MAGIC,
    NOT_ENDED,
    VERSION,
    RingError,
    RingReader,
    RingWriter,
    ring_bytes,
    round_capacity,
)
from tests.support.stream import expected
from tests.support.waiting import soak

CAPACITY = 64


def make(capacity: int = CAPACITY) -> tuple[RingWriter, RingReader]:
    memory = memoryview(bytearray(ring_bytes(capacity)))
    writer = RingWriter(memory)
    return writer, RingReader(memory)


def source(data: bytes) -> Callable[[list[memoryview]], int]:
    """A readv that has just this to give."""

    def readv(views: list[memoryview]) -> int:
        left = data
        for view in views:
            part, left = left[: len(view)], left[len(view) :]
            view[: len(part)] = part
        return len(data) - len(left)

    return readv


def put(writer: RingWriter, data: bytes) -> int:
    return writer.fill(len(data), source(data))


# --- layout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted, rounded", [(1, 4096), (4096, 4096), (4097, 8192), (1 << 20, 1 << 20)])
def test_capacity_is_whole_pages(wanted: int, rounded: int) -> None:
    assert round_capacity(wanted) == rounded
    assert ring_bytes(rounded) == HEADER_BYTES + rounded


def test_a_new_ring_is_empty_and_not_ended() -> None:
    writer, reader = make()
    assert (reader.capacity, reader.head, reader.start, reader.ended) == (CAPACITY, 0, 0, False)
    assert reader.last_output_ms == 0
    assert reader.read(0, 10) == (0, b"")
    assert writer.tail(10) == b""


@pytest.mark.parametrize(
    "spoil",
    [
        lambda words: words.__setitem__(0, MAGIC + 1),
        lambda words: words.__setitem__(1, VERSION + 1),
        lambda words: words.__setitem__(2, CAPACITY * 2),
    ],
    ids=["magic", "version", "capacity"],
)
def test_what_is_no_ring_is_refused(spoil: Callable[[memoryview], None]) -> None:
    memory = memoryview(bytearray(ring_bytes(CAPACITY)))
    RingWriter(memory)
    spoil(memory[:HEADER_BYTES].cast("Q"))
    with pytest.raises(RingError):
        RingReader(memory)


def test_memory_without_data_is_refused() -> None:
    with pytest.raises(RingError):
        RingReader(memoryview(bytearray(HEADER_BYTES)))


def test_a_reader_lets_go_of_its_memory() -> None:
    memory = mmap.mmap(-1, ring_bytes(4096))
    with memoryview(memory) as view:
        RingWriter(view)
    reader = RingReader(memoryview(memory))
    reader.release()
    memory.close()  # BufferError if anything still looked at it


# --- writing and reading ---------------------------------------------------------------------------


def test_reads_from_any_offset_and_never_more_than_asked() -> None:
    writer, reader = make()
    put(writer, b"0123456789")
    assert reader.read(0, 100) == (0, b"0123456789")
    assert reader.read(3, 4) == (3, b"3456")
    assert reader.read(10, 4) == (10, b"")
    assert reader.read(99, 4) == (99, b"")
    assert writer.tail(4) == b"6789"
    assert writer.tail(400) == b"0123456789"


def test_what_was_overwritten_is_told_as_a_later_offset() -> None:
    writer, reader = make()
    put(writer, expected(0, CAPACITY))
    put(writer, expected(CAPACITY, 10))
    assert reader.start == 10
    assert reader.read(0, 5) == (10, expected(10, 5))
    assert reader.read(9, 500) == (10, expected(10, CAPACITY))
    assert writer.tail(500) == expected(10, CAPACITY)


def test_a_fill_across_the_edge_is_one_readv_of_two_views() -> None:
    writer, reader = make()
    put(writer, expected(0, CAPACITY - 3))
    sizes: list[int] = []

    def readv(views: list[memoryview]) -> int:
        sizes.extend(map(len, views))
        return source(expected(CAPACITY - 3, 10))(views)

    assert writer.fill(10, readv) == 10
    assert sizes == [3, 7]
    assert reader.read(CAPACITY - 3, 10) == (CAPACITY - 3, expected(CAPACITY - 3, 10))


def test_a_readv_that_raises_leaves_every_byte_where_it_was() -> None:
    writer, reader = make()
    put(writer, expected(0, CAPACITY))

    def readv(views: list[memoryview]) -> int:
        assert reader.start == 16  # meanwhile what may be overwritten is not readable
        raise BlockingIOError

    with pytest.raises(BlockingIOError):
        writer.fill(16, readv)
    assert (writer.head, reader.head, reader.start) == (CAPACITY, CAPACITY, 0)
    assert reader.read(0, CAPACITY) == (0, expected(0, CAPACITY))


def test_a_short_readv_gives_back_what_it_did_not_use() -> None:
    writer, reader = make()
    put(writer, expected(0, CAPACITY))
    assert writer.fill(32, source(expected(CAPACITY, 5))) == 5
    assert reader.start == 5
    assert reader.read(0, 999) == (5, expected(5, CAPACITY))


def test_end_and_last_output_are_told() -> None:
    writer, reader = make()
    put(writer, b"bye")
    writer.stamp(12345)
    assert (reader.ended, reader.last_output_ms) == (False, 12345)
    writer.end()
    assert reader.ended
    assert NOT_ENDED > 2**63


@given(
    capacity=st.integers(1, 48),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("fill"), st.integers(0, 48), st.integers(0, 48)),
            st.tuples(st.just("fail"), st.integers(0, 48), st.just(0)),
            st.tuples(st.just("read"), st.integers(0, 300), st.integers(0, 60)),
        ),
        max_size=60,
    ),
)
def test_the_ring_is_the_end_of_an_endless_log(capacity: int, steps: list[tuple[str, int, int]]) -> None:
    """Whatever is put and asked: the bytes of the log from the offset told, or from the oldest kept."""
    writer, reader = make(capacity)
    head = 0
    for what, first, second in steps:
        limit = min(first, capacity)
        if what == "fill":
            count = min(second, limit)
            assert writer.fill(limit, source(expected(head, count))) == count
            head += count
        elif what == "fail":
            with pytest.raises(BlockingIOError):
                writer.fill(limit, _nothing_there)
        else:
            offset, data = reader.read(first, second)
            start = max(0, head - capacity)
            assert offset == max(first, start)
            assert data == expected(offset, max(0, min(second, head - offset)))
        assert (reader.head, writer.head) == (head, head)
        assert reader.start == max(0, head - capacity)
        assert writer.tail(capacity) == expected(max(0, head - capacity), min(head, capacity))


def _nothing_there(views: list[memoryview]) -> int:
    raise BlockingIOError


# --- torn bytes ------------------------------------------------------------------------------------


def test_O13_bytes_being_overwritten_are_not_handed_out() -> None:
    """The reader comes while the writer is at work: `reserved` was published before the first store."""
    writer, reader = make()
    put(writer, expected(0, CAPACITY))
    seen: list[tuple[int, bytes]] = []

    def readv(views: list[memoryview]) -> int:
        seen.append(reader.read(0, CAPACITY))
        views[0][:8] = b"torn...."
        seen.append(reader.read(0, CAPACITY))
        return source(expected(CAPACITY, 16))(views)

    writer.fill(16, readv)
    assert seen == [(16, expected(16, CAPACITY - 16))] * 2
    assert reader.read(0, CAPACITY) == (16, expected(16, CAPACITY))


def test_O13_a_copy_that_the_writer_overtook_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer comes between the reader's copy and its check."""
    writer, reader = make()
    put(writer, expected(0, CAPACITY))
    copy = ring_module._copy
    overtakes = iter([24, 0])

    def copy_and_be_overtaken(data: memoryview, capacity: int, offset: int, size: int) -> bytes:
        half = copy(data, capacity, offset, size // 2)
        put(writer, expected(writer.head, next(overtakes)))
        return half + copy(data, capacity, offset + size // 2, size - size // 2)

    monkeypatch.setattr(ring_module, "_copy", copy_and_be_overtaken)
    assert reader.read(0, CAPACITY) == (24, expected(24, CAPACITY))
    assert list(overtakes) == []


def write_for_ever(memory: memoryview, period: int) -> None:
    """Write the numbered stream, `period` bytes of it over and over, in chunks of every size."""
    writer, size = RingWriter(memory), 1
    stream = memoryview(expected(0, period) * 2)

    def readv(views: list[memoryview]) -> int:
        at = writer.head % period
        for view in views:
            view[:] = stream[at : at + len(view)]
            at += len(view)
        return sum(map(len, views))

    while True:
        writer.fill(size, readv)
        size = size * 7 % 1021 + 1


def test_O13_two_processes_never_a_torn_byte() -> None:
    """Readers at the very edge of a small ring that another process writes as fast as it can."""
    capacity, period = 4096, 16 * 4096
    shared = mmap.mmap(-1, ring_bytes(capacity))
    RingWriter(memoryview(shared))
    reader = RingReader(memoryview(shared))
    pid = os.fork()
    if pid == 0:
        try:
            write_for_ever(memoryview(shared), period)
        finally:
            os._exit(1)
    try:
        stream = expected(0, period) * 2
        pieces = moved = 0
        ends = time.monotonic() + 20
        while pieces < soak(20_000, 2_000_000):
            assert time.monotonic() < ends or soak(0, 1), "the writer has stopped"
            oldest = reader.start
            offset, data = reader.read(oldest, 1500)
            at = offset % period
            assert data == stream[at : at + len(data)], f"torn at {offset}"
            pieces += bool(data)
            moved += offset != oldest
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert moved, "the writer never came near: nothing was tested"
