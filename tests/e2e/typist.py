"""A person at a session's keyboard: types, and waits for what should appear.

Knows only the wire. Output is looked at as bytes, in order, each once: what was waited for is behind us.
"""

from __future__ import annotations

import time
from typing import Any, Final

from tests.support.rpc import Rpc

DEADLINE_S: Final = 10.0


class Typist:
    """Drives the program in a new session of `rpc`."""

    def __init__(self, rpc: Rpc, argv: list[str], **params: Any) -> None:
        self.rpc = rpc
        self.session: dict[str, Any] = rpc.call("session.spawn", argv=argv, **params)
        self.id: str = self.session["id"]
        self.pid: int = self.session["pid"]
        self._next_offset = 0
        self._unseen = b""

    def type(self, keys: str | bytes) -> None:
        """Send keys. Control characters are what a terminal would send for them."""
        data = keys.encode() if isinstance(keys, str) else keys
        assert self.rpc.call("session.input", id=self.id, data=data) == {"accepted": len(data)}

    def expect(self, wanted: bytes, deadline_s: float = DEADLINE_S) -> bytes:
        """Wait until `wanted` is printed; return all output up to it, itself included.

        Raises:
            AssertionError: it was not printed in time, with what was.
        """
        ends = time.monotonic() + deadline_s
        while wanted not in self._unseen:
            left_ms = int(1000 * (ends - time.monotonic()))
            assert left_ms > 0, f"{wanted!r} was not printed, but: {self._unseen[-2000:]!r}"
            assert self._read(left_ms), f"ended without {wanted!r}: {self._unseen[-2000:]!r}"
        before, _, self._unseen = self._unseen.partition(wanted)
        return before + wanted

    def _read(self, wait_ms: int) -> bool:
        found = self.rpc.call("session.read", id=self.id, offset=self._next_offset, wait_ms=wait_ms)
        assert found["offset"] == self._next_offset, "the scrollback was too small for this test"
        self._next_offset = found["next"]
        self._unseen += found["data"]
        return bool(found["data"]) or not found["ended"]

    def resize(self, rows: int, cols: int) -> None:
        self.rpc.call("session.resize", id=self.id, rows=rows, cols=cols)

    def get(self) -> dict[str, Any]:
        found: dict[str, Any] = self.rpc.call("session.get", id=self.id)
        return found

    def foreground(self) -> str | None:
        """Return the command of the foreground process group's leader."""
        found = self.get()["foreground"]
        return found and str(found["command"])

    def wait_exit(self) -> dict[str, int]:
        """Wait for the leader's exit and return it."""
        params: dict[str, Any] = {"id": self.id, "for": "exit", "timeout_ms": int(1000 * DEADLINE_S)}
        told = self.rpc.call("session.wait", **params)
        found: dict[str, int] = told["exit"]
        return found

    def kill(self, **params: Any) -> dict[str, Any]:
        """Kill the session; the answer is checked to be a proof of its death."""
        result: dict[str, Any] = self.rpc.call("session.kill", id=self.id, **params)
        assert result["proof"] == "echild", result
        return result
