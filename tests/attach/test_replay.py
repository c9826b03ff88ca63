"""What a newly attached terminal is shown of old output."""

from __future__ import annotations

import pytest

from ptyd.attach.replay import RecentReplay, WholeReplay

BACKLOG = b"one\r\n\x1b[6ntwo\r\nthree\r\n"


def feed(replay: WholeReplay | RecentReplay, data: bytes, step: int, offset: int = 0) -> bytes:
    shown = b""
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        shown += replay.feed(offset, piece)
        offset += len(piece)
    return shown


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_whole_backlog_without_its_queries_and_live_with_them(step: int) -> None:
    replay = WholeReplay(len(BACKLOG))
    shown = feed(replay, BACKLOG + b"live\x1b[6n", step)
    assert shown == b"one\r\ntwo\r\nthree\r\nlive\x1b[6n"
    assert replay.over


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_recent_shows_the_last_lines(step: int) -> None:
    replay = RecentReplay(len(BACKLOG), limit=10)
    assert feed(replay, BACKLOG + b"live\x1b[6n", step) == b"three\r\nlive\x1b[6n"


def test_query_across_the_boundary_is_live() -> None:
    replay = WholeReplay(3)
    assert feed(replay, b"a\x1b[6nb", 2) == b"a\x1b[6nb"


@pytest.mark.parametrize("make", [WholeReplay, RecentReplay])
def test_nothing_to_replay(make: type[WholeReplay] | type[RecentReplay]) -> None:
    replay = make(5)
    assert replay.skip_to(5) == b""
    assert replay.over
    assert replay.feed(5, b"\x1b[6n") == b"\x1b[6n"


def test_modes_of_what_is_left_out_are_set() -> None:
    backlog = b"\x1b[?2004h\x1b[?1h" + b"x" * 50 + b"\nlast line\n"
    replay = RecentReplay(len(backlog), limit=12)
    assert replay.feed(0, backlog) == b"\x1b[?2004h\x1b[?1hlast line\n"


def test_full_screen_program_gets_its_screen_and_draws_itself() -> None:
    backlog = b"$ vi\n\x1b[?1049h\x1b[?25l" + b"text\n" * 20
    replay = RecentReplay(len(backlog))
    assert replay.feed(0, backlog) == b"\x1b[?1049h\x1b[?25l"


def test_full_screen_program_that_will_not_draw_is_replayed() -> None:
    backlog = b"$ vi\n\x1b[?1049h\x1b[?25ltext\x1b[6n"
    replay = RecentReplay(len(backlog), redraws=False)
    assert replay.feed(0, backlog) == b"\x1b[?1049h\x1b[?25ltext"


def test_gap_in_the_backlog_drops_what_was_before_it() -> None:
    replay = RecentReplay(30)
    assert replay.feed(0, b"old\n") == b""
    assert replay.skip_to(20) == b""
    assert replay.feed(20, b"new line\n\n") == b"new line\n\n"


def test_gap_over_the_boundary_ends_the_replay() -> None:
    for replay in (RecentReplay(30), WholeReplay(30)):
        assert replay.skip_to(40) == b""
        assert replay.feed(40, b"\x1b[c") == b"\x1b[c"
