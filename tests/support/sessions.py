"""Sessions over the wire, as tests use them: spawn, wait for words, watch an attachment.

Knows only the protocol. Every wait is for something the daemon says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.support.rpc import Rpc
from tests.support.stream import StreamChecker

WAIT_MS: Final = 10_000
# A terminal that passes every byte on as it is, and a program that says when it is one.
RAW: Final = "stty raw -echo; echo ready; "
READY: Final = b"ready"


def spawn(rpc: Rpc, argv: list[str], **params: Any) -> str:
    """Start a program in a session; return its id."""
    session: str = rpc.call("session.spawn", argv=argv, **params)["id"]
    return session


def shell(rpc: Rpc, script: str, **params: Any) -> str:
    """Start `sh -c script` in a session; return its id."""
    return spawn(rpc, ["sh", "-c", script], **params)


def spawn_ready(rpc: Rpc, script: str, **params: Any) -> str:
    """Start a script on a raw terminal, and return its id once that is raw."""
    session = shell(rpc, RAW + script, **params)
    wait_for_output(rpc, session, READY)
    return session


def wait_for_output(rpc: Rpc, session: str, literal: bytes, **params: Any) -> int:
    """Wait until the session has written these bytes; return the offset just after them."""
    wanted: dict[str, Any] = {"for": literal, **params}  # "for" is no name for an argument
    offset: int = rpc.call("session.wait", id=session, timeout_ms=WAIT_MS, **wanted)["offset"]
    return offset


def wait_for_end(rpc: Rpc, session: str, what: str = "end") -> dict[str, Any]:
    """Wait for the session's end, or the leader's `exit`; return what was answered."""
    wanted: dict[str, Any] = {"for": what}
    found: dict[str, Any] = rpc.call("session.wait", id=session, timeout_ms=WAIT_MS, **wanted)
    return found


def read_all(rpc: Rpc, session: str, offset: int = 0) -> bytes:
    """Read everything there is from `offset` on, in pieces."""
    data = b""
    while True:
        piece = rpc.call("session.read", id=session, offset=offset, max_bytes=256 << 10)
        assert piece["offset"] == offset, f"bytes {offset} to {piece['offset']} are gone"
        if not piece["data"]:
            return data
        data, offset = data + piece["data"], piece["next"]


class View:
    """One attachment, on a connection of its own: what it was told, checked for order as it comes.

    Args:
        rpc: The connection; nothing else is to be attached on it.
        session: An id or a name.
        numbered: The session writes the numbered stream (tests/support/stream.py): check every byte
            instead of keeping them.
        **params: Of `session.attach`.
    """

    def __init__(self, rpc: Rpc, session: str, *, numbered: bool = False, **params: Any) -> None:
        answer = rpc.call("session.attach", id=session, **params)
        self.attachment: int = answer["attachment"]
        self.start: int = answer["offset"]
        self.truncated: int = answer["truncated"]
        self.row: dict[str, Any] = answer["session"]
        self.next_offset = self.start
        self.data = bytearray()
        self.gaps: list[tuple[int, int]] = []
        self.exit: dict[str, Any] | None = None
        self.end: dict[str, Any] | None = None
        self.detached: str | None = None
        self._rpc = rpc
        self._checker = StreamChecker(self.start) if numbered else None

    def step(self, deadline_s: float = 15.0) -> str:
        """Take one notification of this attachment; return its method."""
        while True:
            method, params = self._rpc.next_notification(deadline_s=deadline_s)
            if params.get("attachment") == self.attachment:
                assert self.detached is None, f"{method} came after session.detached"
                self._take(method, params)
                return method

    def _take(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "session.output":
                assert self.end is None, "output came after session.end"
                self._take_output(params["offset"], params["data"])
            case "session.gap":
                assert params["from"] == self.next_offset, f"{params}, expected from {self.next_offset}"
                assert params["to"] > params["from"]
                self.gaps.append((params["from"], params["to"]))
                self.next_offset = params["to"]
                if self._checker is not None:
                    self._checker.gap(params["from"], params["to"])
            case "session.exit":
                assert self.exit is None, "session.exit came twice"
                assert self.end is None, "session.exit came after session.end"
                assert params["offset"] <= self.next_offset, "session.exit came before its output"
                self.exit = params
            case "session.end":
                assert params["offset"] == self.next_offset, "session.end came before all output"
                self.end = params
            case "session.detached":
                self.detached = params["reason"]

    def _take_output(self, offset: int, data: bytes) -> None:
        assert offset == self.next_offset, f"output at {offset}, expected {self.next_offset}"
        assert data, "a session.output without data"
        self.next_offset += len(data)
        if self._checker is None:
            self.data += data
        else:
            self._checker.feed(offset, data)

    def until(self, reached: Callable[[], object]) -> None:
        """Take notifications until `reached` says so."""
        while not reached():
            self.step()

    def until_output(self, literal: bytes) -> None:
        self.until(lambda: literal in self.data)

    def until_end(self) -> None:
        """Take everything up to `session.detached`, which follows the end."""
        self.until(lambda: self.detached is not None)
