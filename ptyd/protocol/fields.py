"""Fields: what one value in a map may be, and the words that protocol.md uses for it.

A `Kind` parses one value without coercing it ("5" is not 5, True is not 1, 5.0 is not 5) and raises
`Refusal` with what it got and what is allowed. A message class declares its fields with
`attrs.field(metadata=spec(KIND, "meaning"))`; `parse_map` reads a wire map by that declaration, and
tests hold protocol.md's tables to it. The kinds themselves are in `kinds`.

A field that is called as a Python keyword is on the wire has an underscore added (`for_`, `from_`).
Secrets travel in argv, env and input, so only a kind that knows better quotes what it got.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import attrs

_META: Final = "ptyd.spec"
_QUOTED_CHARS: Final = 80
_T = TypeVar("_T")


class Refusal(Exception):
    """A value that a field cannot take.

    Attributes:
        path: where it is, such as `env.PATH` or `argv[3]`; empty for the value itself.
        text: what was expected and what came.
    """

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text, path)
        self.text = text
        self.path = path

    def below(self, parent: str) -> "Refusal":
        """The same refusal, seen from the container that holds the value."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        return Refusal(self.text, f"{parent}{joint}{self.path}")


class Kind(NamedTuple):
    """A type of field: its words in protocol.md, and how a wire value becomes ours."""

    type: str
    bound: str
    parse: Callable[[object], Any]

    def bounded(self, bound: str) -> "Kind":
        """The same with other words for its bound."""
        return self._replace(bound=bound)


@attrs.frozen(kw_only=True)
class Spec:
    """A field's declaration, next to what attrs knows of it (its name, its default)."""

    kind: Kind
    meaning: str
    default: str


def spec(kind: Kind, meaning: str, default: str = "") -> dict[str, Spec]:
    """Metadata for `attrs.field`. `default` says what an absent field means where None says no."""
    return {_META: Spec(kind=kind, meaning=meaning, default=default)}


# --- reading a map by a class's declaration ------------------------------------------------------


class FieldRow(NamedTuple):
    """One field as a line of a table in protocol.md."""

    name: str
    type: str
    bound: str
    default: str
    meaning: str


class _Schema(NamedTuple):
    parsers: dict[str, tuple[str, Callable[[object], Any]]]  # wire name -> (attribute, parse)
    required: frozenset[str]


def _specs(cls: type) -> list[tuple["attrs.Attribute[Any]", Spec]]:
    return [(field, field.metadata[_META]) for field in attrs.fields(cls)]


def _wire_name(field: "attrs.Attribute[Any]") -> str:
    return field.name.rstrip("_")


_SCHEMAS: Final[dict[type, _Schema]] = {}


def _schema(cls: type) -> _Schema:
    if cls not in _SCHEMAS:
        specs = _specs(cls)
        _SCHEMAS[cls] = _Schema(
            parsers={_wire_name(field): (field.name, spec.kind.parse) for field, spec in specs},
            required=frozenset(field.name for field, _ in specs if field.default is attrs.NOTHING),
        )
    return _SCHEMAS[cls]


def table_rows(cls: type) -> list[FieldRow]:
    """The lines of the table that protocol.md has for `cls`."""
    return [
        FieldRow(_wire_name(field), spec.kind.type, spec.kind.bound, _default(field, spec), spec.meaning)
        for field, spec in _specs(cls)
    ]


def _default(field: "attrs.Attribute[Any]", spec: Spec) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    if spec.default:
        return spec.default
    match field.default:
        case None:
            return "none"
        case bool(value):
            return str(value).lower()
        case str(value):
            return f'`"{value}"`'
        case value:
            return str(value)


def parse_map(cls: type[_T], raw: Mapping[Any, object]) -> _T:
    """An instance of `cls` from a wire map. Unknown keys are ignored; nil is the same as absent.

    Raises:
        Refusal: a field is missing or cannot take its value; or `cls` refuses the combination.
    """
    schema = _schema(cls)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if value is None or (known := schema.parsers.get(key)) is None:
            continue
        name, parse = known
        try:
            values[name] = parse(value)
        except Refusal as refusal:
            raise refusal.below(key) from None
    if missing := schema.required - values.keys():
        raise Refusal("it is required", min(missing).rstrip("_"))
    return cls(**values)


# --- saying what came ----------------------------------------------------------------------------

_MSGPACK_WORDS: Final[dict[type, str]] = {
    type(None): "nil",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    bytes: "binary",
    list: "an array",
    dict: "a map",
}


def describe(value: object) -> str:
    """What came, in MessagePack's words and without its contents (integers say themselves)."""
    if type(value) is int:
        return str(value)
    return _MSGPACK_WORDS.get(type(value), type(value).__name__)


def refuse(expected: str, value: object) -> Refusal:
    return Refusal(f"expected {expected}, got {describe(value)}")


def refuse_quoting(expected: str, value: object) -> Refusal:
    """As `refuse`, with the string that came: for ids and the like, which are no secrets."""
    if type(value) is not str:
        return refuse(expected, value)
    return Refusal(f"expected {expected}, got {value[:_QUOTED_CHARS]!a}")
