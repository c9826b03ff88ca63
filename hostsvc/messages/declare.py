"""How a method is declared: once, with its params, its result and the errors that are its own.

Owns the tables that come of it; protocol.md is held to all three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from hostsvc import shapes
from ptyd.protocol.errors import Code
from ptyd.protocol.messages import EventsSubscribe, Hello
from ptyd.protocol.results import EventsSubscribeResult

_T = TypeVar("_T")

METHODS: Final[dict[str, type]] = {"hello": Hello, "events.subscribe": EventsSubscribe}
RESULTS: Final[dict[str, type]] = {
    "hello": shapes.HelloResult,
    "events.subscribe": EventsSubscribeResult,
}
ERRORS: Final[dict[str, tuple[Code, ...]]] = {"hello": (), "events.subscribe": ()}

TEARDOWN: Final = (
    Code.PROGRAM_NOT_FOUND,
    Code.PROGRAM_NOT_EXECUTABLE,
    Code.CWD_UNAVAILABLE,
    Code.SPAWN_FAILED,
    Code.TIMEOUT,
    Code.KILL_UNCONFIRMED,
    Code.NO_PTYD,
)
"""Why a deletion was undone before its point of no return, besides work at risk."""
WHICH: Final = "which workspace"
WHICH_GENERATION: Final = "refuse if it is another by now"


def method(name: str, result: type, *errors: Code) -> Callable[[type[_T]], type[_T]]:
    """Declare the params of a method."""

    def declare(cls: type[_T]) -> type[_T]:
        METHODS[name] = cls
        RESULTS[name] = result
        ERRORS[name] = (*errors, Code.INDEX_FAILED, Code.NO_SPACE)
        return cls

    return declare
