"""The zygote: the first process, which starts the daemon, forks shims and inherits what they lose.

Owns the daemon's life (start, restart within a crash budget) and the children that fall to it. Small and
single-threaded, so that forking it is cheap and safe: it holds no lock and no thread that a fork could
break. It never reads output and knows no client.

Run as `python -m ptyd.shim --runtime DIR [--foreground]`. Standard library and ptyprocess only.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from ptyd import paths, records
from ptyd.shim.birth import run_shim
from ptyd.shim.ending import WALL, exit_from_status
from ptyd.shim.link import EXIT_CONFIG, EXIT_STOPPED, EXIT_TEMPORARY, Link, LinkClosed, peer_uid
from ptyd.shim.orphans import OrphanKill, Orphans, Ward
from ptyd.shim.procs import become_subreaper, set_name
from ptyd.shim.shim import child_wakeups

CRASH_WINDOW_S = 60.0
CRASH_BUDGET = 5  # restarts within the window; then a person has to look
KILL_LOOK_S = 0.05  # how often an orphan kill looks again when no death wakes it


class Zygote:
    """The loop over the daemon, the callers who want one, and the children."""

    def __init__(self, runtime: paths.Runtime, foreground: bool, soft_files: int) -> None:
        self._runtime = runtime
        self._foreground = foreground
        self._soft_files = soft_files
        self._epoll = select.epoll()
        self._daemon_pid = 0
        self._daemon: Link | None = None
        self._is_ready = False
        self._stops = 0
        self._starts: list[float] = []
        self._restart_at: float | None = None
        self._shims: dict[int, str] = {}
        self._orphans = Orphans(lambda pid: pid in self._shims or pid == self._daemon_pid)
        self._kills: list[tuple[OrphanKill, int]] = []
        self._callers: dict[int, Link] = {}
        self._listener = self._listen()
        self._children_fd = child_wakeups()
        self._epoll.register(self._children_fd, select.EPOLLIN)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        records.remove(self._runtime.fd, paths.ZYGOTE_SOCKET)
        listener.bind(self._runtime.address(paths.ZYGOTE_SOCKET))
        listener.listen(64)
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        return listener

    # -- the loop --------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until the daemon was stopped and the last shim is gone; return the exit status."""
        self._start_daemon()
        gc.collect()
        gc.freeze()  # what exists now stays shared between all shims
        while self._daemon_pid or self._restart_at is not None or self._shims or self._orphans:
            for fd, _ in self._epoll.poll(self._timeout()):
                self._serve(fd)
            self._act(time.monotonic())
            if self._stops > 1:
                break
        records.remove(self._runtime.fd, paths.ZYGOTE_SOCKET)
        return 0

    def stop(self) -> None:
        """A person's Ctrl-C or a service manager: stop the daemon; asked again, leave the shims alone."""
        self._stops += 1
        self._restart_at = None
        if self._daemon_pid:
            os.kill(self._daemon_pid, signal.SIGTERM)
        if self._shims:
            self._say(f"{len(self._shims)} sessions live on; once more to leave them without a zygote")

    def _timeout(self) -> float | None:
        moments = [self._restart_at] if self._restart_at is not None else []
        if self._kills:
            moments.append(time.monotonic() + KILL_LOOK_S)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _serve(self, fd: int) -> None:
        if fd == self._children_fd:
            os.read(fd, 4096)
            self._reap()
        elif fd == self._listener.fileno():
            self._accept()
        elif fd in self._callers:
            self._drop_caller(fd)  # it gave up waiting; there is nothing else a caller could say
        elif self._daemon is not None and fd == self._daemon.fileno():
            self._serve_daemon(self._daemon)

    def _act(self, now: float) -> None:
        for kill, seq in list(self._kills):
            if result := kill.step(now):
                self._kills.remove((kill, seq))
                self._tell({"did": "killed", "seq": seq, **result})
        if self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            self._start_daemon()

    def _say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        sys.stderr.write(f"{stamp} zygote[{os.getpid()}] {text}\n")
        sys.stderr.flush()

    # -- the daemon ------------------------------------------------------------------------------------

    def _start_daemon(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.set_inheritable(True)
        fd = theirs.fileno()
        command = [
            sys.executable,
            "-P",
            "-m",
            "ptyd.daemon",
            "--runtime",
            self._runtime.path,
            "--zygote-fd",
            str(fd),
        ]
        if self._foreground:
            command.append("--foreground")
        self._starts.append(time.monotonic())
        self._is_ready = False
        self._daemon_pid = os.posix_spawn(sys.executable, command, os.environ, setsigmask=[])
        theirs.close()
        self._daemon = Link(ours)
        self._epoll.register(ours.fileno(), select.EPOLLIN)

    def _serve_daemon(self, link: Link) -> None:
        try:
            while (got := link.receive_with_fds()) is not None:
                self._obey(json.loads(got[0]), got[1])
        except (LinkClosed, ValueError):
            self._epoll.unregister(link.fileno())
            link.close()
            self._daemon = None

    def _obey(self, ask: dict[str, Any], fds: list[int]) -> None:
        match ask["do"]:
            case "spawn":
                self._fork_shim(ask["id"], fds, ask["seq"])
            case "kill":
                ward = Ward(ask["id"], ask["mark"], ask["leader_pid"], ask["leader_start"])
                kill = OrphanKill(ward, self._orphans, time.monotonic(), ask["grace_ms"] / 1000, ask["force"])
                self._kills.append((kill, ask["seq"]))
            case "ready":
                self._is_ready = True
                self._answer_callers({"ready": True})
        for fd in fds:
            os.close(fd)

    def _tell(self, body: dict[str, Any]) -> None:
        if self._daemon is not None:
            with contextlib.suppress(LinkClosed):
                self._daemon.send(json.dumps(body).encode())

    def _daemon_died(self, status: int) -> None:
        self._daemon_pid = 0
        code = os.waitstatus_to_exitcode(status)
        if self._stops or code == EXIT_STOPPED:
            self._answer_callers({"error": "the daemon was stopped just now; try again"})
        elif code in (EXIT_TEMPORARY, EXIT_CONFIG):
            self._answer_callers({"error": self._why_not(code)})
        elif wait := self._spent():
            text = f"the daemon died {CRASH_BUDGET} times within {CRASH_WINDOW_S:.0f} s"
            self._say(f"{text}; giving up. sessions are untouched. read this log, then: ptyd status")
            self._answer_callers({"error": f"{text}; it may start again in {wait:.0f} s; see daemon.log"})
        else:
            self._say(f"the daemon ended with {exit_from_status(status)}; starting it again")
            self._restart_at = time.monotonic()

    def _why_not(self, code: int) -> str:
        if code == EXIT_CONFIG:
            return "the daemon refused its settings; see daemon.log"
        return f"another daemon (pid {paths.lock_holder(self._runtime, paths.LOCK)}) serves this directory"

    def _spent(self) -> float:
        """Return how many seconds the crash budget stays spent; 0 when there is some left."""
        now = time.monotonic()
        self._starts = [moment for moment in self._starts if now - moment < CRASH_WINDOW_S]
        budget = int(os.environ.get("PTYD_CRASH_BUDGET", CRASH_BUDGET))
        return 0.0 if len(self._starts) <= budget else CRASH_WINDOW_S - (now - self._starts[0])

    # -- who wants a daemon ----------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            if peer_uid(sock) != os.geteuid():
                sock.close()
                return
            self.add_caller(sock)

    def add_caller(self, sock: socket.socket) -> None:
        """Answer this one when the daemon serves, or cannot."""
        self._callers[sock.fileno()] = Link(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        if self._is_ready and self._daemon_pid:
            self._answer_callers({"ready": True})
        elif not self._daemon_pid and self._restart_at is None and not self._starts_again():
            self._answer_callers(
                {"error": f"the daemon keeps dying; wait {self._spent():.0f} s, see daemon.log"}
            )

    def _starts_again(self) -> bool:
        if not self._starts:
            return True  # the first one is about to be started
        if self._spent():
            return False
        self._start_daemon()
        return True

    def _answer_callers(self, body: dict[str, Any]) -> None:
        for fd, link in list(self._callers.items()):
            with contextlib.suppress(LinkClosed):
                link.send(json.dumps(body).encode())
            self._drop_caller(fd)

    def _drop_caller(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._callers.pop(fd).close()

    # -- children --------------------------------------------------------------------------------------

    def _fork_shim(self, session_id: str, fds: list[int], seq: int) -> None:
        try:
            pid = os.fork()
        except OSError as err:
            self._tell({"did": "failed", "seq": seq, "message": f"cannot fork a shim: {err.strerror}"})
            return
        if pid == 0:
            _become_shim(self._runtime.sessions_fd, fds, self._soft_files)
        self._shims[pid] = session_id

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | WALL)
                if pid == 0:
                    break
                self._reaped(pid, status)
        for ward, exit in self._orphans.ended():
            self._write_end(ward, exit)

    def _reaped(self, pid: int, status: int) -> None:
        if pid == self._daemon_pid:
            self._daemon_died(status)
        elif pid in self._shims:
            self._shim_died(self._shims.pop(pid), pid)
        else:
            self._orphans.reaped(pid, exit_from_status(status))

    def _shim_died(self, session_id: str, pid: int) -> None:
        """A shim that left in good order has written an end; any other was killed."""
        try:
            record = records.read_record(self._runtime.sessions_fd, session_id)
        except records.RecordError as err:
            self._say(f"session {session_id}: {err}")
            return
        if record is None or record["shim_pid"] != pid or record.get("ended"):
            return
        self._say(f"the shim of session {session_id} was killed; its processes are ours now")
        ward = Ward(session_id, record["mark"], record.get("pid", 0), record.get("pid_start", 0))
        self._orphans.shim_died(ward)

    def _write_end(self, ward: Ward, exit: dict[str, int] | None) -> None:
        """Nobody of an orphaned session is left: write it down, then tell."""
        now = time.monotonic()
        record = records.read_record(self._runtime.sessions_fd, ward.id) or {}
        fields = {
            **record,
            "exit": exit or record.get("exit"),
            "proof": "zygote_echild",
            "ended": True,
        }
        fields["ended_at_ms"] = time.time_ns() // 1_000_000
        with contextlib.suppress(OSError):
            records.replace_record(self._runtime.sessions_fd, ward.id, fields)
        self._tell({"did": "ended", "id": ward.id})
        for kill, seq in [item for item in self._kills if item[0].ward.id == ward.id]:
            self._kills.remove((kill, seq))
            self._tell({"did": "killed", "seq": seq, **kill.result(now, "killed")})


def _become_shim(sessions_fd: int, fds: list[int], soft_files: int) -> NoReturn:
    """Turn a fresh fork of the zygote into a shim that shares nothing with it but memory."""
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        os.chdir("/")
        _close_all_but({sessions_fd, *fds})
        spec_fd, link_fd = fds
        run_shim(sessions_fd, spec_fd, socket.socket(fileno=link_fd), soft_files)
    finally:
        os._exit(1)


def _close_all_but(keep: set[int]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    low = 3
    for fd in [*sorted(keep), os.sysconf("SC_OPEN_MAX")]:
        os.closerange(low, fd)
        low = fd + 1


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
    zygote = Zygote(runtime, foreground, soft_files)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: zygote.stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if caller is not None:
        zygote.add_caller(caller)
    return zygote.run()
