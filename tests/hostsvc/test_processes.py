"""Signs of life, on real processes: marks, environments that were dropped or are hidden, pids used again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostsvc import processes
from hostsvc.model import ABSENT, Known, SessionRow, Unknown
from hostsvc.processes import Marks, death_of, inside, look_for_marks
from ptyd import procs
from tests.hostsvc import values
from tests.support.processes import kill_and_wait, started
from tests.support.waiting import wait_until

BOOT = procs.boot_id()
NOBODY_HERE = Marks(frozenset())
GONE = {"shim_pid": 2**22 - 1, "shim_start": 2**40, "pid": 2**22 - 2, "pid_start": 2**40}


def row(**fields: object) -> SessionRow:
    return values.row(**{"boot_id": BOOT, **GONE, **fields})


@contextlib.contextmanager
def process(*argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Iterator[int]:
    """A process that says when it is what its arguments make it, and waits."""
    script = "echo up; read -r _ && :"
    with subprocess.Popen(
        [*argv, "sh", "-c", script], env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        yield child.pid
        child.kill()


def test_a_mark_is_seen_while_its_process_lives() -> None:
    with process(env={"PTYD_SESSION": "marked", "PATH": os.defpath}) as pid:
        assert "marked" in look_for_marks().sessions
        assert death_of(row(id="marked"), BOOT, look_for_marks()) == ABSENT
        kill_and_wait(pid)
    assert "marked" not in look_for_marks().sessions


def test_only_the_mark_itself_counts() -> None:
    env = {"XPTYD_SESSION": "a", "PTYD_SESSIONS": "b", "OTHER": "PTYD_SESSION=c", "PATH": os.defpath}
    with process(env=env):
        assert not {"a", "b", "c"} & look_for_marks().sessions


def test_a_dropped_environment_hides_a_mark() -> None:
    """Which is why the shim and the leader are looked for as well, and why one look is never enough."""
    with process("env", "-i", env={"PTYD_SESSION": "dropped", "PATH": os.defpath}) as pid:
        assert "dropped" not in look_for_marks().sessions
        for who in ("shim", "pid"):
            at = {f"{who}_pid" if who == "shim" else "pid": pid, f"{who}_start": started(pid)}
            assert death_of(row(**at), BOOT, look_for_marks()) == ABSENT


def test_a_pid_that_is_somebody_elses_by_now_is_no_sign_of_life() -> None:
    ours = os.getpid()
    start = started(ours)
    assert start is not None
    assert death_of(row(pid=ours, pid_start=start), BOOT, NOBODY_HERE) == ABSENT
    assert death_of(row(pid=ours, pid_start=start + 1), BOOT, NOBODY_HERE) == Known("processes_gone")
    assert death_of(row(shim_pid=ours, shim_start=start), BOOT, NOBODY_HERE) == ABSENT


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen(["sleep", "100"]) as child:
        start = started(child.pid)
        kill_and_wait(child.pid)
        assert death_of(row(pid=child.pid, pid_start=start), BOOT, NOBODY_HERE) == Known("processes_gone")


def test_C5_another_boot_is_a_death_whoever_has_its_pids_now() -> None:
    living = row(boot_id="earlier", shim_pid=os.getpid(), shim_start=started(os.getpid()))
    assert death_of(living, BOOT, Marks(frozenset({"s"}))) == Known("other_boot")


@pytest.mark.parametrize("missing", ["boot_id", "shim_start"])
def test_C5_who_was_never_told_cannot_be_known_to_be_gone(missing: str) -> None:
    assert isinstance(death_of(row(**{missing: None}), BOOT, NOBODY_HERE), Unknown)


def test_P5_a_hidden_environment_is_not_an_empty_one() -> None:
    """One that hides it may be the session's, unless it is older than the session."""
    found = row(shim_start=1000)
    assert isinstance(death_of(found, BOOT, Marks(frozenset(), hidden_start=1000)), Unknown)
    assert death_of(found, BOOT, Marks(frozenset(), hidden_start=999)) == Known("processes_gone")


HIDING = """
import ctypes, os, sys
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(4, {dumpable}, 0, 0, 0)
print("up", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("dumpable", [0, 1])
def test_P5_a_process_that_hides_its_environment_is_noticed(
    dumpable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ssh-agent does. Looked at by its own user; root can see all."""
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "getuid", lambda: 65534)
        become, come_back = (lambda: os.seteuid(65534)), (lambda: os.seteuid(0))
    else:
        become = come_back = lambda: None
    with subprocess.Popen(
        [sys.executable, "-S", "-c", HIDING.format(dumpable=dumpable)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        become()
        try:
            hidden = processes._start_if_ours(child.pid)
            monkeypatch.setattr(procs, "all_pids", lambda: [child.pid])
            marks = look_for_marks()
        finally:
            come_back()
        assert hidden == started(child.pid)
        assert marks.hidden_start == (0 if dumpable else hidden)
        child.kill()
    assert processes._start_if_ours(child.pid) == 0, "it is gone"


def test_inside(tmp_path: Path) -> None:
    a, ab = tmp_path / "a", tmp_path / "ab"
    (a / "deep").mkdir(parents=True)
    ab.mkdir()
    with process(cwd=a / "deep") as pid:
        wait_until(lambda: os.readlink(f"/proc/{pid}/cwd") == str(a / "deep"), what="it is there")
        assert inside([str(a), str(ab), str(a / "deep")]) == {str(a): pid, str(a / "deep"): pid}
        assert inside([]) == {}
