"""Sessions that begin and end beside others: spawn to first byte, many at once, kills.

Whoever is measured runs the same program, which rings the doorbell of the bench. At the socket ptyd stands
beside tmux's control mode, as a command beside tmux's command. What begins here ends here.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from tests.bench.crowd import spawn_all
from tests.bench.doorbell import Doorbell
from tests.bench.private import PTYD
from tests.bench.tmux_server import TmuxServer
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc

SPAWN, ATTACHED, COMMAND, BURST = "spawn", "spawn and attach", "ptyd new -d", "burst"
TMUX, TMUX_COMMAND, TMUX_BURST = "tmux -C", "tmux", "tmux -C burst"
POLITE, FORCED, HUNG_UP = "kill", "forced kill", "tmux -C kill"


class Births:
    """Who was born and is not dead yet, and every way to be either."""

    def __init__(self, runtime: RuntimeDir, rpc: Rpc, bell: Doorbell, tmux: TmuxServer | None = None) -> None:
        self._runtime, self._rpc, self._bell, self._tmux = runtime, rpc, bell, tmux
        self._ids: list[str] = []
        self._names: list[str] = []
        self._born_in_tmux = 0

    def ways(self) -> dict[str, Callable[[], float]]:
        """Return how a session begins; each returns the ms to its first byte."""
        ours = {SPAWN: self.spawn, ATTACHED: self._spawn_and_attach, COMMAND: self._spawn_by_command}
        theirs = {TMUX: self._new_in_tmux, TMUX_COMMAND: self._new_by_tmux_command}
        return ours | theirs if self._tmux else ours

    def spawn(self) -> float:
        """To the doorbell, which may be before the answer."""
        began = time.perf_counter()
        msgid = self._rpc.send("session.spawn", argv=self._bell.argv)
        self._bell.wait()
        spent_ms = ms_since(began)
        self._ids.append(self._rpc.result(msgid)["id"])
        return spent_ms

    def _spawn_and_attach(self) -> float:
        """To the first byte of its output, at the client."""
        began = time.perf_counter()
        found = self._rpc.call("session.spawn", argv=self._bell.argv)
        attached = self._rpc.call("session.attach", id=found["id"], since="start")
        self._rpc.next_notification("session.output")
        spent_ms = ms_since(began)
        self._rpc.call("session.detach", attachment=attached["attachment"])
        self._bell.wait()
        self._ids.append(found["id"])
        return spent_ms

    def _spawn_by_command(self) -> float:
        spent_ms, said = self._run([*PTYD, "new", "-d", "--no-start", *self._bell.argv], self._runtime.env)
        self._ids.append(said.strip())
        return spent_ms

    def _new_in_tmux(self) -> float:
        lines = self._lines(1)
        began = time.perf_counter()
        self._ask(lines)
        self._bell.wait()
        spent_ms = ms_since(began)
        self._heed(lines)
        return spent_ms

    def _new_by_tmux_command(self) -> float:
        assert self._tmux
        name = self._name()
        argv = [*self._tmux.command, "new-session", "-d", "-s", name, *self._bell.argv]
        return self._run(argv, self._tmux.env)[0]

    def _run(self, argv: Sequence[str], env: Mapping[str, str]) -> tuple[float, str]:
        quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
        began = time.perf_counter()
        with subprocess.Popen(argv, env=env, stdin=quiet, stdout=pipe, text=True) as command:
            self._bell.wait()
            spent_ms = ms_since(began)
            said, _ = command.communicate()
        assert command.returncode == 0, argv
        return spent_ms, said

    # -- many at once ------------------------------------------------------------------------------

    def bursts(self, count: int) -> dict[str, Callable[[], float]]:
        """Return how many begin at once; each returns how many a second, asked for without waiting."""
        ours = {BURST: lambda: self._burst(count)}
        return ours | {TMUX_BURST: lambda: self._burst_in_tmux(count)} if self._tmux else ours

    def _burst(self, count: int) -> float:
        began = time.perf_counter()
        found = spawn_all(self._rpc, self._bell.argv, count)
        self._bell.wait(count)
        rate = count / (time.perf_counter() - began)
        self._ids += [str(one["id"]) for one in found]
        return rate

    def _burst_in_tmux(self, count: int) -> float:
        lines = self._lines(count)
        began = time.perf_counter()
        self._ask(lines)
        self._bell.wait(count)
        rate = count / (time.perf_counter() - began)
        self._heed(lines)
        return rate

    # -- ends --------------------------------------------------------------------------------------

    def end_one(self, way: str) -> float:
        """End one of them and return the ms to the answer."""
        if way == HUNG_UP:
            return self._end_in_tmux(self._names.pop())
        return self._end(self._ids.pop(), force=way == FORCED)

    def end_rest(self) -> None:
        """End those that are left, and forget the dead."""
        while self._ids:
            self._end(self._ids.pop(), force=True)
        while self._names:
            self._end_in_tmux(self._names.pop())

    def _end(self, session_id: str, *, force: bool) -> float:
        began = time.perf_counter()
        result = self._rpc.call("session.kill", id=session_id, force=force)
        spent_ms = ms_since(began)
        assert (result["outcome"], result["proof"]) == ("killed", "echild"), result
        self._rpc.call("session.forget", id=session_id)
        return spent_ms

    def _end_in_tmux(self, name: str) -> float:
        began = time.perf_counter()
        self._ask([f"kill-session -t {name}"])
        self._heed([name])
        return ms_since(began)

    # -- tmux --------------------------------------------------------------------------------------

    def _name(self) -> str:
        self._born_in_tmux += 1
        self._names.append(f"born-{self._born_in_tmux}")
        return self._names[-1]

    def _lines(self, count: int) -> list[str]:
        return [f"new-session -d -s {self._name()} sh -c '{self._bell.script}'" for _ in range(count)]

    def _ask(self, lines: Sequence[str]) -> None:
        assert self._tmux
        self._tmux.send(lines)

    def _heed(self, lines: Sequence[str]) -> None:
        assert self._tmux
        for _ in lines:
            self._tmux.answer()


def ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
