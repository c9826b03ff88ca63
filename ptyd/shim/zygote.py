"""The zygote: the first process, which keeps a daemon, forks shims and inherits what they lose.

Owns the children that fall to it: it is a subreaper, and its own ECHILD among all that is no shim proves
the end of a session whose shim was killed. Small and single-threaded, so that forking it is cheap and
safe: it holds no lock and no thread that a fork could break. It never reads output and knows no client.

Run as `python -m ptyd.shim --runtime DIR [--foreground]`. Standard library and ptyprocess only.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Iterator
from typing import NoReturn

from ptyd import paths, procs, records
from ptyd.procs import become_subreaper, set_name
from ptyd.shim.birth import run_shim
from ptyd.shim.ending import WALL, Exit, exit_from_status
from ptyd.shim.keeper import Ask, Keeper
from ptyd.shim.orphans import OrphanKill, Orphans, Ward
from ptyd.shim.shim import RECORD_RETRY_S, child_wakeups
from ptyd.shim.spawn import close_all_but

KILL_LOOK_S = 0.05  # how often an orphan kill looks again when no death wakes it


class Zygote:
    """The loop over the daemon and the children."""

    def __init__(self, runtime: paths.Runtime, foreground: bool, soft_files: int) -> None:
        self._runtime = runtime
        self._soft_files = soft_files
        self._epoll = select.epoll()
        self._stops = 0
        self._shims: dict[int, str] = {}
        self._orphans = Orphans(self._is_known, self._has_dead_shim)
        self._ends: list[tuple[Ward, Exit | None]] = []  # proven, and to be written down
        self._kills: list[tuple[OrphanKill, int]] = []
        self._keeper = Keeper(runtime, foreground, self._epoll, self._obey)
        self._children_fd = child_wakeups()
        self._epoll.register(self._children_fd, select.EPOLLIN)

    def run(self, caller: socket.socket | None) -> int:
        """Serve until the daemon was stopped and the last shim is gone; return the exit status.

        Args:
            caller: Who waits to hear that the daemon serves.
        """
        self._keeper.start()
        if caller is not None:
            self._keeper.add_caller(caller)
        procs.boot_id()  # read once for all of them
        gc.collect()
        gc.freeze()  # what exists now stays shared between all shims
        while (self._keeper.pid or self._shims or self._orphans or self._ends) and self._stops < 2:
            for fd, _ in self._epoll.poll(self._timeout()):
                self._serve(fd)
            self._ends = [end for end in self._ends if not self._write_end(*end)]
            self._step_kills(time.monotonic())
        self._keeper.close()
        return 0

    def _timeout(self) -> float | None:
        if self._kills:
            return KILL_LOOK_S
        return RECORD_RETRY_S if self._ends else None

    def stop(self) -> None:
        """A person's Ctrl-C or a service manager: stop the daemon; asked again, leave the shims alone."""
        self._stops += 1
        self._keeper.stop(signal.SIGTERM)
        if self._shims:
            self._keeper.say(f"{len(self._shims)} sessions live on; once more to leave them without a zygote")

    def _serve(self, fd: int) -> None:
        if fd == self._children_fd:
            os.read(fd, 4096)
            self._reap()
        else:
            self._keeper.serve(fd)

    def _obey(self, ask: Ask, fds: list[int]) -> None:
        match ask["do"]:
            case "spawn":
                self._fork_shim(ask["id"], fds, ask["seq"])
            case "kill":
                ward = Ward(ask["id"], ask["mark"], ask["leader_pid"], ask["leader_start"])
                self._kill(ward, ask["seq"], ask["grace_ms"] / 1000, ask["force"])

    def _kill(self, ward: Ward, seq: int, grace_s: float, force: bool) -> None:
        self._reap()  # the daemon may have heard of the shim's death before us
        now = time.monotonic()
        kill = OrphanKill(ward, self._orphans, now, grace_s, force)
        if self._has_end(ward):  # and we of the end, before it
            self._keeper.tell({"did": "killed", "seq": seq, **kill.result(now, "killed")})
        else:
            self._kills.append((kill, seq))

    def _has_end(self, ward: Ward) -> bool:
        try:
            record = records.read_record(self._runtime.sessions_fd, ward.id)
        except records.RecordError:
            return False
        return record is not None and record["mark"] == ward.mark and bool(record.get("ended"))

    def _step_kills(self, now: float) -> None:
        for kill, seq in list(self._kills):
            if result := kill.step(now):
                self._kills.remove((kill, seq))
                self._keeper.tell({"did": "killed", "seq": seq, **result})

    # -- children --------------------------------------------------------------------------------------

    def _fork_shim(self, session_id: str, fds: list[int], seq: int) -> None:
        try:
            pid = os.fork()
        except OSError as err:
            self._keeper.tell({"did": "failed", "seq": seq, "message": f"cannot fork a shim: {err.strerror}"})
            return
        if pid == 0:
            _become_shim(self._runtime.sessions_fd, session_id, fds, self._soft_files)
        self._shims[pid] = session_id

    def _reap(self) -> None:
        dead = list(_collect())
        # Shims first, and all at once: what fell to us may be any one's of them, and be dead itself by now.
        wards = [ward for pid, _ in dead if pid in self._shims for ward in self._shim_died(pid)]
        if wards:
            self._orphans.shims_died(wards)
        for pid, status in dead:
            if pid == self._keeper.pid:
                self._keeper.died(status)
            elif self._shims.pop(pid, None) is None:
                self._orphans.reaped(pid, exit_from_status(status))
        self._ends += self._orphans.ended()

    def _is_known(self, pid: int) -> bool:
        return pid in self._shims or pid == self._keeper.pid

    def _has_dead_shim(self) -> bool:
        """Tell whether a shim has died that we have not collected yet."""
        return any((stat := procs.read_stat(pid)) is None or stat.state in "ZX" for pid in self._shims)

    def _shim_died(self, pid: int) -> list[Ward]:
        """A shim that left in good order has written an end; any other was killed: return what it had."""
        session_id = self._shims[pid]
        records.tidy_up_after(self._runtime.sessions_fd, session_id, pid)
        try:
            record = records.read_record(self._runtime.sessions_fd, session_id)
        except records.RecordError as err:
            self._keeper.say(f"session {session_id}: {err}")
            return []
        if record is None or record["shim_pid"] != pid or record.get("ended"):
            return []
        self._keeper.say(f"the shim of session {session_id} was killed; its processes are ours now")
        return [Ward(session_id, record["mark"], record.get("pid", 0), record.get("pid_start", 0))]

    def _write_end(self, ward: Ward, exit: Exit | None) -> bool:
        """Nobody of an orphaned session is left: write it down, then tell; False when that cannot be."""
        now = time.monotonic()
        try:
            if record := records.read_record(self._runtime.sessions_fd, ward.id):
                end = {"exit": exit or record.get("exit"), "proof": "zygote_echild", "ended": True}
                end["ended_at_ms"] = time.time_ns() // 1_000_000
                records.replace_record(self._runtime.sessions_fd, ward.id, {**record, **end})
        except records.RecordError as err:
            self._keeper.say(f"session {ward.id}: {err}")
        except OSError:
            return False
        self._keeper.tell({"did": "ended", "id": ward.id})
        for kill, seq in [item for item in self._kills if item[0].ward.id == ward.id]:
            self._kills.remove((kill, seq))
            self._keeper.tell({"did": "killed", "seq": seq, **kill.result(now, "killed")})
        return True


def _collect() -> Iterator[tuple[int, int]]:
    """Yield (pid, wait status) of every child that is dead."""
    with contextlib.suppress(ChildProcessError):
        while (got := os.waitpid(-1, os.WNOHANG | WALL))[0]:
            yield got


def _become_shim(sessions_fd: int, session_id: str, fds: list[int], soft_files: int) -> NoReturn:
    """Turn a fresh fork of the zygote into a shim that shares nothing with it but memory."""
    try:
        signal.set_wakeup_fd(-1)
        close_all_but({sessions_fd, *fds})  # first: until then we hold the zygote's lock as well
        for number in (signal.SIGINT, signal.SIGTERM):  # to the others that a shim is deaf to, we are, too
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        os.chdir("/")
        _point_stdio_at_null()
        spec_fd, link_fd, *birth_fds = fds
        run_shim(sessions_fd, session_id, spec_fd, socket.socket(fileno=link_fd), birth_fds, soft_files)
    finally:
        os._exit(1)


def _point_stdio_at_null() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


def raise_file_limit() -> int:
    """Raise RLIMIT_NOFILE to what is allowed; return what it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def serve(runtime: paths.Runtime, foreground: bool, caller: socket.socket | None) -> int:
    """Take the lock and be the zygote; return the exit status."""
    soft_files = raise_file_limit()
    set_name("ptyd-zygote")
    become_subreaper()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whoever started us may block SIGCHLD, which we live by
    signal.signal(
        signal.SIGCHLD, lambda *_: None
    )  # shims inherit it; what it does, the wake-up descriptor does
    zygote = Zygote(runtime, foreground, soft_files)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: zygote.stop())
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return zygote.run(caller)
