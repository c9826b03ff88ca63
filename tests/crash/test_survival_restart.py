"""Group S, restarts: the daemon dies, alone or with its zygote, and costs a session nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ptyd import launch
from tests.crash.following import Follower, Stream, read_scrollback
from tests.support import processes
from tests.support.daemon import ROOT, RuntimeDir
from tests.support.sessions import wait_for_output
from tests.support.stream import check_numbered, lines_written, numbered_program
from tests.support.waiting import soak, wait_until

BIG_SCROLLBACK = 32 << 20  # ten seconds of a steady writer
STEADY_MS = 5  # 16 KB each: some 3 MB/s
UNLIMITED_CRASHES = {"PTYD_CRASH_BUDGET": "100000"}


def spawn(runtime: RuntimeDir, argv: list[str], **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = runtime.call("session.spawn", argv=argv, **params)
    return found


def pids(runtime: RuntimeDir) -> dict[str, tuple[int, int, int]]:
    """Return who runs in each living session: id → leader, its start time, shim."""
    rows = runtime.call("session.list")["sessions"]
    living = [row for row in rows if row["state"] == "running"]
    return {row["id"]: (row["pid"], row["pid_start"], runtime.shim_pid(row["id"])) for row in living}


def find_daemon(zygote_pid: int) -> int | None:
    """Return the zygote's daemon, also one that has only just been started."""
    below = processes.children(zygote_pid)
    return next((pid for pid in below if "ptyd.daemon" in processes.command(pid)), None)


class Sprinter:
    """A short session that does its work and ends exactly while there is no daemon."""

    LINES = 2000

    def __init__(self, runtime: RuntimeDir, follower: Follower, go: Path, number: int) -> None:
        self.go = go
        self.exit = {"signal": 1 + number % 15} if number % 3 == 2 else {"code": (number * 37) % 256}
        argv = numbered_program(self.LINES, go=go, exit_code=self.exit.get("code", 0))
        if "signal" in self.exit:
            argv = ["sh", "-c", f'"$@"; kill -{self.exit["signal"]} $$', "sh", *argv]
        self.stream = follower.follow(spawn(runtime, argv)["id"])

    def start(self) -> None:
        self.go.touch()

    def is_over(self) -> bool:
        return self.stream.end is not None

    def check(self) -> None:
        assert self.stream.exit == self.exit
        assert self.stream.checker.received_bytes == 16 * self.LINES


def test_S1_daemon_killed_under_flood_at_random_instants(runtime: RuntimeDir, tmp_path: Path) -> None:
    chance = random.Random(1)
    runtime.start(**UNLIMITED_CRASHES)
    zygote = runtime.zygote_pid()
    steady_argv = numbered_program(pause_ms=STEADY_MS)
    steady = spawn(runtime, steady_argv, scrollback_bytes=BIG_SCROLLBACK)["id"]
    flood = spawn(runtime, numbered_program())["id"]
    before = pids(runtime)
    assert before.keys() == {steady, flood}
    with Follower(runtime) as follower:
        streams = [follower.follow(steady), follower.follow(flood)]
        for number in range(soak(15, 1000)):
            sprinter = Sprinter(runtime, follower, tmp_path / f"go{number}", number)
            follower.read_for(chance.uniform(0, 0.1))
            kill_one_daemon(runtime, zygote, chance)
            sprinter.start()
            if chance.random() < 0.3:  # and its successor while it starts
                follower.read_for(chance.uniform(0, 0.4))
                kill_one_daemon(runtime, zygote, chance)
            follower.read_until_connected(follower.connections + 1)
            follower.read_until(sprinter.is_over, what="the short session's end is told")
            sprinter.check()
        read_on(follower, streams)
        assert pids(runtime) == before
        assert streams[0].checker.gaps == [], "a steady writer within its scrollback lost output"
    kill_all(runtime)
    left = {"ptyd.sock", "zygote.sock", "lock", "zygote.lock", "instance", "sessions"}
    assert {name for name in os.listdir(runtime.path) if name != ".ptyd.sock"} == left
    assert not any(name.startswith(".") for name in os.listdir(runtime.path / "sessions"))


def kill_one_daemon(runtime: RuntimeDir, zygote: int, chance: random.Random) -> None:
    runtime.was_wrecked = True
    daemon = wait_until(lambda: find_daemon(zygote), what="a daemon process")
    processes.kill_and_wait(daemon)


def read_on(follower: Follower, streams: list[Stream], more_bytes: int = 256 << 10) -> None:
    """Read on in every stream: it goes on where it was."""
    marks = [stream.checker.received_bytes + more_bytes for stream in streams]
    follower.read_until(
        lambda: all(s.checker.received_bytes >= mark for s, mark in zip(streams, marks, strict=True))
    )


def kill_all(runtime: RuntimeDir) -> None:
    """End what still runs; a proof for each."""
    for session_id in pids(runtime):
        assert runtime.call("session.kill", id=session_id, force=True)["proof"] == "echild"


def test_S2_nobody_there_under_flood(runtime: RuntimeDir, tmp_path: Path) -> None:
    runtime.start()
    progress = tmp_path / "progress"
    session = spawn(runtime, numbered_program(progress=progress))
    before = pids(runtime)
    runtime.kill_zygote()
    runtime.kill_daemon()
    for _ in range(soak(8, 60)):
        ends = time.monotonic() + 1
        seen = lines_written(progress)
        wait_until(lambda seen=seen: lines_written(progress) > seen, 1, "the program writes on")  # type: ignore[misc]
        time.sleep(ends - time.monotonic())  # the length of the outage is the case
    runtime.start()
    assert pids(runtime) == before
    os.kill(session["pid"], signal.SIGSTOP)  # so that what the scrollback holds stays put
    wait_until(lambda: processes.state(session["pid"]) == "T")
    with runtime.connect() as rpc:
        offset, data = read_scrollback(rpc, session["id"])
    check_numbered(data, offset)
    assert len(data) >= (1 << 20) - (64 << 10)
    assert offset + len(data) >= 16 * lines_written(progress) - (64 << 10)
    kill_all(runtime)


# -- another version ---------------------------------------------------------------------------------


def install_copy(place: Path, *changes: tuple[str, str, str]) -> Path:
    """Copy the package to `place` and change it: (file, what, what instead)."""
    shutil.copytree(ROOT / "ptyd", place / "ptyd", ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in changes:
        file = place / "ptyd" / name
        text = file.read_text()
        assert old in text, f"{name} has no {old!r}: this test must follow"
        file.write_text(text.replace(old, new, 1))
    return place


def version_change(version: str) -> tuple[str, str, str]:
    line = next(
        line for line in (ROOT / "ptyd/__init__.py").read_text().splitlines() if "__version__" in line
    )
    return "__init__.py", line, f'__version__ = "{version}"'


def test_S3_daemon_of_another_version_takes_over(runtime: RuntimeDir, tmp_path: Path) -> None:
    """Zygote and shims are old code; the daemon is newer, then older than them."""
    link_version = ("datagrams.py", "VERSION = 1", "VERSION = 2")
    stranger = ("shim/shim.py", '"killing": False,', '"killing": False, "mood": {"new": [1]},')
    recorded = ("shim/birth.py", '"boot_id":', '"colour": [None], "boot_id":')
    one = install_copy(tmp_path / "1", version_change("1.0"), stranger, recorded)
    two = install_copy(tmp_path / "2", version_change("2.0"), link_version)
    current = tmp_path / "current"
    current.symlink_to(one)
    runtime.start(PYTHONPATH=str(current))
    steady = spawn(runtime, numbered_program(pause_ms=STEADY_MS), scrollback_bytes=BIG_SCROLLBACK)["id"]
    idle = spawn(runtime, ["cat"], name="idle", labels={"a": "b"})["id"]
    before = pids(runtime)
    with Follower(runtime) as follower:
        stream = follower.follow(steady)
        for version, place in (("2.0", two), ("1.0", one)):
            read_on(follower, [stream])
            hello = upgrade(runtime, current, place)
            assert hello["version"] == version
            assert pids(runtime) == before
            [row] = [row for row in runtime.call("session.list")["sessions"] if row["id"] == idle]
            assert (row["name"], row["labels"]) == ("idle", {"a": "b"})
            assert spawn(runtime, ["true"])["id"]
        read_on(follower, [stream])
        assert stream.checker.gaps == []
        kill_all(runtime)
        follower.read_until(lambda: stream.end)
        assert stream.exit == {"signal": signal.SIGKILL}


def upgrade(runtime: RuntimeDir, current: Path, place: Path) -> dict[str, Any]:
    """Install other code and replace the daemon by it, as an administrator would."""
    draft = current.with_name("draft")
    draft.symlink_to(place)
    draft.rename(current)
    old = runtime.daemon_pid()
    runtime.call("daemon.stop")
    wait_until(lambda: not processes.alive(old), what="the old daemon leaves")
    launch.connect(str(runtime.path)).close()
    hello = runtime.hello()
    assert hello is not None
    return hello


# -- the zygote, and a daemon that keeps dying ---------------------------------------------------------


def test_S6_zygote_killed(runtime: RuntimeDir, tmp_path: Path) -> None:
    runtime.start()
    progress = tmp_path / "progress"
    steady = spawn(runtime, numbered_program(pause_ms=STEADY_MS, progress=progress))["id"]
    idle = spawn(runtime, ["cat"])["id"]
    before, instance = pids(runtime), (runtime.hello() or {})["instance_id"]
    old_daemon = runtime.daemon_pid()
    old_zygote = runtime.kill_zygote()
    wait_until(lambda: not processes.alive(old_daemon), what="the daemon steps down by itself")
    seen = lines_written(progress)
    wait_until(lambda: lines_written(progress) > seen, what="the sessions go on")
    launch.connect(str(runtime.path)).close()
    assert (runtime.hello() or {})["instance_id"] == instance
    assert runtime.zygote_pid() != old_zygote
    assert pids(runtime) == before
    with runtime.connect() as rpc:
        rpc.call("session.input", id=idle, data=b"still there\n")
        wait_for_output(rpc, idle, b"still there\r\nstill there")
        offset, data = read_scrollback(rpc, steady)
        check_numbered(data, offset)
        assert spawn(runtime, ["true"])["id"]  # the new pair is whole
        assert rpc.call("session.kill", id=steady, force=True)["proof"] == "echild"
        assert rpc.call("session.kill", id=idle, force=True)["proof"] == "echild"


def test_S14_daemon_that_keeps_dying(runtime: RuntimeDir, tmp_path: Path) -> None:
    runtime.start()
    zygote = runtime.zygote_pid()
    progress = tmp_path / "progress"
    session = spawn(runtime, numbered_program(pause_ms=STEADY_MS, progress=progress))["id"]
    before = pids(runtime)
    died = spend_budget(runtime, zygote)
    assert died == 6, "five restarts, then no more"
    assert runtime.find_zygote_pid() == zygote
    for _ in range(2):  # told to whoever asks, as often as they ask
        with pytest.raises(launch.Unreachable, match=r"keeps dying.*daemon\.log"):
            launch.connect(str(runtime.path))
    assert find_daemon(zygote) is None, "asking must not start it again"
    assert "giving up. sessions are untouched" in runtime.log
    seen = lines_written(progress)
    wait_until(lambda: lines_written(progress) > seen, what="the session goes on")
    runtime.kill_zygote()  # the person who had to look
    launch.connect(str(runtime.path)).close()
    assert pids(runtime) == before
    assert runtime.call("session.kill", id=session, force=True)["proof"] == "echild"


def spend_budget(runtime: RuntimeDir, zygote: int) -> int:
    """Kill daemons until no new one comes; return how many died."""
    runtime.was_wrecked = True
    died = 0
    while "giving up" not in runtime.log:
        if daemon := find_daemon(zygote):
            processes.kill_and_wait(daemon)
            died += 1
            wait_until(
                lambda daemon=daemon: find_daemon(zygote) not in (None, daemon) or "giving up" in runtime.log  # type: ignore[misc]
            )
    return died


def test_S14_daemon_that_cannot_start(runtime: RuntimeDir, tmp_path: Path) -> None:
    """Broken code: every start fails at once. Whoever asks is told, and nothing is left running."""
    broken = install_copy(
        tmp_path / "broken", ("daemon/main.py", "def main(", "raise RuntimeError\ndef main(")
    )
    runtime.was_wrecked = True
    old, os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"], str(broken)
    try:
        with pytest.raises(launch.Unreachable, match=r"died more than 5 times within 60 s.*daemon\.log"):
            launch.connect(str(runtime.path))
    finally:
        os.environ["PYTHONPATH"] = old
    assert "giving up" in runtime.log
    assert "RuntimeError" in runtime.log
    wait_until(lambda: runtime.find_zygote_pid() is None, what="a zygote without sessions leaves")
    launch.connect(str(runtime.path)).close()  # and once it is repaired, it starts
