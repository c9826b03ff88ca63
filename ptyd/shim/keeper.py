"""Keeping a daemon: starting it, starting it again when it dies, and telling those who wait for one.

Owns the daemon's process, the zygote's end of its link and the crash budget. Knows no session.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from ptyd import paths, records
from ptyd.peers import peer_uid
from ptyd.shim.link import EXIT_CONFIG, EXIT_STOPPED, EXIT_TEMPORARY, Link, LinkClosed

CRASH_WINDOW_S = 60.0
CRASH_BUDGET = 5  # restarts within the window; then a person has to look

Ask = dict[str, Any]


class Keeper:
    """One daemon at a time. `on_ask` gets what it asks of the zygote, with its descriptors."""

    def __init__(
        self,
        runtime: paths.Runtime,
        foreground: bool,
        epoll: select.epoll,
        on_ask: Callable[[Ask, list[int]], None],
    ) -> None:
        self.pid = 0
        self._runtime = runtime
        self._foreground = foreground
        self._epoll = epoll
        self._on_ask = on_ask
        self._link: Link | None = None
        self._is_ready = False
        self._is_stopping = False
        self._starts: list[float] = []
        self._callers: dict[int, Link] = {}
        self._listener = self._listen()

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        records.remove(self._runtime.fd, paths.ZYGOTE_SOCKET)
        listener.bind(self._runtime.address(paths.ZYGOTE_SOCKET))
        listener.listen(64)
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        return listener

    def serve(self, fd: int) -> None:
        """Deal with what the epoll set said of one of our descriptors; ignores any other."""
        if fd == self._listener.fileno():
            self._accept()
        elif fd in self._callers:
            self._drop_caller(fd)  # it gave up waiting; there is nothing else a caller could say
        elif self._link is not None and fd == self._link.fileno():
            self._receive(self._link)

    def close(self) -> None:
        """Leave. A caller who is hung up on without an answer tries again, and is the next zygote."""
        records.remove(self._runtime.fd, paths.ZYGOTE_SOCKET)
        for fd in list(self._callers):
            self._drop_caller(fd)

    def say(self, text: str) -> None:
        """Write a line to the log, for a person."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        sys.stderr.write(f"{stamp} zygote[{os.getpid()}] {text}\n")
        sys.stderr.flush()

    # -- the daemon ------------------------------------------------------------------------------------

    def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.set_inheritable(True)
        command = [sys.executable, "-P", "-m", "ptyd.daemon", "--runtime", self._runtime.path]
        command += ["--zygote-fd", str(theirs.fileno())]
        if self._foreground:
            command.append("--foreground")
        self._starts.append(time.monotonic())
        self._is_ready = False
        self.pid = os.posix_spawn(sys.executable, command, os.environ, setsigmask=[])
        theirs.close()
        self._link = Link(ours)
        self._epoll.register(ours.fileno(), select.EPOLLIN)

    def stop(self, number: int) -> None:
        """Tell the daemon to stop, and do not start it again by ourselves."""
        self._is_stopping = True
        if self.pid:
            os.kill(self.pid, number)

    def tell(self, body: Ask) -> None:
        """Answer the daemon; one that died meanwhile has lost interest."""
        if self._link is not None:
            with contextlib.suppress(LinkClosed):
                self._link.send(json.dumps(body).encode())
                self._listen_to(self._link)

    def _listen_to(self, link: Link) -> None:
        self._epoll.modify(link.fileno(), select.EPOLLIN | (select.EPOLLOUT if link.wants_write else 0))

    def _receive(self, link: Link) -> None:
        try:
            if link.wants_write:
                link.flush()
                self._listen_to(link)
            while (got := link.receive_with_fds()) is not None:
                self._take(json.loads(got[0]), got[1])
        except (LinkClosed, ValueError):
            self._close_link()

    def _take(self, ask: Ask, fds: list[int]) -> None:
        if ask["do"] == "ready":
            self._is_ready = True
            self._answer_callers({"ready": True})
        elif ask["do"] == "stopping":
            self._is_ready = False  # whoever comes from now on wants the next one
        else:
            self._on_ask(ask, fds)
        for fd in fds:
            os.close(fd)

    def _close_link(self) -> None:
        if self._link is not None:
            self._epoll.unregister(self._link.fileno())
            self._link.close()
            self._link = None

    def died(self, status: int) -> None:
        """The daemon has been collected: start another, unless it was meant or happens too often."""
        self.pid = 0
        self._close_link()
        code = os.waitstatus_to_exitcode(status)
        if self._is_stopping or code == EXIT_STOPPED:
            if self._callers:
                self._start_again()
        elif code in (EXIT_TEMPORARY, EXIT_CONFIG):
            self._answer_callers({"error": self._why_not(code)})
        elif wait_s := self._budget_spent_s():
            text = f"the daemon died more than {_crash_budget()} times within {CRASH_WINDOW_S:.0f} s"
            self.say(f"{text}; giving up. sessions are untouched. read this log, then: ptyd status")
            self._answer_callers({"error": f"{text}; wait {wait_s:.0f} s, see daemon.log"})
        else:
            self.say(
                f"the daemon ended with {'signal' if code < 0 else 'code'} {abs(code)}; starting another"
            )
            self.start()

    def _why_not(self, code: int) -> str:
        if code == EXIT_CONFIG:
            return "the daemon refused its settings; see daemon.log"
        return f"another daemon (pid {paths.lock_holder(self._runtime, paths.LOCK)}) serves this directory"

    def _budget_spent_s(self) -> float:
        """Return how many seconds the crash budget stays spent; 0 when there is some left."""
        now = time.monotonic()
        self._starts = [moment for moment in self._starts if now - moment < CRASH_WINDOW_S]
        return 0.0 if len(self._starts) <= _crash_budget() else CRASH_WINDOW_S - (now - self._starts[0])

    # -- who wants one ---------------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            if peer_uid(sock) != os.geteuid():
                sock.close()
                return
            self.add_caller(sock)

    def add_caller(self, sock: socket.socket) -> None:
        """Answer this one when the daemon serves, or cannot; starts one when none is there."""
        self._callers[sock.fileno()] = Link(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        if self._is_ready and self.pid:
            self._answer_callers({"ready": True})
        elif not self.pid:
            self._start_again()

    def _start_again(self) -> None:
        if wait_s := self._budget_spent_s():
            text = f"the daemon keeps dying; wait {wait_s:.0f} s, see daemon.log"
            self._answer_callers({"error": text})
        else:
            self._is_stopping = False
            self.start()

    def _answer_callers(self, body: Ask) -> None:
        for fd, link in list(self._callers.items()):
            with contextlib.suppress(LinkClosed):
                link.send(json.dumps(body).encode())
            self._drop_caller(fd)

    def _drop_caller(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._callers.pop(fd).close()


def _crash_budget() -> int:
    return int(os.environ.get("PTYD_CRASH_BUDGET") or CRASH_BUDGET)
