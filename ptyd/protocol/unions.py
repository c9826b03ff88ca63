"""Kinds that take more than one type of value: offsets and words, signals by number or name.

Like `kinds`, these parse without coercing; each has one meaning for each type it takes.
"""

import signal as signals
from typing import Final, TypedDict

from ptyd.protocol import limits
from ptyd.protocol.fields import Kind, Refusal, refuse, refuse_quoting
from ptyd.protocol.kinds import COUNT, TOKEN, array, as_map, data, integer


def _parse_protocols(value: object) -> list[int]:
    protocols: list[int] = _PROTOCOL_NUMBERS.parse(value)
    if limits.PROTOCOL not in protocols:
        raise Refusal(f"expected {limits.PROTOCOL} among them: no other protocol is spoken here")
    return protocols


def _parse_since(value: object) -> int | str:
    if type(value) is str and value in ("start", "live"):
        return value
    if type(value) is int and 0 <= value <= limits.MAX_OFFSET:
        return value
    raise refuse_quoting('an offset, "start" or "live"', value)


def _parse_signal(value: object) -> int:
    if type(value) is int and 1 <= value <= limits.MAX_SIGNAL:
        return value
    expected = f'1 to {limits.MAX_SIGNAL}, or a name such as "INT" or "SIGINT"'
    if type(value) is not str:
        raise refuse(expected, value)
    try:
        return int(signals.Signals[f"SIG{value.removeprefix('SIG')}"])
    except KeyError:
        raise refuse_quoting(expected, value) from None


def _parse_for(value: object) -> str | bytes | int:
    parsed: str | bytes | int
    match value:
        case "exit" | "end":
            parsed = str(value)
        case bytes():
            parsed = _LITERAL.parse(value)
        case {"match": literal}:
            parsed = _LITERAL.parse(literal)
        case int() if type(value) is int:  # and not a boolean
            parsed = _IDLE_MS.parse(value)
        case _:
            expected = '"exit", "end", bytes, {"match": bytes} or idle milliseconds'
            raise refuse_quoting(expected, value)
    return parsed


def _parse_events_since(value: object) -> "EventsSince":
    raw = as_map(value)
    for key, kind in (("daemon_id", TOKEN), ("seq", COUNT)):
        try:
            kind.parse(raw.get(key))
        except Refusal as refusal:
            raise refusal.below(key) from None
    return {"daemon_id": raw["daemon_id"], "seq": raw["seq"]}


class EventsSince(TypedDict):
    """The last event that a subscriber has seen, and of which daemon."""

    daemon_id: str
    seq: int


_PROTOCOL_NUMBERS: Final = array(COUNT, 1, limits.MAX_PROTOCOLS)
PROTOCOLS: Final = Kind("[int]", f"1..{limits.MAX_PROTOCOLS} items, one is 1", _parse_protocols)
SINCE: Final = Kind("int or str", '0..2^63-1, `"start"`, `"live"`', _parse_since)
SIGNAL: Final = Kind("int or str", f"1..{limits.MAX_SIGNAL}, or a name", _parse_signal)
_LITERAL: Final = data(1, limits.MAX_PATTERN_BYTES)
_IDLE_MS: Final = integer(1, limits.MAX_WAIT_MS)
WAIT_FOR: Final = Kind("str, bytes, map or int", "see below", _parse_for)
EVENTS_SINCE: Final = Kind("map", "`{daemon_id: str, seq: int}`", _parse_events_since)
