"""A wire that can be cut: between a client and a real daemon, at chosen messages or bytes.

To a client it looks like a runtime directory with a daemon. What is forwarded is forwarded unchanged.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgpack

from ptyd import paths

Loss = Literal["request", "reply"]


class Proxy:
    """Serves `path` and forwards to the daemon of `target`. Use it in a `with` block."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = str(path)
        self.seen: Counter[str] = Counter()
        self.connections = 0
        self.budget: Callable[[], int] | None = None  # bytes to a client until its connection is cut
        self._target = str(target)
        self._losses: dict[str, Loss] = {}
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        paths.open_runtime(self.path).close()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"{self.path}/{paths.SOCKET}")
        self._listener.listen(16)
        self._run(self._accept)

    def lose(self, method: str, what: Loss) -> None:
        """Cut the connection of the next such call, before or after the daemon has seen it."""
        self._losses[method] = what

    def cut(self) -> None:
        """Cut every connection there is."""
        for side in list(self._open):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close_door(self) -> None:
        """Refuse new connections, as when no daemon runs."""
        self._listener.shutdown(socket.SHUT_RDWR)  # only this wakes who waits in accept
        self._listener.close()
        Path(self.path, paths.SOCKET).unlink(missing_ok=True)

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    server.connect(self._target)
                except OSError:
                    client.close()
                    server.close()
                    continue
                self.connections += 1
                self._open |= {client, server}
                awaited: set[int] = set()
                self._run(self._pump_up, client, server, awaited)
                self._run(self._pump_down, client, server, awaited)

    def _pump_up(self, client: socket.socket, server: socket.socket, awaited: set[int]) -> None:
        unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                unpacker.feed(data)
                for message in unpacker:
                    method = message[2] if message[0] == 0 else message[1]
                    self.seen[method] += 1
                    loss = self._losses.pop(method, None)
                    if loss == "request":
                        raise OSError("cut")
                    if loss == "reply":
                        awaited.add(message[1])
                    server.sendall(msgpack.packb(message, unicode_errors="surrogateescape"))
        self._hang_up(client, server)

    def _pump_down(self, client: socket.socket, server: socket.socket, awaited: set[int]) -> None:
        left = self.budget() if self.budget else None
        unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                unpacker.feed(data)
                if any(message[0] == 1 and message[1] in awaited for message in unpacker):
                    break
                client.sendall(data if left is None else data[:left])
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        break
        self._hang_up(client, server)

    def _hang_up(self, *sides: socket.socket) -> None:
        for side in sides:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for side in self._open:
            side.close()
