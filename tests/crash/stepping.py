"""Stopping another process at each of its system calls, so that a crash can be put at every point.

Owns the only use of ptrace(2). A process is followed by one thread alone, the one that seized it; what it
forks is followed only where that is asked for. Between two calls of ours the process stands still, and
everybody else runs on.

Source: ptrace(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final

_CONT: Final = 7
_DETACH: Final = 17
_SYSCALL: Final = 24
_SETOPTIONS: Final = 0x4200
_GETEVENTMSG: Final = 0x4201
_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_GET_SYSCALL_INFO: Final = 0x420E
_O_TRACESYSGOOD: Final = 1
_O_TRACEFORK: Final = 2
_EVENT_FORK: Final = 1
_EVENT_STOP: Final = 128
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_WALL: Final = 0x40000000
_PAUSE_S: Final = 0.0001

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Gone(Exception):
    """The process has died."""


def _ptrace(request: int, pid: int, address: int = 0, data: object = 0) -> int:
    found: int = _libc.ptrace(request, pid, address, data)
    if found < 0:
        number = ctypes.get_errno()
        if number == 3:  # ESRCH
            raise Gone(pid)
        raise OSError(number, f"ptrace: {os.strerror(number)}")
    return found


class Stepper:
    """A seized process that stands still, except in `step` and `run_until_fork`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._is_stopped = False

    def _wait(self, give_up: Callable[[], object]) -> int | None:
        """Wait for the next stop and return its wait status; None when `give_up` said so first."""
        while True:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG | _WALL)
            except ChildProcessError:
                raise Gone(self.pid) from None
            if pid and not os.WIFSTOPPED(status):
                raise Gone(self.pid)
            if pid:
                self._is_stopped = True
                return status
            if give_up():
                return None
            time.sleep(_PAUSE_S)

    def _resume(self, request: int, number: int = 0) -> None:
        self._is_stopped = False
        _ptrace(request, self.pid, 0, number)

    def interrupt(self) -> None:
        """Stop it wherever it is."""
        if not self._is_stopped:
            _ptrace(_INTERRUPT, self.pid)
            self._wait(_never)

    def step(self, is_over: Callable[[], object] = lambda: False) -> bool:
        """Run to the next system call, its beginning or its end; False when `is_over` came first.

        Raises:
            Gone: it has died.
        """
        number = 0
        while True:
            self._resume(_SYSCALL, number)
            status = self._wait(is_over)
            if status is None:
                return False
            if os.WSTOPSIG(status) == _SYSCALL_STOP:
                return True
            number = 0 if status >> 16 else os.WSTOPSIG(status)

    def run_until_fork(self, is_over: Callable[[], object], forks: bool = False) -> Stepper | None:
        """Run on until it forks; return the child, stopped before its first step; see `seize`."""
        number = 0
        while True:
            self._resume(_CONT, number)
            status = self._wait(is_over)
            if status is None:
                return None
            if status >> 16 == _EVENT_FORK:
                return self._take_child(forks)
            number = 0 if status >> 16 else os.WSTOPSIG(status)

    def _take_child(self, forks: bool) -> Stepper:
        pid = ctypes.c_ulong()
        _ptrace(_GETEVENTMSG, self.pid, 0, ctypes.addressof(pid))
        child = Stepper(pid.value)
        child._wait(_never)
        _ptrace(_SETOPTIONS, child.pid, 0, _O_TRACESYSGOOD | (_O_TRACEFORK if forks else 0))
        return child

    def point(self) -> tuple[int, bool]:
        """Return (number of the system call it stands at, whether at its beginning)."""
        buffer = ctypes.create_string_buffer(88)
        _ptrace(_GET_SYSCALL_INFO, self.pid, 88, ctypes.addressof(buffer))
        is_entry = buffer.raw[0] == 1
        return (struct.unpack_from("Q", buffer.raw, 24)[0] if is_entry else -1), is_entry

    def release(self) -> None:
        """Let it run on by itself. The parent of a dead one hears of it only now."""
        try:
            self.interrupt()
            _ptrace(_DETACH, self.pid)
        except Gone:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, _WALL)


def _never() -> bool:
    return False


@contextlib.contextmanager
def seize(pid: int, forks: bool = False) -> Iterator[Stepper]:
    """Follow a process for the length of the block.

    Args:
        forks: Whether `run_until_fork` is wanted.

    Raises:
        PermissionError: this machine does not allow it.
    """
    _ptrace(_SEIZE, pid, 0, _O_TRACESYSGOOD | (_O_TRACEFORK if forks else 0))
    stepper = Stepper(pid)
    try:
        yield stepper
    finally:
        stepper.release()
