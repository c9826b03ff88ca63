"""ptyd's daemon as a process: is it there, does it work, has another taken its place; and its end.

Looks, and signals exactly one process: the one that answered us, known by pid and start time, and only while
it holds the lock of our runtime directory. Its sessions are the shims' and outlive it.

Source: proc(5), pidfd_open(2)
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

import attrs
import trio

from ptyd import paths, procs

END_S: Final = 5.0
_MODULE: Final = b"ptyd.daemon"


@attrs.frozen
class Identity:
    """A process: its pid and when it started, in clock ticks since boot."""

    pid: int
    start: int

    @property
    def is_alive(self) -> bool:
        return procs.is_alive(self.pid, self.start)

    def cpu_ticks(self) -> int | None:
        """Return the processor time it has used so far; None when it is gone."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb", buffering=0) as file:
                fields = file.read(4096).rpartition(b")")[2].split()
        except OSError:
            return None
        return int(fields[11]) + int(fields[12])


def identify(pid: object) -> Identity | None:
    """Return who has this pid now."""
    found = procs.read_stat(pid) if isinstance(pid, int) else None
    return None if found is None else Identity(found.pid, found.start_ticks)


class PtydProcess:
    """The daemon of one runtime directory."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir

    def has_successor(self) -> bool:
        """Tell whether a daemon runs or is being started, whether it serves yet or not."""
        if self._holder(paths.LOCK) is not None:
            return True
        zygote = self._holder(paths.ZYGOTE_LOCK)
        return zygote is not None and any(map(_is_daemon, procs.children(zygote)))

    async def kill(self, identity: Identity) -> bool:
        """End exactly this process and wait for that; False when it is not the daemon that we know.

        Cancellation: the signal was sent or was not; nothing is left open.
        """
        try:
            pidfd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return True
        try:
            # Looked at with the pidfd open: from here on it is this process, or none.
            if not identity.is_alive:
                return True
            if self._holder(paths.LOCK) != identity.pid:
                return False
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            with trio.move_on_after(END_S):
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        return True

    def _holder(self, lock: str) -> int | None:
        try:
            with paths.open_runtime(self._runtime_dir, create=False) as runtime:
                return paths.lock_holder(runtime, lock)
        except (OSError, paths.RuntimeDirError):
            return None


def _is_daemon(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return _MODULE in file.read(65536).split(b"\0")
    except OSError:
        return False
