"""The codec: a table of messages and bytes, run in both directions, whole, by byte and with more."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyd.protocol.codec import (
    Decoder,
    FramingError,
    Message,
    Notification,
    Packed,
    Request,
    Response,
    Unacceptable,
    open_list,
    open_map,
    pack_error,
    pack_notification,
    pack_output_header,
    pack_pairs,
    pack_request,
    pack_response,
)
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import TO_CLIENT, FrameLimits
from tests.protocol.samples import decode_by_byte, decode_whole

FULL = PtydError(Code.INPUT_FULL, "no room", bytes=3)

TABLE: list[tuple[bytes, bytes, Message]] = [
    # what packs it, the bytes it packs to, what they decode to
    (
        pack_request(1, "session.get", {"id": "a"}),
        bytes.fromhex("94 00 01 ab 73657373696f6e2e676574 91 81 a2 6964 a1 61"),
        Request(1, "session.get", [{"id": "a"}]),
    ),
    (
        pack_request(2**32 - 1, "x", {}),
        bytes.fromhex("94 00 ce ffffffff a1 78 91 80"),
        Request(2**32 - 1, "x", [{}]),
    ),
    (
        pack_response(5, {"accepted": 3}),
        bytes.fromhex("94 01 05 c0 81 a8 6163636570746564 03"),
        Response(5, None, {"accepted": 3}),
    ),
    (
        pack_error(5, FULL, as_map=False),
        bytes.fromhex("94 01 05 92 00 b3 696e7075745f66756c6c3a206e6f20726f6f6d c0"),
        Response(5, [0, "input_full: no room"], None),
    ),
    (
        pack_error(5, FULL, as_map=True),
        bytes.fromhex(
            "94 01 05 83 a4 636f6465 aa 696e7075745f66756c6c"
            " a7 6d657373616765 a7 6e6f20726f6f6d a4 64617461 81 a5 6279746573 03 c0"
        ),
        Response(5, {"code": "input_full", "message": "no room", "data": {"bytes": 3}}, None),
    ),
    (
        pack_notification("event_gap", {"from": 1, "to": 300}),
        bytes.fromhex("93 02 a9 6576656e745f676170 91 82 a4 66726f6d 01 a2 746f cd 012c"),
        Notification("event_gap", [{"from": 1, "to": 300}]),
    ),
    (
        pack_output_header(3, 2**40, 2) + b"\x1b[",
        bytes.fromhex(
            "93 02 ae 73657373696f6e2e6f7574707574 91 83 aa 6174746163686d656e74 ce 00000003"
            " a6 6f6666736574 cf 0000010000000000 a4 64617461 c6 00000002 1b5b"
        ),
        Notification("session.output", [{"attachment": 3, "offset": 2**40, "data": b"\x1b["}]),
    ),
]


@pytest.mark.parametrize("packed, wire, message", TABLE)
def test_packs_and_decodes_to_the_same(packed: bytes, wire: bytes, message: Message) -> None:
    assert packed == wire
    assert decode_whole(wire) == [message]
    assert decode_by_byte(wire) == [message]
    assert decode_whole(wire + wire) == [message, message]
    assert decode_whole(wire + wire[:-1]) == [message]


@pytest.mark.parametrize("wire", [row[1] for row in TABLE])
def test_a_message_comes_with_its_last_byte_and_not_before(wire: bytes) -> None:
    decoder = Decoder()
    for at in range(len(wire)):
        assert list(decoder) == []
        decoder.feed(wire[at : at + 1])
    assert len(list(decoder)) == 1
    assert decoder.pending_bytes == 0


def test_long_forms_of_an_envelope_are_as_good_as_short_ones() -> None:
    wire = bytes.fromhex("dd 00000004 cc 00 cf 0000000000000001 da 0001 78 dc 0001 de 0000")
    assert decode_whole(wire) == [Request(1, "x", [{}])]
    assert decode_by_byte(wire) == [Request(1, "x", [{}])]


@pytest.mark.parametrize(
    "values",
    [
        7,
        "x",
        {},
        [],
        [0],
        [0, 1, "x"],
        [0, 1, "x", [], []],
        [3, 1, "x", []],
        [-1, 1, "x", []],
        [False, 1, "x", []],
        [True, 1, None, None],
        [0.0, 1, "x", []],
        ["0", 1, "x", []],
        [0, -1, "x", []],
        [0, 2**32, "x", []],
        [0, "1", "x", []],
        [0, True, "x", []],
        [0, 1, b"x", []],
        [0, 1, None, []],
        [1, None, None, None],
        [1, 1, None],
        [2, 5, []],
        [2, "x"],
        [2, "x", [], []],
    ],
)
def test_what_is_no_message_is_fatal(values: object) -> None:
    wire = msgpack.packb(values)
    good = pack_request(1, "x", {})
    decoder = Decoder()
    decoder.feed(good + wire + good)
    messages = iter(decoder)
    assert next(messages) == Request(1, "x", [{}])
    with pytest.raises(FramingError):
        next(messages)
    decoder.feed(good)
    with pytest.raises(FramingError):
        list(decoder)


def test_a_map_in_place_of_params_is_left_to_whoever_reads_params() -> None:
    assert decode_whole(msgpack.packb([0, 1, "x", {"id": 1}])) == [Request(1, "x", {"id": 1})]


def test_what_cannot_be_accepted_does_not_end_the_stream() -> None:
    twice = bytes.fromhex("94 00 01 a1 78 91 82 a1 61 01 a1 61 02")
    good = pack_request(2, "y", {})
    assert decode_whole(twice + good) == [
        Request(1, "x", Unacceptable("a map has the same key twice")),
        Request(2, "y", [{}]),
    ]


def test_O6_a_string_of_any_bytes_comes_back_as_it_was() -> None:
    """Neovim sends bytes as str, valid UTF-8 or not."""
    split = "é".encode()[:1] + b"\xff\x00 \x1b["
    (request,) = decode_whole(msgpack.packb([0, 1, "x", [split]], use_bin_type=False))
    assert isinstance(request, Request)
    assert isinstance(request.params, list)
    assert request.params[0].encode("utf-8", "surrogateescape") == split
    sent_back = pack_response(1, request.params[0])
    assert sent_back.endswith(split)


def test_O6_after_a_string_of_any_bytes_the_next_message_is_whole() -> None:
    odd = {"a": ["x" * 1000, "\udcff"]}
    for _ in range(2):
        assert decode_whole(pack_response(1, odd)) == [Response(1, None, odd)]
        assert pack_response(1, {}) == b"\x94\x01\x01\xc0\x80"


@pytest.mark.parametrize("count", [0, 1, 13, 14, 15, 16, 100])
def test_what_is_packed_in_pieces_is_the_same(count: int) -> None:
    first, second = {"a": 1}, {str(n): [n] for n in range(count)}
    items = [b"\x01", b"\xa1x"] * count
    answer = Packed(open_map(first, more=count + 1), pack_pairs(second), open_list("z", len(items)), *items)
    assert pack_response(7, answer) == pack_response(7, {**first, **second, "z": [1, "x"] * count})


@given(st.binary(min_size=1, max_size=200), st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1))
def test_O6_output_carries_any_bytes(data: bytes, attachment: int, offset: int) -> None:
    wire = pack_output_header(attachment, offset, len(data)) + data
    told = {"attachment": attachment, "offset": offset, "data": data}
    assert decode_whole(wire) == [Notification("session.output", [told])]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=8), inner, max_size=20),
    max_leaves=40,
)
"""Anything MessagePack has, but for what is refused, to a depth below the limit."""


@given(VALUES, st.data())
def test_any_value_survives_any_cut(value: object, cuts: st.DataObject) -> None:
    wire = pack_request(1, "x", {"a": value}) + pack_notification("y", {"b": value})
    decoder = Decoder(
        FrameLimits(frame_bytes=10**6, items=10**6, array_items=10**6, map_items=10**6, depth=99)
    )
    messages: list[Message] = []
    start = 0
    for cut in [*sorted(cuts.draw(st.lists(st.integers(0, len(wire)), max_size=8))), len(wire)]:
        decoder.feed(wire[start:cut])
        messages += decoder
        start = cut
    assert messages == [Request(1, "x", [{"a": value}]), Notification("y", [{"b": value}])]


def test_a_client_takes_a_list_of_every_session_there_can_be() -> None:
    rows = [{"id": f"s{number}", "labels": {"k": "v"}, "argv": ["sh"]} for number in range(16384)]
    decoder = Decoder(TO_CLIENT)
    decoder.feed(pack_response(1, {"sessions": rows}))
    (response,) = decoder
    assert isinstance(response, Response)
    assert response.result == {"sessions": rows}
