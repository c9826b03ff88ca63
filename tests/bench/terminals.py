"""Ways to hold a terminal at a socket, driven alike: a session of ptyd, streamed and direct, and dtach.

Owns the clients, reduced to what is measured: no terminal of their own. dtach's protocol is packets of ten
bytes in (type, length, eight bytes) and bare output out, over a raw socket; a streamed attachment of ptyd's
is decoded by msgpack's own unpacker. A direct one is `ptyd.direct` as it is: it has no shorter form.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import msgpack

from ptyd.blocking import BlockingClient
from ptyd.direct import Direct
from ptyd.protocol.connection import ClientEvent, NotificationReceived
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc
from tests.support.waiting import wait_until

RECEIVE_BYTES: Final = 256 << 10
ANSWER_DEADLINE_S: Final = 60.0
SOCKET_CALM_S: Final = 0.01
_PACKET: Final = struct.Struct("BB8s")
_PUSH, _ATTACH = 0, 1
_NUMBERS: Final = itertools.count()


class Terminal(Protocol):
    """A program on a terminal, with one client attached to it.

    What goes over the socket and what it means are apart, so that a clock can be between them: how
    long a client takes to encode and decode is its own affair.
    """

    def encode(self, keys: bytes) -> bytes:
        """Return what to send for typed keys, eight bytes at most."""

    def send(self, encoded: bytes) -> None: ...

    def receive(self) -> Any:
        """Return what has come, undecoded, waiting for it; it may hold no output.

        Raises:
            TimeoutError: nothing came.
            AssertionError: the other end hung up.
        """

    def decode(self, received: Any) -> bytes:
        """Return the output in what was received."""

    def wait(self, wait_s: float) -> bool:
        """Wait until something has come, so long at most; tell whether it has."""

    @property
    def lost_bytes(self) -> int:
        """Output that the client was told it will not get."""

    @property
    def calm_s(self) -> float:
        """How long nothing comes after a first answer once the client has done all that it does at first."""


def readable(fd: int, wait_s: float) -> bool:
    """Tell whether there is something to read within `wait_s`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))


class SocketTerminal:
    """A client whose messages are bytes of a stream, and bare ones unless a subclass knows better."""

    lost_bytes = 0  # who sends bare bytes waits for its readers
    calm_s = SOCKET_CALM_S

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def encode(self, keys: bytes) -> bytes:
        return keys

    def send(self, encoded: bytes) -> None:
        self._sock.sendall(encoded)

    def receive(self) -> bytes:
        data = self._sock.recv(RECEIVE_BYTES)
        assert data, "the other end hung up"
        return data

    def decode(self, data: bytes) -> bytes:
        return data

    def wait(self, wait_s: float) -> bool:
        return readable(self._sock.fileno(), wait_s)


class _Dtach(SocketTerminal):
    def encode(self, keys: bytes) -> bytes:
        return _PACKET.pack(_PUSH, len(keys), keys)


class _Streamed(SocketTerminal):
    def __init__(self, rpc: Rpc, session_id: str) -> None:
        super().__init__(rpc.socket)
        self.lost_bytes = 0
        self._id = session_id
        self._unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)

    def encode(self, keys: bytes) -> bytes:
        message: bytes = msgpack.packb([2, "session.input", [{"id": self._id, "data": keys}]])
        return message

    def decode(self, data: bytes) -> bytes:
        self._unpacker.feed(data)
        return b"".join(map(self._output, self._unpacker))

    def _output(self, message: list[object]) -> bytes:
        match message:
            case [2, "session.output", [{"data": bytes(data)}]]:
                return data
            case [2, "session.gap", [{"from": int(start), "to": int(stop)}]]:
                self.lost_bytes += stop - start
        return b""


class _Direct:
    calm_s = SOCKET_CALM_S

    def __init__(self, direct: Direct) -> None:
        self.lost_bytes = 0
        self._direct = direct
        self._poll = select.poll()
        self._poll.register(direct, select.POLLIN)

    def encode(self, keys: bytes) -> bytes:
        return keys

    def send(self, encoded: bytes) -> None:
        self._direct.type(encoded)

    def receive(self) -> list[ClientEvent]:
        if not self.wait(ANSWER_DEADLINE_S):
            raise TimeoutError
        heard = self._direct.receive()
        assert heard is not None, "the other end hung up"
        return heard

    def decode(self, received: list[ClientEvent]) -> bytes:
        return b"".join(map(self._output, received))

    def wait(self, wait_s: float) -> bool:
        return self._direct.is_more or bool(self._poll.poll(wait_s * 1000))

    def _output(self, message: ClientEvent) -> bytes:
        match message:
            case NotificationReceived("session.output", params):
                return bytes(params["data"])
            case NotificationReceived("session.gap", params):
                self.lost_bytes += params["to"] - params["from"]
        return b""


@contextlib.contextmanager
def dtach_terminal(where: Path, argv: list[str], ready: Path) -> Iterator[Terminal]:
    """Run a program under dtach, attached; `ready` appears when it is up."""
    path = fresh(where, "dtach")
    with dtach_server(path, argv, ready), connected(path) as sock:
        sock.sendall(_PACKET.pack(_ATTACH, 0, b""))
        yield _Dtach(sock)


@contextlib.contextmanager
def dtach_server(path: Path, argv: list[str], ready: Path) -> Iterator[None]:
    """Run a program under a dtach of its own, at a socket."""
    with served(["dtach", "-N", str(path), "-E", "-z", "-r", "none", *argv], path, ready):
        yield


@contextlib.contextmanager
def served(command: list[str], path: Path, ready: Path) -> Iterator[None]:
    """Run a server until its socket and the sign of its program are there; kill it afterwards."""
    ready.unlink(missing_ok=True)
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as server:
        try:
            wait_until(lambda: path.exists() and ready.exists(), what=f"{command[0]} and its program are up")
            yield
        finally:
            server.kill()


@contextlib.contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """Connect to a server's socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_DEADLINE_S)
        sock.connect(str(path))
        yield sock


def fresh(where: Path, name: str) -> Path:
    """Return a path that nothing has had in this run."""
    return where / f"{name}-{next(_NUMBERS)}"


@contextlib.contextmanager
def ptyd_terminal(runtime: RuntimeDir, argv: list[str], ready: Path, flow: str) -> Iterator[Terminal]:
    """Run a program in a session, attached live; `ready` appears when it is up."""
    ready.unlink(missing_ok=True)
    with runtime.connect() as rpc:
        session_id = rpc.call("session.spawn", argv=argv)["id"]
        try:
            wait_until(ready.exists, what="the session's program is up")
            rpc.call("session.attach", id=session_id, since="live", flow=flow)
            rpc.socket.settimeout(ANSWER_DEADLINE_S)
            yield _Streamed(rpc, session_id)
        finally:
            runtime.call("session.kill", id=session_id, force=True)


@contextlib.contextmanager
def direct_terminal(runtime: RuntimeDir, argv: list[str], ready: Path, flow: str) -> Iterator[Terminal]:
    """Run a program in a session, attached live without the daemon; `ready` appears when it is up."""
    ready.unlink(missing_ok=True)
    with BlockingClient.connect(str(runtime.path), start=False) as client:
        session_id = client.call("session.spawn", {"argv": argv})["id"]
        try:
            wait_until(ready.exists, what="the session's program is up")
            asked = {"id": session_id, "since": "live", "via": "shm"}
            direct = Direct(*client.call_for_fds("session.attach", asked), is_paced=flow == "pace")
            with contextlib.closing(direct):
                yield _Direct(direct)
        finally:
            client.call("session.kill", {"id": session_id, "force": True})
