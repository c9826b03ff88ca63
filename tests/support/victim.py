"""The victim of acceptance group K: a session whose tree holds every kind of child.

Owns the programs to run in the session and the way to know all of their processes, by pid and start
time, without asking ptyd.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.support import processes
from tests.support.processes import Process
from tests.support.stream import script
from tests.support.waiting import wait_until

# What a hang-up alone cannot end, however polite the leader.
NEEDS_MORE_THAN_HANGUP: Final = frozenset({"nohup", "ignores_hup", "ignores_hup_term"})
ROLES: Final = NEEDS_MORE_THAN_HANGUP | {
    "leader", "foreground", "background", "own_group", "setsid", "daemon", "stopped", "renamed"
}  # fmt: skip
# These announce themselves a moment before they are what they say.
_SETTLED: Final[dict[str, Callable[[int], bool]]] = {
    "nohup": lambda pid: processes.command(pid).startswith("sleep"),
    "renamed": lambda pid: processes.command(pid).startswith("[kworker"),
    "stopped": lambda pid: processes.state(pid) == "T",
}
UP_DEADLINE_S: Final = 15.0


class Victim:
    """One victim. Spawn `argv` in a session, then `wait_up`; pids are written to `directory`.

    Args:
        directory: Where every process writes its pid under its role's name.
        rude: The leader ignores HUP and TERM; otherwise it is polite and keeps default signals.
        storm: A child forks a new `setsid` child every 2 ms (K4).
        leave: The leader exits with this code and leaves `ignores_hup` and `setsid` behind (K7).
    """

    def __init__(
        self, directory: Path, *, rude: bool = False, storm: bool = False, leave: int | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.roles = ROLES | ({"storm"} if storm else set())
        words = ["rude"] * rude + ["storm"] * storm
        if leave is not None:
            self.roles = frozenset({"leader", "ignores_hup", "setsid"})
            words += ["leave", str(leave)]
        self.argv = script("victim", directory, *words)
        self._known: dict[str, Process] = {}

    def wait_up(self, deadline_s: float = UP_DEADLINE_S) -> dict[str, int]:
        """Return role → pid once every process is what its role says."""
        wait_until(self._all_announced, deadline_s, f"the victim in {self.directory} is up")
        for role in self.roles:
            pid = int((self.directory / role).read_text())
            self._known[role] = Process(pid, processes.started(pid) or 0)
        wait_until(self._all_settled, deadline_s, "the victim's children have become what they are")
        return {role: process.pid for role, process in self._known.items()}

    def _all_announced(self) -> bool:
        return all((self.directory / role).exists() for role in self.roles)

    def _all_settled(self) -> bool:
        return all(_SETTLED[role](process.pid) for role, process in self._known.items() if role in _SETTLED)

    def living(self) -> dict[str, int]:
        """Return the roles that are still alive (the very same processes), with their pids."""
        return {
            role: process.pid
            for role, process in self._known.items()
            if processes.alive(process.pid) and processes.started(process.pid) == process.started
        }
