"""protocol.md as data: its sections, tables and examples, and the two services that its chapters are held to.

Titles in the host service's chapter begin with its name, because some of its methods are called like ptyd's.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest

from hostsvc import events as host_events
from hostsvc import messages as host_messages
from hostsvc import shapes
from ptyd.protocol import results
from ptyd.protocol.fields import table_rows
from ptyd.protocol.messages import ERRORS, METHODS, RESULTS
from ptyd.protocol.notifications import EVENT_TYPES

DOCUMENT = Path(__file__).parents[2].joinpath("protocol.md").read_text()
Row = tuple[str, ...]


@attrs.frozen(kw_only=True)
class Service:
    """What one service's chapter is held to. `prefix`: what its titles begin with."""

    prefix: str
    methods: dict[str, type]
    results: dict[str, type]
    errors: dict[str, tuple[Any, ...]]
    shapes: dict[str, type]
    events: dict[str, str]

    def section(self, title: str) -> str:
        return section(self.prefix + title)

    def link(self, shape: str) -> str:
        return f"[{shape}](#{anchor(self.prefix + shape)})"


PTYD = Service(
    prefix="",
    methods=METHODS,
    results=RESULTS,
    errors=ERRORS,
    shapes={
        "exit": results.Exit,
        "session": results.Session,
        "foreground": results.Foreground,
        "straggler": results.Straggler,
        "survivor": results.Survivor,
    },
    events=EVENT_TYPES,
)
HOST = Service(
    prefix="hostsvc: ",
    methods=host_messages.METHODS,
    results=host_messages.RESULTS,
    errors=host_messages.ERRORS,
    shapes=shapes.SHAPES,
    events=host_events.EVENT_TYPES,
)
SERVICES = [pytest.param(PTYD, id="ptyd"), pytest.param(HOST, id="hostsvc")]


def of_each(part: str) -> list[Any]:
    """Every method, shape, … of both services, as (service, name)."""
    return [
        pytest.param(service, name, id=service.prefix + name)
        for service in (PTYD, HOST)
        for name in getattr(service, part)
    ]


def anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "", title.lower().replace(" ", "-"))


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


class Example(NamedTuple):
    service: Service
    title: str
    is_from_client: bool
    literal: list[Any]
    wire: bytes


def examples() -> list[Example]:
    found = []
    for part in re.split(r"^###+ ", DOCUMENT, flags=re.MULTILINE)[1:]:
        heading = part.split("\n", 1)[0]
        title = heading.removeprefix(HOST.prefix)
        service = PTYD if title == heading else HOST
        for block in re.findall(r"^```example\n(.*?)^```", part, re.MULTILINE | re.DOTALL):
            for shown in re.split(r"^(?=>>>|<<<)", block, flags=re.MULTILINE)[1:]:
                lines = shown[3:].splitlines()
                is_hex = [re.fullmatch(r"[0-9a-f]{2}( [0-9a-f]{2})*", line) is not None for line in lines]
                text = "\n".join(line for line, h in zip(lines, is_hex, strict=True) if not h)
                wire = bytes.fromhex(" ".join(line for line, h in zip(lines, is_hex, strict=True) if h))
                literal = ast.literal_eval(text.strip())
                found.append(Example(service, title, shown[:3] == ">>>", literal, wire))
    return found


EXAMPLES = examples()
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.service.prefix + one.title)
