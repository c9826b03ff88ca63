"""Reaching the daemon: connect to it, starting it first when none runs.

Owns the decision that nothing runs, and is careful with it: a daemon that is slow, or whose socket file
was deleted a moment ago, is waited for and never displaced. Starting is left to a new zygote, of which
there is only one per runtime directory however many clients try at once.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import time

from ptyd import paths

RETRY_S = 0.02  # between two looks for a socket that somebody is about to bind
EXIT_REFUSED = 4


class Unreachable(Exception):
    """No daemon serves, and none could be started; the message says why and what to do."""


class Nested(Unreachable):
    """Nothing runs, and this process is inside a session, below which nothing may be started."""


class Busy(Unreachable):
    """A daemon holds the directory but does not take connections in time."""


def connect(path: str, *, start: bool = True, deadline_s: float = 10.0) -> socket.socket:
    """Return a connected, blocking stream socket to the daemon of the runtime directory `path`.

    Raises:
        Unreachable: nothing runs there and it may not, or could not, be started.
        Nested: the same, and this process runs inside a session.
        Busy: something runs there and did not answer within the deadline.
        paths.RuntimeDirError: the directory cannot be trusted.
    """
    deadline = time.monotonic() + deadline_s
    try:
        runtime = paths.open_runtime(path, create=start)
    except paths.RuntimeDirError as err:
        if start or os.path.lexists(path):
            raise
        raise Unreachable(f"no daemon runs ({path} does not exist); start one: ptyd daemon") from err
    with runtime:
        sock = _connect_once(runtime, deadline)
        if sock is None and not start:
            raise Unreachable(f"no daemon serves {path}; start one: ptyd daemon, or leave out --no-start")
        if sock is None:
            start_daemon(path)
            sock = _connect_soon(runtime, deadline)
    return sock


def _connect_soon(runtime: paths.Runtime, deadline: float) -> socket.socket:
    while (sock := _connect_once(runtime, deadline)) is None:
        if time.monotonic() >= deadline:
            holder = paths.lock_holder(runtime, paths.LOCK)
            raise Busy(f"daemon {holder} holds {runtime.path} but has no socket there; see daemon.log")
        time.sleep(RETRY_S)
    return sock


def _connect_once(runtime: paths.Runtime, deadline: float) -> socket.socket | None:
    """Connect; None when nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Python's own timeout would not wait: a non-blocking connect to a full backlog fails at once (unix(7)).
    _set_send_timeout(sock, max(0.01, deadline - time.monotonic()))
    try:
        sock.connect(runtime.address(paths.SOCKET))
    except BlockingIOError:
        sock.close()
        raise Busy(
            f"the daemon of {runtime.path} is alive but does not answer; try again, or: ptyd doctor"
        ) from None
    except OSError as err:
        sock.close()
        if err.errno in (errno.ENOENT, errno.ECONNREFUSED):
            return None
        raise Unreachable(f"cannot connect to {runtime.path}/{paths.SOCKET}: {err.strerror}") from err
    _set_send_timeout(sock, 0)
    return sock


def _set_send_timeout(sock: socket.socket, seconds: float) -> None:
    """Bound a blocking connect or send; 0 is without end. Source: socket(7), SO_SNDTIMEO."""
    whole = int(seconds)
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, int((seconds - whole) * 1e6))
    )


def start_daemon(path: str) -> None:
    """Start a zygote for `path` and wait until its daemon serves; harmless when one does already.

    Raises:
        Nested, Unreachable: it refused or failed; the message is its own.
    """
    command = [sys.executable, "-P", "-m", "ptyd.shim", "--runtime", path]
    reader, writer = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, writer, 2),
    ]
    pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    # Only now, and without waiting for its end: a descendant may keep the other end of the pipe.
    os.set_blocking(reader, False)
    said = _read_all(reader)
    os.close(reader)
    if code := os.waitstatus_to_exitcode(status):
        message = said.removeprefix("ptyd: ") or f"the zygote ended with status {code}"
        raise (Nested(message) if code == EXIT_REFUSED else Unreachable(f"cannot start a daemon: {message}"))


def _read_all(fd: int) -> str:
    try:
        return os.read(fd, 65536).decode(errors="replace").strip()
    except BlockingIOError:
        return ""
