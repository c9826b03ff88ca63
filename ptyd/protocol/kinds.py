"""The kinds of value that the protocol's fields have: one parser each, with its bound in words.

Pure functions over decoded MessagePack. Bounds are those of `limits`.
"""

import re
from typing import Any, Final

from ptyd.protocol import limits
from ptyd.protocol.fields import Kind, Refusal, parse_map, refuse, refuse_quoting

# --- makers of kinds -----------------------------------------------------------------------------


def integer(low: int, high: int, bound: str = "") -> Kind:
    """An integer from `low` to `high`, both included."""

    def parse(value: object) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise refuse(f"an integer from {low} to {high}", value)

    return Kind("int", bound or f"{low}..{high}", parse)


def _parse_boolean(value: object) -> bool:
    if type(value) is bool:
        return value
    raise refuse("a boolean", value)


def choice(*members: str) -> Kind:
    """One of a few strings."""
    told = ", ".join(f'"{member}"' for member in members)

    def parse(value: object) -> str:
        if type(value) is str and value in members:
            return value
        raise refuse_quoting(f"one of {told}", value)

    return Kind("str", ", ".join(f'`"{member}"`' for member in members), parse)


def matching(pattern: str, expected: str, bound: str) -> Kind:
    """A string that the whole of `pattern` matches; `expected` is for refusals."""
    fullmatch = re.compile(pattern).fullmatch

    def parse(value: object) -> str:
        if type(value) is str and fullmatch(value):
            return value
        raise refuse_quoting(expected, value)

    return Kind("str", bound, parse)


def string(max_chars: int) -> Kind:
    """A string up to `max_chars` characters that can go into a log or an answer as it is."""
    bound = f"at most {max_chars} characters"
    return matching(limits.PLAIN_PATTERN + f"{{0,{max_chars}}}", f"a string of {bound}, none control", bound)


def as_bytes(value: object, expected: str) -> bytes:
    """Bytes from bin, or from a str (of any bytes: Neovim has no other way to send them)."""
    if type(value) is bytes:
        return value
    if type(value) is str:
        return value.encode("utf-8", "surrogateescape")
    raise refuse(expected, value)


def data(low: int, high: int) -> Kind:
    """`low` to `high` raw bytes."""
    expected = f"{low} to {high} bytes"

    def parse(value: object) -> bytes:
        raw = as_bytes(value, expected)
        if low <= len(raw) <= high:
            return raw
        raise Refusal(f"expected {expected}, got {len(raw)}")

    return Kind("bytes", f"{low}..{high} bytes", parse)


def parse_text(value: object) -> bytes:
    """A string for the kernel: any bytes but NUL."""
    raw = as_bytes(value, "a string")
    if b"\0" in raw:
        raise Refusal("expected a string without NUL, got one with it")
    return raw


def _parse_cwd(value: object) -> bytes:
    path = parse_text(value)
    if not path.startswith(b"/") or len(path) > limits.MAX_PATH_BYTES:
        raise Refusal(f"expected an absolute path of at most {limits.MAX_PATH_BYTES} bytes")
    return path


def array(kind: Kind, low: int = 0, high: int = limits.MAX_REPLY_ITEMS, bound: str = "") -> Kind:
    """An array of `low` to `high` values of one kind."""

    def parse(value: object) -> list[Any]:
        if type(value) is not list:
            raise refuse("an array", value)
        if not low <= len(value) <= high:
            raise Refusal(f"expected {low} to {high} items, got {len(value)}")
        return [_parse_item(kind, at, item) for at, item in enumerate(value)]

    return Kind(f"[{kind.type}]", bound, parse)


def _parse_item(kind: Kind, at: int, item: object) -> Any:
    try:
        return kind.parse(item)
    except Refusal as refusal:
        raise refusal.below(f"[{at}]") from None


def _parse_argv(value: object) -> list[bytes]:
    argv: list[bytes] = _ARGV_ITEMS.parse(value)
    if not argv[0]:
        raise Refusal("expected the program's name, got an empty string", "[0]")
    if sum(map(len, argv)) > limits.MAX_ARGV_BYTES:
        raise Refusal(f"expected at most {limits.MAX_ARGV_BYTES} bytes in all")
    return argv


def as_map(value: object) -> dict[Any, Any]:
    """A map; an empty array stands for an empty one, as Lua and Vim send it."""
    if type(value) is dict:
        return value
    if value == [] and type(value) is list:
        return {}
    raise refuse("a map", value)


def _parse_env(value: object) -> dict[bytes, bytes]:
    raw = as_map(value)
    if len(raw) > limits.MAX_ENV:
        raise Refusal(f"expected at most {limits.MAX_ENV} variables, got {len(raw)}")
    env: dict[bytes, bytes] = {}
    for key, text in raw.items():
        name = parse_text(key)
        if not name or b"=" in name:
            raise Refusal("expected variable names that are not empty and have no '='")
        if name in env:  # once as str and once as bin
            raise Refusal("expected each variable once")
        env[name] = _parse_variable(name, text)
    return env


def _parse_variable(name: bytes, text: object) -> bytes:
    try:
        return parse_text(text)
    except Refusal as refusal:
        raise refusal.below(ascii(name)[2:-1]) from None


_LABEL_KEY: Final = re.compile(limits.LABEL_KEY_PATTERN).fullmatch
_LABEL_VALUE: Final = re.compile(limits.LABEL_VALUE_PATTERN).fullmatch


def _parse_labels(value: object) -> dict[str, str]:
    labels = as_map(value)
    if len(labels) > limits.MAX_LABELS:
        raise Refusal(f"expected at most {limits.MAX_LABELS} labels, got {len(labels)}")
    for key, text in labels.items():
        if type(key) is not str or not _LABEL_KEY(key):
            raise Refusal("expected label keys of 1 to 64 characters A-Z a-z 0-9 . _ / -")
        if type(text) is not str or not _LABEL_VALUE(text):
            expected = "a string of at most 256 characters, none of them control"
            raise refuse(expected, text).below(key)
    return labels


def _parse_selector(value: object) -> dict[str, str]:
    # A selector that was meant to narrow and came out empty or as a pattern would kill everything.
    labels = _parse_labels(value)
    if not labels:
        raise Refusal("expected at least one label; an empty selector selects nothing here")
    for key, text in labels.items():
        if not text or "*" in text:
            raise Refusal("expected a literal value, neither empty nor with '*'", key)
    return labels


def _parse_string(value: object) -> str:
    if type(value) is str:
        return value
    raise refuse("a string", value)


def _parse_bytes(value: object) -> bytes:
    return as_bytes(value, "binary")


def shape(cls: type, name: str) -> Kind:
    """A map that reads as `cls`; protocol.md calls it `name`."""
    return Kind(name, "", lambda value: parse_map(cls, as_map(value)))


_TEXT: Final = Kind("text", "no NUL", parse_text)
_ARGV_BOUND: Final = f"1..{limits.MAX_ARGV} items, {limits.MAX_ARGV_BYTES // 1024} KiB in all"
_ARGV_ITEMS: Final = array(_TEXT, 1, limits.MAX_ARGV, _ARGV_BOUND)

BOOL: Final = Kind("bool", "", _parse_boolean)
SESSION_ID: Final = matching(
    limits.ID_PATTERN, "an id of 1 to 64 characters A-Z a-z 0-9 _ -", f"`{limits.ID_PATTERN}`"
)
NAME: Final = matching(
    limits.NAME_PATTERN, "a name of 1 to 64 characters, no control, space or '/'", "a name"
)
ID_OR_NAME: Final = NAME.bounded("an id or a name")
NEW_NAME: Final = matching(
    f"({limits.NAME_PATTERN})?",
    "a name of at most 64 characters, no control, space or '/'",
    "a name, or empty",
)
TOKEN: Final = string(limits.MAX_TOKEN_CHARS)
CWD: Final = Kind("text", f"absolute, at most {limits.MAX_PATH_BYTES} bytes", _parse_cwd)
ARGV: Final = Kind("[text]", _ARGV_BOUND, _parse_argv)
ENV: Final = Kind("{text: text}", f"at most {limits.MAX_ENV} variables", _parse_env)
LABELS: Final = Kind("{str: str}", f"at most {limits.MAX_LABELS} labels", _parse_labels)
SELECTOR: Final = Kind("{str: str}", "a selector", _parse_selector)
ANY_MAP: Final = Kind("map", "", as_map)
ANY_STRING: Final = Kind("str", "", _parse_string)
BYTES: Final = Kind("bytes", "", _parse_bytes)
COUNT: Final = integer(0, limits.MAX_OFFSET, "0 or more")
OFFSET: Final = integer(0, limits.MAX_OFFSET, "0..2^63-1")
GENERATION: Final = integer(1, limits.MAX_GENERATION, "1..2^31-1")
DIMENSION: Final = integer(1, limits.MAX_DIMENSION)
WAIT_MS: Final = integer(0, limits.MAX_WAIT_MS)
