"""Who is at the other end of a unix socket, as the kernel says.

Standard library only: every shim imports this.
"""

from __future__ import annotations

import socket
import struct


def peer_uid(sock: socket.socket) -> int:
    """Return who is at the other end. Source: unix(7), SO_PEERCRED."""
    _, uid, _ = peer_credentials(sock)
    return uid


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the other end as of when it connected."""
    found = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return found[0], found[1], found[2]
