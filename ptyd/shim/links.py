"""The links of one shim: its socket, and everybody who has connected to it.

Owns the listening socket and every link. Knows no session: it carries messages and says who is there.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable

from ptyd import records
from ptyd.peers import peer_uid
from ptyd.shim.link import Link, LinkClosed

MAX_LINKS = 64  # a daemon, its successor, and some direct readers

OnMessage = Callable[[Link, bytes], None]


class Links:
    """Every link of one shim. `on_gone` hears of each that is dropped."""

    def __init__(
        self,
        sessions_fd: int,
        session_id: str,
        epoll: select.epoll,
        on_message: OnMessage,
        on_gone: Callable[[Link], None],
    ) -> None:
        self._sessions_fd = sessions_fd
        self._name = session_id + records.SOCKET_SUFFIX
        self._epoll = epoll
        self._on_message = on_message
        self._on_gone = on_gone
        self._links: dict[int, Link] = {}
        self._inode = 0
        self._listener = self._bind()

    def __bool__(self) -> bool:
        return bool(self._links)

    # -- the socket file -------------------------------------------------------------------------------

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        records.remove(self._sessions_fd, self._name)
        with contextlib.suppress(OSError):  # no space, or no directory any more: looked at again later
            listener.bind(f"/proc/self/fd/{self._sessions_fd}/{self._name}")
            listener.listen(16)
            self._inode = self._socket_inode()
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        return listener

    def _socket_inode(self) -> int:
        """Return the inode that the socket's name leads to, 0 when there is none."""
        try:
            return os.stat(self._name, dir_fd=self._sessions_fd, follow_symlinks=False).st_ino
        except OSError:
            return 0

    def ensure_socket(self) -> None:
        """Bind again when the socket file vanished."""
        if self._socket_inode() == 0:
            self._epoll.unregister(self._listener.fileno())
            self._listener.close()
            self._listener = self._bind()

    def remove_socket(self) -> None:
        """Remove our socket file, but not that of a later session with the same id."""
        if self._inode and self._socket_inode() == self._inode:
            records.remove(self._sessions_fd, self._name)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if peer_uid(sock) != os.geteuid() or len(self._links) >= MAX_LINKS:
            sock.close()
        else:
            self.add(Link(sock))

    # -- links -----------------------------------------------------------------------------------------

    def add(self, link: Link) -> None:
        self._links[link.fileno()] = link
        self._epoll.register(link.fileno(), select.EPOLLIN)

    def drop(self, link: Link) -> None:
        if self._links.pop(link.fileno(), None) is None:
            return
        self._epoll.unregister(link.fileno())
        link.close()
        self._on_gone(link)

    def wake(self) -> None:
        """Tell every reader who watches that the head has moved."""
        for link in self._links.values():
            if link.is_watching:
                link.wake()

    def send(self, link: Link, message: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send to one; one that lets megabytes of answers lie is dropped, and may connect again."""
        try:
            sent = link.send(message, fds)
        except LinkClosed:
            sent = False
        if not sent:
            self.drop(link)
        elif link.wants_write:
            self._epoll.modify(link.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def tell(self, message: bytes) -> None:
        """Send to all."""
        for link in list(self._links.values()):
            self.send(link, message)

    def serve(self, fd: int, mask: int) -> None:
        """Deal with what the epoll set said of one of our descriptors; ignores any other."""
        if fd == self._listener.fileno():
            self._accept()
        elif link := self._links.get(fd):
            self._serve(link, mask)

    def _serve(self, link: Link, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT:
                link.flush()
                if not link.wants_write:
                    self._epoll.modify(link.fileno(), select.EPOLLIN)
            if mask & ~select.EPOLLOUT and (message := link.receive()):
                self._on_message(link, message)
        except (LinkClosed, ValueError, LookupError, TypeError, struct.error):
            self.drop(link)  # gone, or not speaking our language
