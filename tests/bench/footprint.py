"""What ptyd weighs beside so many sessions: daemon, zygote, shims, and the clients of a terminal.

Memory is what a process has for itself alone (private): shims share most of theirs with the zygote they were
forked from. What it shares, and its proportional part of all (Pss), stand in the note.
"""

from __future__ import annotations

import contextlib
import os
import pty
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tests.bench.crowd import Crowd
from tests.bench.private import PTYD
from tests.bench.report import Figure, number
from tests.bench.tmux_server import KEEPER
from tests.bench.usage import Memory, own_kib
from tests.support.waiting import wait_until

DAEMON_KIB: Final = 45e6 / 1024
SHIM_KIB: Final = 0.6e6 / 1024
GROWTH_KIB: Final = 20
SETTLED_S: Final = 0.2  # after its first byte a client has imported what it needs
DEADLINE_S: Final = 30.0


class Footprint:
    """The memory of one crowd, as it grows."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._empty_kib = 0
        self._empty_tmux_kib = 0

    def measure(self) -> list[Figure]:
        """Measure beside the crowd as it is; the first time there is none."""
        self._crowd.wait_alone()
        daemon, zygote = self._crowd.runtime.daemon_pid(), self._crowd.runtime.zygote_pid()
        where = str(self._crowd)
        figures = [self._start() if not self._crowd.count else self._growth(where)]
        figures += [_figure(f"daemon, {where}", [daemon]), _figure(f"zygote, {where}", [zygote])]
        if shims := self._crowd.shims():
            figures.append(_figure(f"an idle session's shim, {where}", shims, at_most=SHIM_KIB))
        return [*figures, *self._clients(where)]

    def _start(self) -> Figure:
        self._empty_kib = own_kib(self._crowd.runtime.daemon_pid())
        self._empty_tmux_kib = own_kib(self._crowd.tmux.pid) if self._crowd.tmux else 0
        resident_kib = Memory.of(self._crowd.runtime.daemon_pid()).resident_kib
        return Figure(
            name="daemon's resident memory at its start",
            unit="KiB",
            samples=[resident_kib],
            at_most=int(DAEMON_KIB),
            group="memory",
        )

    def _growth(self, where: str) -> Figure:
        crowd, peers = self._crowd, {}
        if crowd.tmux:
            peers["tmux"] = [(own_kib(crowd.tmux.pid) - self._empty_tmux_kib) / crowd.count]
        return Figure(
            name=f"daemon's resident memory more per session, {where}",
            unit="KiB",
            samples=[(own_kib(crowd.runtime.daemon_pid()) - self._empty_kib) / crowd.count],
            peers=peers,
            against="tmux",
            at_most=GROWTH_KIB,
            group="memory",
            note="scrollback apart; tmux's server needs no shim, and has its scrollback in it",
        )

    def _clients(self, where: str) -> Iterator[Figure]:
        """Attach to an idle session as a person does, and look at the client."""
        runtime = self._crowd.runtime
        with runtime.connect() as rpc:
            session_id = rpc.call("session.spawn", argv=["sh"])["id"]
            peers = self._tmux_client()
            for via in ("shm", "stream"):
                command = [*PTYD, "attach", "--no-start", "--via", via, session_id]
                name = f"`ptyd attach`, {'direct' if via == 'shm' else 'streamed'}, {where}"
                with _on_a_terminal(command, runtime.env) as pid:
                    yield _figure(name, [pid], peers=peers)
            rpc.call("session.kill", id=session_id, force=True)
            rpc.call("session.forget", id=session_id)

    def _tmux_client(self) -> dict[str, Sequence[float]]:
        if not (tmux := self._crowd.tmux):
            return {}
        with _on_a_terminal([*tmux.command, "attach", "-t", KEEPER], tmux.env) as pid:
            return {"tmux": [Memory.of(pid).private_kib]}


def _figure(
    name: str,
    pids: Sequence[int],
    *,
    at_most: float | None = None,
    peers: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    found = [Memory.of(pid) for pid in pids]
    shared = statistics.median(one.shared_kib for one in found)
    proportional = statistics.median(one.proportional_kib for one in found)
    return Figure(
        name=f"private memory of {name}",
        unit="KiB",
        samples=[one.private_kib for one in found],
        peers=peers or {},
        against="tmux",
        at_most=at_most and int(at_most),
        group="memory",
        note=f"shared {number(shared)}, Pss {number(proportional)}",
    )


@contextlib.contextmanager
def _on_a_terminal(command: Sequence[str], env: Mapping[str, str]) -> Iterator[int]:
    """Run a client on a terminal of its own until it has shown something and come to rest."""
    master, slave = pty.openpty()
    try:
        client = subprocess.Popen(
            command,
            env={**env, "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    os.set_blocking(master, False)
    try:
        wait_until(lambda: _shown(master), DEADLINE_S, "the client shows something")
        time.sleep(SETTLED_S)
        _shown(master)
        yield client.pid
    finally:
        client.kill()
        client.wait()
        os.close(master)


def _shown(master: int) -> bool:
    try:
        return bool(os.read(master, 1 << 16))
    except BlockingIOError:
        return False
