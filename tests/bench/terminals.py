"""Two ways to hold a terminal, driven alike: a session of ptyd, and dtach.

Owns both clients, reduced to what is measured: a raw socket each, no terminal of their own. dtach's
protocol is packets of ten bytes in (type, length, eight bytes) and bare output out. ptyd's is a streamed
attachment, decoded by msgpack's own unpacker.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import msgpack

from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc
from tests.support.waiting import wait_until

RECEIVE_BYTES: Final = 256 << 10
ANSWER_DEADLINE_S: Final = 60.0
_PACKET: Final = struct.Struct("BB8s")
_PUSH, _ATTACH = 0, 1


class Terminal(Protocol):
    """A program on a terminal, with one client attached to it.

    What goes over the socket and what it means are apart, so that a clock can be between them: how
    long a client takes to encode and decode is its own affair.
    """

    sock: socket.socket

    def encode(self, keys: bytes) -> bytes:
        """Return what to send for typed keys, eight bytes at most."""

    def decode(self, data: bytes) -> bytes:
        """Return the output in what was received."""

    @property
    def lost_bytes(self) -> int:
        """Output that the client was told it will not get."""


def receive(terminal: Terminal) -> bytes:
    """Return what has come, undecoded, waiting for it.

    Raises:
        TimeoutError: nothing came.
        AssertionError: the other end hung up.
    """
    data = terminal.sock.recv(RECEIVE_BYTES)
    assert data, "the other end hung up"
    return data


class _Dtach:
    lost_bytes = 0  # dtach waits for its readers

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def encode(self, keys: bytes) -> bytes:
        return _PACKET.pack(_PUSH, len(keys), keys)

    def decode(self, data: bytes) -> bytes:
        return data


class _Attachment:
    def __init__(self, rpc: Rpc, session_id: str) -> None:
        self.lost_bytes = 0
        self.sock = rpc.socket
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


def has_dtach() -> bool:
    return shutil.which("dtach") is not None


@contextlib.contextmanager
def dtach_terminal(where: Path, argv: list[str], ready: Path) -> Iterator[Terminal]:
    """Run a program under dtach, attached; `ready` appears when it is up."""
    path = where / "dtach"
    path.unlink(missing_ok=True)
    ready.unlink(missing_ok=True)
    quiet = subprocess.DEVNULL
    command = ["dtach", "-N", str(path), "-E", "-z", "-r", "none", *argv]
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as server:
        try:
            wait_until(lambda: path.exists() and ready.exists(), what="dtach and its program are up")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(ANSWER_DEADLINE_S)
                sock.connect(str(path))
                sock.sendall(_PACKET.pack(_ATTACH, 0, b""))
                yield _Dtach(sock)
        finally:
            server.kill()


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
            yield _Attachment(rpc, session_id)
        finally:
            runtime.call("session.kill", id=session_id, force=True)
