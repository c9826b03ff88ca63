"""What processes use, as /proc tells: memory for themselves and shared, and processor time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

_FIELDS: Final = {
    "Rss": "resident_kib",
    "Pss": "proportional_kib",
    "Private_Clean": "private_kib",
    "Private_Dirty": "private_kib",
    "Shared_Clean": "shared_kib",
    "Shared_Dirty": "shared_kib",
}


@attrs.define(kw_only=True)
class Memory:
    """A process's memory. Source: proc(5) /proc/PID/smaps_rollup."""

    private_kib: int = 0
    shared_kib: int = 0
    proportional_kib: int = 0
    resident_kib: int = 0

    @classmethod
    def of(cls, pid: int) -> Memory:
        found = cls()
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if field := _FIELDS.get(name):
                setattr(found, field, getattr(found, field) + int(rest.split()[0]))
        return found


def own_kib(pid: int) -> int:
    """Return what is resident, without memory shared by name: a session's ring is its scrollback."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {
        line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "RssShmem"))
    }
    return int(found["VmRSS"]) - int(found["RssShmem"])


def busy_s(pids: Iterable[int]) -> float:
    return sum(map(process_s, pids))


def process_s(pid: int) -> float:
    """Return user and system time, to the nanosecond: ticks of 10 ms would hide an idle process.

    Source: proc(5) /proc/PID/stat utime and stime; the kernel's scheduler/sched-stats.rst.
    """
    if found := list(Path(f"/proc/{pid}/task").glob("*/schedstat")):
        return sum(int(path.read_text().split()[0]) for path in found) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
