"""Group O, input: all of it in order, or a refusal; sizes; and who may type."""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import Connect
from tests.support import processes
from tests.support.daemon import ROOT, RuntimeDir
from tests.support.rpc import Rpc, RpcError
from tests.support.sessions import (
    View,
    read_all,
    shell,
    spawn,
    spawn_ready,
    wait_for_end,
    wait_for_output,
)
from tests.support.stream import numbered_program
from tests.support.waiting import soak, wait_until

pytestmark = pytest.mark.unmeasured

KIB = 1024
MOST = 64 * KIB  # of one session.input
QUEUE = 1024 * KIB  # of accepted input per session


def refused(rpc: Rpc, method: str, **params: Any) -> str:
    """Call what must be refused; return the error's code."""
    with pytest.raises(RpcError) as caught:
        rpc.call(method, **params)
    return caught.value.code


def end(rpc: Rpc, *sessions: str) -> None:
    for session in sessions:
        assert rpc.call("session.kill", id=session, force=True)["outcome"] == "killed"


# --- a child that does not read --------------------------------------------------------------------


def test_O7_a_child_that_never_reads(shared_runtime: RuntimeDir, rpc: Rpc) -> None:
    session, neighbour = spawn_ready(rpc, "exec sleep 1000"), spawn_ready(rpc, "exec cat")
    accepted = 0
    while True:
        try:
            accepted += rpc.call("session.input", id=session, data=b"x" * MOST)["accepted"]
        except RpcError as err:
            assert err.code == "input_full"
            break
        assert accepted <= QUEUE + 2 * MOST, "the queue has no bound"
    assert accepted >= QUEUE - MOST
    rpc.call("session.input", id=neighbour, data=b"echo")
    wait_for_output(rpc, neighbour, b"echo")
    assert refused(rpc, "session.input", id=session, data=b"x" * MOST, wait_ms=50) == "input_full"
    assert rpc.call("session.get", id=session)["state"] == "running"
    end(rpc, session, neighbour)


def test_O7_keystrokes_nobody_reads_cost_no_more_than_their_bytes(
    shared_runtime: RuntimeDir, rpc: Rpc
) -> None:
    """A hundred thousand of one byte each: the shim keeps bytes and not messages."""
    session = spawn_ready(rpc, "exec sleep 1000")
    for _ in range(3):
        rpc.call("session.input", id=session, data=b"x" * MOST)  # the terminal itself is full
    shim = shared_runtime.shim_pid(session)
    before = resident_bytes(shim)
    for _ in range(soak(10, 100)):
        for _ in range(2000):
            rpc.notify("session.input", id=session, data=b"x")
        rpc.call("session.input", id=session, data=b"")  # everything before it was taken
    assert resident_bytes(shim) - before < 2 * QUEUE
    end(rpc, session)


def resident_bytes(pid: int) -> int:
    """Return what the process has in memory of its own."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Private_Dirty"))
    return int(kib) * KIB


def test_O7_a_refused_notification_is_told(rpc: Rpc, connect: Connect) -> None:
    session = spawn_ready(rpc, "exec sleep 1000")
    typist = connect()
    for _ in range(2 * QUEUE // MOST):
        typist.notify("session.input", id=session, data=b"x" * MOST)
    method, params = typist.next_notification()
    assert method == "session.input_refused"
    assert (params["id"], params["bytes"], params["code"]) == (session, MOST, "input_full")
    assert params["message"]
    end(rpc, session)


def test_O7_a_notification_to_nobody_is_told(rpc: Rpc) -> None:
    rpc.notify("session.input", id="nobody", data=b"abc")
    _, params = rpc.next_notification("session.input_refused")
    assert (params["id"], params["bytes"], params["code"]) == ("nobody", 3, "not_found")


def test_O7_input_waits_for_room(rpc: Rpc, connect: Connect, tmp_path: Path) -> None:
    """With `wait_ms` it is accepted as soon as the child reads, in its place among all other input."""
    go = tmp_path / "go"
    session = spawn_ready(
        rpc, f"while [ ! -e {go} ]; do sleep 0.01; done; exec cat", scrollback_bytes=4 << 20
    )
    start = len(read_all(rpc, session))
    typed = bytearray()
    while True:
        data = os.urandom(MOST)
        try:
            rpc.call("session.input", id=session, data=data)
        except RpcError as err:
            assert err.code == "input_full"
            break
        typed += data
    waits = [rpc.send("session.input", id=session, data=b"%d" % n * MOST, wait_ms=10_000) for n in range(3)]
    behind = rpc.send("session.input", id=session, data=b"behind")
    go.touch()
    for n, msgid in enumerate(waits):
        assert rpc.result(msgid) == {"accepted": MOST}
        typed += b"%d" % n * MOST
    try:
        rpc.result(behind)
        typed += b"behind"
    except RpcError as err:
        assert err.code == "input_full"  # without wait_ms of its own
    rpc.call("session.input", id=session, data=b"|the end|", wait_ms=10_000)
    wait_for_output(rpc, session, b"|the end|", since=start)
    assert read_all(rpc, session, start) == bytes(typed) + b"|the end|"
    end(rpc, session)


def test_O8_a_paste_of_a_megabyte(rpc: Rpc, connect: Connect) -> None:
    """All of it and in order, mixed from requests and notifications, while the output is read."""
    data = random.Random(8).randbytes(1024 * KIB)
    session = spawn_ready(rpc, "exec cat", scrollback_bytes=2 << 20)
    start = len(read_all(rpc, session))
    view = View(connect(), session, since=start)
    for n, at in enumerate(range(0, len(data), MOST)):
        piece = data[at : at + MOST]
        if n % 2:
            rpc.notify("session.input", id=session, data=piece)
        else:
            assert rpc.call("session.input", id=session, data=piece, wait_ms=10_000) == {"accepted": MOST}
    view.until(lambda: len(view.data) >= len(data))
    assert hashlib.sha256(view.data).digest() == hashlib.sha256(data).digest()
    assert not rpc.notifications, "a piece was refused"
    end(rpc, session)


def test_O8_too_much_at_once_is_refused(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "exec cat")
    assert refused(rpc, "session.input", id=session, data=b"x" * (MOST + 1)) == "invalid_params"
    assert rpc.call("session.input", id=session, data=b"") == {"accepted": 0}
    end(rpc, session)


def test_O8_what_was_accepted_survives_the_daemon(daemon: RuntimeDir, tmp_path: Path) -> None:
    go, data = tmp_path / "go", random.Random(9).randbytes(8 * MOST)
    with daemon.connect() as rpc:
        session = spawn_ready(rpc, f"while [ ! -e {go} ]; do sleep 0.01; done; exec cat")
        start = len(read_all(rpc, session))
        for at in range(0, len(data), MOST):
            rpc.call("session.input", id=session, data=data[at : at + MOST])
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    go.touch()
    with daemon.connect() as rpc:
        rpc.call("session.input", id=session, data=b"|the end|", wait_ms=10_000)
        wait_for_output(rpc, session, b"|the end|", since=start)
        assert read_all(rpc, session, start) == data + b"|the end|"


# --- a neighbour's flood ---------------------------------------------------------------------------


def test_O9_the_echo_stays_interactive_beside_floods(rpc: Rpc, connect: Connect) -> None:
    """Two floods, one with a reader that keeps up as well as it can and one without any."""
    floods = [spawn(rpc, numbered_program()) for _ in range(2)]
    session = spawn_ready(rpc, "exec cat")
    busy = connect()
    busy.call("session.attach", id=floods[0])
    view = View(connect(), session)
    took = []
    for n in range(soak(40, 2000)):
        begun = time.monotonic()
        key = b"%d," % n
        rpc.notify("session.input", id=session, data=key)
        view.until_output(key)
        took.append(time.monotonic() - begun)
        assert len(rpc.call("session.list", state="running")["sessions"]) >= 3
        busy.next_notification("session.output")
    print(f"echo beside floods: median {statistics.median(took) * 1000:.1f} ms, most {max(took) * 1000:.0f}")
    assert max(took) < 5, "an echo was held up"
    end(rpc, session, *floods)


# --- sizes -----------------------------------------------------------------------------------------

# Tells its size at first and after every SIGWINCH.
SIZES = """
import os, signal
def tell(*_):
    size = os.get_terminal_size(0)
    os.write(1, b"[%dx%d]" % (size.lines, size.columns))
signal.signal(signal.SIGWINCH, tell)
tell()
while True:
    os.read(0, 100)
"""


def spawn_sizes(rpc: Rpc, **params: Any) -> str:
    return spawn(rpc, [sys.executable, "-S", "-c", SIZES], **params)


def test_O10_the_child_sees_its_size_and_hears_of_a_new_one(rpc: Rpc) -> None:
    session = spawn_sizes(rpc, rows=33, cols=111)
    wait_for_output(rpc, session, b"[33x111]")
    for rows, cols in ((50, 132), (1, 1), (65535, 65535)):
        assert rpc.call("session.resize", id=session, rows=rows, cols=cols) == {}
        wait_for_output(rpc, session, b"[%dx%d]" % (rows, cols))
        row = rpc.call("session.get", id=session)
        assert (row["rows"], row["cols"]) == (rows, cols)
    end(rpc, session)


def test_O10_a_request_without_a_size_gets_24_by_80(rpc: Rpc) -> None:
    session = spawn_sizes(rpc)
    wait_for_output(rpc, session, b"[24x80]")
    end(rpc, session)


@pytest.mark.parametrize("rows, cols", [(0, 80), (24, 0), (-1, 80), (24, -1), (65536, 80), (24, 65536)])
def test_O10_no_size_is_refused_everywhere(rpc: Rpc, rows: int, cols: int) -> None:
    session = spawn_sizes(rpc)
    size = {"rows": rows, "cols": cols}
    assert refused(rpc, "session.resize", id=session, **size) == "invalid_params"
    assert refused(rpc, "session.attach", id=session, **size) == "invalid_params"
    assert refused(rpc, "session.spawn", argv=["true"], **size) == "invalid_params"
    wait_for_output(rpc, session, b"[24x80]")
    end(rpc, session)


def test_O10_half_a_size_is_none(rpc: Rpc) -> None:
    session = spawn_sizes(rpc)
    assert refused(rpc, "session.resize", id=session, rows=5) == "invalid_params"
    assert refused(rpc, "session.attach", id=session, rows=5) == "invalid_params"
    end(rpc, session)


def test_O10_input_and_resize_keep_their_order(rpc: Rpc) -> None:
    """What is typed after a resize finds the new size, also behind an input that waits for room."""
    script = "while read x; do stty size; done"
    session = shell(rpc, f"stty -echo; echo ready; {script}")
    wait_for_output(rpc, session, b"ready")
    for rows in range(10, 40):
        rpc.send("session.resize", id=session, rows=rows, cols=100)
        rpc.notify("session.input", id=session, data=b"x\n")
        rpc.send("session.input", id=session, data=b"y\n", wait_ms=1000)
        rpc.send("session.resize", id=session, rows=rows, cols=99)
        rpc.result(rpc.send("session.input", id=session, data=b"z\n", wait_ms=rows % 2))
    end_of_it = wait_for_output(rpc, session, b"39 99\r\n")
    said = read_all(rpc, session)[:end_of_it].decode().split("\r\n")[1:-1]
    # Each is read by `read` at its own time, when a later resize may have come: never an earlier one.
    assert said == sorted(said, key=lambda line: (int(line.split()[0]), -int(line.split()[1])))
    end(rpc, session)


def test_resize_of_an_ended_session_is_refused(rpc: Rpc) -> None:
    session = shell(rpc, "exit 0")
    wait_for_end(rpc, session)
    assert refused(rpc, "session.resize", id=session, rows=5, cols=5) == "ended"
    assert refused(rpc, "session.signal", id=session, signal="INT") == "ended"
    assert refused(rpc, "session.input", id=session, data=b"x") == "ended"
    rpc.notify("session.input", id=session, data=b"x")
    _, params = rpc.next_notification("session.input_refused")
    assert params["code"] == "ended"


def test_the_last_one_to_type_sets_the_size(rpc: Rpc, connect: Connect) -> None:
    session = spawn_sizes(rpc)
    wait_for_output(rpc, session, b"[24x80]")
    small, large, silent = connect(), connect(), connect()
    watch = View(connect(), session, since="live", mode="ro")

    def size_becomes(size: bytes) -> None:
        watch.until_output(size)
        watch.data.clear()

    View(small, session, rows=20, cols=40)
    size_becomes(b"[20x40]")
    View(large, session, rows=50, cols=200)
    size_becomes(b"[50x200]")
    View(silent, session)  # names no size and so has no say
    silent.call("session.input", id=session, data=b"x")
    small.call("session.input", id=session, data=b"x")
    size_becomes(b"[20x40]")
    large.notify("session.input", id=session, data=b"x")
    size_becomes(b"[50x200]")
    small.call("session.resize", id=session, rows=21, cols=41)  # its window changed
    size_becomes(b"[21x41]")
    large.call("session.input", id=session, data=b"x")
    size_becomes(b"[50x200]")
    small.call("session.input", id=session, data=b"x")
    size_becomes(b"[21x41]")
    row = rpc.call("session.get", id=session)
    assert (row["rows"], row["cols"], row["attached"]) == (21, 41, 4)
    end(rpc, session)


def test_a_reader_does_not_set_the_size(rpc: Rpc, connect: Connect) -> None:
    session = spawn_sizes(rpc)
    wait_for_output(rpc, session, b"[24x80]")
    view = View(connect(), session, mode="ro", rows=9, cols=9)
    row = rpc.call("session.get", id=session)
    assert (row["rows"], row["cols"]) == (24, 80)
    assert bytes(view.data) == b""
    end(rpc, session)


# --- who may type ----------------------------------------------------------------------------------


def test_O11_a_read_only_attachment_cannot_type(rpc: Rpc, connect: Connect) -> None:
    session, other = spawn_ready(rpc, "exec cat"), spawn_ready(rpc, "exec cat")
    reader = connect()
    view = View(reader, session, mode="ro")
    assert refused(reader, "session.input", id=session, data=b"x") == "read_only"
    reader.notify("session.input", id=session, data=b"x")
    _, params = reader.next_notification("session.input_refused")
    assert params["code"] == "read_only"
    reader.call("session.input", id=other, data=b"x")  # there it is not attached
    rpc.call("session.input", id=session, data=b"from another")
    view.until_output(b"from another")
    assert bytes(view.data) == b"from another"
    reader.call("session.attach", id=session)  # and now it is attached for writing, too
    reader.call("session.input", id=session, data=b"y")
    view.until_output(b"y")
    end(rpc, session, other)


ATTACH_TO_ITSELF = """
import os
from tests.support.rpc import Rpc, RpcError
with Rpc(os.environ["PTYD_RUNTIME_DIR"] + "/ptyd.sock") as rpc:
    try:
        rpc.call("session.attach", id=os.environ["PTYD_SESSION"], since="start")
    except RpcError as err:
        print("refused:", err.code, flush=True)
    else:
        print("attached", flush=True)
"""


@pytest.mark.parametrize("wrap", ["", "setsid -w ", "sh -c '\"$@\"; true' sh "])
def test_O12_attaching_to_oneself_is_refused(daemon: RuntimeDir, wrap: str) -> None:
    """Also from deep below, and by a daemon that has adopted the session."""
    script = daemon.base / "attach.py"
    script.write_text(ATTACH_TO_ITSELF)
    env = {"PYTHONPATH": str(ROOT)}
    command = f"{wrap}{sys.executable} {script}; read x; {wrap}{sys.executable} {script}; read x"
    with daemon.connect() as rpc:
        session = shell(rpc, command, env=env)
        first = wait_for_output(rpc, session, b"\n")
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    with daemon.connect() as rpc:
        rpc.call("session.input", id=session, data=b"\n")
        wait_for_output(rpc, session, b"attach", since=first)
        wait_for_output(rpc, session, b"attach\r\n", since=first)
        assert read_all(rpc, session).count(b"refused: self_attach\r\n") == 2


def test_O12_a_session_may_watch_another(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc:
        other = spawn(rpc, ["sleep", "1000"])
        script = daemon.base / "attach.py"
        script.write_text(ATTACH_TO_ITSELF.replace('os.environ["PTYD_SESSION"]', repr(other)))
        session = shell(rpc, f"{sys.executable} {script}", env={"PYTHONPATH": str(ROOT)})
        wait_for_end(rpc, session)
        assert b"attached" in read_all(rpc, session)


# --- signals ---------------------------------------------------------------------------------------


def test_signals_reach_whom_they_are_for(rpc: Rpc, tmp_path: Path) -> None:
    """The foreground group, the leader, or everybody."""
    told = tmp_path / "told"
    note = f"echo $0 >>{told}"
    child = f'sh -c \'trap "{note}; exit" USR1; trap "{note}" USR2; echo up; while :; do sleep 0.01; done\''
    script = f"set -m; trap 'echo leader >>{told}' USR1 USR2; {child} back & {child} front; wait; sleep 1000"
    session = shell(rpc, script)
    wait_until(lambda: read_all(rpc, session).count(b"up") == 2, what="both children are up")
    assert rpc.call("session.signal", id=session, signal="USR2")["signalled"] >= 1
    wait_until(lambda: lines(told) == ["front"], what="only the foreground group was signalled")
    assert rpc.call("session.signal", id=session, signal="SIGUSR2", to="leader") == {"signalled": 1}
    assert rpc.call("session.signal", id=session, signal=10, to="all")["signalled"] >= 3
    # A shell hears of its signals when its foreground child is done.
    all_of_them = ["back", "front", "front", "leader", "leader"]
    wait_until(lambda: sorted(lines(told)) == all_of_them, what="all were told")
    assert refused(rpc, "session.signal", id=session, signal=0) == "invalid_params"
    assert refused(rpc, "session.signal", id=session, signal=65) == "invalid_params"
    assert refused(rpc, "session.signal", id=session, signal="NOPE") == "invalid_params"
    end(rpc, session)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_an_interrupt_key_is_input_like_any_other(rpc: Rpc) -> None:
    session = shell(rpc, "trap 'echo interrupted; exit 9' INT; echo up; while :; do sleep 0.01; done")
    wait_for_output(rpc, session, b"up")
    rpc.call("session.input", id=session, data=b"\x03")
    assert wait_for_end(rpc, session)["exit"] == {"code": 9}
    assert b"interrupted" in read_all(rpc, session)


def test_the_end_of_input_key_ends_a_reader(rpc: Rpc) -> None:
    session = spawn(rpc, ["cat"])
    rpc.call("session.input", id=session, data=b"\x04")
    assert wait_for_end(rpc, session)["exit"] == {"code": 0}
    assert not processes.alive(rpc.call("session.get", id=session)["pid"])
