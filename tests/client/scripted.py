"""A daemon that says what it is told to: for answers that a real one gives only in rare moments.

It speaks real MessagePack-RPC over a real socket. What it says is the test's; nothing here decides.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgpack

from ptyd import paths

HANG_UP: Final = object()
Notification = tuple[str, dict[str, Any]]
Answer = Any  # a result; an Exception's (code, message); HANG_UP
Script = Mapping[str, Callable[[dict[str, Any]], tuple[Answer, list[Notification]]]]


def refusal(code: str, message: str) -> tuple[Answer, list[Notification]]:
    return {"refused": {"code": code, "message": message, "data": {}}}, []


class ScriptedDaemon:
    """Serves `path` by a script: method → function of the params to (answer, notifications after it)."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = str(path)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._script = {"hello": lambda params: ({"daemon_id": "d1", "pid": 1}, []), **script}
        paths.open_runtime(self.path).close()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"{self.path}/{paths.SOCKET}")
        self._listener.listen(16)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threads.append(threading.Thread(target=self._talk, args=(client,), daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join(5)

    def _talk(self, client: socket.socket) -> None:
        unpacker = msgpack.Unpacker()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                unpacker.feed(data)
                for _, msgid, method, (params,) in unpacker:
                    self.calls.append((method, params))
                    answer, after = self._script[method](params)
                    if answer is HANG_UP:
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    refused = answer.get("refused")
                    client.sendall(
                        msgpack.packb([1, msgid, refused, None if refused else answer])
                        + b"".join(msgpack.packb([2, name, [fields]]) for name, fields in after)
                    )

    def hang_up(self) -> None:
        """Cut every connection there is."""
        for client in self._open:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        self._thread.join(5)
        for client in self._open:
            client.close()
