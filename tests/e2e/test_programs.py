"""Real programs in a session: editors, a pager, a multiplexer and a shell's job control.

Each is driven by nothing but `session.input`, `session.resize` and `session.signal`, watched through
`session.read`, and killed with proof.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.typist import Typist
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


CTRL_C: Final = "\x03"
CTRL_D: Final = "\x04"
CTRL_Z: Final = "\x1a"
ESCAPE: Final = "\x1b"
PACKAGES: Final = {"vim.tiny": "vim-tiny"}


def needs(program: str) -> pytest.MarkDecorator:
    reason = f"needs {program} (Debian package {PACKAGES.get(program, program)})"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


@pytest.fixture
def rpc(daemon: RuntimeDir) -> Iterator[Rpc]:
    with daemon.connect() as rpc:
        yield rpc


def start(rpc: Rpc, runtime: RuntimeDir, argv: list[str], **env: str) -> Typist:
    """Start a program on a plain xterm in an empty home."""
    own = {"PATH": os.environ["PATH"], "HOME": str(runtime.home), "TERM": "xterm", "LANG": "C.UTF-8"}
    return Typist(rpc, argv, cwd=str(runtime.home), env=own | env, rows=24, cols=80)


def write_lines(path: Path, count: int) -> Path:
    path.write_text("".join(f"line number {n}\n" for n in range(1, count + 1)))
    return path


# -- vim -------------------------------------------------------------------------------------------


@needs("vim.tiny")
def test_vim_edits_resizes_and_quits(rpc: Rpc, daemon: RuntimeDir) -> None:
    text = write_lines(daemon.home / "text", 50)
    vim = start(rpc, daemon, ["vim.tiny", "-u", "NONE", "-N", str(text)])
    vim.expect(b"line number 23")
    vim.resize(12, 40)
    vim.expect(b"line number 1\r")  # drawn anew; what is typed before may be drawn over
    vim.expect(b"line number 11")
    vim.type(":set lines? columns?\r")
    vim.expect(b"lines=12")
    vim.expect(b"columns=40")
    vim.type("\rGoappended ü" + ESCAPE)
    vim.expect("appended ü".encode())
    vim.type(":wq\r")
    assert vim.wait_exit() == {"code": 0}
    assert text.read_text().splitlines()[-2:] == ["line number 50", "appended ü"]
    assert vim.kill()["outcome"] == "already_exited"


@needs("vim.tiny")
def test_vim_keeps_what_was_not_written_when_it_is_killed(rpc: Rpc, daemon: RuntimeDir) -> None:
    """A gentle kill begins with a hang-up, which Vim knows: it saves its swap file and leaves."""
    text = write_lines(daemon.home / "text", 5)
    vim = start(rpc, daemon, ["vim.tiny", "-u", "NONE", "-N", str(text)])
    vim.expect(b"line number 5")
    vim.type("Gounsaved work" + ESCAPE)
    vim.expect(b"unsaved work")
    assert vim.kill(grace_ms=5000)["phase"] == "hangup"
    assert not processes.alive(vim.pid)
    assert b"unsaved work" in (daemon.home / ".text.swp").read_bytes()


# -- less ------------------------------------------------------------------------------------------


@needs("less")
def test_less_pages_searches_and_is_killed(rpc: Rpc, daemon: RuntimeDir) -> None:
    text = write_lines(daemon.home / "text", 2000)
    less = start(rpc, daemon, ["less", str(text)], LESS="", LESSHISTFILE="-")
    less.expect(b"line number 23")
    less.type("G")
    less.expect(b"line number 2000")
    less.type("?number 777$\n")
    less.expect(b"number 777\x1b")  # shown in reverse video
    less.expect(b":\x1b[K")
    less.resize(6, 80)
    less.type("r")  # repaint: a signal that comes just before it reads a key waits for the key
    less.expect(b"line number 781\r\n:")  # five lines and the prompt
    assert less.get()["rows"] == 6
    less.kill()
    assert not processes.alive(less.pid)
    assert less.get()["state"] == "exited"


@needs("less")
def test_less_quits_by_its_own_key(rpc: Rpc, daemon: RuntimeDir) -> None:
    text = write_lines(daemon.home / "text", 100)
    less = start(rpc, daemon, ["less", str(text)], LESS="", LESSHISTFILE="-")
    less.expect(b"line number 23")
    less.type("q")
    assert less.wait_exit() == {"code": 0}


# -- tmux ------------------------------------------------------------------------------------------


def tmux(runtime: RuntimeDir, *arguments: str) -> str:
    """Ask the tmux server of this test from outside the session."""
    done = subprocess.run(
        ["tmux", "-S", str(runtime.base / "tmux"), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(runtime.home), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()


@needs("tmux")
def test_K12_tmux_runs_inside_and_dies_with_its_session(rpc: Rpc, daemon: RuntimeDir) -> None:
    command = ["tmux", "-S", str(daemon.base / "tmux"), "-f", "/dev/null", "new-session", "sh"]
    outer = start(rpc, daemon, command, PS1="$ ", ENV="")
    outer.type("echo $((6 * 7))inside\r")
    outer.expect(b"42inside")
    server_pid, pane_pid = map(int, tmux(daemon, "display", "-p", "#{pid} #{pane_pid}").split())
    assert processes.parent(pane_pid) == server_pid
    assert os.getsid(server_pid) not in (os.getsid(outer.pid), outer.pid)
    outer.resize(30, 100)
    # One line of tmux's own is below its window.
    size = "#{client_height} #{client_width} #{window_height} #{window_width}"
    wait_until(lambda: tmux(daemon, "display", "-p", size) == "30 100 29 100", what="tmux follows the size")
    outer.kill(grace_ms=300)
    assert [pid for pid in (outer.pid, server_pid, pane_pid) if processes.alive(pid)] == []


@needs("tmux")
def test_tmux_left_by_its_client_keeps_the_session_lingering(rpc: Rpc, daemon: RuntimeDir) -> None:
    """Ctrl-B d ends the leader; the server that it started is still the session's."""
    command = ["tmux", "-S", str(daemon.base / "tmux"), "-f", "/dev/null", "new-session", "sh"]
    outer = start(rpc, daemon, command, PS1="$ ", ENV="")
    outer.type("echo $((6 * 7))inside\r")
    outer.expect(b"42inside")
    server_pid = int(tmux(daemon, "display", "-p", "#{pid}"))
    outer.type("\x02d")
    assert outer.wait_exit() == {"code": 0}
    left = outer.get()
    assert (left["state"], left["exit"]) == ("lingering", {"code": 0})
    assert left["processes"] >= 2
    outer.kill(grace_ms=300)
    assert not processes.alive(server_pid)


# -- bash ------------------------------------------------------------------------------------------


def start_bash(rpc: Rpc, runtime: RuntimeDir) -> Typist:
    """Start an interactive bash whose prompt tells the last exit status: `<0>`."""
    env = {"PS1": "<$?>", "HISTFILE": "/dev/null", "PS0": "", "INPUTRC": "/dev/null"}
    bash = start(rpc, runtime, ["bash", "--norc", "--noprofile", "-i"], **env)
    bash.expect(b"<0>")
    return bash


def wait_foreground(bash: Typist, command: str) -> dict[str, Any]:
    wait_until(lambda: bash.foreground() == command, what=f"{command} is in the foreground")
    found: dict[str, Any] = bash.get()["foreground"]
    return found


@needs("bash")
def test_ctrl_c_reaches_the_foreground_job_and_nobody_else(rpc: Rpc, daemon: RuntimeDir) -> None:
    bash = start_bash(rpc, daemon)
    assert bash.get()["foreground"]["pid"] == bash.pid
    bash.type("sleep 1001 & echo $!bg\r")
    bash.expect(b"bg\r\n")
    background = int(bash.expect(b"bg\r\n")[:-4].split()[-1])
    bash.expect(b"<0>")
    bash.type("sleep 1002\r")
    job = wait_foreground(bash, "sleep")
    assert job["pid"] not in (bash.pid, background)
    assert bash.get()["busy"] is True
    bash.type(CTRL_C)
    bash.expect(b"<130>")
    assert not processes.alive(job["pid"])
    assert processes.alive(background)
    assert bash.get()["foreground"]["pid"] == bash.pid
    bash.kill(grace_ms=300)
    assert not processes.alive(background)


@needs("bash")
def test_ctrl_z_stops_and_fg_goes_on(rpc: Rpc, daemon: RuntimeDir) -> None:
    bash = start_bash(rpc, daemon)
    bash.type("sleep 1003\r")
    job = wait_foreground(bash, "sleep")
    bash.type(CTRL_Z)
    bash.expect(b"Stopped")
    bash.expect(b"<148>")  # 128 + SIGTSTP
    assert processes.state(job["pid"]) == "T"
    assert wait_foreground(bash, "bash")["pid"] == bash.pid
    bash.type("fg\r")
    assert wait_foreground(bash, "sleep") == job
    wait_until(lambda: processes.state(job["pid"]) == "S", what="the job goes on")
    bash.type(CTRL_C)
    bash.expect(b"<130>")
    bash.type(CTRL_D)
    assert bash.wait_exit() == {"code": 130}


@needs("bash")
def test_a_stopped_job_dies_with_its_session(rpc: Rpc, daemon: RuntimeDir) -> None:
    bash = start_bash(rpc, daemon)
    bash.type("sleep 1004\r")
    job = wait_foreground(bash, "sleep")
    bash.type(CTRL_Z)
    bash.expect(b"<148>")
    bash.kill(grace_ms=300)
    assert not processes.alive(job["pid"])
    assert not processes.alive(bash.pid)


@needs("bash")
def test_a_signal_to_the_foreground_spares_the_shell(rpc: Rpc, daemon: RuntimeDir) -> None:
    bash = start_bash(rpc, daemon)
    bash.type("sleep 1005\r")
    wait_foreground(bash, "sleep")
    assert rpc.call("session.signal", id=bash.id, signal="TERM") == {"signalled": 1}
    bash.expect(b"<143>")
    bash.type("exit 7\r")
    assert bash.wait_exit() == {"code": 7}


@needs("bash")
def test_bash_sees_the_size_and_its_change(rpc: Rpc, daemon: RuntimeDir) -> None:
    bash = start_bash(rpc, daemon)
    bash.type("trap 'echo size: $(stty size)' WINCH; stty size\r")
    bash.expect(b"24 80\r\n")
    bash.expect(b"<0>")
    bash.resize(33, 111)
    bash.type(":\r")  # bash runs its traps between two commands
    bash.expect(b"size: 33 111\r\n")
    assert (bash.get()["rows"], bash.get()["cols"]) == (33, 111)
    assert bash.kill(force=True)["exit"] == {"signal": signal.SIGKILL}
