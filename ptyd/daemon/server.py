"""The listening socket: who may come in, and that it is there.

Owns `ptyd.sock`: only the holder of the lock makes or replaces it. A deleted one comes back; a client of
another user is refused; more clients than allowed are told so.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable

from ptyd import paths, records
from ptyd.daemon.descriptors import is_reserved
from ptyd.daemon.poller import Poller
from ptyd.log import get_logger
from ptyd.peers import peer_uid
from ptyd.protocol.codec import pack_notification
from ptyd.protocol.errors import Code

log = get_logger()

BACKLOG = 512
ACCEPTS_PER_TURN = 16
SEND_BUFFER_BYTES = (
    256 << 10
)  # of a client's socket: four chunks; more would only delay a reply behind output


class Server:
    """Accepts clients and hands their sockets on."""

    def __init__(
        self,
        runtime: paths.Runtime,
        poller: Poller,
        on_client: Callable[[socket.socket], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._runtime = runtime
        self._poller = poller
        self._on_client = on_client
        self._has_room = has_room
        self._listener: socket.socket | None = None
        self._spare_fd = _open_spare()

    def listen(self) -> None:
        """Bind under another name, then rename: nobody ever finds a socket that is not served."""
        draft = f".{paths.SOCKET}"  # of a predecessor that was killed here, or ours
        records.remove(self._runtime.fd, draft)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(self._runtime.address(draft))
        os.chmod(draft, 0o600, dir_fd=self._runtime.fd)
        listener.listen(BACKLOG)
        os.rename(draft, paths.SOCKET, src_dir_fd=self._runtime.fd, dst_dir_fd=self._runtime.fd)
        before, self._listener = self._listener, listener
        self._poller.add(listener.fileno(), select.EPOLLIN, self._ready)
        if before is not None:
            self._poller.remove(before.fileno())
            before.close()

    def ensure(self) -> None:
        """Listen again when the socket file is not there any more."""
        try:
            os.stat(paths.SOCKET, dir_fd=self._runtime.fd, follow_symlinks=False)
        except FileNotFoundError:
            log.warning("the socket file vanished; binding it again")
            self.listen()

    def close(self) -> None:
        if self._listener is not None:
            self._poller.remove(self._listener.fileno())
            self._listener.close()
            records.remove(self._runtime.fd, paths.SOCKET)
            self._listener = None

    def _ready(self, _: int) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if self._listener is None:
                return
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as err:
                log.error("cannot accept", error=err.strerror)
                self._turn_away()
                return
            self._admit(sock)

    def _turn_away(self) -> None:
        """Tell one client that we are out of descriptors: left in the backlog, it would keep us spinning."""
        os.close(self._spare_fd)
        with contextlib.suppress(OSError):
            assert self._listener is not None
            _refuse(self._listener.accept()[0])
        self._spare_fd = _open_spare()

    def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if (uid := peer_uid(sock)) != os.geteuid():
            log.warning("refused a client of another user", uid=uid)
            sock.close()
        elif not self._has_room() or is_reserved(sock.fileno()):
            _refuse(sock)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            self._on_client(sock)


def _open_spare() -> int:
    """Open a descriptor that is there to be given up."""
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def _refuse(sock: socket.socket) -> None:
    message = "the daemon has as many clients as it allows; close some (ptyd status)"
    try:
        sock.send(pack_notification("error", {"code": Code.TOO_MANY_CLIENTS.value, "message": message}))
    except OSError:
        pass  # it has left already
    sock.close()
