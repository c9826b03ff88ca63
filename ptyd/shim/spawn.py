"""Forking the program: a fresh PTY, a clean child, and an error that names the step that failed.

Owns the only use of ptyprocess, and uses it only to spawn and to set the window size. Everything that
can fail in the child happens inside ptyprocess's one guarded place, `preexec_fn`, and never leaves it: an
exception anywhere else in the child would unwind the parent's stack in the wrong process. The program is
exec'd there too, because ptyprocess would look it up on *our* PATH and rewrite its argv[0].

ptyprocess kills the child when its object is collected, so the object is kept for life.

Source: pty(7), credentials(7), signal(7), execve(2).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import stat
import sys
import termios
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, NoReturn

from ptyprocess import PtyProcess

_TIOCGPTPEER = 0x5441  # ioctl_tty(2): open the slave of this master, whatever is mounted where
_IUTF8 = 0x4000  # erase whole characters, not bytes, on the line discipline's own line editing
MAX_SPEC_BYTES = 8 << 20
# Numbers, made once in the zygote: to make the set anew was most of what a child's reset took.
_RESETTABLE = tuple(int(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_SHELL_PATH = "/usr/local/bin:/usr/bin:/bin"


class SpawnSpec(NamedTuple):
    """Everything a shim needs to know to begin. Text is surrogate-escaped, as os.fsdecode gives it."""

    id: str
    generation: int
    mark: str
    argv: list[str]
    cwd: str
    env: dict[str, str]
    rows: int
    cols: int
    name: str | None
    labels: dict[str, str]
    scrollback_bytes: int
    on_leader_exit: str
    created_at_ms: int
    ring_linger_s: float


def read_spec(fd: int) -> SpawnSpec:
    """Read a spec from the memfd the daemon wrote it to."""
    fields: dict[str, Any] = json.loads(os.pread(fd, MAX_SPEC_BYTES, 0))
    return SpawnSpec(**{name: fields[name] for name in SpawnSpec._fields})


class SpawnFailed(Exception):
    """The program never ran. `code` is one of the wire's codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Program(NamedTuple):
    """A program, or who is to become one, and the shim's two ends of its PTY."""

    process: PtyProcess
    master_fd: int
    slave_fd: int

    def resize(self, rows: int, cols: int) -> None:
        self.process.setwinsize(rows, cols)


def fork_in_pty(be_child: Callable[[], NoReturn], keep_fds: Collection[int]) -> Program:
    """Fork a process in a new PTY that leads it, has only these descriptors beside 0 to 2, and is the child.

    It comes back as soon as the child has closed every other descriptor: ptyprocess waits for that.

    Raises:
        SpawnFailed: there is no PTY or no process to be had.
    """
    parent = os.getpid()
    try:
        process = PtyProcess.spawn([sys.executable], preexec_fn=be_child, pass_fds=keep_fds)
    except BaseException as err:
        if os.getpid() != parent:
            os._exit(127)  # never unwind the shim's stack in the child
        raise SpawnFailed("spawn_failed", f"cannot fork: {err}") from err  # noqa: ASYNC104 - no trio here
    os.set_blocking(process.fd, False)
    os.set_inheritable(process.fd, False)
    return Program(process, process.fd, open_slave(process.fd))


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor from 3 on but these, of which none is below."""
    low = 3
    for fd in [*sorted(keep), os.sysconf("SC_OPEN_MAX")]:
        os.closerange(low, fd)
        low = fd + 1


def open_slave(master_fd: int) -> int:
    """Open the slave without making it our controlling terminal."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    return fcntl.ioctl(master_fd, _TIOCGPTPEER, flags)


def become(spec: SpawnSpec, soft_files: int, before_exec: Callable[[], str | None]) -> NoReturn:
    """Turn the calling process, which leads a PTY, into the program.

    Args:
        spec: What to run; validated, so that it has no NUL and no odd size.
        soft_files: The RLIMIT_NOFILE to give it: a raised one breaks select(2) in old programs.
        before_exec: Called last; returns a reason to refuse, or None.

    Raises:
        SpawnFailed: it cannot be, with the step that failed.
    """
    try:
        _prepare_child(spec, soft_files)
    except OSError as err:
        raise SpawnFailed("spawn_failed", str(err.strerror)) from err
    if reason := before_exec():
        raise SpawnFailed("fenced", reason)
    _exec(spec)


def _prepare_child(spec: SpawnSpec, soft_files: int) -> None:
    """Undo what Python and we changed, and enter the working directory."""
    for number in _RESETTABLE:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_files, hard))
    os.umask(0o022)
    termios.tcsetwinsize(0, (spec.rows, spec.cols))
    attributes = termios.tcgetattr(0)
    attributes[0] |= _IUTF8
    termios.tcsetattr(0, termios.TCSANOW, attributes)
    try:
        os.chdir(spec.cwd)
    except OSError as err:
        raise SpawnFailed("cwd_unavailable", f"{spec.cwd!a}: {err.strerror}") from err


def _exec(spec: SpawnSpec) -> NoReturn:
    argv = [os.fsencode(word) for word in spec.argv]
    env = {os.fsencode(key): os.fsencode(value) for key, value in spec.env.items()}
    denied = None
    for path in candidates(spec.argv[0], spec.env.get("PATH", _SHELL_PATH)):
        try:
            _refuse_directory(path)
            os.execve(os.fsencode(path), argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            denied = denied or err
            if err.errno not in (errno.EACCES, errno.EISDIR):
                break
    if denied is None:
        raise SpawnFailed("program_not_found", f"{spec.argv[0]!a} is not on the session's PATH")
    code = "spawn_failed" if denied.errno in (errno.E2BIG, errno.ENOMEM) else "program_not_executable"
    raise SpawnFailed(code, f"{spec.argv[0]!a}: {denied.strerror}")


def _refuse_directory(path: str) -> None:
    if stat.S_ISDIR(os.stat(path).st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")


def candidates(program: str, path: str) -> list[str]:
    """Return where to look for a program: itself when it has a slash, else along PATH."""
    if "/" in program:
        return [program]
    return [os.path.join(folder or ".", program) for folder in path.split(":")]
