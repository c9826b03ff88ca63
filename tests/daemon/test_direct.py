"""Direct attachments: the ring read in place, keys straight to the shim, the daemon not in between.

The cases of groups O and S that a streamed attachment has to hold, for one that nobody serves; and what a
client that lies, writes where it may only read, or dies does to others: nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptyd.blocking import BlockingClient
from ptyd.datagrams import Kind, pack_credit, pack_input, pack_json
from ptyd.direct import Direct
from ptyd.peers import receive_with_fds
from ptyd.protocol.connection import NotificationReceived, ResponseReceived
from ptyd.protocol.errors import Code
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc, RpcError
from tests.support.sessions import read_all, shell, spawn, spawn_ready, wait_for_end, wait_for_output
from tests.support.stream import LINE_BYTES, StreamChecker, lines_written, numbered_program
from tests.support.waiting import wait_until

KIB = 1024
SMALLEST = 64 * KIB
DEADLINE_S = 20.0


def attach_for_fds(runtime: RuntimeDir, session: str, **params: Any) -> tuple[dict[str, Any], list[int]]:
    """Attach on a connection of its own, as any client would, and return the reply and what came with it."""
    with runtime.connect() as rpc:
        msgid = rpc.send("session.attach", id=session, via="shm", **params)
        data, fds = receive_with_fds(rpc.socket, 1 << 16, 8)
        rpc.feed(data)
        try:
            reply = rpc.result(msgid)
        except RpcError:
            assert fds == []
            raise
    return reply, fds


class Reader:
    """A direct attachment, and what it has been told."""

    def __init__(self, runtime: RuntimeDir, session: str, *, flow: str = "skip", **params: Any) -> None:
        self.reply, fds = attach_for_fds(runtime, session, **params)
        self.direct = Direct(self.reply, fds, is_paced=flow == "pace")
        self.number = self.reply["attachment"]
        self.data = b""
        self.gaps: list[tuple[int, int]] = []
        self.events: list[NotificationReceived] = []
        self.responses: list[ResponseReceived] = []
        self.is_lost = False

    def step(self, deadline_s: float = DEADLINE_S) -> None:
        """Take in what comes next.

        Raises:
            TimeoutError: nothing came.
        """
        if not self.direct.is_more:
            poll = select.poll()
            poll.register(self.direct, select.POLLIN)
            if not poll.poll(deadline_s * 1000):
                raise TimeoutError
        heard = self.direct.receive()
        if heard is None:
            self.is_lost = True
        for message in heard or []:
            self._take(message)

    def _take(self, message: object) -> None:
        match message:
            case ResponseReceived():
                self.responses.append(message)
            case NotificationReceived("session.output", params):
                assert params["attachment"] == self.number
                self.data += params["data"]
            case NotificationReceived("session.gap", params):
                self.gaps.append((params["from"], params["to"]))
            case NotificationReceived():
                self.events.append(message)

    def take(self) -> bytes:
        """Return the output that has come since the last time."""
        data, self.data = self.data, b""
        return data

    def until(self, is_so: Any) -> None:
        ends = time.monotonic() + DEADLINE_S
        while not is_so():
            assert time.monotonic() < ends, (self.data[-200:], self.events)
            with contextlib.suppress(TimeoutError):
                self.step(0.5)

    def until_output(self, literal: bytes) -> None:
        self.until(lambda: literal in self.data)

    def told(self, method: str) -> list[dict[str, Any]]:
        return [event.params for event in self.events if event.method == method]

    def close(self) -> None:
        self.direct.close()


@pytest.fixture
def attach(shared_runtime: RuntimeDir) -> Iterator[Any]:
    readers: list[Reader] = []

    def attach(session: str, **params: Any) -> Reader:
        readers.append(Reader(shared_runtime, session, **params))
        return readers[-1]

    yield attach
    for reader in readers:
        reader.close()


# --- output ----------------------------------------------------------------------------------------


def test_O1_since_start_live_and_an_offset(rpc: Rpc, attach: Any) -> None:
    session = spawn_ready(rpc, "printf 0123456789; read x; printf abc; read x; exit 5")
    offset = wait_for_output(rpc, session, b"0123456789")
    readers = {since: attach(session, since=since) for since in ("start", "live", offset - 4)}
    assert [reader.reply["offset"] for reader in readers.values()] == [0, offset, offset - 4]
    rpc.call("session.input", id=session, data=b"\n")
    for reader in readers.values():
        reader.until_output(b"abc")
    whole = read_all(rpc, session)
    for reader in readers.values():
        assert reader.data == whole[reader.reply["offset"] :]
    rpc.call("session.input", id=session, data=b"\n")
    for reader in readers.values():
        reader.until(lambda reader=reader: reader.told("session.detached"))
        number = {"attachment": reader.number}
        ends = {"exit": {"code": 5}, "offset": len(whole)}
        assert reader.told("session.exit") == [number | ends]
        assert reader.told("session.end") == [number | ends | {"proof": "echild"}]
        assert reader.told("session.detached") == [number | {"reason": "ended"}]
        assert [event.method for event in reader.events] == [
            "session.exit",
            "session.end",
            "session.detached",
        ]


def test_O2_older_than_the_scrollback(rpc: Rpc, attach: Any) -> None:
    session = spawn(rpc, numbered_program(20_000), scrollback_bytes=SMALLEST)
    wait_for_end(rpc, session)
    reader = attach(session, since=100)
    assert reader.reply["truncated"] == reader.reply["offset"] - 100 > 0
    reader.until(lambda: reader.told("session.end"))
    assert reader.reply["offset"] + len(reader.data) == 20_000 * LINE_BYTES
    assert reader.gaps == []


def test_O3_a_slow_reader_gets_an_exact_gap_and_slows_nobody(rpc: Rpc, attach: Any) -> None:
    session = spawn(rpc, ["sh", "-c", "read go; exec " + " ".join(numbered_program(50_000))],
                    scrollback_bytes=SMALLEST)  # fmt: skip
    slow = attach(session, since="start", rows=5, cols=80)
    slow.direct.type(b"\n")
    wait_for_end(rpc, session)
    slow.until(lambda: slow.told("session.end"))
    (end,) = slow.told("session.end")
    assert sum(stop - start for start, stop in slow.gaps) + len(slow.data) == end["offset"]
    assert len(slow.gaps) >= 1


def test_O4_a_paced_reader_gets_everything(rpc: Rpc, attach: Any, tmp_path: Path) -> None:
    """All that comes after its first credit, that is: what is written as it attaches may be gone by then."""
    lines, go = 100_000, tmp_path / "go"
    session = spawn(rpc, numbered_program(lines, go=go), scrollback_bytes=SMALLEST)
    reader = attach(session, since="start", flow="pace")
    go.touch()
    checker = StreamChecker(reader.reply["offset"])
    while not reader.told("session.end"):
        reader.step()
        checker.feed(checker.next_offset, reader.take())
    assert reader.gaps == []
    assert checker.next_offset == lines * LINE_BYTES


def test_O4_a_paced_reader_that_stands_still_loses_its_pace(
    rpc: Rpc, attach: Any, shared_runtime: RuntimeDir
) -> None:
    """It can slow its own session for 2 s; then the program goes on, and the gap is exact."""
    lines = 200_000
    session = spawn(rpc, numbered_program(lines), scrollback_bytes=SMALLEST)
    reader = attach(session, since="start", flow="pace")
    reader.until(lambda: len(reader.data) > 0)
    wait_for_end(rpc, session)
    reader.until(lambda: reader.told("session.end"))
    (end,) = reader.told("session.end")
    assert reader.reply["offset"] + len(reader.data) + sum(b - a for a, b in reader.gaps) == end["offset"]
    assert reader.gaps


def test_O4_a_credit_without_progress_holds_nobody(rpc: Rpc, shared_runtime: RuntimeDir) -> None:
    """A client that asks again and again to be waited for, and never reads on, is not waited for."""
    session = spawn(rpc, numbered_program(100_000), scrollback_bytes=SMALLEST)
    _, fds = attach_for_fds(shared_runtime, session)
    with socket.socket(fileno=fds[1]) as liar:
        os.close(fds[0])

        def is_over() -> bool:
            liar.send(pack_credit(1, 2**32 - 1))
            return rpc.call("session.get", id=session)["state"] == "exited"

        wait_until(is_over, 30, "the program ends although somebody asks to be waited for")


def test_O14_the_exit_comes_where_it_lies_and_others_write_on(rpc: Rpc, attach: Any) -> None:
    session = spawn_ready(
        rpc, "(trap '' HUP; read go; printf later; sleep 1000) < /dev/tty & printf here; exit 3"
    )
    wait_for_end(rpc, session, "exit")
    reader = attach(session, since="start")
    reader.until(lambda: reader.told("session.exit"))
    assert reader.told("session.exit")[0]["exit"] == {"code": 3}
    rpc.call("session.kill", id=session, force=True)
    reader.until(lambda: reader.told("session.end"))


# --- input, size and the rules of attachments ------------------------------------------------------


def test_O8_a_large_paste_arrives_in_order(rpc: Rpc, attach: Any, shared_runtime: RuntimeDir) -> None:
    target = shared_runtime.base / "pasted"
    paste = b"".join(b"%07d\n" % number for number in range(16_384))
    session = spawn_ready(rpc, f"head -c {len(paste)} > {target}; printf done; sleep 1000")
    reader = attach(session)
    for start in range(0, len(paste), 64 * KIB):
        seq = reader.direct.type(paste[start : start + 64 * KIB], is_request=True)
        reader.until(lambda seq=seq: any(answer.msgid == seq for answer in reader.responses))
    reader.until_output(b"done")
    assert [answer.error for answer in reader.responses] == [None, None]
    assert target.read_bytes() == paste


def test_O7_input_that_nobody_reads_is_refused_and_told(rpc: Rpc, attach: Any) -> None:
    session = spawn_ready(rpc, "sleep 1000")
    reader = attach(session)
    while not reader.told("session.input_refused"):
        reader.direct.type(bytes(64 * KIB))
        with contextlib.suppress(TimeoutError):
            reader.step(0.01)
    assert reader.told("session.input_refused")[0]["code"] == "input_full"
    reader.direct.type(b"x", is_request=True)
    reader.until(lambda: reader.responses)


def test_O10_the_last_one_to_type_sets_the_size(rpc: Rpc, attach: Any) -> None:
    # Looked at again and again: a shell that is told by a signal may only notice with the next line.
    session = spawn_ready(rpc, "while :; do stty size; sleep 0.05; done")
    one = attach(session, rows=30, cols=90)
    two = attach(session, rows=40, cols=100)

    def becomes(reader: Reader, size: bytes) -> None:
        reader.until(lambda: reader.data.rstrip().endswith(b"\n" + size))

    becomes(one, b"40 100")
    one.direct.type(b"\n")
    becomes(one, b"30 90")
    two.direct.type(b"\n")
    becomes(two, b"40 100")
    one.direct.resize(31, 91)
    becomes(one, b"31 91")
    wait_until(lambda: rpc.call("session.get", id=session)["rows"] == 31, what="the daemon knows the size")


def test_O11_read_only_cannot_type_or_resize(rpc: Rpc, attach: Any) -> None:
    session = spawn_ready(rpc, "cat; sleep 1000")
    reader = attach(session, mode="ro", rows=9, cols=9)
    reader.direct.type(b"never\n", is_request=True)
    reader.until(lambda: reader.responses)
    assert reader.responses[0].error is not None
    assert reader.responses[0].error.code is Code.READ_ONLY
    reader.direct.resize(7, 7)
    reader.until(lambda: reader.is_lost)  # it said what it may not say
    found = rpc.call("session.get", id=session)
    assert (found["rows"], found["cols"], found["attached"]) == (24, 80, 0)
    assert b"never" not in read_all(rpc, session)


def test_a_refusal_brings_no_descriptors(rpc: Rpc, shared_runtime: RuntimeDir) -> None:
    session = shell(rpc, "exec sleep 1000")
    with pytest.raises(RpcError) as refused:
        attach_for_fds(shared_runtime, session, since=1 << 40)
    assert refused.value.code == "invalid_params"
    wait_until(lambda: rpc.call("session.get", id=session)["attached"] == 0, what="nothing is left attached")


def test_it_is_listed_counted_and_ended_by_others(rpc: Rpc, attach: Any) -> None:
    session = spawn_ready(rpc, "exec cat")
    rpc.call("events.subscribe")
    one, two = attach(session), attach(session)
    assert one.reply["session"]["attached"] >= 1
    wait_until(lambda: rpc.call("session.get", id=session)["attached"] == 2, what="both are counted")
    rows = rpc.call("session.list", detail=True)["sessions"]
    assert [row["busy"] for row in rows if row["id"] == session] == [True]
    assert rpc.call("session.detach", id=session, attachment=one.number) == {"detached": 1}
    one.until(lambda: one.told("session.detached"))
    assert one.told("session.detached")[0]["reason"] == "requested"
    one.until(lambda: one.is_lost)
    two.direct.type(b"still here\n")
    two.until_output(b"still here")
    assert rpc.call("session.detach", id=session) == {"detached": 1}
    two.until(lambda: two.told("session.detached"))
    wait_until(lambda: rpc.call("session.get", id=session)["attached"] == 0, what="nobody is counted")
    with pytest.raises(RpcError) as nobody:
        rpc.call("session.detach", id=session, attachment=one.number)
    assert nobody.value.code == "not_found"
    told = [params["type"] for _, params in rpc.notifications if params["id"] == session]
    assert told.count("session.attached") == told.count("session.detached") == 2


def test_a_stream_is_ended_by_others_too(rpc: Rpc, connect: Any) -> None:
    session = spawn_ready(rpc, "exec cat")
    other = connect()
    number = other.call("session.attach", id=session)["attachment"]
    assert rpc.call("session.detach", id=session) == {"detached": 1}
    method, params = other.next_notification()
    assert (method, params) == ("session.detached", {"attachment": number, "reason": "requested"})


# --- survival --------------------------------------------------------------------------------------


def test_S1_the_daemon_dies_under_flood_and_is_not_missed(daemon: RuntimeDir) -> None:
    progress = daemon.base / "progress"
    session = daemon.call("session.spawn", argv=numbered_program(progress=progress))["id"]
    reader = Reader(daemon, session, flow="pace")
    checker = StreamChecker(reader.reply["offset"])
    for _ in range(3):
        daemon.wait_for_new_daemon(daemon.kill_daemon())
        written = lines_written(progress)
        while checker.next_offset < (written + 20_000) * LINE_BYTES:
            reader.step()
            checker.feed(checker.next_offset, reader.take())
    assert reader.gaps == []
    wait_until(lambda: daemon.call("session.get", id=session)["attached"] == 1, what="the new one counts it")
    assert daemon.call("session.detach", id=session) == {"detached": 1}
    reader.close()
    daemon.call("session.kill", id=session, force=True)


def test_S2_without_any_daemon_keys_and_the_end_arrive(daemon: RuntimeDir) -> None:
    session = daemon.call("session.spawn", argv=["sh", "-c", "read x; echo got $x; exit 9"])["id"]
    reader = Reader(daemon, session, since="start")
    daemon.kill_zygote()
    wait_until(lambda: daemon.find_daemon_pid() is None, what="the daemon steps down")
    reader.direct.type(b"alone\n")
    reader.until(lambda: reader.told("session.end"))
    assert b"got alone" in reader.data
    assert reader.told("session.end")[0]["exit"] == {"code": 9}
    reader.close()
    daemon.start()


def test_S5_shim_killed(rpc: Rpc, shared_runtime: RuntimeDir, attach: Any) -> None:
    session = spawn_ready(rpc, "printf before; exec sleep 1000")
    wait_for_output(rpc, session, b"before")
    reader = attach(session, since="start")
    processes.kill_and_wait(rpc.call("session.get", id=session)["shim_pid"])
    reader.until(lambda: reader.is_lost)
    assert reader.data.endswith(b"before")
    assert reader.told("session.end") == [], "nobody has proven that"
    wait_until(
        lambda: rpc.call("session.get", id=session)["attached"] == 0, what="it is not counted any more"
    )
    with pytest.raises(RpcError) as refused:
        attach_for_fds(shared_runtime, session)
    assert refused.value.code == "no_shm"
    rpc.call("session.kill", id=session, force=True)


def test_S2_what_was_typed_last_arrives_though_nobody_waits_for_it(rpc: Rpc, attach: Any) -> None:
    """The shim tries to tell the one who has left something before it hears what they had said."""
    session = spawn_ready(rpc, "read x; printf 'got-%s' $x; read x; sleep 1000")
    other, leaving = attach(session), attach(session, rows=30, cols=90)
    shim = rpc.call("session.get", id=session)["shim_pid"]
    with processes.stopped(shim):
        other.direct.resize(40, 100)
        leaving.direct.type(b"it\n")
        leaving.direct.resize(31, 91)
        leaving.close()
    other.until_output(b"got-it")
    wait_until(lambda: rpc.call("session.get", id=session)["rows"] == 31, what="the last size is heard, too")
    assert rpc.call("session.get", id=session)["attached"] == 1


# --- whoever lies ----------------------------------------------------------------------------------


def test_the_memory_refuses_a_write(rpc: Rpc, shared_runtime: RuntimeDir) -> None:
    session = spawn_ready(rpc, "printf mine; exec cat")
    offset = wait_for_output(rpc, session, b"mine")
    _, (memory_fd, sock_fd) = attach_for_fds(shared_runtime, session)
    size = os.fstat(memory_fd).st_size
    with pytest.raises(PermissionError):
        os.write(memory_fd, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(memory_fd, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(memory_fd, size)
    with pytest.raises(PermissionError):
        mmap.mmap(os.open(f"/proc/self/fd/{memory_fd}", os.O_RDWR), size)
    readable = mmap.mmap(memory_fd, size, prot=mmap.PROT_READ)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(_address(memory_fd))
    assert libc.mprotect(address, ctypes.c_size_t(4096), 3) == -1, "not even a mapping that is there"
    readable.close()
    for fd in (memory_fd, sock_fd):
        os.close(fd)
    assert read_all(rpc, session)[offset - 4 : offset] == b"mine"


def _address(memory_fd: int) -> int:
    """Where a memfd is mapped in this process."""
    inode = str(os.fstat(memory_fd).st_ino)
    with open("/proc/self/maps") as maps:
        line = next(line for line in maps if inode in line.split())
    return int(line.split("-")[0], 16)


LIES = [
    b"\0",
    b"?" + b'{"seq": 1, "do": "kill", "grace_ms": 0, "force": true}',
    pack_json(Kind.ASK, {"seq": 1, "do": "leave"}),
    pack_json(Kind.HELLO, {"version": 1}),
    bytes([Kind.BIND]),
    bytes([Kind.WATCH, 0]),
    b"i",
    b"z\0",
    b"z\0\0\0\0",
    b"c\1",
    b"S{}",
    bytes(100_000),
]


@pytest.mark.parametrize("lie", LIES, ids=repr)
def test_a_client_that_lies_loses_its_end_and_nothing_else(
    rpc: Rpc, shared_runtime: RuntimeDir, attach: Any, lie: bytes
) -> None:
    session = spawn_ready(rpc, "exec cat")
    honest = attach(session)
    _, fds = attach_for_fds(shared_runtime, session)
    os.close(fds[0])
    with socket.socket(fileno=fds[1]) as liar:
        liar.settimeout(DEADLINE_S)
        liar.send(lie)
        with contextlib.suppress(ConnectionResetError):
            while liar.recv(1 << 16):
                pass
    honest.direct.type(b"all is well\n")
    honest.until_output(b"all is well")
    found = rpc.call("session.get", id=session)
    assert (found["state"], found["rows"], found["cols"]) == ("running", 24, 80)
    wait_until(
        lambda: rpc.call("session.get", id=session)["attached"] == 1, what="only the honest one counts"
    )


def test_one_that_never_reads_its_socket_slows_nobody(
    rpc: Rpc, shared_runtime: RuntimeDir, attach: Any
) -> None:
    session = spawn(rpc, numbered_program(100_000), scrollback_bytes=SMALLEST)
    _, fds = attach_for_fds(shared_runtime, session, mode="rw")
    try:
        with socket.socket(fileno=os.dup(fds[1])) as deaf:
            for number in range(400):  # answers that nobody takes
                with contextlib.suppress(OSError):
                    deaf.send(pack_input(number, True, b""), socket.MSG_DONTWAIT)
        wait_for_end(rpc, session)
        reader = attach(session, since="start")
        reader.until(lambda: reader.told("session.end"))
    finally:
        for fd in fds:
            os.close(fd)


def test_one_that_dies_leaves_nothing(rpc: Rpc, shared_runtime: RuntimeDir) -> None:
    session = spawn_ready(rpc, "exec cat")
    code = f"from tests.daemon.test_direct import hold; hold({str(shared_runtime.path)!r}, {session!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"attached\n"
        client.kill()
    wait_until(
        lambda: rpc.call("session.get", id=session)["attached"] == 0, what="it is not counted any more"
    )
    rpc.call("session.input", id=session, data=b"hello\n")
    wait_for_output(rpc, session, b"hello")


def hold(runtime: str, session: str) -> None:
    """Attach, say so, and do nothing more: run by a process that is then killed."""
    with BlockingClient.connect(runtime) as client:
        _held = client.call_for_fds("session.attach", {"id": session, "via": "shm", "flow": "pace"})
        print("attached", flush=True)
        time.sleep(1000)


def test_descriptors_do_not_leak_over_1000_attaches(rpc: Rpc, shared_runtime: RuntimeDir) -> None:
    session = spawn_ready(rpc, "exec cat")
    shim = rpc.call("session.get", id=session)["shim_pid"]
    watched = [shim, shared_runtime.daemon_pid(), os.getpid()]

    def count() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in watched]

    def is_no_more() -> bool:  # fewer, if a connection was just being closed before
        return all(now <= was for now, was in zip(count(), before, strict=True))

    Reader(shared_runtime, session).close()
    wait_until(lambda: rpc.call("session.get", id=session)["attached"] == 0, what="the first has left")
    before = count()
    for _ in range(1000):
        Reader(shared_runtime, session).close()
    wait_until(is_no_more, what="no more descriptors than before")
    refused = 0
    for _ in range(20):  # and none when the attach is refused at the last moment
        try:
            attach_for_fds(shared_runtime, session, since=1 << 40)
        except RpcError:
            refused += 1
    assert refused == 20
    wait_until(is_no_more, what="no more descriptors than before")


def test_a_session_has_a_bound_of_them(rpc: Rpc, shared_runtime: RuntimeDir) -> None:
    from ptyd.shim.direct import MOST

    session = spawn_ready(rpc, "exec cat")
    readers = [Reader(shared_runtime, session) for _ in range(MOST)]
    with pytest.raises(RpcError) as refused:
        attach_for_fds(shared_runtime, session)
    assert refused.value.code == "no_space"
    for reader in readers:
        reader.close()
    wait_until(lambda: rpc.call("session.get", id=session)["attached"] == 0, what="all have left")


def test_the_connection_must_have_nothing_else_on_its_way(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "exec cat")
    rpc.call("session.attach", id=session)
    with pytest.raises(RpcError) as refused:
        rpc.call("session.attach", id=session, via="shm")
    assert refused.value.code == "busy"
    wait_until(
        lambda: rpc.call("session.get", id=session)["attached"] == 1, what="only the stream is counted"
    )
