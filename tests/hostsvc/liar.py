"""A ptyd that lies: a real one behind a wire that answers some calls itself, or changes what was answered.

What a lie is, is the test's; without one everything is passed on as it is. Both directions know whole
messages only, so that an answer can be held while others pass.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgpack

from ptyd import paths
from tests.support.host import _SERVE, HostService
from tests.support.waiting import wait_until

RELEASE_DEADLINE_S: Final = 30.0


class Answer(NamedTuple):
    """Answer this; the real one never hears of the call."""

    result: Any


class Refuse(NamedTuple):
    """Refuse with this code; the real one never hears of the call."""

    code: str
    data: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it


class Garbage(NamedTuple):
    """Send these bytes in place of a message."""

    data: bytes


class Edit(NamedTuple):
    """Let it happen, and change what is told of it."""

    change: Callable[[Any], Any]


class Silence(NamedTuple):
    """Say nothing, and do nothing."""


class HangUp(NamedTuple):
    """Close the connection."""


class Hold:
    """Let it happen, and keep the request, or its answer, until `release`; other calls pass."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.is_held = threading.Event()
        self.release = threading.Event()

    def wait_held(self) -> None:
        wait_until(self.is_held.is_set, what=f"the {self.what} is held")


Lie = Answer | Refuse | Garbage | Edit | Silence | HangUp | Hold
Choice = Callable[[dict[str, Any]], Lie | None]
"""Which lie, if any, by what is asked."""
_BYTES: Final = {"unicode_errors": "surrogateescape"}


class _Talk:
    """One connection of a client, and ours to the real daemon."""

    def __init__(self, liar: Liar, client: socket.socket, server: socket.socket) -> None:
        self._liar = liar
        self._client, self._server = client, server
        self._awaited: dict[int, Edit | Hold] = {}
        self._sending = threading.Lock()

    def up(self) -> None:
        unpacker = msgpack.Unpacker(**_BYTES)
        with contextlib.suppress(OSError):
            while data := self._client.recv(65536):
                unpacker.feed(data)
                for message in unpacker:
                    self._take(message)
        self.hang_up()

    def _take(self, message: list[Any]) -> None:
        method = message[2] if message[0] == 0 else message[1]
        params = message[-1][0] if message[-1] else {}
        self._liar.seen[method] += 1
        self._liar.asked.append((method, params))
        lie = self._liar.lies.get(method)
        lie = lie(params) if callable(lie) else lie
        match lie:
            case Answer(result):
                self._to_client([1, message[1], None, result])
            case Refuse(code, data):
                error = {"code": code, "message": "so says the liar", "data": data}
                self._to_client([1, message[1], error, None])
            case Garbage(data):
                self._send(self._client, data)
            case Silence():
                pass
            case HangUp():
                raise OSError("hung up")
            case Hold(what="request"):
                self._liar.run(self._later, lie, self._server, message)
            case Edit() | Hold():
                self._awaited[message[1]] = lie
                self._send(self._server, msgpack.packb(message, **_BYTES))
            case _:
                self._send(self._server, msgpack.packb(message, **_BYTES))

    def down(self) -> None:
        unpacker = msgpack.Unpacker(strict_map_key=False, **_BYTES)
        with contextlib.suppress(OSError):
            while data := self._server.recv(65536):
                unpacker.feed(data)
                for message in unpacker:
                    self._tell(message)
        self.hang_up()

    def _tell(self, message: list[Any]) -> None:
        lie = self._awaited.pop(message[1], None) if message[0] == 1 else None
        match lie:
            case Edit(change) if message[2] is None:
                self._to_client([*message[:3], change(message[3])])
            case Hold():
                self._liar.run(self._later, lie, self._client, message)
            case _:
                self._to_client(message)

    def _later(self, hold: Hold, side: socket.socket, message: list[Any]) -> None:
        hold.is_held.set()
        if hold.release.wait(RELEASE_DEADLINE_S):
            with contextlib.suppress(OSError):
                self._send(side, msgpack.packb(message, **_BYTES))

    def _to_client(self, message: list[Any]) -> None:
        self._send(self._client, msgpack.packb(message, **_BYTES))

    def _send(self, side: socket.socket, data: bytes) -> None:
        with self._sending:
            side.sendall(data)

    def hang_up(self) -> None:
        for side in (self._client, self._server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._client.close()
        self._server.close()


class Liar:
    """Serves `ptyd.sock` in a directory of its own, in front of the ptyd of `target`."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.seen: Counter[str] = Counter()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.lies: dict[str, Lie | Choice] = {}
        self._target = str(target)
        self._talks: list[_Talk] = []
        self._threads: list[threading.Thread] = []
        paths.open_runtime(str(path)).close()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"{path}/{paths.SOCKET}")
        self._listener.listen(16)
        self.run(self._accept)

    def run(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    @contextlib.contextmanager
    def lying(self, **lies: Lie) -> Iterator[None]:
        """Lie for the block: `session_list` for session.list. Whoever is connected has to come anew."""
        self.lies = {name.replace("_", ".", 1): lie for name, lie in lies.items()}
        try:
            yield
        finally:
            self.lies = {}

    def cut(self) -> None:
        """Cut every connection there is."""
        for talk in self._talks:
            talk.hang_up()

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
                talk = _Talk(self, client, server)
                self._talks.append(talk)
                self.run(talk.up)
                self.run(talk.down)

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
        for lie in self.lies.values():
            if isinstance(lie, Hold):
                lie.release.set()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for talk in self._talks:
            talk.close()


class DeceivedHost(HostService):
    """A host service whose ptyd is the liar; what the liar passes on goes to the real one of its runtime."""

    def __init__(self, liar: Liar, host: HostService) -> None:
        super().__init__(host.runtime, code=_IMPATIENT + _SERVE, PTYD_RUNTIME_DIR=str(liar.path))

        self._liar = liar

    @property
    def socket(self) -> Path:
        return self._liar.path / "hostsvc.sock"


# A ptyd that says nothing would cost every test ten seconds.
_IMPATIENT: Final = """
import hostsvc.live
hostsvc.live.LIST_DEADLINE_S = 0.5
hostsvc.live.SPAWN_DEADLINE_S = 0.5
"""
