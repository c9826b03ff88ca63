"""The tests' own tools: a guard or a checker that misses something proves nothing."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

from tests.support import processes
from tests.support.processes import Guard, alive, children, descendants
from tests.support.stream import (
    LINE_BYTES,
    StreamChecker,
    check_numbered,
    expected,
    lines_written,
    numbered_program,
)
from tests.support.victim import ROLES, Victim
from tests.support.waiting import soak, trio_wait_until, wait_until


def run_on_pty(argv: list[str]) -> tuple[int, int]:
    """Return (pid, master) of a program that leads a session of its own."""
    pid, master = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)
    return pid, master


def read_pty(master: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            data += os.read(master, 65536)
        except OSError:
            break
    return data


@pytest.mark.parametrize("rude", [False, True])
def test_guard_ends_every_child_of_a_victim(tmp_path: Path, rude: bool) -> None:
    victim = Victim(tmp_path / "v", rude=rude)
    _, master = run_on_pty(victim.argv)
    pids = victim.wait_up()
    assert set(pids) == ROLES
    assert victim.living() == pids
    assert os.tcgetpgrp(master) == pids["foreground"] == processes.process_group(pids["foreground"])
    assert os.getsid(pids["daemon"]) not in (pids["leader"], pids["daemon"])
    ended = Guard(spare_present=False).end_all()
    assert len(ended) >= len(ROLES)
    assert not victim.living()
    os.close(master)


def test_victim_roles_survive_what_they_say(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "v", rude=True)
    _, master = run_on_pty(victim.argv)
    pids = victim.wait_up()
    for signum in (signal.SIGHUP, signal.SIGTERM):
        for pid in pids.values():
            processes.kill(pid, signum)
    stubborn = {"leader", "ignores_hup_term", "stopped"}
    wait_until(lambda: set(victim.living()) <= stubborn, what="the others end")
    assert set(victim.living()) == stubborn
    Guard(spare_present=False).end_all()
    os.close(master)


def test_guard_ends_a_fork_storm(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "v", storm=True)
    _, master = run_on_pty(victim.argv)
    storm_pid = victim.wait_up()["storm"]
    wait_until(lambda: len(children(storm_pid)) > 20, what="the storm blows")
    Guard(spare_present=False).end_all()
    assert not descendants(os.getpid())
    os.close(master)


def test_a_leader_that_leaves_is_known_to_have_left(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "v", leave=7)
    pid, master = run_on_pty(victim.argv)
    victim.wait_up()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert set(victim.living()) == {"ignores_hup", "setsid"}
    Guard(spare_present=False).end_all()
    os.close(master)


def test_guard_spares_what_was_there_and_its_children() -> None:
    shell = "sleep 1000 & echo up; wait"
    with subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE) as older:
        assert older.stdout is not None
        older.stdout.readline()
        guard = Guard()
        newer = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
        assert [process.pid for process in guard.living()] == [newer]
        assert len(guard.end_all()) == 1
        assert alive(older.pid)
        assert not alive(newer)
        Guard(spare_present=False).end_all()


def test_guard_settles_when_processes_end_by_themselves() -> None:
    guard = Guard()
    os.posix_spawn("/bin/sh", ["sh", "-c", "(setsid sleep 0.2 &)"], dict(os.environ))
    assert guard.settle(5.0) == []
    assert guard.end_all() == []


def test_guard_finds_children_of_another_thread() -> None:
    done = threading.Event()
    pids: list[int] = []

    def start() -> None:
        pids.append(os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}))
        done.wait()

    guard = Guard()
    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: pids, what="a child of the thread")
    assert [process.pid for process in guard.living()] == pids
    done.set()
    thread.join()
    assert len(guard.end_all()) == 1


def test_kill_spares_a_stranger_with_the_same_pid() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    processes.kill(processes.Process(pid, (processes.started(pid) or 0) + 1))
    assert alive(pid)
    processes.kill_and_wait(pid)
    assert not alive(pid)


def test_a_test_that_leaves_a_process_fails(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(
        "import os\n"
        "def test_bad(guard):\n"
        "    os.posix_spawn('/bin/sh', ['sh', '-c', '(setsid sleep 54321 &)'], dict(os.environ))\n"
        "def test_good():\n    pass\n"
    )
    _, said = _pytest_in(tmp_path, "test_bad.py")
    assert "2 passed, 1 error" in said, said
    assert "sleep 54321" in said


def test_a_run_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text(
        "import os, time\n"
        "def test_slow():\n"
        "    os.posix_spawn('/bin/sh', ['sh', '-c', '(setsid sleep 54322 &)'], dict(os.environ))\n"
        "    open('up', 'w').close()\n"
        "    time.sleep(60)\n"
    )
    with _pytest(tmp_path, "test_slow.py") as run:
        wait_until((tmp_path / "up").exists)
        wait_until(lambda: any("sleep 54322" in str(p) for p in descendants(run.pid)))
        run.terminate()
        assert run.wait(10) == 128 + signal.SIGTERM
    assert not any("sleep 54322" in str(p) for p in descendants(os.getpid()))


def test_tests_refuse_a_real_runtime_directory(tmp_path: Path) -> None:
    (tmp_path / "test_any.py").write_text("def test_any():\n    pass\n")
    status, said = _pytest_in(tmp_path, "test_any.py", PTYD_RUNTIME_DIR="/run/user/1000/ptyd")
    assert status == 4
    assert "unset it" in said


def _pytest_in(where: Path, name: str, **settings: str) -> tuple[int, str]:
    """Run pytest with our conftest; return its exit status and what it said."""
    with _pytest(where, name, **settings) as run:
        said, _ = run.communicate(timeout=60)
    return run.returncode, said


def _pytest(where: Path, name: str, **settings: str) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PTYD_")}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2]), **settings}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        name,
    ]
    pipe, to_pipe = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, cwd=where, env=env, stdout=pipe, stderr=to_pipe, text=True)


def test_numbered_program_is_the_expected_stream(tmp_path: Path) -> None:
    lines, progress, go = 20_500, tmp_path / "progress", tmp_path / "go"
    argv = numbered_program(lines, exit_code=3, progress=progress, go=go)
    pid, master = run_on_pty(argv)
    assert lines_written(progress) == 0
    go.touch()
    data = read_pty(master, lines * LINE_BYTES)
    assert data == expected(0, lines * LINE_BYTES)
    assert data[-16:] == b"%015d\n" % (lines - 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert lines_written(progress) == lines
    os.close(master)


@pytest.mark.parametrize("offset", [0, 1, 15, 16, 15_999, 16_000, 16_001, 2**40 * 16 + 5])
@pytest.mark.parametrize("size", [0, 1, 16, 17, 40_000])
def test_expected_is_the_plain_formula(offset: int, size: int) -> None:
    first = offset // LINE_BYTES
    lines = b"".join(b"%015d\n" % n for n in range(first, first + size // LINE_BYTES + 3))
    assert expected(offset, size) == lines[offset % LINE_BYTES :][:size]


def test_checker_takes_cuts_and_gaps_and_nothing_else() -> None:
    checker = StreamChecker(offset=107, origin=100)
    checker.feed(107, expected(7, 50))
    checker.gap(157, 5000)
    checker.feed(5000, expected(4900, 3))
    assert (checker.received_bytes, checker.gap_bytes, checker.next_offset) == (53, 4843, 5003)
    with pytest.raises(AssertionError, match="expected 5003"):
        checker.feed(5004, b"x")
    with pytest.raises(AssertionError, match="expected 5003"):
        checker.gap(5002, 5010)
    torn = expected(0, 64)[:32] + expected(16_032, 32)
    with pytest.raises(AssertionError, match="wrong byte at offset 43 "):
        check_numbered(torn, 0)


def test_wait_until_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"not within 0.01 s: rain \(last value: 0\)"):
        wait_until(lambda: 0, 0.01, "rain")
    assert wait_until(lambda: 5) == 5


async def test_trio_wait_until_lets_others_run() -> None:
    seen: list[int] = []

    async def other() -> None:
        await trio.sleep(0.01)
        seen.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio_wait_until(lambda: seen)


def test_soak_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PTYD_SOAK", raising=False)
    assert soak(15, 1000) == 15
    monkeypatch.setenv("PTYD_SOAK", "1")
    assert soak(15, 1000) == 1000
