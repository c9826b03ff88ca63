"""protocol.md and the code say the same: tables, errors, states, limits, and every example's bytes.

Both directions: what the code has must be in the document, and what the document has in the code.
"""

import ast
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

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
from ptyd.protocol.messages import ANY_METHOD_ERRORS, ERRORS, METHODS, RESULTS, parse_params
from ptyd.protocol.notifications import EVENT_TYPES, NOTIFICATIONS
from ptyd.protocol.states import (
    CONNECTION_TRANSITIONS,
    SESSION_TRANSITIONS,
    SessionEvent,
    SessionState,
)
from tests.protocol.samples import decode_by_byte, decode_whole

DOCUMENT = Path(__file__).parents[2].joinpath("protocol.md").read_text()
Row = tuple[str, ...]

SHAPES: dict[str, type] = {
    "exit": results.Exit,
    "session": results.Session,
    "foreground": results.Foreground,
    "straggler": results.Straggler,
    "survivor": results.Survivor,
}


def section(title: str) -> str:
    """The text below the heading `title`, down to the next heading of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", DOCUMENT, re.MULTILINE)
    assert found, f"protocol.md has no section {title}"
    rest = DOCUMENT[found.end() :]
    level = len(found[1])
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def tables(text: str, first: str, second: str = "") -> list[list[Row]]:
    """The rows of every table in `text` whose head begins so."""
    found: list[list[Row]] = []
    rows: list[Row] | None = None
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split(" | "))
        if not line.startswith("|"):
            rows = None
        elif cells[0] == first and (not second or cells[1] == second):
            rows = []
            found.append(rows)
        elif rows is not None and not line.startswith("|---"):
            rows.append(cells)
    return found


def code(text: str) -> str:
    return text.strip("`")


def result_rows(cls: type) -> list[Row]:
    """A shape as protocol.md shows it: what may be nil says so in its type."""
    return [
        (f"`{row.name}`", row.type + (" or nil" if row.default == "none" else ""), row.bound, row.meaning)
        for row in table_rows(cls)
    ]


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_params_of_a_method(method: str) -> None:
    text = section(method)
    documented = [rows for rows in tables(text, "field", "type") if len(rows[0]) == 5]
    declared = [(f"`{row.name}`", *row[1:]) for row in table_rows(METHODS[method])]
    assert documented == ([declared] if declared else [])
    assert ("Params: none." in text) is not bool(declared)


@pytest.mark.parametrize("method", METHODS)
def test_result_of_a_method(method: str) -> None:
    text, cls = section(method), RESULTS[method]
    documented = [rows for rows in tables(text, "field", "type") if len(rows[0]) == 4]
    if cls is results.Session:
        assert "Result: a [session](#session)." in text
    elif cls is results.Nothing:
        assert "Result: an empty map." in text
    else:
        assert result_rows(cls) == documented.pop(0)
    others = [results.SessionKillManyResult] if method == "session.kill" else []
    assert documented == [result_rows(other) for other in others]


@pytest.mark.parametrize("method", METHODS)
def test_errors_of_a_method(method: str) -> None:
    found = re.search(r"^Errors: (.*)\.$", section(method), re.MULTILINE)
    assert found
    documented = tuple(code(word) for word in found[1].split(", ") if word != "none of its own")
    assert documented == ERRORS[method]


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_fields_of_a_notification(name: str) -> None:
    assert tables(section(name), "field") == [result_rows(NOTIFICATIONS[name])]


@pytest.mark.parametrize("name", SHAPES)
def test_fields_of_a_shape(name: str) -> None:
    assert tables(section(name), "field") == [result_rows(SHAPES[name])]


def test_nothing_is_documented_that_does_not_exist() -> None:
    def headings(title: str) -> list[str]:
        return re.findall(r"^### (.*)$", section(title), re.MULTILINE)

    assert headings("Methods") == list(METHODS)
    assert headings("Notifications") == list(NOTIFICATIONS)
    assert headings("Shapes") == list(SHAPES)


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


def test_event_types() -> None:
    (documented,) = tables(section("event"), "type")
    assert {code(row[0]): row[1] for row in documented} == EVENT_TYPES


def test_ordering_is_numbered_and_binding() -> None:
    (promises,) = tables(section("Ordering"), "#")
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
    anchors = {title.lower().replace(" ", "-").replace(".", "") for title in titles}
    for anchor in re.findall(r"\]\(#(.*?)\)", DOCUMENT):
        assert anchor in anchors
    contents = next(line for line in DOCUMENT.splitlines() if line.startswith("Contents: "))
    assert re.findall(r"\[(.*?)\]", contents) == re.findall(r"^## (.*)$", DOCUMENT, re.MULTILINE)


def test_nothing_is_left_open() -> None:
    assert not re.search(r"\bTODO\b|\bTBD\b|\bFIXME\b|\{\{", DOCUMENT)


# --- examples ------------------------------------------------------------------------------------


class Example(NamedTuple):
    title: str
    is_from_client: bool
    literal: list[Any]
    wire: bytes


def examples() -> list[Example]:
    found = []
    for part in re.split(r"^### ", DOCUMENT, flags=re.MULTILINE)[1:]:
        title = part.split("\n", 1)[0]
        for block in re.findall(r"^```example\n(.*?)^```", part, re.MULTILINE | re.DOTALL):
            for shown in re.split(r"^(?=>>>|<<<)", block, flags=re.MULTILINE)[1:]:
                lines = shown[3:].splitlines()
                is_hex = [re.fullmatch(r"[0-9a-f]{2}( [0-9a-f]{2})*", line) is not None for line in lines]
                text = "\n".join(line for line, h in zip(lines, is_hex, strict=True) if not h)
                wire = bytes.fromhex(" ".join(line for line, h in zip(lines, is_hex, strict=True) if h))
                found.append(Example(title, shown[:3] == ">>>", ast.literal_eval(text.strip()), wire))
    return found


EXAMPLES = examples()


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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_an_example_is_valid(example: Example) -> None:
    match example.literal:
        case [0, _, method, params] | [2, method, params] if example.is_from_client:
            assert method == example.title
            parse_params(method, params)
        case [2, method, [params]]:
            assert method == example.title
            parse_map(NOTIFICATIONS[method], params)
        case [1, _, None, {"results": _} as result]:
            parse_map(results.SessionKillManyResult, result)
        case [1, _, None, result]:
            parse_map(RESULTS[example.title], result)
        case [1, _, error, None]:
            refused = PtydError.from_wire(error)
            assert refused.code in ERRORS[example.title]
            if isinstance(error, dict):
                parse_map(results.WireError, error)
            for survivor in refused.data.get("survivors", []):
                parse_map(results.Survivor, survivor)
        case other:
            raise AssertionError(other)


def test_every_method_and_notification_has_its_examples() -> None:
    shown = {(e.title, e.literal[0]) for e in EXAMPLES}
    assert {title for title, kind in shown if kind == 0} == set(METHODS)
    assert {title for title, kind in shown if kind == 1} == set(METHODS)
    assert {t for t, kind in shown if kind == 2} == set(NOTIFICATIONS) | {"session.input"}


def test_examples_between_our_own_two_ends() -> None:
    """A client of ours takes every answer and notification shown."""
    for example in EXAMPLES:
        if not example.is_from_client:
            client = ClientConnection()
            client.in_flight[example.literal[1]] = example.title
            assert len(client.receive(example.wire)) == 1
        else:
            assert len(ServerConnection().receive(example.wire)) == 1


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
