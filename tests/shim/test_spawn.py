"""A clean child: what a program finds when it starts, whoever started the daemon and in whatever state."""

from __future__ import annotations

import os
import pwd
import re
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptyd.shim.spawn import SpawnFailed, candidates, read_spec
from ptyd.shim.spawn import SpawnSpec as Spec
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc, RpcError
from tests.support.sessions import read_all, shell, spawn, wait_for_end, wait_for_output

pytestmark = pytest.mark.unmeasured

SOFT_FILES = 300  # lower than any limit that ptyd would raise itself to


# --- where a program is looked for -----------------------------------------------------------------


@pytest.mark.parametrize(
    "program, path, found",
    [
        ("ls", "/usr/bin:/bin", ["/usr/bin/ls", "/bin/ls"]),
        ("/bin/ls", "/usr/bin", ["/bin/ls"]),
        ("./ls", "/usr/bin", ["./ls"]),
        ("dir/ls", "/usr/bin", ["dir/ls"]),
        ("ls", "", ["./ls"]),
        ("ls", "/a::/b", ["/a/ls", "./ls", "/b/ls"]),
        ("ls", "rel:/b", ["rel/ls", "/b/ls"]),
        ("-dash", "/b", ["/b/-dash"]),
    ],
)
def test_candidates(program: str, path: str, found: list[str]) -> None:
    assert candidates(program, path) == found


def test_a_spec_is_read_back_whole() -> None:
    import json

    spec = Spec(
        id="a", generation=1, mark="m", argv=["\udce9"], cwd="/", env={"A": "b"}, rows=1, cols=2, name=None,
        labels={}, scrollback_bytes=65536, on_leader_exit="keep", created_at_ms=3, ring_linger_s=1.5,
    )  # fmt: skip
    fd = os.memfd_create("spec")
    os.write(fd, json.dumps({**spec._asdict(), "from_the_future": 1}).encode())
    assert read_spec(fd) == spec
    os.close(fd)


def test_a_failure_has_a_code_and_a_message() -> None:
    error = SpawnFailed("no_space", "the disk is full")
    assert (error.code, error.message, str(error)) == ("no_space", "the disk is full", "the disk is full")


# --- a daemon started in a bad state ---------------------------------------------------------------


@pytest.fixture(scope="module")
def messy() -> Iterator[RuntimeDir]:
    """A ptyd whose starter ignores and blocks signals, has odd limits, descriptors and settings."""
    guard, runtime = processes.Guard(), RuntimeDir({"LEAKED": "from whoever started it", "LANG": "xx_XX"})
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    umask = os.umask(0o077)
    ignored = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGQUIT, signal.SIGTTOU)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGWINCH, signal.SIGCHLD})
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_FILES, hard))
    try:
        runtime.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in ignored.items():
            signal.signal(number, handler)
        os.umask(umask)
    yield runtime
    runtime.stop()
    guard.end_all()
    runtime.remove()


@pytest.fixture
def rpc(messy: RuntimeDir) -> Iterator[Rpc]:
    with messy.connect() as rpc:
        rpc.call("hello", client="test", protocols=[1], errors="map")
        yield rpc


def output_of(rpc: Rpc, argv: list[str], **params: Any) -> str:
    """Run a program to its end and return what it wrote."""
    session = spawn(rpc, argv, **params)
    assert wait_for_end(rpc, session)["exit"] == {"code": 0}
    return read_all(rpc, session).decode(errors="surrogateescape").replace("\r\n", "\n")


def status_of(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_no_signal_is_ignored_blocked_or_caught(rpc: Rpc) -> None:
    status = status_of(output_of(rpc, ["cat", "/proc/self/status"]))
    for what in ("SigIgn", "SigBlk", "SigCgt", "SigPnd", "ShdPnd"):
        # The C library keeps 32 and 33 to itself; nobody can set them.
        assert int(status[what], 16) & ~(0b11 << 31) == 0, what
    assert status["Umask"] == "0022"
    assert status["Name"] == "cat"


def test_the_file_limit_is_the_starters(messy: RuntimeDir, rpc: Rpc) -> None:
    limits = output_of(rpc, ["cat", "/proc/self/limits"])
    found = re.search(r"Max open files +(\d+) +(\S+)", limits)
    assert found is not None
    assert int(found[1]) == SOFT_FILES
    shim = spawn(rpc, ["sleep", "1000"])
    assert f"Max open files            {found[2]}" in Path(f"/proc/{messy.shim_pid(shim)}/limits").read_text()
    rpc.call("session.kill", id=shim, force=True)


def test_no_descriptor_leaks(rpc: Rpc) -> None:
    """Also while other sessions, clients and attachments hold a lot of them."""
    others = [spawn(rpc, ["sleep", "1000"]) for _ in range(5)]
    for other in others:
        rpc.call("session.attach", id=other)
    listed = output_of(rpc, ["ls", "-l", "/proc/self/fd"])
    targets = dict(re.findall(r" (\d+) -> (\S+)", listed))
    own_folder = targets.pop("3")
    assert re.fullmatch(r"/proc/\d+/fd", own_folder)
    assert set(targets) == {"0", "1", "2"}
    assert len(set(targets.values())) == 1
    assert targets["0"].startswith("/dev/pts/")
    for other in others:
        rpc.call("session.kill", id=other, force=True)


def test_the_leader_leads_a_session_with_its_own_terminal(rpc: Rpc) -> None:
    fields = output_of(rpc, ["cat", "/proc/self/stat"]).rpartition(")")[2].split()
    pgid, sid, tty, foreground = map(int, fields[2:6])
    assert tty != 0
    assert pgid == sid == foreground


def test_a_bare_request_gets_a_minimal_environment(messy: RuntimeDir, rpc: Rpc) -> None:
    session = spawn(rpc, ["env", "-0"])
    wait_for_end(rpc, session)
    env = dict(item.split("=", 1) for item in read_all(rpc, session).decode().split("\0")[:-1])
    user = pwd.getpwuid(os.getuid())
    assert env.pop("PTYD_SESSION") == session
    assert env.pop("PTYD_MARK") == messy.record(session)["mark"]
    assert env.pop("PTYD_RUNTIME_DIR") == str(messy.path)
    assert env.pop("PATH").split(":")[-1] == "/bin"
    assert env == {
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell,
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }


def test_a_given_environment_lies_over_it(rpc: Rpc) -> None:
    given = {"HOME": "/elsewhere", "ODD": b"\xff=\n", "EMPTY": "", "PTYD_SESSION": "forged", "PTYD_MARK": "x"}
    session = spawn(rpc, ["env", "-0"], env=given)
    wait_for_end(rpc, session)
    # The terminal turns each line feed into two bytes.
    items = read_all(rpc, session).replace(b"\r\n", b"\n").split(b"\0")
    env = dict(item.split(b"=", 1) for item in items[:-1])
    assert (env[b"HOME"], env[b"ODD"], env[b"EMPTY"]) == (b"/elsewhere", b"\xff=\n", b"")
    assert env[b"PTYD_SESSION"] == session.encode()
    assert env[b"PTYD_MARK"] != b"x"
    assert env[b"TERM"] == b"xterm-256color"


def test_a_mark_is_a_sessions_own(messy: RuntimeDir, rpc: Rpc) -> None:
    sessions = [spawn(rpc, ["true"]) for _ in range(3)]
    for session in sessions:
        wait_for_end(rpc, session)
    assert len({messy.record(session)["mark"] for session in sessions}) == 3


def test_the_working_directory(rpc: Rpc, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9 \n"
    os.mkdir(odd)
    assert output_of(rpc, ["pwd"], cwd=str(tmp_path)) == f"{tmp_path}\n"
    assert output_of(rpc, ["pwd"]) == pwd.getpwuid(os.getuid()).pw_dir + "\n"
    assert output_of(rpc, ["readlink", "-n", "/proc/self/cwd"], cwd=odd).encode(
        errors="surrogateescape"
    ) == odd.replace(b"\n", b"\n")
    row = rpc.call("session.list")["sessions"][-1]
    assert row["cwd"].encode(errors="surrogateescape") == odd


def test_argv_comes_as_given(rpc: Rpc, tmp_path: Path) -> None:
    words = ["cat", "/proc/self/cmdline"]
    assert output_of(rpc, words) == "cat\0/proc/self/cmdline\0"
    odd = [sys.executable, "-S", "-c", "import os; os.write(1, open('/proc/self/cmdline', 'rb').read())"]
    tail: list[Any] = ["", " ", "\n", b"\xff\xfe", "é", "--", "-x"]  # bytes are as good
    session = spawn(rpc, [*odd, *tail])
    wait_for_end(rpc, session)
    said = read_all(rpc, session).replace(b"\r\n", b"\n").split(b"\0")
    assert said[4:-1] == [os.fsencode(word) for word in tail]


def test_a_program_is_looked_up_on_the_sessions_path(rpc: Rpc, tmp_path: Path) -> None:
    program = tmp_path / "my-program"
    program.write_text("#!/bin/sh\necho found $0 $1\n")
    program.chmod(0o755)
    env = {"PATH": f"/nowhere:{tmp_path}:/usr/bin:/bin"}
    assert output_of(rpc, ["my-program", "x"], env=env) == f"found {program} x\n"
    assert output_of(rpc, ["./my-program", "y"], cwd=str(tmp_path)) == "found ./my-program y\n"
    with pytest.raises(RpcError) as caught:
        spawn(rpc, ["my-program"])
    assert caught.value.code == "program_not_found"


def test_a_program_without_permission_does_not_hide_a_later_one(rpc: Rpc, tmp_path: Path) -> None:
    for folder, mode in (("a", 0o644), ("b", 0o755)):
        program = tmp_path / folder / "tool"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho {folder}\n")
        program.chmod(mode)
    env = {"PATH": f"{tmp_path}/a:{tmp_path}/b:/usr/bin:/bin"}
    assert output_of(rpc, ["tool"], env=env) == "b\n"
    with pytest.raises(RpcError) as caught:
        spawn(rpc, ["tool"], env={"PATH": f"{tmp_path}/a"})
    assert caught.value.code == "program_not_executable"


def test_the_terminal_knows_utf8_and_its_size(rpc: Rpc) -> None:
    said = output_of(rpc, ["stty", "-a"], rows=11, cols=222)
    assert "rows 11; columns 222;" in said
    assert " iutf8" in said
    assert "-iutf8" not in said


def test_erasing_takes_a_whole_character(rpc: Rpc) -> None:
    session = shell(rpc, 'stty -echo; echo ready; read line; echo "[$line]"')
    wait_for_output(rpc, session, b"ready")
    rpc.call("session.input", id=session, data="aé\x7fb\n")
    wait_for_end(rpc, session)
    assert read_all(rpc, session).endswith(b"[ab]\r\n")


# --- the shim itself -------------------------------------------------------------------------------


def test_a_shim_holds_nothing_it_does_not_need(messy: RuntimeDir, rpc: Rpc) -> None:
    sessions = [spawn(rpc, ["sleep", "1000"]) for _ in range(3)]
    for session in sessions:
        pid = messy.shim_pid(session)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        kinds = sorted(re.sub(r"[\d\[\]:()]+", "", target) for target in targets)
        assert kinds.count("/dev/null") == 3, targets
        assert kinds.count("/dev/ptmx") + kinds.count("/dev/pts/ptmx") == 1, targets
        assert kinds.count("socket") == 2, targets  # the listener, and the daemon
        assert len(targets) <= 14, targets
        assert os.getsid(pid) == pid
        status = status_of(Path(f"/proc/{pid}/status").read_text())
        ignored = int(status["SigIgn"], 16)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            assert ignored & 1 << (number - 1), signal.Signals(number).name
    for session in sessions:
        rpc.call("session.kill", id=session, force=True)


def test_the_rings_memory_cannot_be_changed_by_others(messy: RuntimeDir, rpc: Rpc) -> None:
    import fcntl
    import mmap

    session = spawn(rpc, ["sleep", "1000"])
    folder = Path(f"/proc/{messy.shim_pid(session)}/fd")
    ring = next(fd for fd in folder.iterdir() if "ptyd-ring" in os.readlink(fd))
    fd = os.open(ring, os.O_RDWR)  # root, or the same user, can open it again ...
    try:
        size = os.fstat(fd).st_size
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)  # ... and still not write to it,
        with pytest.raises(PermissionError):
            mmap.mmap(fd, size)  # nor map it for writing,
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)  # nor resize it
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size + 4096)
        with mmap.mmap(fd, size, prot=mmap.PROT_READ) as memory:
            assert memory[:8] == b"ptydring"
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    finally:
        os.close(fd)
    rpc.call("session.kill", id=session, force=True)
