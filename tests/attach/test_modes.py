"""Which modes a stream leaves set, and how they are redone and undone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyd.attach.modes import ModeTracker

PLAIN = b"\x18\x1b[0m\x0f"
CASES = [
    # output, redone on coming back, undone on leaving (without what is always sent)
    (b"nothing \x1b[31mred\x1b[0m", b"", b""),
    (b"\x1b[?25l", b"\x1b[?25l", b"\x1b[?25h"),
    (b"\x1b[?25l\x1b[?25h", b"", b""),
    (b"\x1b[?7l", b"\x1b[?7l", b"\x1b[?7h"),
    (b"\x1b[?2004h", b"\x1b[?2004h", b"\x1b[?2004l"),
    (b"\x1b[?1000;1006h", b"\x1b[?1000h\x1b[?1006h", b"\x1b[?1000l\x1b[?1006l"),
    (b"\x1b[?1h\x1b=", b"\x1b[?1h\x1b=", b"\x1b>\x1b[?1l"),
    # the other screen comes first and goes last
    (b"\x1b[?1h\x1b[?1049h", b"\x1b[?1049h\x1b[?1h", b"\x1b[?1l\x1b[?1049l"),
    (b"\x1b[?1049h\x1b[?1049l", b"", b""),
    (b"\x1b[2 q", b"\x1b[2 q", b"\x1b[0 q"),
    (b"\x1b[2 q\x1b[0 q", b"", b""),
    (b"\x1b[2 q\x1b[ q", b"", b""),
    (b"\x1b[5;10r", b"", b"\x1b7\x1b[r\x1b8"),
    (b"\x1b[5;10r\x1b[r", b"", b""),
    (b"\x1b[>1u", b"\x1b[>1u", b"\x1b[<u"),
    (b"\x1b[>1u\x1b[>5u\x1b[<u", b"\x1b[>1u", b"\x1b[<u"),
    (b"\x1b[>1u\x1b[>5u\x1b[<2u", b"", b""),
    (b"\x1b[=5u", b"\x1b[=5u", b"\x1b[=0u"),
    (b"\x1b[=5;1u\x1b[=0u", b"", b""),
    (b"\x1b[>4;2m", b"\x1b[>4;2m", b"\x1b[>4m"),
    (b"\x1b[>4;2m\x1b[>4m", b"", b""),
    (b"\x1b[>4;2m\x1b[>4;0m", b"", b""),
    (b"\x1b[?2026h", b"", b"\x1b[?2026l"),  # redone, it would freeze the picture
    (b"\x1b[?1048h\x1b[?3h\x1b[?99999999h", b"", b""),
    (b"\x1b[?1000h\x1b[?25l\x1b=\x1bc", b"", b""),  # a full reset
    (b"\x1b[?25l\x1b[?1h\x1b[!p", b"", b""),  # a soft one
]  # fmt: skip


@pytest.mark.parametrize("output, restore, reset", CASES, ids=lambda value: repr(value)[2:40])
def test_modes(output: bytes, restore: bytes, reset: bytes) -> None:
    tracker = ModeTracker()
    tracker.feed(output)
    assert tracker.restore() == restore
    assert tracker.reset() == b"\x18" + reset + PLAIN[1:]


@given(st.lists(st.sampled_from([case[0] for case in CASES]), max_size=6), st.data())
def test_split_makes_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    whole, split = ModeTracker(), ModeTracker()
    whole.feed(text)
    for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True):
        split.feed(text[a:b])
    assert split.restore() == whole.restore()
    assert split.reset() == whole.reset()


@given(st.lists(st.sampled_from([case[0] for case in CASES]), max_size=6))
def test_leaving_leaves_nothing_set(parts: list[bytes]) -> None:
    tracker = ModeTracker()
    tracker.feed(b"".join(parts))
    tracker.feed(tracker.reset())
    assert tracker.reset() == PLAIN


@given(st.lists(st.sampled_from([case[0] for case in CASES if b"r" not in case[0]]), max_size=6))
def test_coming_back_sets_the_same(parts: list[bytes]) -> None:
    tracker, other = ModeTracker(), ModeTracker()
    tracker.feed(b"".join(parts).replace(b"\x1b[?2026h", b""))
    other.feed(tracker.restore())
    assert other.restore() == tracker.restore()


def test_alternate_screen() -> None:
    tracker = ModeTracker()
    assert not tracker.alternate_screen
    tracker.feed(b"\x1b[?1049h")
    assert tracker.alternate_screen


def test_pushes_are_bounded() -> None:
    tracker = ModeTracker()
    tracker.feed(b"\x1b[>1u" * 1000)
    assert len(tracker.reset()) < 100
