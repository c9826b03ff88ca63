"""A reader that survives the daemon: it attaches again where it stopped, and checks every byte.

Speaks the raw protocol, so that what it proves is the daemon's work and not a client library's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from tests.support.daemon import RuntimeDir
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.stream import StreamChecker

LOOK_S: Final = 0.02  # between two looks at whatever is waited for, while output is read
RETRY_S: Final = 0.005


class Stream:
    """What is known of one session's output; `exit` and `end` once they were told."""

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.checker = StreamChecker()
        self.exit: dict[str, int] | None = None
        self.end: dict[str, Any] | None = None

    def take(self, method: str, body: dict[str, Any]) -> None:
        match method:
            case "session.output":
                self.checker.feed(body["offset"], body["data"])
            case "session.gap":
                self.checker.gap(body["from"], body["to"])
            case "session.exit":
                assert self.checker.next_offset >= body["offset"], "exit told before its output"
                assert self.exit in (None, body["exit"]), "two different exits told"
                self.exit = body["exit"]
            case "session.end":
                assert self.checker.next_offset == body["offset"], "end told before all output"
                self.end = body


class Follower:
    """Follows any number of sessions over one connection, and over its loss. Use it in a `with` block."""

    def __init__(self, runtime: RuntimeDir) -> None:
        self._runtime = runtime
        self._rpc: Rpc | None = None
        self._streams: dict[str, Stream] = {}
        self._attached: dict[int, Stream] = {}
        self.connections = 0

    def follow(self, session_id: str) -> Stream:
        stream = self._streams[session_id] = Stream(session_id)
        if self._rpc is not None:
            self._guard(lambda rpc: self._attach(rpc, stream))
        return stream

    def read_until(self, done: Callable[[], object], deadline_s: float = 20.0, what: str = "") -> None:
        """Read and check until `done`; looked at after every piece of output."""
        ends = time.monotonic() + deadline_s
        while not done():
            assert time.monotonic() < ends, f"not within {deadline_s} s: {what or done}"
            self._guard(self._receive)

    def read_for(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        self.read_until(lambda: time.monotonic() >= ends, seconds + 20)

    def read_until_connected(self, times: int) -> None:
        """Read on until it has connected so often in all."""
        self.read_until(lambda: self.connections >= times, what="connected again")

    def _guard(self, work: Callable[[Rpc], None]) -> None:
        """Do it on a connection; a lost one is opened again, next time."""
        try:
            if self._rpc is None:
                self._connect()
            if self._rpc is not None:
                work(self._rpc)
        except (OSError, Disconnected) as err:
            if not isinstance(err, TimeoutError):
                self.close()
                time.sleep(RETRY_S)

    def _connect(self) -> None:
        self._attached.clear()
        self._rpc = self._runtime.connect()
        self._rpc.call("hello", client="follower", protocols=[1], errors="map")
        for stream in self._streams.values():
            if stream.end is None:
                self._attach(self._rpc, stream)
        self.connections += 1

    def _attach(self, rpc: Rpc, stream: Stream) -> None:
        """Attach where we stopped; a daemon that has not heard from every shim yet is asked again."""
        while True:
            try:
                found = rpc.call("session.attach", id=stream.id, since=stream.checker.next_offset)
                break
            except RpcError as err:
                self._assert_unresolved(rpc, stream.id, err)
                time.sleep(RETRY_S)
        self._attached[found["attachment"]] = stream
        lost = found["truncated"]
        assert found["offset"] == stream.checker.next_offset + lost
        if lost:
            stream.checker.gap(stream.checker.next_offset, found["offset"])

    def _assert_unresolved(self, rpc: Rpc, session_id: str, err: RpcError) -> None:
        """A living session may be unknown to a new daemon for a moment, but a list must say so."""
        assert err.code in ("busy", "not_found"), err
        listing = rpc.call("session.list")
        known = any(session["id"] == session_id for session in listing["sessions"])
        assert known or not listing["complete"], f"{err}, and the list calls itself complete"

    def _receive(self, rpc: Rpc) -> None:
        method, body = rpc.next_notification(deadline_s=LOOK_S)
        if stream := self._attached.get(body.get("attachment", 0)):
            stream.take(method, body)

    def close(self) -> None:
        if self._rpc is not None:
            self._rpc.close()
            self._rpc = None

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_scrollback(rpc: Rpc, session_id: str) -> tuple[int, bytes]:
    """Return (first offset, bytes) of all that the scrollback holds right now."""
    start = first = rpc.call("session.get", id=session_id)["scrollback_start"]
    data = b""
    while piece := rpc.call("session.read", id=session_id, offset=start, max_bytes=256 << 10):
        if not piece["data"]:
            return first, data
        if piece["offset"] > start:
            first, data = piece["offset"], b""
        data += piece["data"]
        start = piece["next"]
    raise AssertionError
