"""The runtime directory: where it is, who may own it, what lies in it.

Owns the rules for finding and trusting the runtime directory, and the names inside it. Never follows
a symbolic link to get there and never repairs what it does not trust: it refuses and says why.

Everything inside is reached through one directory descriptor. That makes a path longer than
`sun_path` (108 bytes) harmless, and a directory swapped under our feet noticeable.
Standard library only: the zygote and every shim import this.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Mapping

SOCKET = "ptyd.sock"
LOCK = "lock"
ZYGOTE_LOCK = "zygote.lock"
ZYGOTE_SOCKET = "zygote.sock"
INSTANCE = "instance"
LOG = "daemon.log"
SESSIONS = "sessions"


class RuntimeDirError(Exception):
    """The runtime directory cannot be used; the message says why and what to do."""


def runtime_path(explicit: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Name the runtime directory: explicit, PTYD_RUNTIME_DIR, XDG_RUNTIME_DIR/ptyd, a private one.

    Raises:
        RuntimeDirError: under test (PTYD_TEST) when none was given: a test must never reach a real daemon.
    """
    env = os.environ if env is None else env
    chosen = explicit or env.get("PTYD_RUNTIME_DIR")
    if chosen:
        return os.path.abspath(chosen)
    if env.get("PTYD_TEST"):
        raise RuntimeDirError("PTYD_TEST is set: name a private PTYD_RUNTIME_DIR first")
    if env.get("XDG_RUNTIME_DIR"):
        return os.path.join(os.path.abspath(env["XDG_RUNTIME_DIR"]), "ptyd")
    import tempfile  # rarely needed, and slow to import for a quick command

    return os.path.join(tempfile.gettempdir(), f"ptyd-{os.getuid()}")


class Runtime:
    """An opened, trusted runtime directory. Close it, or use it in a `with` block."""

    def __init__(self, path: str, fd: int, sessions_fd: int) -> None:
        self.path = path
        self.fd = fd
        self.sessions_fd = sessions_fd

    def address(self, name: str) -> str:
        """Return a short path to `name` that fits `sun_path` however long the real one is."""
        return f"/proc/self/fd/{self.fd}/{name}"

    def session_address(self, name: str) -> str:
        return f"/proc/self/fd/{self.sessions_fd}/{name}"

    def still_there(self) -> bool:
        """Tell whether the path still leads to the directory that was opened."""
        try:
            now, then = os.lstat(self.path), os.fstat(self.fd)
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.sessions_fd)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_runtime(path: str, create: bool = True) -> Runtime:
    """Open and check the runtime directory (0700, ours, no link), making it first if `create`.

    Raises:
        RuntimeDirError: it is a link, somebody else's, open to others, or cannot be made or read.
    """
    fd = _open_private(path, None, create)
    try:
        return Runtime(path, fd, _open_private(SESSIONS, fd, create))
    except BaseException:
        os.close(fd)
        raise


def _open_private(path: str, dir_fd: int | None, create: bool) -> int:
    try:
        if create:
            _ensure_directory(path, dir_fd)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as err:
        hint = "" if create else "; nothing was started there yet"
        raise RuntimeDirError(f"runtime directory {path!r}: {err.strerror}{hint}") from err
    problem = _distrust(os.fstat(fd))
    if problem:
        os.close(fd)
        raise RuntimeDirError(f"runtime directory {path!r} {problem}")
    return fd


def _ensure_directory(path: str, dir_fd: int | None) -> None:
    if dir_fd is None:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        os.mkdir(path, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        pass


def _distrust(status: os.stat_result) -> str | None:
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to you; choose another with PTYD_RUNTIME_DIR"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return "is open to other users; run: chmod 700 on it, or choose another with PTYD_RUNTIME_DIR"
    return None


def take_lock(runtime: Runtime, name: str) -> int | None:
    """Take the lock file `name` for life and write who holds it; None when somebody else does."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=runtime.fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    holder = json.dumps({"pid": os.getpid(), "started_at_ms": time.time_ns() // 1_000_000})
    os.ftruncate(fd, 0)
    os.pwrite(fd, holder.encode(), 0)
    return fd


def lock_holder(runtime: Runtime, name: str) -> int | None:
    """Return the pid of the process that holds the lock `name`, or None when nobody does."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=runtime.fd)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder_pid(os.pread(fd, 256, 0))
    else:
        return None
    finally:
        os.close(fd)


def _holder_pid(text: bytes) -> int:
    try:
        return int(json.loads(text)["pid"])
    except (ValueError, KeyError, TypeError):
        return 0  # held, by someone who has not written its name yet


def instance_id(runtime: Runtime) -> str:
    """Return the id that lives as long as the runtime directory, making it at first use."""
    try:
        return _read_text(runtime, INSTANCE)
    except FileNotFoundError:
        pass
    draft = f".{INSTANCE}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=runtime.fd)
    with open(fd, "w") as file:
        file.write(os.urandom(16).hex())
    try:
        os.link(draft, INSTANCE, src_dir_fd=runtime.fd, dst_dir_fd=runtime.fd)
    except FileExistsError:
        pass
    os.unlink(draft, dir_fd=runtime.fd)
    return _read_text(runtime, INSTANCE)


def _read_text(runtime: Runtime, name: str) -> str:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=runtime.fd)) as file:
        return file.read()
