"""Queries taken out of a backlog, and where a replay may begin: tables, and any split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyd.attach.terminal import MAX_HELD_BYTES, QueryStripper, replay_start

QUERIES = [
    b"\x1b[c", b"\x1b[0c", b"\x1b[>c", b"\x1b[>0c", b"\x1b[=c",  # DA
    b"\x1b[5n", b"\x1b[6n", b"\x1b[?6n", b"\x1b[?996n",  # DSR
    b"\x1b[?25$p", b"\x1b[4$p",  # DECRQM
    b"\x1b[14t", b"\x1b[14;2t", b"\x1b[16t", b"\x1b[18t", b"\x1b[20t", b"\x1b[21t",
    b"\x1b[x", b"\x1b[1x",
    b"\x1b[>q", b"\x1b[>0q",  # XTVERSION
    b"\x1b[?u",  # kitty keyboard
    b"\x1b[?1;1;0S", b"\x1b[?4m",
    b"\x1b[1$w", b"\x1b[1;1;1;1;1;1*y", b"\x1b[&u",
    b"\x1b[5i", b"\x1b[?5i",
    b"\x1b]11;?\x07", b"\x1b]11;?\x1b\\", b"\x1b]4;1;?\x07", b"\x1b]4;1;?;2;?\x1b\\",
    b"\x1b]52;c;?\x07", b"\x1b]52;c;aGVsbG8=\x07", b"\x1b]21;foreground=?\x1b\\",
    b"\x1b]9;done\x07", b"\x1b]777;notify;a;b\x07", b"\x1b]1337;ReportCellSize\x07",
    b"\x1bP$qm\x1b\\", b"\x1bP+q544e\x1b\\",
    b"\x1b_Ga=q,i=31;AAAA\x1b\\", b"\x1b_Gi=1,a=T;AAAA\x1b\\",
    b"\x1bZ", b"\x05", b"\x1b[\r6n",
]  # fmt: skip
HARMLESS = [
    b"plain text\r\n", b"\x1b[31;1m", b"\x1b[m", b"\x1b[2J", b"\x1b[?1049h", b"\x1b[2 q", b"\x1b[22;0t",
    b"\x1b[8;24;80t", b"\x1b[4m", b"\x1b[>4;2m", b"\x1b[>1u", b"\x1b[<u", b"\x1b[u", b"\x1b[1;24r",
    b"\x1b]0;what?\x07", b"\x1b]0;?\x07", b"\x1b]2;a;?;b\x1b\\", b"\x1b]8;;http://x/?q=1\x1b\\",
    b"\x1b]11;#102030\x07", b"\x1bP0;1|17/ab\x1b\\", b"\x1bPq#0~~\x1b\\", b"\x1b_Ga=T,q=2,i=1;AAAA\x1b\\",
    b"\x1b7", b"\x1b8", b"\x1bM", b"\x1b(B", b"\x1b=", "žluťoučký 🦕".encode(), b"\x9b6n", b"\a\b\t",
    b"\x1b[?1$r", b"\x1b]133;A\x07",
]  # fmt: skip


def strip(*pieces: bytes) -> bytes:
    stripper = QueryStripper()
    return b"".join([stripper.feed(piece) for piece in pieces] + [stripper.finish()])


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_query_is_taken_out(query: bytes) -> None:
    assert strip(b"before" + query + b"after") == b"beforeafter"


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_query_is_taken_out_byte_by_byte(query: bytes) -> None:
    text = b"a" + query + b"b" + query + query + b"c"
    assert strip(*(text[i : i + 1] for i in range(len(text)))) == b"abc"


@pytest.mark.parametrize("text", HARMLESS, ids=repr)
def test_everything_else_stays(text: bytes) -> None:
    assert strip(b"a" + text + b"b") == b"a" + text + b"b"
    assert strip(*(text[i : i + 1] for i in range(len(text)))) == text


@given(st.lists(st.sampled_from(QUERIES + HARMLESS), max_size=8), st.data())
def test_split_makes_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert strip(*pieces) == strip(text)


@given(st.lists(st.sampled_from(QUERIES + HARMLESS), max_size=8))
def test_what_is_left_has_no_query(parts: list[bytes]) -> None:
    left = strip(b"".join(parts))
    assert strip(left) == left


SCRAPS = [
    b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b\\", b"[", b"\\", b"c", b"6n", b"n", b"?", b"\a", b"$q",
    b"x", b"\x18", b";", b"11", b"\r",
]  # fmt: skip


@given(st.lists(st.sampled_from(SCRAPS + QUERIES), max_size=10), st.data())
def test_scraps_never_add_up_to_a_query(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    left = strip(*pieces)
    assert strip(left) == left == strip(text)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_pass_without_error(text: bytes, cut: int) -> None:
    assert strip(text[:cut], text[cut:]) == strip(text)


@pytest.mark.parametrize(
    "pieces, shown",
    [
        # What a program broke off must not become a query by our taking out the one after it.
        ([b"\x1b[\x1b[6nc"], b"\x1b[\x18c"),
        ([b"\x1b[\x1b[6", b"n", b"c"], b"\x1b[\x18c"),
        ([b"\x1b\x1b[6n[c"], b"\x1b\x18[c"),
        ([b"\x1b]11;\x1b[6n?\x07"], b"\x1b]11;\x18?\x07"),
    ],
)
def test_no_query_arises(pieces: list[bytes], shown: bytes) -> None:
    assert strip(*pieces) == shown


def test_unfinished_one_is_left_to_the_live_stream() -> None:
    stripper = QueryStripper()
    assert stripper.feed(b"text\x1b[6") == b"text"
    assert stripper.finish() == b"\x1b[6"


def test_endless_string_is_not_held_for_ever() -> None:
    stripper = QueryStripper()
    shown = b"".join(stripper.feed(b"\x1bP" + b"x" * 4096 if i == 0 else b"x" * 4096) for i in range(600))
    assert len(shown) + MAX_HELD_BYTES >= 600 * 4096


# --- where a replay begins -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "backlog, limit, start",
    [
        (b"", 10, 0),
        (b"short", 10, 0),
        (b"exactly ten", 11, 0),
        (b"first\nsecond\nthird\n", 12, 13),  # after the first line's end within the limit
        (b"no line here at all", 6, 13),  # no line's end: anywhere
        (b"ends with one\n", 5, 9),  # a line's end at the very end is no beginning
        ("aaaá".encode(), 1, 5),  # never inside a character
        (b"abc\x1b[31mdef", 6, 8),  # never inside a sequence
        (b"ab\x1b]0;a\nb\x07cd\nef", 10, 13),  # the first line's end is inside a title
    ],
)
def test_replay_start(backlog: bytes, limit: int, start: int) -> None:
    assert replay_start(backlog, limit) == start


@given(st.lists(st.sampled_from([*HARMLESS, b"\r\n", b"word "]), max_size=30), st.integers(0, 60))
def test_replay_starts_between_sequences(parts: list[bytes], limit: int) -> None:
    backlog = b"".join(parts)
    start = replay_start(backlog, limit)
    assert max(0, len(backlog) - limit) <= start <= len(backlog)
    bounds = {sum(map(len, parts[:i])) for i in range(len(parts) + 1)}
    inside = next(
        (p for i, p in enumerate(parts) if sum(map(len, parts[:i])) < start < sum(map(len, parts[: i + 1]))),
        b"",
    )
    assert start in bounds or not inside.startswith(b"\x1b")
