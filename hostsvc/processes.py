"""Signs of life outside ptyd: what a session's processes leave in /proc. Looks only, signals nothing.

What is seen here is weaker than ptyd's proof: a process may have dropped its environment, or belong to
another user. Therefore nothing rests on one look, and never on this alone for something that is wanted.

Source: proc(5)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from hostsvc.model import ABSENT, Fact, Known, SessionRow, Unknown
from ptyd import procs

_MARK = b"PTYD_SESSION="


def marked_sessions() -> frozenset[str]:
    """Return the ids of all sessions whose mark some process of ours carries in its environment."""
    found: set[str] = set()
    for pid in procs.all_pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read()
        except OSError:
            continue  # gone, or another user's, which no session of ours starts without leaving a parent
        found.update(
            variable.removeprefix(_MARK).decode(errors="replace")
            for variable in environ.split(b"\0")
            if variable.startswith(_MARK)
        )
    return frozenset(found)


def death_of(row: SessionRow, boot_id: str, marked: Collection[str]) -> Fact[str]:
    """Tell whether a session's processes are gone: Known(how), Absent when one is seen, or Unknown.

    Args:
        row: Its row.
        boot_id: This boot's.
        marked: The sessions of which a process with their mark was seen.
    """
    if row.boot_id is not None and row.boot_id != boot_id:
        return Known("other_boot")
    if row.id in marked:
        return ABSENT
    identities = [(row.shim_pid, row.shim_start), (row.pid, row.pid_start)]
    for pid, start in identities:
        if pid is not None and start is not None and procs.is_alive(pid, start):
            return ABSENT
    if row.boot_id is None or row.shim_pid is None:
        return Unknown("who ran it was never told")
    return Known("processes_gone")


def inside(paths: Iterable[str]) -> dict[str, int]:
    """Return, of these directories, those that some process has its cwd in, with one such pid."""
    wanted = list(paths)
    found: dict[str, int] = {}
    for pid in procs.all_pids() if wanted else ():
        try:
            cwd = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        for path in wanted:
            if cwd == path or cwd.startswith(path + "/"):
                found.setdefault(path, pid)
    return found
