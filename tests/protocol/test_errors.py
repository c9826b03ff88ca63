"""Errors: the table is closed and unambiguous, and both forms come back as they were."""

import pytest

from ptyd.protocol.errors import NEVER_SENT, TABLE, VALIDATION, Code, PtydError

CLIENT_SIDE = {Code.UNREACHABLE, Code.MAYBE_APPLIED, Code.NESTED, Code.PROTOCOL_VIOLATION}


def test_every_code_has_one_row() -> None:
    assert list(TABLE) == list(Code)
    assert {code for code, row in TABLE.items() if row.number == NEVER_SENT} == CLIENT_SIDE


def test_the_number_says_whether_the_request_was_wrong() -> None:
    wrong = {code for code, row in TABLE.items() if row.number == VALIDATION}
    assert wrong == {code for code, row in TABLE.items() if row.exit_status == 2}


@pytest.mark.parametrize("code", Code)
def test_both_forms_come_back(code: Code) -> None:
    error = PtydError(code, "what: happened", survivors=[1])
    from_map = PtydError.from_wire(error.to_wire(as_map=True))
    assert (from_map.code, from_map.message, from_map.data) == (code, error.message, error.data)
    from_text = PtydError.from_wire(error.to_wire(as_map=False))
    assert (from_text.code, from_text.message, from_text.data) == (code, error.message, {})
    assert str(from_text) == f"{code}: what: happened"
    assert (error.number, error.exit_status) == TABLE[code][:2]


@pytest.mark.parametrize(
    "wire, message",
    [
        ([99, "brand_new: of a later daemon"], "brand_new: of a later daemon"),
        ({"code": "brand_new", "message": "later", "data": {}}, "brand_new: later"),
        ([0, "Vim:E117"], "Vim:E117"),
        ("text", "an error in an unknown form: 'text'"),
        ([], "an error in an unknown form: []"),
        ({"code": 5, "message": "x"}, "an error in an unknown form: {'code': 5, 'message': 'x'}"),
    ],
)
def test_an_unknown_error_is_internal_and_keeps_its_text(wire: object, message: str) -> None:
    error = PtydError.from_wire(wire)
    assert error.code is Code.INTERNAL
    assert error.message == message


def test_data_that_is_no_map_is_dropped() -> None:
    error = PtydError.from_wire({"code": "busy", "message": "later", "data": [1]})
    assert (error.code, error.data) == (Code.BUSY, {})
