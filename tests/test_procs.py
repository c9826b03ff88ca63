"""Processes as /proc tells them, against real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ptyd import procs
from tests.support.waiting import wait_until

NAMED = "import ctypes, sys; ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0); sys.stdin.read()"


@contextmanager
def named(name: bytes, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child that calls itself so and waits."""
    argv = [sys.executable, "-S", "-c", NAMED.format(name=name)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env={**os.environ, **env}) as child:
        comm = Path(f"/proc/{child.pid}/comm")
        wait_until(lambda: comm.read_bytes().rstrip(b"\n") == name[:15], what="it has its name")
        yield child
        child.kill()


@pytest.mark.parametrize("name", [b"plain", b") S 1 1 1 (", b"a b\tc", b"((((", b"))))", b"\xff\xfe"])
def test_a_command_may_be_called_anything(name: bytes) -> None:
    with named(name) as child:
        stat = procs.read_stat(child.pid)
        assert stat is not None
        assert (stat.pid, stat.ppid, stat.sid) == (child.pid, os.getpid(), os.getsid(0))
        assert stat.pgid == os.getpgid(child.pid)
        assert stat.state in "RS"
        assert stat.command.encode("ascii", "replace") == name.decode("ascii", "replace").encode(
            "ascii", "replace"
        )


def test_ourselves() -> None:
    stat = procs.read_stat(os.getpid())
    assert stat is not None
    assert procs.read_stat("self") == stat._replace(state=procs.read_stat("self").state)  # type: ignore[union-attr]
    assert stat.ppid == os.getppid()
    assert procs.is_alive(stat.pid, stat.start_ticks)
    assert not procs.is_alive(stat.pid, stat.start_ticks + 1)
    assert os.getpid() in procs.all_pids()


def test_nobody() -> None:
    assert procs.read_stat(2**22 + 1) is None
    assert not procs.is_alive(2**22 + 1, 0)
    assert procs.children(2**22 + 1) == []
    assert not procs.carries_mark(2**22 + 1, "mark")
    assert list(procs.ancestors(2**22 + 1)) == []


def test_a_zombie_is_not_alive() -> None:
    with named(b"zombie") as child:
        stat = procs.read_stat(child.pid)
        assert stat is not None
        assert procs.is_alive(child.pid, stat.start_ticks)
        child.kill()
        wait_until(lambda: not procs.is_alive(child.pid, stat.start_ticks))
        now = procs.read_stat(child.pid)
        assert now is not None
        assert (now.state, now.start_ticks) == ("Z", stat.start_ticks)


def test_the_boot_id_stays() -> None:
    assert procs.boot_id() == procs.boot_id()
    assert len(procs.boot_id()) == 36


# A tree: a shell with two children, one of which has a child; and one that is in a thread's care.
TREE = "sleep 1000 & sh -c 'sleep 1000 & wait' & wait"


@pytest.fixture
def tree() -> Iterator[int]:
    with subprocess.Popen(["sh", "-c", TREE], process_group=0) as child:
        wait_until(lambda: len(list(procs.Tree(child.pid).walk())) == 3, what="the tree is up")
        yield child.pid
        os.killpg(child.pid, 9)


def test_a_walk_finds_everybody_below_parents_first(tree: int) -> None:
    walk = procs.Tree(tree)
    found = list(walk.walk())
    assert tree not in found
    assert len(found) == 3
    for pid in found:
        stat = procs.read_stat(pid)
        assert stat is not None
        assert stat.ppid == tree or found.index(stat.ppid) < found.index(pid)
        assert walk.holds(stat)
    ourselves = procs.read_stat(os.getpid())
    assert ourselves is not None
    assert not walk.holds(ourselves)


def test_a_walk_below_some_children_only(tree: int) -> None:
    below = procs.children(tree)
    assert len(below) == 2
    walks = [list(procs.Tree(tree).walk([child])) for child in below]
    assert sorted(map(len, walks)) == [1, 2]
    assert [walk[0] for walk in walks] == below


def test_a_walk_names_nobody_twice(tree: int) -> None:
    walk = procs.Tree(tree)
    first = list(walk.walk())
    assert list(walk.walk()) == []
    assert len(set(first)) == len(first)


def test_children_of_threads_are_children() -> None:
    code = (
        "import subprocess, sys, threading\n"
        "def start(): subprocess.Popen(['sleep', '1000']); done.set(); stay.wait()\n"
        "done, stay = threading.Event(), threading.Event()\n"
        "threading.Thread(target=start).start(); done.wait(); print('up', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, process_group=0) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        assert len(procs.children(child.pid)) == 1
        os.killpg(child.pid, 9)


def test_many_children_are_all_found() -> None:
    """More than one page of the file that tells them."""
    count = 1200
    script = f"i=0; while [ $i -lt {count} ]; do sleep 1000 & i=$((i+1)); done; echo up; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, process_group=0) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        assert len(set(procs.children(child.pid))) == count
        os.killpg(child.pid, 9)


def test_a_shim_above_is_found_by_its_name() -> None:
    assert procs.shim_above(os.getpid()) is None
    code = "import os, time; from ptyd import procs; procs.set_name(procs.SHIM_NAME)\n"
    code += "import subprocess, sys; subprocess.run(['sh', '-c', 'sleep 1000; true'])"
    with subprocess.Popen([sys.executable, "-c", code], process_group=0) as child:
        wait_until(lambda: len(list(procs.Tree(child.pid).walk())) == 2, what="the tree is up")
        for pid in [child.pid, *procs.Tree(child.pid).walk()]:
            assert procs.shim_above(pid) == child.pid
        os.killpg(child.pid, 9)


def test_a_mark_is_a_whole_variable() -> None:
    with named(b"marked", PTYD_MARK="abcdef", OTHER="PTYD_MARK=zzz") as child:
        assert procs.carries_mark(child.pid, "abcdef")
        assert not procs.carries_mark(child.pid, "abc")
        assert not procs.carries_mark(child.pid, "zzz")
