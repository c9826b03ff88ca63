"""A MessagePack-RPC client that shares no code with ptyd: what a stranger's client sees.

Blocking, one call at a time; keeps the notifications that come in between.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from types import TracebackType
from typing import Any, Final

import msgpack

CALL_DEADLINE_S: Final = 15.0
_REQUEST, _RESPONSE, _NOTIFICATION = 0, 1, 2


class RpcError(Exception):
    """The server's answer was an error."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error))
        self.error = error
        # Both forms of an error: [number, "code: message"] and {code, message, data}.
        self.code: str = error["code"] if isinstance(error, dict) else error[1].split(":")[0]
        self.data: dict[str, Any] = error.get("data", {}) if isinstance(error, dict) else {}


class Disconnected(Exception):
    """The server closed the connection."""


class Rpc:
    """One connection. Use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(os.fspath(path))
        except BaseException:
            self.socket.close()
            raise
        self.notifications: deque[tuple[str, dict[str, Any]]] = deque()
        self._responses: dict[int, tuple[Any, Any]] = {}
        self._unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="surrogateescape")
        self._last_msgid = 0

    def call(self, method: str, *, deadline_s: float = CALL_DEADLINE_S, **params: Any) -> Any:
        """Return the result.

        Raises:
            RpcError: the answer is an error.
            TimeoutError: no answer in time.
            Disconnected: the server hung up.
        """
        msgid = self.send(method, **params)
        return self.result(msgid, deadline_s=deadline_s)

    def send(self, method: str, **params: Any) -> int:
        """Send a request without waiting for its answer; return its msgid."""
        self._last_msgid += 1
        self.send_raw(msgpack.packb([_REQUEST, self._last_msgid, method, [params]]))
        return self._last_msgid

    def result(self, msgid: int, *, deadline_s: float = CALL_DEADLINE_S) -> Any:
        ends = time.monotonic() + deadline_s
        while msgid not in self._responses:
            self._receive(ends - time.monotonic())
        error, result = self._responses.pop(msgid)
        if error is not None:
            raise RpcError(error)
        return result

    def notify(self, method: str, **params: Any) -> None:
        self.send_raw(msgpack.packb([_NOTIFICATION, method, [params]]))

    def send_raw(self, data: bytes) -> None:
        self.socket.settimeout(CALL_DEADLINE_S)
        self.socket.sendall(data)

    def next_notification(
        self, *methods: str, deadline_s: float = CALL_DEADLINE_S
    ) -> tuple[str, dict[str, Any]]:
        """Return the next notification, or the next of `methods`, dropping others before it."""
        ends = time.monotonic() + deadline_s
        while True:
            while not self.notifications:
                self._receive(ends - time.monotonic())
            found = self.notifications.popleft()
            if not methods or found[0] in methods:
                return found

    def _receive(self, deadline_s: float) -> None:
        if deadline_s <= 0:
            raise TimeoutError("no message in time")
        self.socket.settimeout(deadline_s)
        data = self.socket.recv(256 * 1024)
        if not data:
            raise Disconnected
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Take in what somebody else has received for us."""
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._sort(message)

    def _sort(self, message: Any) -> None:
        match message:
            case [1, msgid, error, result]:
                self._responses[msgid] = (error, result)
            case [2, str(method), [dict(params)]]:
                self.notifications.append((method, params))
            case _:
                raise AssertionError(f"not MessagePack-RPC: {message!r}")

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Rpc:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
