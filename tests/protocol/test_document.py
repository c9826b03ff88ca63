"""protocol.md and the code say the same: tables, errors, states, limits, and every example's bytes.

Both directions: what the code has must be in the document, and what the document has in the code. What
only the host service's chapter has is in `test_host_document`.
"""

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgpack
import pytest

from ptyd.protocol import limits, results
from ptyd.protocol.codec import (
    Notification,
    Request,
    Response,
    pack_error,
    pack_notification,
    pack_output_header,
    pack_request,
    pack_response,
)
from ptyd.protocol.connection import ClientConnection, RequestReceived, ServerConnection
from ptyd.protocol.errors import TABLE, PtydError
from ptyd.protocol.fields import parse_map, table_rows
from ptyd.protocol.messages import ANY_METHOD_ERRORS, METHODS, parse_params
from ptyd.protocol.notifications import NOTIFICATIONS
from ptyd.protocol.states import (
    CONNECTION_TRANSITIONS,
    SESSION_TRANSITIONS,
    SessionEvent,
    SessionState,
)
from tests.protocol.document import (
    DOCUMENT,
    EXAMPLES,
    HOST,
    PTYD,
    SERVICES,
    Example,
    Service,
    anchor,
    code,
    each_example,
    of_each,
    result_rows,
    section,
    tables,
)
from tests.protocol.samples import decode_by_byte, decode_whole

# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("service, method", of_each("methods"))
def test_params_of_a_method(service: Service, method: str) -> None:
    text = service.section(method)
    documented = [rows for rows in tables(text, "field", "type") if len(rows[0]) == 5]
    declared = [(f"`{row.name}`", *row[1:]) for row in table_rows(service.methods[method])]
    assert documented == ([declared] if declared else [])
    assert ("Params: none." in text) is not bool(declared)


@pytest.mark.parametrize("service, method", of_each("methods"))
def test_result_of_a_method(service: Service, method: str) -> None:
    text, cls = service.section(method), service.results[method]
    documented = [rows for rows in tables(text, "field", "type") if len(rows[0]) == 4]
    named = [name for name, shape in service.shapes.items() if shape is cls]
    if named:
        assert f"Result: a {service.link(named[0])}." in text
    elif cls is results.Nothing:
        assert "Result: an empty map." in text
    else:
        assert result_rows(cls) == documented.pop(0)
    others = [results.SessionKillManyResult] if method == "session.kill" else []
    assert documented == [result_rows(other) for other in others]


@pytest.mark.parametrize("service, method", of_each("methods"))
def test_errors_of_a_method(service: Service, method: str) -> None:
    found = re.search(r"^Errors: (.*)\.$", service.section(method), re.MULTILINE)
    assert found
    documented = tuple(code(word) for word in found[1].split(", ") if word != "none of its own")
    assert documented == service.errors[method]


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_fields_of_a_notification(name: str) -> None:
    assert tables(section(name), "field") == [result_rows(NOTIFICATIONS[name])]


@pytest.mark.parametrize("service, name", of_each("shapes"))
def test_fields_of_a_shape(service: Service, name: str) -> None:
    assert tables(service.section(name), "field") == [result_rows(service.shapes[name])]


def test_nothing_is_documented_that_does_not_exist() -> None:
    def headings(title: str) -> list[str]:
        return re.findall(r"^###+ (.*)$", section(title), re.MULTILINE)

    assert headings("Methods") == list(METHODS)
    assert headings("Notifications") == list(NOTIFICATIONS)
    assert headings("Shapes") == list(PTYD.shapes)
    # Those of the host service stand in the reader's order; the tables are filled by module.
    assert sorted(headings("hostsvc: methods")) == sorted(HOST.prefix + name for name in HOST.methods)
    assert sorted(headings("hostsvc: shapes")) == sorted(HOST.prefix + name for name in HOST.shapes)
    assert headings("hostsvc: notifications") == [HOST.prefix + "event"]
    assert all(title.startswith(HOST.prefix) for title in headings("The host service"))


def test_errors() -> None:
    (documented,) = tables(section("Errors"), "code", "number")
    assert documented == [
        (f"`{name}`", str(row.number), str(row.exit_status), row.meaning) for name, row in TABLE.items()
    ]
    assert tables(section("Errors"), "field") == [result_rows(results.WireError)]
    (anywhere,) = re.findall(r"^Any method may answer (.*?);", section("Errors"), re.MULTILINE)
    assert re.findall(r"`(.*?)`", anywhere) == list(ANY_METHOD_ERRORS)


def test_states() -> None:
    text = section("Session states")
    assert [code(row[0]) for row in tables(text, "state", "meaning")[0]] == list(SessionState)
    assert [code(row[0]) for row in tables(text, "event", "meaning")[0]] == list(SessionEvent)
    for title, transitions in [
        ("Session states", SESSION_TRANSITIONS),
        ("Connection states", CONNECTION_TRANSITIONS),
    ]:
        (documented,) = tables(section(title), "state", "event")
        declared = [(*key, to) for key, to in transitions.items()]  # type: ignore[attr-defined]
        assert [tuple(map(code, row)) for row in documented] == declared


def test_limits() -> None:
    (documented,) = tables(section("Limits"), "limit")
    assert {code(row[0]): int(row[1]) for row in documented} == limits.ADVERTISED


@pytest.mark.parametrize("service", SERVICES)
def test_event_types(service: Service) -> None:
    (documented,) = tables(service.section("event"), "type")
    assert {code(row[0]): row[1] for row in documented} == service.events


@pytest.mark.parametrize("title", ["Ordering", "hostsvc: ordering"])
def test_ordering_is_numbered_and_binding(title: str) -> None:
    (promises,) = tables(section(title), "#")
    assert [int(row[0]) for row in promises] == list(range(1, len(promises) + 1))
    assert all("MUST" in row[1] or "MAY" in row[1] for row in promises)


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    buffers = section("Buffers")
    assert f"| {limits.MAX_REQUESTS_IN_FLIGHT} not answered |" in buffers
    assert f"| {limits.INPUT_QUEUE_BYTES >> 20} MiB that its programs have not read |" in buffers
    assert f"{limits.PACE_PROGRESS_BYTES >> 10} KiB, or all there is, in every" in buffers
    assert f"in every {limits.PACE_DEADLINE_MS // 1000} s" in buffers
    assert f"| events | {limits.EVENTS_KEPT} |" in buffers
    assert f"up to {limits.MAX_LABELS} labels" in section("Labels")
    assert f"1..{limits.MAX_PATTERN_BYTES} bytes" in section("session.wait")
    assert f"int, 1..{limits.MAX_WAIT_MS} " in section("session.wait")
    for reason in results.REASONS:
        assert f"`{reason}`:" in section("survivor")
    for proof in results.PROOFS:
        assert f"`{proof}`," in section("session.kill")
    for phase in results.PHASES:
        assert f"*{phase}*" in section("session.kill")


def test_links_and_contents() -> None:
    titles = re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
    assert len(set(titles)) == len(titles)
    anchors = {anchor(title) for title in titles}
    for found in re.findall(r"\]\(#(.*?)\)", DOCUMENT):
        assert found in anchors
    contents = next(line for line in DOCUMENT.splitlines() if line.startswith("Contents: "))
    assert re.findall(r"\[(.*?)\]", contents) == re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)


def test_nothing_is_left_open() -> None:
    assert not re.search(r"\bTODO\b|\bTBD\b|\bFIXME\b|\{\{", DOCUMENT)


# --- examples ------------------------------------------------------------------------------------


def encode(literal: list[Any]) -> bytes:
    """The bytes that our own end would send for it."""
    match literal:
        case [0, int(msgid), str(method), [params]]:
            return pack_request(msgid, method, params)
        case [1, int(msgid), None, result]:
            return pack_response(msgid, result)
        case [1, int(msgid), error, None]:
            return pack_error(msgid, PtydError.from_wire(error), as_map=isinstance(error, dict))
        case [2, "session.output", [params]]:
            header = pack_output_header(params["attachment"], params["offset"], len(params["data"]))
            return header + bytes(params["data"])
        case [2, str(method), [params]]:
            return pack_notification(method, params)
    return bytes(msgpack.packb(literal))


@each_example
def test_an_example_is_what_its_bytes_say(example: Example) -> None:
    assert encode(example.literal) == example.wire
    for decode in (decode_whole, decode_by_byte):
        (message,) = decode(example.wire)
        match message:
            case Request():
                assert [0, *message] == example.literal
            case Response():
                assert [1, *message] == example.literal
            case Notification():
                assert [2, *message] == example.literal


@each_example
def test_an_example_is_valid(example: Example) -> None:
    match example.literal:
        case [0, _, method, params] | [2, method, params] if example.is_from_client:
            assert method == example.title
            parse_params(method, params, example.service.methods)
        case [2, method, [params]]:
            assert method == example.title
            parse_map(NOTIFICATIONS[method], params)
        case [1, _, None, {"results": _} as result]:
            parse_map(results.SessionKillManyResult, result)
        case [1, _, None, result]:
            parse_map(example.service.results[example.title], result)
        case [1, _, error, None]:
            refused = PtydError.from_wire(error)
            assert refused.code in example.service.errors[example.title]
            if isinstance(error, dict):
                parse_map(results.WireError, error)
            for survivor in refused.data.get("survivors", []):
                parse_map(results.Survivor, survivor)
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("service", SERVICES)
def test_every_method_and_notification_has_its_examples(service: Service) -> None:
    shown = {(e.title, e.literal[0]) for e in EXAMPLES if e.service is service}
    assert {title for title, kind in shown if kind == 0} == set(service.methods)
    assert {title for title, kind in shown if kind == 1} == set(service.methods)
    notified = {title for title, kind in shown if kind == 2}
    assert notified == ({"event"} if service is HOST else {*NOTIFICATIONS, "session.input"})


def test_examples_between_our_own_two_ends() -> None:
    """A client of ours takes every answer and notification shown."""
    for example in EXAMPLES:
        if not example.is_from_client:
            client = ClientConnection()
            client.in_flight[example.literal[1]] = example.title
            assert len(client.receive(example.wire)) == 1
        else:
            assert len(ServerConnection(example.service.methods).receive(example.wire)) == 1


# --- the client in 30 lines ----------------------------------------------------------------------


def serve(listener: socket.socket, script: dict[str, Any], output: bytes) -> None:
    """Play the daemon for one client: answer by the script, then send output and the end."""
    client, _ = listener.accept()
    server = ServerConnection()
    with client:
        while data := client.recv(65536):
            for event in server.receive(data):
                assert isinstance(event, RequestReceived)
                client.sendall(server.respond(event.msgid, script[event.method]))
                if event.method == "session.attach":
                    end = {"attachment": 1, "exit": {"code": 7}, "proof": "echild", "offset": len(output)}
                    client.sendall(pack_output_header(1, 0, len(output)) + output)
                    client.sendall(server.notify("session.end", end))


def test_O6_the_client_in_30_lines_works(tmp_path: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", section("A client in 30 lines"), re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 32
    output = b"caf\xc3\xa9 \xff\x1b[0m\r\n"
    script = {"session.spawn": {"id": "a"}, "session.attach": {"attachment": 1}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "ptyd.sock"))
        listener.listen()
        daemon = threading.Thread(target=serve, args=(listener, script, output))
        daemon.start()
        env = {"PTYD_RUNTIME_DIR": str(tmp_path)}
        ran = subprocess.run(
            [sys.executable, "-c", source, "true"], capture_output=True, env=env, timeout=30, check=False
        )
        daemon.join()
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, output, b"")
