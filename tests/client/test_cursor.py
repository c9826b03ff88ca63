"""A reader's place in the output: every byte once, or one gap with exact bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ptyd.cursor import Missing, OutputCursor

STREAM = bytes(range(256)) * 4


def test_live_begins_where_the_attach_says() -> None:
    cursor = OutputCursor("live")
    assert cursor.since == "live"
    assert cursor.attached(100) is None
    assert cursor.since == 100


def test_start_that_is_gone_is_a_gap() -> None:
    cursor = OutputCursor("start")
    assert cursor.since == "start"
    assert cursor.attached(50) == Missing(0, 50)
    assert cursor.since == 50


def test_old_offset_is_a_gap_and_a_present_one_is_none() -> None:
    assert OutputCursor(10).attached(50) == Missing(10, 50)
    assert OutputCursor(50).attached(50) is None


def test_what_comes_twice_is_dropped() -> None:
    cursor = OutputCursor(0)
    assert cursor.output(0, b"abcd") == (None, b"abcd")
    assert cursor.output(0, b"abcd") == (None, b"")
    assert cursor.output(2, b"cdef") == (None, b"ef")
    assert cursor.offset == 6


def test_what_is_missing_is_told_once() -> None:
    cursor = OutputCursor(0)
    assert cursor.output(4, b"ef") == (Missing(0, 4), b"ef")
    assert cursor.gap(6) is None
    assert cursor.gap(8) == Missing(6, 8)


@given(st.data())
def test_any_attachments_give_every_byte_once_or_its_gap(data: st.DataObject) -> None:
    cursor, got, gone = OutputCursor("start"), bytearray(), bytearray()
    place = 0
    for _ in range(data.draw(st.integers(1, 8))):
        # A new attachment begins at our offset, or later if that is gone; pieces may come again.
        assert cursor.since == ("start" if place == 0 else place)
        begin = data.draw(st.integers(place, min(len(STREAM), place + 50)))
        missing = cursor.attached(begin)
        assert missing == (Missing(place, begin) if begin > place else None)
        gone[len(gone) :] = b"?" * (begin - place)
        got += b"?" * (begin - place)
        place = begin
        for _ in range(data.draw(st.integers(0, 4))):
            start = data.draw(st.integers(max(begin, place - 20), place))
            end = data.draw(st.integers(start, min(len(STREAM), start + 60)))
            nothing, new = cursor.output(start, STREAM[start:end])
            assert nothing is None
            got += new
            place = max(place, end)
    assert len(got) == place
    assert all(byte in (STREAM[i], 0x3F) for i, byte in enumerate(got))
