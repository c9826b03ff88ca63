"""X1: whatever is sent, a typed error or a closed connection comes of it, and memory stays bounded."""

import contextlib
import tracemalloc

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ptyd.protocol import limits
from ptyd.protocol.codec import Decoder, FramingError, Request, Unacceptable, pack_notification, pack_request
from ptyd.protocol.connection import (
    ClientConnection,
    NotificationReceived,
    Refused,
    RequestReceived,
    ServerConnection,
    ServerEvent,
    Violated,
)
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.states import ConnectionState
from tests.protocol.samples import (
    EXT_TYPES,
    HEADERS_OF_4_GIB,
    NANS,
    SMALLEST,
    decode_whole,
    request_with,
)

HELLO = pack_request(1, "hello", {"client": "test", "protocols": [1], "errors": "map"})
GOOD = pack_request(200, "session.list", {})


@pytest.fixture(params=[False, True], ids=["no hello", "hello"])
def server(request: pytest.FixtureRequest) -> ServerConnection:
    server = ServerConnection()
    if request.param:
        server.receive(HELLO)
        server.respond(1, {})
    return server


def told(payload: bytes) -> list[object]:
    """What the other end gets: always one whole message, for strict decoders too."""
    message: list[object] = msgpack.unpackb(payload)
    return message


def assert_served(server: ServerConnection) -> None:
    """The connection still works."""
    (event,) = server.receive(GOOD)
    assert isinstance(event, RequestReceived)
    server.respond(event.msgid, {})


def assert_closed(server: ServerConnection, events: list[ServerEvent]) -> None:
    assert isinstance(events[-1], Violated)
    match told(events[-1].payload):
        case [2, "error", [{"code": "bad_request", "message": str()}]]:
            pass
        case other:
            raise AssertionError(other)
    assert server.state is ConnectionState.CLOSED
    assert server.receive(GOOD) == []


def assert_refused(event: ServerEvent, msgid: int, code: Code, server: ServerConnection) -> None:
    assert isinstance(event, Refused)
    kind, answered, error, result = told(event.payload)
    assert (kind, answered, result) == (1, msgid, None)
    assert PtydError.from_wire(error).code is code
    assert isinstance(error, dict) is server.as_map


# --- noise ---------------------------------------------------------------------------------------

NOISE = st.binary(max_size=400)
PIECES = st.sampled_from(
    [
        HELLO,
        GOOD,
        GOOD[:-3],
        *HEADERS_OF_4_GIB.values(),
        *map(request_with, EXT_TYPES.values()),
        *map(request_with, NANS.values()),
        pack_notification("session.input", {"id": "a", "data": b"x"}),
        pack_notification("session.input", {}),
        pack_notification("nope", {}),
        *(pack_request(9, method, params) for method, params in SMALLEST.items()),
    ]
)


@given(st.lists(NOISE | PIECES, max_size=8), st.integers(1, 50))
@example([b"\xc1"], 1)
@example([HELLO, pack_request(2, "nope\udcff", {})], 1)
@settings(max_examples=400)
def test_X1_random_bytes_are_answered_or_end_the_connection(parts: list[bytes], step: int) -> None:
    server = ServerConnection()
    data = b"".join(parts)
    for start in range(0, len(data), step):
        for event in server.receive(data[start : start + step]):
            assert server.in_flight <= limits.MAX_REQUESTS_IN_FLIGHT
            match event:
                case RequestReceived(msgid):
                    server.respond_error(msgid, PtydError(Code.BUSY, "test"))
                case Refused(payload) | Violated(payload):
                    told(payload)
                case NotificationReceived(method):
                    assert method == "session.input"


@given(st.lists(NOISE | PIECES, max_size=5), st.integers(1, 50))
def test_X1_random_bytes_end_a_client_with_a_typed_error_at_worst(parts: list[bytes], step: int) -> None:
    client = ClientConnection()
    client.request("session.list", {})
    data = b"".join(parts)
    with contextlib.suppress(PtydError):  # which code: test_connection
        for start in range(0, len(data), step):
            client.receive(data[start : start + step])


def outcome(pieces: list[bytes]) -> tuple[list[object], bool]:
    """The messages that came out, and whether it ended badly."""
    decoder = Decoder()
    messages: list[object] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            messages.extend(decoder)
    except FramingError:
        return messages, True
    return messages, False


@given(st.lists(NOISE | PIECES, max_size=4))
def test_X1_cutting_decides_nothing(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert repr(outcome([data])) == repr(outcome([bytes([byte]) for byte in data]))


@pytest.mark.parametrize("wire", [HELLO, GOOD, pack_notification("session.input", SMALLEST["session.input"])])
def test_X1_truncated_messages_do_nothing(wire: bytes) -> None:
    for end in range(len(wire)):
        server = ServerConnection()
        assert server.receive(wire[:end]) == []
        assert server.receive(b"") == []
        assert server.state is ConnectionState.CLOSED


# --- lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEADERS_OF_4_GIB)
@pytest.mark.parametrize("is_inside", [False, True])
def test_X1_a_4_GiB_length_is_refused_at_its_header(
    name: str, is_inside: bool, server: ServerConnection
) -> None:
    header = HEADERS_OF_4_GIB[name]
    wire = request_with(header) if is_inside else header
    tracemalloc.start()
    assert_closed(server, server.receive(wire))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("length", [limits.MAX_FRAME_BYTES, limits.MAX_FRAME_BYTES - 40])
def test_X1_a_message_is_bounded_as_a_whole(length: int, server: ServerConnection) -> None:
    wire = request_with(b"\xc6" + length.to_bytes(4, "big"))
    if length < limits.MAX_FRAME_BYTES:
        assert server.receive(wire) == []
        (event,) = server.receive(b"x" * length)
        assert isinstance(event, RequestReceived)  # an unknown key, ignored
    else:
        assert_closed(server, server.receive(wire))


def test_X1_many_small_values_are_a_large_message_too(server: ServerConnection) -> None:
    wire = request_with(b"\xdc\x0f\xff" + b"\x90" * 4095) + b"\x00" * 7
    assert_closed(server, server.receive(wire)[1:])
    decoder = Decoder()
    decoder.feed(request_with((b"\xdc\x0f\xff" + (b"\xdc\x0f\xff" + b"\x80" * 4095) * 4095)[: 1 << 19]))
    with pytest.raises(FramingError, match="16384 values"):
        list(decoder)


@pytest.mark.parametrize(
    "header", [b"\xdc\x10\x01", b"\xde\x10\x01", b"\xdd\0\0\x10\x01", b"\xdf\0\0\x10\x01"]
)
def test_X1_huge_maps_and_arrays_are_refused_at_their_header(header: bytes, server: ServerConnection) -> None:
    assert_closed(server, server.receive(request_with(header)))


def test_X1_what_is_incomplete_is_held_as_bytes_only() -> None:
    """An unfinished message of empty maps costs its own size, not seventy times that."""
    decoder = Decoder()
    tracemalloc.start()
    decoder.feed(request_with(b"\xdc\x0f\xff" + b"\x80" * 4094))
    list(decoder)
    decoder.feed(b"\xda\xff\xff" + b"x" * 60_000)
    list(decoder)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 200_000


def test_X1_bytes_one_by_one_cost_no_more_than_at_once() -> None:
    """Linear in the number of bytes: what was scanned is not scanned again."""
    wire = request_with(b"\xdc\x0f\xff" + b"\xa1x" * 4095)
    scanned = []
    decoder = Decoder()
    scan = decoder._scanner.scan

    def counting(buffer: bytearray) -> bool:
        before = decoder._scanner._items
        is_whole = scan(buffer)
        scanned.append(decoder._scanner._items - before)
        return is_whole

    decoder._scanner.scan = counting  # type: ignore[method-assign]
    for at in range(len(wire)):
        decoder.feed(wire[at : at + 1])
        list(decoder)
    assert sum(count for count in scanned if count > 0) < 5000


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXT_TYPES)
def test_X1_ext_types_are_refused_and_the_rest_is_served(name: str, server: ServerConnection) -> None:
    (event,) = server.receive(request_with(EXT_TYPES[name]))
    assert_refused(event, 7, Code.INVALID_PARAMS, server)
    assert_served(server)


@pytest.mark.parametrize("name", NANS)
def test_X1_nan_is_refused_and_the_rest_is_served(name: str, server: ServerConnection) -> None:
    for wire in (NANS[name], b"\x91" + NANS[name], b"\x81\xa1y" + NANS[name]):
        (event,) = server.receive(request_with(wire))
        assert_refused(event, 7, Code.INVALID_PARAMS, server)
    assert_served(server)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\x82\xa1a\x01\xa1a\x02", id="str twice"),
        pytest.param(b"\x82\xc4\x01a\x01\xc4\x01a\x02", id="bin twice"),
        pytest.param(b"\x82\xa1a\x01\xd9\x01a\x02", id="twice in two encodings"),
        pytest.param(b"\x81\x01\x02", id="integer"),
        pytest.param(b"\x81\xc0\x02", id="nil"),
        pytest.param(b"\x81\xc3\x02", id="boolean"),
        pytest.param(b"\x81\x90\x02", id="array"),
        pytest.param(b"\x81\x80\x02", id="map"),
        pytest.param(b"\x81" + b"\xcb\x3f\xf8" + b"\0" * 6 + b"\x02", id="float"),
    ],
)
def test_X1_bad_keys_are_refused_and_the_rest_is_served(value: bytes, server: ServerConnection) -> None:
    for wire in (value, b"\x91" + value):
        (event,) = server.receive(request_with(wire))
        assert_refused(event, 7, Code.INVALID_PARAMS, server)
    assert_served(server)


def test_X1_the_same_param_twice_is_refused(server: ServerConnection) -> None:
    wire = b"\x94\x00\x07\xacsession.kill\x91\x83\xa2id\xa1a\xa5force\xc2\xa5force\xc3"
    (event,) = server.receive(wire)
    assert_refused(event, 7, Code.INVALID_PARAMS, server)
    assert_served(server)


@pytest.mark.parametrize("depth", [limits.MAX_DEPTH - 3, limits.MAX_DEPTH - 2, 100, 1100, 16_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"], ids=["arrays", "maps"])
def test_X1_depth_bombs(depth: int, opening: bytes, server: ServerConnection) -> None:
    """The envelope, the params and the map are three of the sixteen."""
    if opening != b"\x91":
        depth = min(depth, 8000)
    (event,) = server.receive(request_with(opening * depth + b"\x01"))
    if depth <= limits.MAX_DEPTH - 3:
        assert isinstance(event, RequestReceived)
        server.respond(event.msgid, {})
    else:
        assert_refused(event, 7, Code.INVALID_PARAMS, server)
    assert_served(server)


def test_X1_a_deeper_bomb_is_over_the_number_of_values(server: ServerConnection) -> None:
    assert_closed(server, server.receive(request_with(b"\x91" * limits.MAX_FRAME_BYTES)))


@pytest.mark.parametrize("method", SMALLEST)
def test_X1_params_that_are_unacceptable_are_so_for_every_method(method: str) -> None:
    (message,) = decode_whole(request_with(b"\xd4\x05x", method=method))
    assert isinstance(message, Request)
    assert isinstance(message.params, Unacceptable)
    (event,) = ServerConnection().receive(request_with(b"\xd4\x05x", method=method))
    assert isinstance(event, Refused)


@pytest.mark.parametrize(
    "bad", [EXT_TYPES["fixext1"], NANS["float64"], b"\x81\x01\x02", b"\x82\xa1a\x01\xa1a\x02"]
)
def test_X1_the_same_in_an_envelope_is_fatal(bad: bytes, server: ServerConnection) -> None:
    for wire in (
        b"\x94" + bad + b"\x01\xa1x\x90",
        b"\x94\x00" + bad + b"\xa1x\x90",
        b"\x94\x00\x01" + bad + b"\x90",
        b"\x93\x02" + bad + b"\x90",
        b"\x95\x00\x01\xa1x\x90" + bad,
        b"\x94\x01\x01\xc0" + bad,
        bad,
    ):
        fresh = ServerConnection()
        assert_closed(fresh, fresh.receive(wire))
    assert_served(server)


def test_X1_an_input_notification_that_is_bad_is_told_of(server: ServerConnection) -> None:
    cases: list[tuple[dict[str, object], str, int]] = [
        ({"id": "a", "data": b"xyz", "wait_ms": -1}, "a", 3),
        ({"id": 5, "data": b"xyz"}, "", 3),
        ({"data": [1]}, "", 0),
        ({}, "", 0),
    ]
    for params, session_id, count in cases:
        (event,) = server.receive(pack_notification("session.input", params))
        assert isinstance(event, Refused)
        match told(event.payload):
            case [2, "session.input_refused", [refused]]:
                assert isinstance(refused, dict)
                assert (refused["id"], refused["bytes"]) == (session_id, count)
                assert refused["code"] == "invalid_params"
            case other:
                raise AssertionError(other)
    (event,) = server.receive(b"\x93\x02\xadsession.input\x91\xd4\x05x")
    assert isinstance(event, Refused)
    assert_served(server)


@pytest.mark.parametrize("errors", ["string", "map"])
def test_X1_an_answer_is_valid_utf8_whatever_was_asked(errors: str) -> None:
    """A method or an id that is no UTF-8 must not come back as it was: `told` decodes strictly."""
    server = ServerConnection()
    server.receive(pack_request(1, "hello", {"client": "test", "protocols": [1], "errors": errors}))
    for wire in (
        pack_request(2, "nope\udcff", {}),
        pack_request(2, "session.get", {"id": "\udcff"}),
        pack_request(2, "session.kill", {"labels": {"\udcff": "a"}}),
        pack_request(2, "session.spawn", {"argv": ["sh"], "env": {"A\udcff": "\0"}}),
        pack_notification("session.input", {"id": "a\udcff", "data": b"x"}),
        pack_notification("session.input", {"id": "a\udcff"}),
    ):
        (event,) = server.receive(wire)
        assert isinstance(event, Refused)
        assert told(event.payload)
