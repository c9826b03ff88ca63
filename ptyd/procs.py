"""Processes as /proc tells them: identity, ancestry, descendants.

Owns every look at /proc. Never signals anything. A pid alone is no identity: wherever one is kept, its
start time is kept beside it, and a walk finds a session's processes from the shim downwards instead of
reading all of /proc. Standard library only.

Source: proc(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SHIM_NAME = "ptyd-shim"  # the comm of a shim, at most 15 bytes; how a process learns that it is below one

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that matter here."""

    pid: int
    command: str
    state: str
    ppid: int
    pgid: int
    sid: int
    foreground_pgid: int
    start_ticks: int


def read_stat(pid: int | str) -> Stat | None:
    """Read one process; None when it is gone (or was never there)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096).decode("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may hold anything, a closing parenthesis too: the last one ends it.
    head, _, rest = text.rpartition(")")
    number, _, command = head.partition("(")
    field = rest.split()
    return Stat(
        int(number),
        command,
        field[0],
        int(field[1]),
        int(field[2]),
        int(field[3]),
        int(field[5]),
        int(field[19]),
    )


def is_alive(pid: int, start_ticks: int) -> bool:
    """Tell whether exactly this process still runs (a zombie does not)."""
    stat = read_stat(pid)
    return stat is not None and stat.start_ticks == start_ticks and stat.state not in "ZX"


@functools.cache
def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def children(pid: int) -> list[int]:
    """Return the children of every thread of a process; empty when it is gone."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as file,
        ):
            # One read of a seq_file gives at most a page or so: read until it is empty.
            while chunk := file.read(65536):
                found += map(int, chunk.split())
    return found


class Tree:
    """One walk over the processes below `root`, which is remembered so that ancestry can be re-checked."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.members = {root}

    def walk(self, among: Iterable[int] | None = None) -> Iterator[int]:
        """Yield each descendant as it is found, parents before children; the root is not one.

        Args:
            among: Walk only below these children of the root.
        """
        waiting = list(children(self.root) if among is None else among)
        while waiting:
            pid = waiting.pop()
            if pid in self.members:
                continue
            self.members.add(pid)
            yield pid
            waiting += children(pid)

    def holds(self, stat: Stat) -> bool:
        """Tell whether a process is still where the walk found it: a recycled pid has another parent."""
        return stat.ppid in self.members


def ancestors(pid: int) -> Iterator[Stat]:
    """Walk from a process upwards, itself first."""
    while pid > 0 and (stat := read_stat(pid)) is not None:
        yield stat
        pid = stat.ppid


def shim_above(pid: int) -> int | None:
    """Return the pid of the shim that a process runs below (or is), None when there is none."""
    return next((stat.pid for stat in ancestors(pid) if stat.command == SHIM_NAME), None)


def carries_mark(pid: int, mark: str) -> bool:
    """Tell whether a process still carries a session's mark in the environment it was started with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"PTYD_MARK={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphaned descendants of this process its children. Source: PR_SET_CHILD_SUBREAPER(2const)."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def set_name(name: str) -> None:
    """Set what ps and /proc/PID/comm show. Source: PR_SET_NAME(2const)."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
