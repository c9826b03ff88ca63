"""Connections: hello, message ids, the form of errors; both ends against each other."""

import subprocess
import sys

import pytest

from ptyd.protocol import limits
from ptyd.protocol.codec import pack_error, pack_notification, pack_request, pack_response
from ptyd.protocol.connection import (
    ClientConnection,
    NotificationReceived,
    Refused,
    RequestReceived,
    ResponseReceived,
    ServerConnection,
    Violated,
)
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.messages import METHODS, SessionInput
from ptyd.protocol.states import ConnectionState
from tests.protocol.samples import SMALLEST


def error_of(client: ClientConnection, payload: bytes) -> PtydError:
    (event,) = client.receive(payload)
    assert isinstance(event, ResponseReceived)
    assert event.error is not None
    return event.error


def refusal(ours: ClientConnection, server: ServerConnection, method: str, **params: object) -> PtydError:
    (event,) = server.receive(ours.request(method, params)[1])
    assert isinstance(event, Refused)
    return error_of(ours, event.payload)


@pytest.mark.parametrize("method", METHODS)
def test_a_request_and_its_result(method: str) -> None:
    client, server = ClientConnection(), ServerConnection()
    msgid, payload = client.request(method, SMALLEST[method])
    assert client.in_flight == {msgid: method}
    (event,) = server.receive(payload)
    assert isinstance(event, RequestReceived)
    assert (event.msgid, event.method, type(event.params)) == (msgid, method, METHODS[method])
    assert server.in_flight == 1
    assert client.receive(server.respond(msgid, {"a": b"\xff"})) == [
        ResponseReceived(msgid, {"a": b"\xff"}, None)
    ]
    assert not client.in_flight
    assert server.in_flight == 0


def test_answers_may_come_in_any_order() -> None:
    client, server = ClientConnection(), ServerConnection()
    ids = [client.request("session.list", {}) for _ in range(3)]
    events = server.receive(b"".join(payload for _, payload in ids))
    assert [event.msgid for event in events if isinstance(event, RequestReceived)] == [1, 2, 3]
    answers = server.respond(3, "c") + server.respond(1, "a") + server.respond(2, "b")
    assert [event.result for event in client.receive(answers) if isinstance(event, ResponseReceived)] == [
        "c",
        "a",
        "b",
    ]


def test_an_answer_is_given_once() -> None:
    server = ServerConnection()
    server.receive(pack_request(1, "session.list", {}))
    server.respond(1, {})
    with pytest.raises(KeyError):
        server.respond(1, {})
    with pytest.raises(KeyError):
        server.respond_error(1, PtydError(Code.BUSY, "later"))


# --- hello ---------------------------------------------------------------------------------------


def test_hello_chooses_the_form_of_errors() -> None:
    for asked, as_map in [({}, False), ({"errors": "string"}, False), ({"errors": "map"}, True)]:
        client, server = ClientConnection(), ServerConnection()
        server.receive(client.request("hello", {**SMALLEST["hello"], **asked})[1])
        client.receive(server.respond(1, {}))
        assert server.as_map is as_map
        error = refusal(client, server, "session.get")
        assert error.data == ({"field": "id"} if as_map else {})


def test_who_never_says_hello_is_served_with_plain_errors() -> None:
    client, server = ClientConnection(), ServerConnection()
    error = refusal(client, server, "session.get")
    assert (error.code, error.message) == (Code.INVALID_PARAMS, "session.get: id: it is required")
    assert server.state is ConnectionState.SPEAKING


def test_hello_comes_first_or_never() -> None:
    client, server = ClientConnection(), ServerConnection()
    server.receive(client.request("session.list", {})[1])
    assert refusal(client, server, "hello", **SMALLEST["hello"]).code is Code.BAD_REQUEST
    server = ServerConnection()
    server.receive(client.request("hello", SMALLEST["hello"])[1])
    assert refusal(client, server, "hello", **SMALLEST["hello"]).code is Code.BAD_REQUEST


def test_a_bad_hello_leaves_a_connection_without_one() -> None:
    client, server = ClientConnection(), ServerConnection()
    error = refusal(client, server, "hello", client="x", protocols=[2], errors="map")
    assert (error.code, error.data) == (Code.INVALID_PARAMS, {})
    assert refusal(client, server, "hello", **SMALLEST["hello"]).code is Code.BAD_REQUEST
    assert refusal(client, server, "nope").code is Code.UNKNOWN_METHOD


# --- message ids ---------------------------------------------------------------------------------


def test_a_message_id_in_flight_is_refused_and_its_first_owner_is_answered() -> None:
    client, server = ClientConnection(), ServerConnection()
    msgid, payload = client.request("session.list", {})
    server.receive(payload)
    (event,) = server.receive(pack_request(msgid, "session.get", {"id": "a"}))
    assert isinstance(event, Refused)
    assert error_of(client, event.payload).code is Code.BAD_REQUEST
    assert server.respond(msgid, {})
    (event,) = server.receive(pack_request(msgid, "session.get", {"id": "a"}))
    assert isinstance(event, RequestReceived)


def test_the_request_after_the_last_allowed_is_refused_until_one_is_answered() -> None:
    client, server = ClientConnection(), ServerConnection()
    for _ in range(limits.MAX_REQUESTS_IN_FLIGHT):
        (event,) = server.receive(client.request("session.list", {})[1])
        assert isinstance(event, RequestReceived)
    error = refusal(client, server, "session.list")
    assert error.code is Code.TOO_MANY_REQUESTS
    client.receive(server.respond(5, {}))
    (event,) = server.receive(client.request("session.list", {})[1])
    assert isinstance(event, RequestReceived)


def test_a_client_goes_round_past_the_ids_in_flight() -> None:
    client = ClientConnection()
    assert [client.request("session.list", {})[0] for _ in range(3)] == [1, 2, 3]
    client._last_msgid = limits.MAX_MSGID - 1
    assert [client.request("session.list", {})[0] for _ in range(2)] == [limits.MAX_MSGID, 4]


# --- notifications -------------------------------------------------------------------------------


def test_input_is_the_one_notification_that_is_heard() -> None:
    client, server = ClientConnection(), ServerConnection()
    data = client.notify("session.input", {"id": "a", "data": b"x"})
    assert server.receive(data) == [NotificationReceived("session.input", SessionInput(id="a", data=b"x"))]
    for method in [*METHODS, "nope", "error"]:
        if method != "session.input":
            assert server.receive(client.notify(method, {"labels": {"a": "b"}})) == []
    assert server.state is ConnectionState.SPEAKING
    assert server.in_flight == 0


def test_a_client_hears_every_notification_also_of_a_later_daemon() -> None:
    client, server = ClientConnection(), ServerConnection()
    wire = server.notify("session.gap", {"attachment": 1, "from": 2, "to": 3})
    wire += server.notify("brand_new", {"a": 1})
    assert client.receive(wire) == [
        NotificationReceived("session.gap", {"attachment": 1, "from": 2, "to": 3}),
        NotificationReceived("brand_new", {"a": 1}),
    ]


# --- ends ----------------------------------------------------------------------------------------


def test_the_end_of_the_stream_closes() -> None:
    server = ServerConnection()
    assert server.receive(b"") == []
    assert server.state is ConnectionState.CLOSED
    assert server.receive(b"") == []
    assert server.receive(pack_request(1, "session.list", {})) == []


def test_what_came_before_a_violation_is_served_and_can_be_answered() -> None:
    server = ServerConnection()
    events = server.receive(pack_request(1, "session.list", {}) + b"\xc1" + pack_request(2, "x", {}))
    assert [type(event) for event in events] == [RequestReceived, Violated]
    assert server.respond(1, {})


def test_a_daemon_asks_nothing_and_so_takes_no_answers() -> None:
    server = ServerConnection()
    (event,) = server.receive(pack_response(1, {}))
    assert isinstance(event, Violated)


@pytest.mark.parametrize(
    "wire",
    [
        pack_response(9, {}),
        pack_error(9, PtydError(Code.BUSY, "x"), as_map=True),
        pack_request(1, "session.list", {}),
        b"\x93\x02\xa1x\x90",
        b"\x93\x02\xa1x\x80",
        b"\x94\x01\x01\xc0\xd4\x05x",
        b"\xc1",
        pack_notification("x", {}) + b"\x01",
    ],
)
def test_a_daemon_that_talks_nonsense_is_told_apart_from_one_that_refuses(wire: bytes) -> None:
    client = ClientConnection()
    client.request("session.list", {})
    with pytest.raises(PtydError) as caught:
        client.receive(wire)
    assert caught.value.code is Code.PROTOCOL_VIOLATION


def test_a_client_does_not_send_what_would_end_its_connection() -> None:
    client = ClientConnection()
    for send in (client.request, client.notify):
        with pytest.raises(PtydError) as caught:
            send("session.input", {"id": "a", "data": b"x" * limits.MAX_FRAME_BYTES})
        assert caught.value.code is Code.INVALID_PARAMS
    assert not client.in_flight


# --- imports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module, unwanted",
    [
        ("ptyd.protocol.connection", ["attr", "attrs", "trio", "ptyd.protocol.messages"]),
        ("ptyd.protocol.errors", ["attr", "msgpack", "ptyd.protocol.codec"]),
        ("ptyd.protocol.states", ["attr", "msgpack", "ptyd.protocol.errors"]),
        ("ptyd.protocol.limits", ["attr", "msgpack"]),
    ],
)
def test_a_quick_command_does_not_pay_for_the_daemon_s_half(module: str, unwanted: list[str]) -> None:
    check = f"import {module}, sys; print(*[m for m in {unwanted!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
