"""Who is at the other end of a unix socket, as the kernel says, and the descriptors that come from there.

Standard library only: every shim imports this.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Sequence


def peer_uid(sock: socket.socket) -> int:
    """Return who is at the other end. Source: unix(7), SO_PEERCRED."""
    _, uid, _ = peer_credentials(sock)
    return uid


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the other end as of when it connected."""
    found = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return found[0], found[1], found[2]


def receive_with_fds(sock: socket.socket, most_bytes: int, most_fds: int) -> tuple[bytes, list[int]]:
    """Receive once, and take over what descriptors came along; raises like `socket.recv`."""
    # Not socket.recv_fds: in Python 3.11 it drops the flag, and programs would inherit them.
    data, told, _, _ = sock.recvmsg(most_bytes, fds_room(most_fds), socket.MSG_CMSG_CLOEXEC)
    return data, passed_fds(told)


def fds_room(count: int) -> int:
    """Return the size of the ancillary data that `count` descriptors come in."""
    return socket.CMSG_LEN(count * array.array("i").itemsize)


def passed_fds(told: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors in the ancillary data of a message. Source: unix(7), SCM_RIGHTS."""
    fds = array.array("i")
    for level, kind, data in told:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def send_with_fds(sock: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    """Send once, with descriptors beside the first byte; returns how much went, raises like `sendmsg`."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    return sock.sendmsg([data], [rights])
