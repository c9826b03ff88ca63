"""Ending every process of a session: the schedule (pure) and the signalling (an effect).

Owns the order HUP and CONT, grace, TERM, grace, KILL until nobody is left or the deadline has passed.
Never decides that anybody is dead: only the parent's ECHILD does, and whoever runs a schedule has it.

Closing the master would be no kill (it only hangs up the leader), and one signal to one process group
would miss whoever left it: so every phase walks the tree below its roots.

Standard library only. Source: signal(7), pidfd_open(2), pidfd_send_signal(2).
"""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ptyd import procs

DEADLINE_S = 10.0  # of the KILL loop; what survives this long is stuck in the kernel or out of reach
KILL_ROUND_S = 0.01  # between two rounds of KILL when no death wakes us; doubles up to:
KILL_ROUND_MOST_S = 0.2
MAX_REPORTED = 32  # survivors or stragglers named in an answer


class Phase(enum.StrEnum):
    """How far a kill has had to go."""

    HANGUP = "hangup"
    TERMINATE = "terminate"
    KILL = "kill"


# phase: (signals sent on entering it, the phase its grace leads to). CONT lets the stopped ones listen.
PHASES: dict[Phase, tuple[tuple[signal.Signals, ...], Phase]] = {
    Phase.HANGUP: ((signal.SIGHUP, signal.SIGCONT), Phase.TERMINATE),
    Phase.TERMINATE: ((signal.SIGTERM, signal.SIGCONT), Phase.KILL),
    Phase.KILL: ((signal.SIGKILL,), Phase.KILL),
}


class Schedule:
    """When to send what. Pure: the clock is handed in, in seconds of one monotonic clock."""

    def __init__(self, now: float, grace_s: float, force: bool) -> None:
        self.started_at = now
        self.grace_s = grace_s
        self.forced = force
        self.phase = Phase.KILL if force else Phase.HANGUP
        self.due_at = now
        self.expires_at: float | None = None
        self._round_s = KILL_ROUND_S
        self._entered = False

    def hurry(self, now: float) -> None:
        """Jump to KILL: a forced kill joined a gentle one."""
        if self.phase is not Phase.KILL:
            self._enter(Phase.KILL, now)

    def due_signals(self, now: float) -> tuple[signal.Signals, ...]:
        """Return what to send now, and move on; nothing when it is not time yet."""
        if now < self.due_at:
            return ()
        if self._entered and self.phase is not Phase.KILL:
            self._enter(PHASES[self.phase][1], now)
        self._entered = True
        if self.phase is Phase.KILL:
            self.expires_at = self.expires_at or now + DEADLINE_S
            self.due_at = now + self._round_s
            self._round_s = min(self._round_s * 2, KILL_ROUND_MOST_S)
        else:
            self.due_at = now + self.grace_s
        return PHASES[self.phase][0]

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self.due_at = now
        self._entered = False


class Survivor(NamedTuple):
    """A process that a signal could not be sent to, or that has not died of it."""

    pid: int
    command: str
    state: str
    reason: str  # not_permitted, not_dying, supervisor_lost, unattributed


Send = Callable[[int, int], None]


def send_by_pidfd(pidfd: int, number: int) -> None:
    signal.pidfd_send_signal(pidfd, number)


def signal_all(
    pids: Iterable[int],
    signals: tuple[int, ...],
    belongs: Callable[[procs.Stat], bool],
    send: Send = send_by_pidfd,
) -> list[Survivor]:
    """Send signals to each process as it is found; return those that are alive, with why they may stay.

    Args:
        pids: Walked lazily: a process is signalled before its siblings are even looked up.
        belongs: Asked *after* the pidfd was opened, when the pid can no longer change hands.
    """
    alive: list[Survivor] = []
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue  # gone
        try:
            stat = procs.read_stat(pid)
            if stat is None or stat.state in "ZX" or not belongs(stat):
                continue
            alive.append(Survivor(pid, stat.command, stat.state, _send(pidfd, signals, send)))
        finally:
            os.close(pidfd)
    return alive


def _send(pidfd: int, signals: tuple[int, ...], send: Send) -> str:
    reason = "not_dying"
    for number in signals:
        try:
            send(pidfd, number)
        except ProcessLookupError:
            break  # a zombie by now; its parent's wait will tell
        except PermissionError:
            reason = "not_permitted"
    return reason
