"""Signs of life outside ptyd: what a session's processes leave in /proc. Looks only, signals nothing.

What is seen here is weaker than ptyd's proof: a process may have dropped its environment, or belong to
another user. Therefore nothing rests on one look, and never on this alone for something that is wanted.
One that hides its environment (as ssh-agent does) and may be a session's makes the answer unknown.

Source: proc(5)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from hostsvc.model import ABSENT, Fact, Known, SessionRow, Unknown
from ptyd import procs

_MARK = b"PTYD_SESSION="


class Marks(NamedTuple):
    """What all processes showed of sessions' marks, in one look."""

    sessions: frozenset[str]
    """The ids of those whose mark some process carries in its environment."""
    hidden_start: int = 0
    """When the youngest of our processes started that hides its environment, in clock ticks since boot."""


def look_for_marks() -> Marks:
    """Read the environment of every process."""
    found: set[str] = set()
    hidden_start = 0
    for pid in procs.all_pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read()
        except PermissionError:
            hidden_start = max(hidden_start, _start_if_ours(pid))
            continue
        except OSError:
            continue  # it is gone
        found.update(
            variable.removeprefix(_MARK).decode(errors="replace")
            for variable in environ.split(b"\0")
            if variable.startswith(_MARK)
        )
    return Marks(frozenset(found), hidden_start)


def _start_if_ours(pid: int) -> int:
    """Return when a process of our user started; 0 for another user's, and when it is gone."""
    stat = procs.read_stat(pid)
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            uids = next(line.split()[1:3] for line in file if line.startswith(b"Uid:"))
    except (OSError, StopIteration):
        return 0
    is_ours = str(os.getuid()).encode() in uids
    return stat.start_ticks if is_ours and stat is not None and stat.state not in "ZX" else 0


def death_of(row: SessionRow, boot_id: str, marks: Marks) -> Fact[str]:
    """Tell whether a session's processes are gone: Known(how), Absent when one is seen, or Unknown.

    Args:
        row: Its row.
        boot_id: This boot's.
        marks: What this look at all processes has shown.
    """
    if row.boot_id is not None and row.boot_id != boot_id:
        return Known("other_boot")
    if row.id in marks.sessions:
        return ABSENT
    identities = [(row.shim_pid, row.shim_start), (row.pid, row.pid_start)]
    for pid, start in identities:
        if pid is not None and start is not None and procs.is_alive(pid, start):
            return ABSENT
    if row.boot_id is None or row.shim_start is None:
        return Unknown("who ran it was never told")
    if marks.hidden_start >= row.shim_start:
        return Unknown("a younger process of ours hides its environment")
    return Known("processes_gone")


def inside(paths: Iterable[str]) -> dict[str, int]:
    """Return, of these directories, those that some process has its cwd in, with one such pid.

    They may be reached through links: /proc tells real paths.
    """
    wanted = {os.path.realpath(path): path for path in paths}
    found: dict[str, int] = {}
    for pid in procs.all_pids() if wanted else ():
        try:
            place = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        while place not in ("/", ""):
            if place in wanted:
                found.setdefault(wanted[place], pid)
            place = os.path.dirname(place)
    return found
