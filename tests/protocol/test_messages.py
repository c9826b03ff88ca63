"""Params: what each field takes and refuses, from the fields' own declarations."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import attrs
import pytest

from ptyd.protocol import limits
from ptyd.protocol.codec import Unacceptable
from ptyd.protocol.errors import TABLE, Code, PtydError
from ptyd.protocol.fields import FieldRow, table_rows
from ptyd.protocol.messages import (
    ANY_METHOD_ERRORS,
    ERRORS,
    METHODS,
    NOTIFICATIONS,
    RESULTS,
    EventsSubscribe,
    SessionInput,
    SessionKill,
    SessionSignal,
    SessionSpawn,
    SessionWait,
    parse_params,
)
from tests.protocol.samples import SMALLEST

WRONG_VALUES: list[object] = [
    *(True, 5, -1, 2**64 - 1, 5.0, "5", "", "\udcff", "a\0b", b"\x00"),
    *([], [[]], [5], [None], {}, {"": 5}, {"a": []}, {b"a": b"\0"}, {1: 2}),
]
WIRE_TYPES = {"int": int, "str": str, "bool": bool, "text": str, "bytes": str, "map": dict}


def refused(method: str, **params: object) -> PtydError:
    with pytest.raises(PtydError) as caught:
        parse_params(method, [params])
    assert caught.value.code is Code.INVALID_PARAMS
    assert caught.value.message.startswith(f"{method}: ")
    return caught.value


EVERY_FIELD = [(method, row) for method, cls in METHODS.items() for row in table_rows(cls)]


def taken_types(row: FieldRow) -> set[type]:
    """The wire types that a field may take, by its documented type."""
    taken: set[type] = set()
    for name in re.split(r", | or ", row.type):
        if name.startswith("["):
            taken |= {list}
        elif name.startswith("{"):
            taken |= {dict}
        else:
            taken |= {WIRE_TYPES[name]} | ({bytes} if name in ("text", "bytes") else set())
    return taken


def is_wrong_type(value: object, row: FieldRow) -> bool:
    if value == [] and isinstance(value, list):  # Lua's empty map, too
        return not taken_types(row) & {dict, list}
    return type(value) not in taken_types(row)


# --- the declarations ----------------------------------------------------------------------------


def test_every_method_is_declared_whole() -> None:
    assert set(METHODS) == set(RESULTS) == set(ERRORS) == set(SMALLEST)
    for method, errors in ERRORS.items():
        assert not set(errors) & set(ANY_METHOD_ERRORS), method
        assert all(TABLE[code].number >= 0 for code in errors)
    for cls in [*METHODS.values(), *RESULTS.values(), *NOTIFICATIONS.values()]:
        assert cls.__doc__
        assert all(row.type and row.meaning for row in table_rows(cls))


def test_a_class_is_called_as_its_method() -> None:
    for method, cls in METHODS.items():
        assert cls.__name__ == "".join(part.title() for part in re.split(r"[._]", method))


# Either is enough: checked below.
ONE_OF_TWO = {"session.kill": {"id"}, "session.detach": {"attachment"}}


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_params_are_the_required_ones(method: str) -> None:
    required = {row.name for row in table_rows(METHODS[method]) if row.default == "required"}
    required |= ONE_OF_TWO.get(method, set())
    assert set(SMALLEST[method]) == required
    assert isinstance(parse_params(method, [SMALLEST[method]]), METHODS[method])


@pytest.mark.parametrize("method", METHODS)
def test_required_fields_are_missed(method: str) -> None:
    for name in SMALLEST[method]:
        rest = {key: value for key, value in SMALLEST[method].items() if key != name}
        error = refused(method, **rest)
        assert method in ONE_OF_TWO or error.data == {"field": name}


@pytest.mark.parametrize("method, row", EVERY_FIELD, ids=lambda x: getattr(x, "name", x))
def test_X1_wrong_types_in_every_field_of_every_method(method: str, row: FieldRow) -> None:
    wrong = [value for value in WRONG_VALUES if is_wrong_type(value, row)]
    assert wrong
    for value in wrong:
        error = refused(method, **{**SMALLEST[method], row.name: value})
        assert error.data["field"].split(".")[0].split("[")[0] == row.name
        assert len(error.message) < 300


@pytest.mark.parametrize("method, row", EVERY_FIELD, ids=lambda x: getattr(x, "name", x))
def test_X1_any_value_in_any_field_is_taken_or_refused(method: str, row: FieldRow) -> None:
    """No third way: never an exception of another kind, whatever is inside."""
    for value in WRONG_VALUES:
        with contextlib.suppress(PtydError):
            parse_params(method, [{**SMALLEST[method], row.name: value}])


@pytest.mark.parametrize("method, row", EVERY_FIELD, ids=lambda x: getattr(x, "name", x))
def test_nil_is_the_same_as_absent(method: str, row: FieldRow) -> None:
    params = {**SMALLEST[method], row.name: None}
    if row.name in SMALLEST[method]:
        refused(method, **params)
    else:
        assert parse_params(method, [params]) == parse_params(method, [SMALLEST[method]])


def bounded_integers() -> Iterator[tuple[str, str, int, int]]:
    for method, row in EVERY_FIELD:
        found = re.fullmatch(r"(\d+)\.\.([\d^-]+)", row.bound)
        if row.type == "int" and found:
            base, power, minus = re.fullmatch(r"(\d+)(?:\^(\d+))?(?:-(\d+))?", found[2]).groups()  # type: ignore[union-attr]
            yield method, row.name, int(found[1]), int(base) ** int(power or 1) - int(minus or 0)


@pytest.mark.parametrize("method, field, low, high", list(bounded_integers()))
def test_bounds_are_where_the_table_says(method: str, field: str, low: int, high: int) -> None:
    others = {"rows": 24, "cols": 80} if method == "session.attach" else {}
    for value in (low, high):
        assert parse_params(method, [{**SMALLEST[method], **others, field: value}])
    for value in (low - 1, high + 1):
        error = refused(method, **{**SMALLEST[method], **others, field: value})
        assert f"from {low} to {high}, got {value}" in error.message


@pytest.mark.parametrize("method, row", EVERY_FIELD, ids=lambda x: getattr(x, "name", x))
def test_documented_words_are_the_ones_taken(method: str, row: FieldRow) -> None:
    if row.type == "str" and '`"' in row.bound:
        for word in re.findall(r'`"(.*?)"`', row.bound):
            assert parse_params(method, [{**SMALLEST[method], row.name: word}])
        refused(method, **{**SMALLEST[method], row.name: "other"})


@pytest.mark.parametrize("method, row", EVERY_FIELD, ids=lambda x: getattr(x, "name", x))
def test_X1_a_str_is_valid_utf8(method: str, row: FieldRow) -> None:
    """It may come back in an answer, to a client that decodes strictly."""
    if row.type in ("str", "{str: str}"):
        bad: object = "a\udcff" if row.type == "str" else {"a": "\udcff"}
        error = refused(method, **{**SMALLEST[method], row.name: bad})
        assert str(error).isascii()


def test_annotations_are_real_types() -> None:
    """What mypy believes of a request is what the parsers return: no annotation is a dead string."""
    for cls in METHODS.values():
        assert set(get_type_hints(cls)) == {field.name for field in attrs.fields(cls)}


# --- the params array ----------------------------------------------------------------------------


@pytest.mark.parametrize("params", [[], [{}], [[]]])
def test_no_params_are_an_empty_map(params: object) -> None:
    """Lua and Vim send an empty map as an empty array."""
    assert parse_params("session.list", params) == METHODS["session.list"]()


@pytest.mark.parametrize(
    "params", [None, 5, "x", {}, {"id": "a"}, [{}, {}], [5], ["x"], [None], [[5]], Unacceptable("why not")]
)
def test_X1_params_that_are_no_array_of_one_map(params: object) -> None:
    with pytest.raises(PtydError) as caught:
        parse_params("session.list", params)
    assert caught.value.code is Code.INVALID_PARAMS


def test_unknown_keys_are_ignored() -> None:
    params = {"id": "a", "of_a_later_version": [1], b"bin": 2, "id_": 1, "for_": 1}
    assert parse_params("session.get", [params]) == METHODS["session.get"](id="a")


@pytest.mark.parametrize("method", ["", "session", "session.nope", "Hello", "\udcff", "x" * 100_000])
def test_unknown_methods(method: str) -> None:
    with pytest.raises(PtydError) as caught:
        parse_params(method, [{}])
    assert caught.value.code is Code.UNKNOWN_METHOD
    assert len(str(caught.value)) < 400


# --- fields with rules of their own --------------------------------------------------------------


@pytest.mark.parametrize("value", [b"\xff\x1b", "\udcff\x1b", "é", b""])
def test_O6_bytes_are_taken_as_bin_or_str(value: str | bytes) -> None:
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    request = parse_params("session.input", [{"id": "a", "data": value}])
    assert request == SessionInput(id="a", data=raw)


def test_input_is_bounded() -> None:
    most = b"x" * limits.MAX_INPUT_BYTES
    assert parse_params("session.input", [{"id": "a", "data": most}]).data == most
    assert "got 65537" in refused("session.input", id="a", data=most + b"x").message


def test_spawn_takes_text_of_any_bytes_and_keeps_bytes() -> None:
    params = {
        "argv": ["sh", b"\xff", "\udcfe"],
        "env": {"A": "é", b"B": b"\xff"},
        "cwd": "/tmp",
        "labels": [],
    }
    assert parse_params("session.spawn", [params]) == SessionSpawn(
        argv=[b"sh", b"\xff", b"\xfe"], env={b"A": "é".encode(), b"B": b"\xff"}, cwd=b"/tmp", labels={}
    )


@pytest.mark.parametrize(
    "field, value, where",
    [
        ("argv", [], "argv"),
        ("argv", [""], "argv[0]"),
        ("argv", ["sh", "a\0b"], "argv[1]"),
        ("argv", ["sh", 5], "argv[1]"),
        ("argv", ["x"] * 4097, "argv"),
        ("argv", ["x" * 1024] * 513, "argv"),
        ("env", {"": "x"}, "env"),
        ("env", {"A=B": "x"}, "env"),
        ("env", {"A\0": "x"}, "env"),
        ("env", {"A": "x\0"}, "env.A"),
        ("env", {"A": 5}, "env.A"),
        ("env", {"A": "1", b"A": "2"}, "env"),
        ("env", {f"A{number}": "" for number in range(4097)}, "env"),
        ("cwd", "", "cwd"),
        ("cwd", "relative", "cwd"),
        ("cwd", "~", "cwd"),
        ("cwd", "/a\0b", "cwd"),
        ("cwd", "/" * 4096, "cwd"),
        ("name", "", "name"),
        ("name", "a b", "name"),
        ("name", "a/b", "name"),
        ("name", "a\n", "name"),
        ("name", "a" * 65, "name"),
        ("id", "", "id"),
        ("id", "a.b", "id"),
        ("id", "../x", "id"),
        ("id", "a\n", "id"),
        ("id", "é", "id"),
        ("id", "a" * 65, "id"),
        ("labels", {"a b": "x"}, "labels"),
        ("labels", {"": "x"}, "labels"),
        ("labels", {b"a": "x"}, "labels"),
        ("labels", {"a": "x\n"}, "labels.a"),
        ("labels", {"a": "x" * 257}, "labels.a"),
        ("labels", {f"k{number}": "" for number in range(33)}, "labels"),
        ("scrollback_bytes", 65535, "scrollback_bytes"),
    ],
)
def test_X2_what_a_spawn_refuses(field: str, value: object, where: str) -> None:
    error = refused("session.spawn", **{"argv": ["sh"], field: value})
    assert error.data == {"field": where}


def test_no_secret_is_quoted() -> None:
    for field, value in [
        ("argv", ["sh", "hunter2\0"]),
        ("env", {"TOKEN": "hunter2\0"}),
        ("env", {"hunter2=": "x"}),
        ("cwd", "hunter2"),
    ]:
        assert "hunter2" not in str(refused("session.spawn", **{"argv": ["sh"], field: value}))
    assert "hunter2" not in str(refused("session.input", id="a", data=["hunter2"]))


SELECTORS_REFUSED: list[object] = [
    *({}, [], "a", [["a"]]),
    *({"a": ""}, {"a": "*"}, {"a": "x*"}, {"a": None}, {"a": 5}),
    *({"": "a"}, {"*": "a"}, {5: "a"}),
]


@pytest.mark.parametrize("selector", SELECTORS_REFUSED)
@pytest.mark.parametrize("method", ["session.kill", "session.list"])
def test_K9_D3_a_selector_selects_or_is_refused(method: str, selector: object) -> None:
    assert refused(method, labels=selector).data["field"].startswith("labels")


def test_K9_a_kill_has_exactly_one_of_id_and_labels() -> None:
    assert parse_params("session.kill", [{"labels": {"a": "b"}}]) == SessionKill(labels={"a": "b"})
    refused("session.kill")
    refused("session.kill", id="a", labels={"a": "b"})
    assert refused("session.kill", labels={"a": "b"}, generation=2).data == {"field": "generation"}


def test_a_detach_has_an_attachment_or_an_id() -> None:
    refused("session.detach")
    assert parse_params("session.detach", [{"id": "a"}]).attachment is None
    assert parse_params("session.detach", [{"id": "a", "attachment": 3}]).attachment == 3


def test_attach_has_both_of_rows_and_cols_or_neither() -> None:
    refused("session.attach", id="a", rows=5)
    refused("session.attach", id="a", cols=5)
    assert parse_params("session.attach", [{"id": "a", "rows": 5, "cols": 6}]).cols == 6


@pytest.mark.parametrize("value, number", [(9, 9), ("KILL", 9), ("SIGKILL", 9), (64, 64), ("USR1", 10)])
def test_signals_by_number_or_name(value: object, number: int) -> None:
    request = parse_params("session.signal", [{"id": "a", "signal": value}])
    assert request == SessionSignal(id="a", signal=number)


@pytest.mark.parametrize(
    "value", [0, 65, -9, "", "SIG", "kill", "SIGSIGKILL", "9", "NOPE", True, 9.0, b"KILL"]
)
def test_signals_that_are_none(value: object) -> None:
    assert refused("session.signal", id="a", signal=value).data == {"field": "signal"}


@pytest.mark.parametrize(
    "value, parsed",
    [
        ("exit", "exit"),
        ("end", "end"),
        (b"exit", b"exit"),
        ({"match": b"$ "}, b"$ "),
        ({"match": "$ "}, b"$ "),
        (500, 500),
    ],
)
def test_what_can_be_waited_for(value: object, parsed: str | bytes | int) -> None:
    assert parse_params("session.wait", [{"id": "a", "for": value}]) == SessionWait(id="a", for_=parsed)


@pytest.mark.parametrize(
    "value", ["$ ", "", b"", b"x" * 4097, {"match": b""}, {"match": 5}, {}, 0, True, 1.5, 86_400_001, [b"x"]]
)
def test_what_cannot_be_waited_for(value: object) -> None:
    assert refused("session.wait", id="a", **{"for": value}).data["field"] == "for"


@pytest.mark.parametrize("value", [0, "start", "live", 2**63 - 1])
def test_offsets_and_words(value: object) -> None:
    assert parse_params("session.attach", [{"id": "a", "since": value}]).since == value


@pytest.mark.parametrize("value", [-1, 2**63, "end", "0", 0.0, True, b"start"])
def test_offsets_that_are_none(value: object) -> None:
    assert refused("session.attach", id="a", since=value).data == {"field": "since"}


def test_events_since() -> None:
    since = {"daemon_id": "d", "seq": 5, "more": 1}
    request = parse_params("events.subscribe", [{"since": since}])
    assert request == EventsSubscribe(since={"daemon_id": "d", "seq": 5})
    wrong: list[tuple[Any, str]] = [
        ({}, "since.daemon_id"),
        ({"daemon_id": "d"}, "since.seq"),
        ({"daemon_id": 5, "seq": 5}, "since.daemon_id"),
        ({"daemon_id": "d", "seq": -1}, "since.seq"),
    ]
    for value, where in wrong:
        assert refused("events.subscribe", since=value).data == {"field": where}


def test_hello_needs_a_protocol_that_is_spoken() -> None:
    assert parse_params("hello", [{"client": "x", "protocols": [3, 2, 1]}]).protocols == [3, 2, 1]
    assert refused("hello", client="x", protocols=[2]).data == {"field": "protocols"}
    assert refused("hello", client="x", protocols=[]).data == {"field": "protocols"}
    assert refused("hello", client="x", protocols=[1, "1"]).data == {"field": "protocols[1]"}


def test_control_characters_of_a_string_do_not_reach_a_terminal_through_an_error() -> None:
    message = refused("session.get", id="\x1b]0;x\x07 a").message
    assert message.isprintable()
