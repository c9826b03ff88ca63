"""What a client decodes: always what a Decoder would make of it, however it comes, and long lists fast."""

import tracemalloc
from collections.abc import Iterable
from itertools import chain
from typing import Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyd.protocol.codec import (
    Decoder,
    FramingError,
    Message,
    Notification,
    Response,
    pack_notification,
    pack_response,
)
from ptyd.protocol.connection import ClientConnection
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_DEPTH, MAX_REPLY_ITEMS, TO_CLIENT, FrameLimits
from ptyd.protocol.replies import ReplyDecoder
from ptyd.protocol.scanner import Scanner
from tests.protocol.samples import EXT_TYPES, HEADERS_OF_4_GIB, NANS
from tests.protocol.test_codec import TABLE, VALUES

FEW: Final = FrameLimits(frame_bytes=400, items=120, array_items=90, map_items=100, depth=5)
ROWS: Final = [{"id": f"s{n}", "labels": {"k": "v"}, "argv": ["sh"], "exit": None} for n in range(1000)]
ZEROS: Final = 64 * 1024
GOOD: Final = pack_response(2, {"sessions": ROWS[:3]})

DUPLICATE: Final = b"\x82\xa1a\x01\xa1a\x02"
BAD_KEYS: Final = [b"\x81\x01\x02", b"\x81\xc0\x02", b"\x81\x90\x02", b"\x81\x80\x02", b"\x81\xd4\x05x\x02"]
ODD: Final = [*EXT_TYPES.values(), *NANS.values(), DUPLICATE, *BAD_KEYS, b"\xc1", b"\x91" * 1100 + b"\x01"]
"""Values that no message may have."""


def result(value: bytes) -> bytes:
    """A response whose result has these bytes as a value."""
    return b"\x94\x01\x01\xc0\x81\xa1x" + value


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def outcome(decoder: Decoder | ReplyDecoder, parts: Iterable[bytes]) -> tuple[list[Message], str]:
    """The messages that came out, and what it ended with."""
    messages: list[Message] = []
    try:
        for part in parts:
            decoder.feed(part)
            messages.extend(decoder)
    except FramingError as error:
        return messages, str(error)
    return messages, ""


# --- the same as a Decoder's ---------------------------------------------------------------------


@pytest.mark.parametrize("wire, message", [row[1:] for row in TABLE])
def test_whole_by_byte_and_with_more_behind(wire: bytes, message: Message) -> None:
    for size in (1, 2, 3, len(wire), 1000):
        assert outcome(ReplyDecoder(), pieces(wire * 3 + wire[:-1], size)) == ([message] * 3, "")


@pytest.mark.parametrize("wire", [row[1] for row in TABLE])
def test_a_message_comes_with_its_last_byte_and_not_before(wire: bytes) -> None:
    decoder = ReplyDecoder()
    for at in range(len(wire)):
        assert list(decoder) == []
        decoder.feed(wire[at : at + 1])
    assert len(list(decoder)) == 1


PIECES = st.sampled_from(
    [
        GOOD,
        GOOD[:-3],
        pack_notification("event", {"seq": 1}),
        pack_notification("session.output", {"data": bytes(300)}),
        msgpack.packb([1, 2, 3]),
        result(b"\x91" * 3 + b"\x01"),
        result(b"\x91" * 4 + b"\x01"),
        result(b"\x91" * 3 + b"\xcb" + bytes(8)),
        result(b"\xdc\x00\x59" + bytes(0x59)),
        result(b"\xdc\x00\x5b" + bytes(0x5B)),
        result(b"\xdc\x00\x40" + b"\x91\x01" * 0x40),
        *HEADERS_OF_4_GIB.values(),
        *map(result, HEADERS_OF_4_GIB.values()),
        *map(result, ODD),
        *(b"\x93\x02\xa1x\x91" + odd for odd in ODD),
    ]
)


@given(
    st.lists(PIECES | st.binary(max_size=60) | VALUES.map(lambda value: pack_response(3, value)), max_size=6),
    st.integers(1, 500),
)
def test_X1_it_takes_what_a_decoder_takes_and_refuses_what_it_refuses(parts: list[bytes], size: int) -> None:
    # The zeros, which are no messages, fill whatever was announced: so both come to their end.
    data = b"".join(parts) + bytes(2 * FEW.frame_bytes)
    expected = outcome(Decoder(FEW), [data])
    assert repr(outcome(ReplyDecoder(FEW), pieces(data, size))) == repr(expected)
    assert expected[1]


@given(VALUES, st.integers(1, 300))
def test_any_value_survives_any_cut(value: object, size: int) -> None:
    wire = pack_response(1, {"a": value}) + pack_notification("y", {"b": value})
    expected = [Response(1, None, {"a": value}), Notification("y", [{"b": value}])]
    assert outcome(ReplyDecoder(), pieces(wire, size)) == (expected, "")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("size", [1, 10_000])
def test_X1_a_client_refuses_what_is_odd_after_what_came_before(odd: bytes, size: int) -> None:
    client = ClientConnection()
    client.request("session.list", {})
    client.request("session.list", {})
    assert len(client.receive(GOOD)) == 1
    for _ in range(2):  # it stays of no use
        with pytest.raises(PtydError) as caught:
            [client.receive(part) for part in pieces(result(b"\x91" + odd), size)]
        assert caught.value.code is Code.PROTOCOL_VIOLATION


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"], ids=["arrays", "maps"])
def test_X1_depth(opening: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The envelope and the result's map are two of the sixteen."""
    for more in (1, 100, 2000):
        wire = result(opening * (MAX_DEPTH - 2 + more) + b"\x01")
        messages, error = outcome(ReplyDecoder(), [GOOD + wire])
        assert (len(messages), error) == (1, "it nests deeper than 16 arrays and maps")
    monkeypatch.setattr(Scanner, "scan", None)
    messages, error = outcome(ReplyDecoder(), [result(opening * (MAX_DEPTH - 2) + b"\x01")])
    assert (len(messages), error) == (1, "")


def test_a_float_is_taken_and_what_follows_is_fast_again(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = ReplyDecoder()
    assert outcome(decoder, [pack_response(1, 2.5), pack_response(2, [0.0])]) == (
        [Response(1, None, 2.5), Response(2, None, [0.0])],
        "",
    )
    monkeypatch.setattr(Scanner, "scan", None)
    assert outcome(decoder, [pack_response(3, ROWS)]) == ([Response(3, None, ROWS)], "")


# --- long ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 128 * 1024])
def test_a_list_is_decoded_without_a_look_at_each_value(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(Scanner, "scan", None)
    wire = pack_response(1, {"sessions": ROWS})
    expected = [Response(1, None, {"sessions": ROWS})] * 3
    assert outcome(ReplyDecoder(), pieces(wire * 3 + wire[:9], size)) == (expected, "")


def test_a_message_longer_than_is_taken_unseen_is_taken_all_the_same() -> None:
    rows = [{**row, "cwd": "x" * 4000} for row in ROWS] * 2
    wire = pack_response(1, rows)
    assert len(wire) > ReplyDecoder().quick_bytes
    messages, error = outcome(ReplyDecoder(), [*pieces(GOOD + wire + GOOD, 128 * 1024), GOOD])
    assert [message.msgid for message in messages if isinstance(message, Response)] == [2, 1, 2, 2]
    assert (messages[1], error) == (Response(1, None, rows), "")


@pytest.mark.parametrize("name", HEADERS_OF_4_GIB)
def test_X1_a_4_GiB_length_costs_no_more_than_what_is_taken_unseen(name: str) -> None:
    decoder = ReplyDecoder()
    enough = decoder.quick_bytes // ZEROS
    chunks = iter([bytes(ZEROS)] * 2 * enough)
    tracemalloc.start()
    messages, error = outcome(decoder, chain([result(HEADERS_OF_4_GIB[name])], chunks))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not messages
    assert "at most" in error or "more than" in error
    assert sum(1 for _ in chunks) >= enough - 1, "of the chunks were not asked for"
    assert peak < 6 * decoder.quick_bytes


def test_X1_too_many_values_are_refused_before_they_are_built() -> None:
    few = FrameLimits(frame_bytes=1 << 20, items=1000, array_items=1000, map_items=1000, depth=MAX_DEPTH)
    parts = pieces(result(b"\xdc\x03\xe8" + (b"\xdc\x03\xe8" + b"\x80" * 1000) * 1000), 1 << 16)
    decoder = ReplyDecoder(few)
    tracemalloc.start()
    assert outcome(decoder, parts) == ([], "a message has more than 1000 values")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 19


def test_X1_what_is_incomplete_is_held_as_bytes_only() -> None:
    decoder = ReplyDecoder()
    tracemalloc.start()
    decoder.feed(result(b"\xdd\x00\x01\x00\x00" + b"\x80" * 65535))
    assert list(decoder) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 19  # as maps it would be 4 MiB


def test_no_limit_can_be_broken_within_what_is_taken_unseen() -> None:
    assert ReplyDecoder(TO_CLIENT).quick_bytes == MAX_REPLY_ITEMS
    assert ReplyDecoder(FEW).quick_bytes == min(FEW[:4])
