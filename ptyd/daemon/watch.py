"""Watching the runtime directory: one inotify descriptor for the directory and its sessions.

Owns the inotify descriptor. Says what appeared and what vanished; decides nothing.
Source: inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Callable

from ptyd import paths
from ptyd.daemon.poller import Poller

_EVENT = struct.Struct("iIII")
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_Q_OVERFLOW, IN_IGNORED = 0x400, 0x800, 0x4000, 0x8000
_WANTED = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
_APPEARED = IN_MOVED_TO | IN_CREATE

Seen = Callable[[str, bool], None]  # name, whether it appeared (else it vanished)


class Watch:
    """Calls back for every name that appears or vanishes, and when something bigger has happened."""

    def __init__(
        self,
        runtime: paths.Runtime,
        poller: Poller,
        on_top: Seen,
        on_session: Seen,
        on_upheaval: Callable[[], None],
    ) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = _checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._seen: dict[int, Seen] = {}
        self._on_upheaval = on_upheaval
        for fd, seen in ((runtime.fd, on_top), (runtime.sessions_fd, on_session)):
            path = f"/proc/self/fd/{fd}".encode()
            self._seen[_checked(libc.inotify_add_watch(self._fd, path, _WANTED))] = seen
        poller.add(self._fd, select.EPOLLIN, self._ready)

    def _ready(self, _: int) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            name = (
                data[at + _EVENT.size : at + _EVENT.size + length]
                .rstrip(b"\0")
                .decode(errors="surrogateescape")
            )
            at += _EVENT.size + length
            self._dispatch(watch, mask, name)

    def _dispatch(self, watch: int, mask: int, name: str) -> None:
        if mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_Q_OVERFLOW | IN_IGNORED):
            self._on_upheaval()
        elif name and watch in self._seen:
            self._seen[watch](name, bool(mask & _APPEARED))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
