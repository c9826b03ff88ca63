"""The daemon's end of its link to the zygote: asks for shims, and for the end of what a shim lost.

Owns that one socket. Its end of file means that the zygote is gone: then no shim can be forked any more,
and the daemon steps down for a new pair.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable
from typing import Any

import trio

from ptyd.daemon.poller import Poller
from ptyd.datagrams import Body
from ptyd.protocol.errors import Code, PtydError
from ptyd.shim.link import Link, LinkClosed

KILL_SLACK_S = 15.0  # beyond both graces: the KILL loop's deadline and a little more


class ZygoteLink:
    """Questions to the zygote; `on_ended` hears of orphaned sessions that are proven dead."""

    def __init__(self, fd: int, poller: Poller, on_ended: Callable[[str], None]) -> None:
        self.lost = trio.Event()
        self._link = Link(socket.socket(fileno=fd))
        self._poller = poller
        self._on_ended = on_ended
        self._next_seq = 0
        self._waiting: dict[int, Callable[[Body | None], None]] = {}
        poller.add(fd, select.EPOLLIN, self._ready)

    def tell_ready(self) -> None:
        self._send({"do": "ready"})

    def tell_stopping(self) -> None:
        """Whoever asks the zygote for a daemon from now on waits for another than this one."""
        with contextlib.suppress(PtydError):
            self._send({"do": "stopping"})

    def fork_shim(self, session_id: str, spec: Body, shim_end: socket.socket, birth_fd: int) -> None:
        """Have a shim forked that speaks over the other end of `shim_end` and holds `birth_fd` until born.

        What becomes of it is told by that link alone: facts, a failure, or its end of file.

        Raises:
            PtydError: the zygote is gone, or there is no memory or descriptor left.
        """
        try:
            spec_fd = os.memfd_create("ptyd-spec", os.MFD_CLOEXEC)
        except OSError as err:
            raise PtydError(Code.SPAWN_FAILED, f"cannot start a session: {err.strerror}") from err
        try:
            with open(spec_fd, "wb", closefd=False) as file:
                file.write(json.dumps(spec).encode("ascii"))
            self._send({"do": "spawn", "id": session_id, "seq": 0}, (spec_fd, shim_end.fileno(), birth_fd))
        finally:
            os.close(spec_fd)

    async def kill(self, ward: Body, grace_ms: int, force: bool) -> Body:
        """Have the processes of a session without a shim killed; returns the zygote's result.

        Raises:
            PtydError: `kill_unconfirmed`, reason `supervisor_lost`, when the zygote is gone too.
        """
        self._next_seq += 1
        done = trio.Event()
        got: list[Body | None] = []

        def settle(body: Body | None) -> None:
            got.append(body)
            done.set()

        self._waiting[self._next_seq] = settle
        self._send({"do": "kill", "seq": self._next_seq, "grace_ms": grace_ms, "force": force, **ward})
        with trio.move_on_after(2 * grace_ms / 1000 + KILL_SLACK_S):
            await done.wait()
        if got and got[0] is not None:
            return got[0]
        message = "the session's shim and the zygote are gone; nobody can prove its processes dead"
        raise PtydError(Code.KILL_UNCONFIRMED, message, reason="supervisor_lost", survivors=[])

    def _send(self, body: Body, fds: tuple[int, ...] = ()) -> None:
        try:
            # Never queued: what it carries is closed by our caller, and a late spawn surprises everybody.
            if not self._link.send_now(json.dumps(body).encode(), fds):
                raise PtydError(Code.BUSY, "the zygote is behind with forking; try again")
        except LinkClosed:
            raise PtydError(Code.STOPPING, "the zygote is gone; reconnect to get a new daemon") from None

    def _ready(self, mask: int) -> None:
        try:
            while (message := self._link.receive()) is not None:
                self._take(json.loads(message))
        except LinkClosed:
            self._poller.remove(self._link.fileno())
            for waiting in [*self._waiting.values()]:
                waiting(None)
            self.lost.set()

    def _take(self, body: dict[str, Any]) -> None:
        if body["did"] == "killed":
            if settle := self._waiting.pop(body["seq"], None):
                settle(body)
        elif body["did"] == "ended":
            self._on_ended(body["id"])
