"""Group S, S11: a crash at every point of a spawn leaves it listed, or proven never to have run."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from ptyd import launch, paths
from tests.crash.stepping import Stepper, seize
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Disconnected, RpcError
from tests.support.waiting import soak, wait_until

SETTINGS: Final = {"PTYD_CRASH_BUDGET": "100000", "PTYD_RING_LINGER_S": "0"}
OURS: Final = ("ptyd-zygote", "ptyd-shim")


@pytest.fixture
def ptyd(runtime: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeDir]:
    runtime.settings.update(SETTINGS)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)  # for the pairs that a client starts
    runtime.was_wrecked = True
    yield runtime.start()
    for spawn in Spawn.made:
        spawn.rpc.close()
    Spawn.made.clear()


class Spawn:
    """One spawn that is asked for and may be hit by a crash; `check` finds out what became of it."""

    made: ClassVar[list[Spawn]] = []

    def __init__(self, runtime: RuntimeDir) -> None:
        self.id = f"spawn-{len(Spawn.made)}"
        self._token = f"TOKEN={os.urandom(16).hex()}"
        self._runtime = runtime
        self.rpc = runtime.connect()
        Spawn.made.append(self)
        name, _, value = self._token.partition("=")
        self._asked = self.rpc.send("session.spawn", id=self.id, argv=["sleep", "1000"], env={name: value})

    def is_answered(self) -> bool:
        return bool(select.select([self.rpc.socket], [], [], 0)[0])

    def answer(self) -> str:
        """Return `spawned`, `lost` when the daemon died, or the error's code."""
        try:
            self.rpc.result(self._asked)
            return "spawned"
        except RpcError as err:
            return err.code
        except (OSError, Disconnected):
            return "lost"
        finally:
            self.rpc.close()

    def processes(self) -> list[processes.Process]:
        """Return what runs with the token in its environment, wherever it has gone."""
        return [found for found in processes.descendants(os.getpid()) if self._carries(found.pid)]

    def _carries(self, pid: int) -> bool:
        try:
            return self._token.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def check(self, answer: str) -> str:
        """Hold what is claimed against what is there; end it; return the state it was in."""
        first = state_in(complete_list(self._runtime), self.id)
        wait_until(lambda: is_settled(self._runtime, self.id), what="nothing is being born any more")
        last = state_in(complete_list(self._runtime), self.id)
        running = [process for process in self.processes() if processes.alive(process.pid)]
        told = f"answer {answer}, listed as {first}, then as {last}, running {list(map(str, running))}"
        if first is None:
            assert not running, f"hidden behind complete: {told}"
            assert last is None, f"born after a complete list: {told}"
        if last in (None, "exited"):
            assert not running, f"called dead: {told}"
        if answer == "spawned":
            assert first is not None, told
        elif answer != "lost":
            assert last in (None, "exited"), f"refused, and yet there: {told}"
        self._end(last)
        return str(last)

    def _end(self, state: str | None) -> None:
        if state not in (None, "exited"):
            result = ask(self._runtime, "session.kill", id=self.id, force=True)
            assert result["proof"] in ("echild", "zygote_echild"), result
        assert self.processes() == []


def complete_list(runtime: RuntimeDir) -> list[dict[str, Any]]:
    """Return the first list that calls itself complete, from whichever daemon serves."""

    def complete() -> dict[str, Any] | None:
        found = ask(runtime, "session.list")
        return found if found["complete"] else None

    rows: list[dict[str, Any]] = wait_until(complete, 20, "a complete list")["sessions"]
    return rows


def ask(runtime: RuntimeDir, method: str, **params: Any) -> dict[str, Any]:
    """Ask whichever daemon serves, starting one if need be; once more when it was about to leave."""

    def answer() -> dict[str, Any] | None:
        launch.connect(str(runtime.path)).close()
        try:
            found: dict[str, Any] = runtime.call(method, **params)
        except (OSError, Disconnected):
            return None
        return found

    return wait_until(answer, 20, f"{method} is answered")


def whole_pair(runtime: RuntimeDir) -> tuple[int, int]:
    """Return the pids of a zygote and its own daemon, which serves; starts them if need be."""

    def found() -> tuple[int, int] | None:
        launch.connect(str(runtime.path)).close()
        zygote, daemon = runtime.find_zygote_pid(), (runtime.hello() or {}).get("pid", 0)
        return (zygote, daemon) if zygote and processes.parent(daemon) == zygote else None

    return wait_until(found, 20, "a whole pair serves")


def state_in(rows: list[dict[str, Any]], session_id: str) -> str | None:
    return next((row["state"] for row in rows if row["id"] == session_id), None)


def is_settled(runtime: RuntimeDir, session_id: str) -> bool:
    """Tell that nothing is between a fork and its record, or between a fork and its exec."""
    known = {runtime.find_zygote_pid()}
    if runtime.has_record(session_id):
        known.add(runtime.shim_pid(session_id))
    return not any(name_of(p.pid) in OURS for p in processes.descendants(os.getpid()) if p.pid not in known)


def name_of(pid: int) -> str:
    """Return the comm of a living process."""
    with contextlib.suppress(OSError):
        if processes.alive(pid):
            return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


# -- every system call -----------------------------------------------------------------------------------


@contextlib.contextmanager
def at_zygote(runtime: RuntimeDir, steps: int) -> Iterator[tuple[Spawn, Stepper]]:
    with stand_at(runtime, whole_pair(runtime)[0], steps) as found:
        yield found


@contextlib.contextmanager
def at_daemon(runtime: RuntimeDir, steps: int) -> Iterator[tuple[Spawn, Stepper]]:
    with stand_at(runtime, whole_pair(runtime)[1], steps) as found:
        yield found


@contextlib.contextmanager
def stand_at(runtime: RuntimeDir, pid: int, steps: int) -> Iterator[tuple[Spawn, Stepper]]:
    """Ask for a spawn and stop a process of ours so many steps into it, or at the answer."""
    with seize_or_skip(pid) as stepper:
        stepper.interrupt()
        spawn = Spawn(runtime)
        walk(stepper, steps, spawn.is_answered)
        yield spawn, stepper


@contextlib.contextmanager
def at_shim(runtime: RuntimeDir, steps: int) -> Iterator[tuple[Spawn, Stepper]]:
    with seize_or_skip(whole_pair(runtime)[0], forks=True) as zygote:
        zygote.interrupt()
        spawn = Spawn(runtime)
        shim = zygote.run_until_fork(spawn.is_answered)
        assert shim is not None, "the zygote forks a shim"
    try:
        walk(shim, steps, spawn.is_answered)
        yield spawn, shim
    finally:
        shim.release()


@contextlib.contextmanager
def at_program(runtime: RuntimeDir, steps: int) -> Iterator[tuple[Spawn, Stepper]]:
    """The process that prepares the birth, and becomes the program."""
    with seize_or_skip(whole_pair(runtime)[0], forks=True) as zygote:
        zygote.interrupt()
        spawn = Spawn(runtime)
        shim = zygote.run_until_fork(spawn.is_answered, forks=True)
        assert shim is not None, "the zygote forks a shim"
        program = shim.run_until_fork(spawn.is_answered)
        assert program is not None, "the shim forks the program-to-be"
        shim.release()
    try:
        walk(program, steps, spawn.is_answered)
        yield spawn, program
    finally:
        program.release()


@contextlib.contextmanager
def seize_or_skip(pid: int, forks: bool = False) -> Iterator[Stepper]:
    try:
        stack = contextlib.ExitStack()
        stepper = stack.enter_context(seize(pid, forks))
    except PermissionError:
        pytest.skip("this machine does not allow ptrace")
    with stack:
        yield stepper


def walk(stepper: Stepper, steps: int, is_over: Callable[[], object]) -> int:
    """Take so many steps, or fewer when it is over; return how many, with the process standing still."""
    for taken in range(steps):
        if not stepper.step(is_over):
            stepper.interrupt()
            return taken
    return steps


Stand = Callable[[RuntimeDir, int], contextlib.AbstractContextManager[tuple[Spawn, Stepper]]]


def count_steps(runtime: RuntimeDir, stand: Stand) -> int:
    """Return how many steps a spawn takes there, from the request to the answer."""
    with stand(runtime, 0) as (spawn, stepper):
        steps = walk(stepper, 10_000, spawn.is_answered)
    assert spawn.check(spawn.answer()) == "running"
    return steps


def pick(chance: random.Random, steps: int, small: int) -> list[int]:
    """Return the points to crash at: some, spread over all and never the same two runs' worth; or all."""
    count = soak(min(small, steps), steps + 1)
    width = (steps + 1) / count
    return [int(n * width + chance.uniform(0, width)) for n in range(count)]


@pytest.mark.parametrize("stand, small", [(at_shim, 100), (at_program, 60), (at_daemon, 12), (at_zygote, 8)])
def test_S11_killed_at_a_system_call(ptyd: RuntimeDir, stand: Stand, small: int) -> None:
    seen: dict[str, int] = {}
    for steps in pick(random.Random(11), count_steps(ptyd, stand), small):
        with stand(ptyd, steps) as (spawn, stepper):
            processes.kill_and_wait(stepper.pid)
        outcome = spawn.check(spawn.answer())
        seen[outcome] = seen.get(outcome, 0) + 1
    print(f"{stand.__name__}: {seen}")
    assert len(seen) > 1, "the points reach from before the birth to after it"
    assert unfinished(ptyd) == []


def unfinished(runtime: RuntimeDir) -> list[str]:
    """Return the files that somebody was about to finish."""
    names = os.listdir(runtime.path / "sessions")
    return [name for name in names if name.startswith(".") or name.endswith(".birth")]


def test_S11_born_late_under_another_daemon(ptyd: RuntimeDir) -> None:
    """The shim is slow, and its daemon is replaced meanwhile: no list without it is complete."""
    chance = random.Random(110)
    for steps in pick(chance, count_steps(ptyd, at_shim), 8):
        with at_shim(ptyd, steps) as (spawn, _):
            ptyd.wait_for_new_daemon(ptyd.kill_daemon())
            listing = ptyd.call("session.list")
            known = state_in(listing["sessions"], spawn.id) is not None
            assert known or not listing["complete"], f"{steps} steps into its birth, hidden behind complete"
            asked = ptyd.connect()
            if killed := chance.random() < 0.5:
                msgid = asked.send("session.kill", id=spawn.id, force=True)
                wait_until((ptyd.path / "sessions" / f"{spawn.id}.fence").exists)
        with asked:
            if killed:
                with contextlib.suppress(RpcError):
                    asked.result(msgid)
                wait_until(lambda spawn=spawn: is_settled(ptyd, spawn.id))  # type: ignore[misc]
                rows = complete_list(ptyd)
                assert state_in(rows, spawn.id) in (None, "exited"), "it was killed"
                assert spawn.processes() == []
        spawn.check(spawn.answer())


def test_S11_born_late_under_another_pair(ptyd: RuntimeDir) -> None:
    """The zygote is gone as well; whoever comes next still knows that somebody is being born."""
    for steps in pick(random.Random(111), count_steps(ptyd, at_shim), 4):
        with at_shim(ptyd, steps) as (spawn, shim):
            ptyd.kill_zygote()
            ptyd.kill_daemon()
            if holds_lock(shim.pid):  # the first thing that it does is to close what it was forked with
                with pytest.raises(launch.Unreachable, match="holds the lock"):
                    launch.connect(str(ptyd.path))
            else:
                launch.connect(str(ptyd.path)).close()
                listing = ptyd.call("session.list")
                known = state_in(listing["sessions"], spawn.id) is not None
                assert known or not listing["complete"], f"{steps} steps into its birth, and hidden"
        spawn.check(spawn.answer())


def holds_lock(pid: int) -> bool:
    """Tell whether a process that stands still has the lock of the zygote that forked it."""
    return any(file.readlink().name == paths.ZYGOTE_LOCK for file in Path(f"/proc/{pid}/fd").iterdir())


# -- any instant -----------------------------------------------------------------------------------------


def test_S11_killed_at_a_random_instant(ptyd: RuntimeDir) -> None:
    """The same without ptrace, which slows its victim down: delays swept over a spawn's duration."""
    chance = random.Random(1111)
    spawn = Spawn(ptyd)
    began = time.perf_counter()
    spawn.check(spawn.answer())
    duration_s = min(0.05, time.perf_counter() - began)
    for _ in range(soak(8, 500)):
        victim = chance.choice(whole_pair(ptyd))
        spawn, ends = Spawn(ptyd), time.perf_counter() + chance.uniform(0, duration_s)
        while time.perf_counter() < ends:
            pass  # a sleep is too coarse for microseconds
        os.kill(victim, signal.SIGKILL)
        spawn.check(spawn.answer())
