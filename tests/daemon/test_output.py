"""Group O, output: every byte exactly once or an exact gap, in order, to any number of readers."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest

from ptyd.protocol.fields import parse_map
from ptyd.protocol.messages import RESULTS
from tests.daemon.conftest import Connect
from tests.support import processes
from tests.support.daemon import RuntimeDir
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
from tests.support.stream import LINE_BYTES, StreamChecker, expected, lines_written, numbered_program
from tests.support.waiting import soak, wait_until

KIB = 1024
SMALLEST = 64 * KIB  # scrollback
IN_FLIGHT = 1024 * KIB  # more than a client's socket and the one chunk behind it can hold
UNREAD_LIMIT_S = 20  # no slow reader here takes longer than this to be given up


def head(rpc: Rpc, session: str) -> int:
    found: int = rpc.call("session.get", id=session)["output_offset"]
    return found


def wait_for_head(rpc: Rpc, session: str, offset: int) -> int:
    return wait_until(
        lambda: now if (now := head(rpc, session)) >= offset else 0, 20, f"output reaches {offset}"
    )


@contextmanager
def reading(view: View) -> Iterator[View]:
    """Read an attachment in a thread, as its own client would, until the block ends."""
    stop, failed = threading.Event(), list[BaseException]()

    def read() -> None:
        try:
            while not stop.is_set() and view.detached is None:
                try:
                    view.step(deadline_s=0.2)
                except TimeoutError:
                    continue
        except Exception as err:  # noqa: BLE001 - told to the test's own thread below
            failed.append(err)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield view
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


# --- where an attachment begins --------------------------------------------------------------------


def test_O1_since_start_live_and_an_offset(rpc: Rpc, connect: Connect) -> None:
    session = spawn_ready(rpc, "printf 0123456789; read x; printf abc; read x")
    offset = wait_for_output(rpc, session, b"0123456789")
    views = {since: View(connect(), session, since=since) for since in ("start", "live", offset - 4, offset)}
    assert [view.start for view in views.values()] == [0, offset, offset - 4, offset]
    assert {view.truncated for view in views.values()} == {0}
    rpc.call("session.input", id=session, data=b"\n")
    for view in views.values():
        view.until_output(b"abc")
    whole = read_all(rpc, session)
    assert whole.endswith(b"0123456789abc")
    for view in views.values():
        assert bytes(view.data) == whole[view.start :]
    rpc.call("session.input", id=session, data=b"\n")
    for view in views.values():
        view.until_end()
        assert view.end is not None
        assert view.end["offset"] == len(whole)


def test_O1_after_the_end_everything_is_still_there(rpc: Rpc) -> None:
    session = spawn(rpc, numbered_program(2000, exit_code=7))
    wait_for_end(rpc, session)
    view = View(rpc, session, since="start", numbered=True)
    view.until_end()
    assert (view.next_offset, view.gaps, view.detached) == (2000 * LINE_BYTES, [], "ended")
    assert view.exit == {"attachment": view.attachment, "exit": {"code": 7}, "offset": 2000 * LINE_BYTES}
    assert view.end is not None
    assert (view.end["exit"], view.end["proof"]) == ({"code": 7}, "echild")


def test_O1_live_after_the_end_is_only_the_end(rpc: Rpc) -> None:
    session = shell(rpc, "echo gone")
    wait_for_end(rpc, session)
    view = View(rpc, session)
    view.until_end()
    assert (bytes(view.data), view.gaps) == (b"", [])


def test_O1_an_offset_beyond_the_output_is_refused(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "exec sleep 1000")
    with pytest.raises(RpcError) as caught:
        rpc.call("session.attach", id=session, since=head(rpc, session) + 1)
    assert caught.value.code == "invalid_params"
    rpc.call("session.kill", id=session, force=True)


def test_O2_older_than_the_scrollback_tells_how_much_is_gone(rpc: Rpc, connect: Connect) -> None:
    lines = 10_000
    session = spawn(rpc, numbered_program(lines), scrollback_bytes=SMALLEST)
    wait_for_end(rpc, session)
    row = rpc.call("session.get", id=session)
    assert row["output_offset"] == lines * LINE_BYTES
    oldest = row["scrollback_start"]
    assert oldest == lines * LINE_BYTES - SMALLEST
    for since, gone in (("start", oldest), (oldest - 1, 1), (oldest, 0), (oldest + 5, 0)):
        view = View(connect(), session, since=since, numbered=True)
        assert view.truncated == gone
        view.until_end()
        assert (view.gaps, view.next_offset) == ([], lines * LINE_BYTES)
    found = rpc.call("session.read", id=session, offset=3, max_bytes=100)
    assert (found["offset"], found["next"]) == (oldest, oldest + 100)
    assert found["data"] == expected(oldest, 100)


# --- slow readers ----------------------------------------------------------------------------------


def test_O3_a_slow_reader_gets_gaps_and_nobody_else_does(rpc: Rpc, connect: Connect) -> None:
    """The slow one reads nothing until it must have been lapped; another session's reader loses nothing."""
    flood = spawn(rpc, numbered_program(), scrollback_bytes=SMALLEST)
    lines = 60_000
    other = spawn(rpc, numbered_program(lines))
    slow = View(connect(), flood, since="live", numbered=True)
    neighbour = View(connect(), other, since="start", numbered=True)
    neighbour.until_end()
    assert (neighbour.gaps, neighbour.next_offset) == ([], lines * LINE_BYTES)
    lapped_at = wait_for_head(rpc, flood, slow.start + IN_FLIGHT + 4 * SMALLEST)
    slow.until(lambda: slow.next_offset > lapped_at)
    assert slow.gaps  # that each is exact, and every byte right, was checked as they came
    slow.until(lambda: slow.next_offset > lapped_at + IN_FLIGHT)
    rpc.call("session.kill", id=flood, force=True)
    slow.until_end()
    assert slow.end is not None


def test_O4_a_slow_paced_reader_loses_nothing(rpc: Rpc, connect: Connect, tmp_path: Path) -> None:
    go, lines = tmp_path / "go", 120_000
    session = spawn(rpc, numbered_program(lines, go=go), scrollback_bytes=SMALLEST)
    view = View(connect(), session, since="start", flow="pace", numbered=True)
    go.touch()
    while view.detached is None:
        view.step()
        time.sleep(0.003)  # this is the slowness, and no wait for anything
    assert (view.gaps, view.next_offset) == ([], lines * LINE_BYTES)
    assert view.exit is not None
    assert view.exit["offset"] == lines * LINE_BYTES


# Writes until nothing has taken any more for a while, leaves how much it was, and ends with all of it unread.
FILL_UP = """
import os, select, sys
data, at = memoryview(open(sys.argv[1], "rb").read()), 0
os.set_blocking(1, False)
while at < len(data) and select.select([], [1], [], 0.5)[1]:
    at += os.write(1, data[at : at + 4096])
open(sys.argv[2] + ".new", "w").write(str(at))
os.rename(sys.argv[2] + ".new", sys.argv[2])
"""


def test_O4_nothing_is_lost_when_the_program_ends_behind_a_slow_reader(
    rpc: Rpc, connect: Connect, tmp_path: Path
) -> None:
    """Its last output still lies in the terminal when it exits, and the ring has no room for it yet."""
    stream, written = tmp_path / "stream", tmp_path / "written"
    stream.write_bytes(expected(0, 4 * IN_FLIGHT))
    script = f"stty raw; exec python3 -S -c '{FILL_UP}' {stream} {written}"
    session = shell(rpc, script, scrollback_bytes=SMALLEST)
    view = View(connect(), session, since="start", flow="pace", numbered=True)
    wait_until(written.exists, what="the program has filled everything up")
    size = int(written.read_text())
    assert size < 4 * IN_FLIGHT, "it was not paced"
    view.until_end()
    assert (view.gaps, view.next_offset) == ([], size)
    assert view.exit is not None
    assert view.exit["offset"] == size


def test_O4_a_slower_paced_reader_joins_a_faster_one(rpc: Rpc, connect: Connect, tmp_path: Path) -> None:
    """The credit that the faster one has earned does not let the slower one be overrun."""
    go, stream, capacity = tmp_path / "go", tmp_path / "stream", 2 * IN_FLIGHT
    stream.write_bytes(expected(0, 3 * capacity))
    wait_and_go_on = f"while [ ! -e {go} ]; do sleep 0.01; done; tail -c +{capacity + 1} {stream}"
    session = shell(
        rpc, f"stty raw; head -c {capacity} {stream}; {wait_and_go_on}", scrollback_bytes=capacity
    )
    fast = View(connect(), session, since="start", flow="pace", numbered=True)
    fast.until(lambda: fast.next_offset == capacity)
    slow = View(connect(), session, since="start", flow="pace", numbered=True)
    assert slow.start == 0
    go.touch()
    with reading(fast):
        time.sleep(0.5)  # no progress for less than the two seconds that are allowed
        slow.until_end()
    assert (slow.gaps, slow.next_offset, fast.gaps) == ([], 3 * capacity, [])


def test_O4_a_paced_reader_that_stands_still_is_turned_to_skip(
    rpc: Rpc, connect: Connect, tmp_path: Path
) -> None:
    progress, go = tmp_path / "progress", tmp_path / "go"
    session = spawn(rpc, numbered_program(progress=progress, go=go), scrollback_bytes=SMALLEST)
    other = spawn_ready(rpc, "exec cat")
    view = View(connect(), session, since="start", flow="pace", numbered=True)
    go.touch()
    far = IN_FLIGHT + 16 * SMALLEST
    with connect() as neighbour:
        echo = View(neighbour, other)

        def is_far() -> bool:
            echo.data.clear()
            neighbour.call("session.input", id=other, data=b"x")
            echo.until_output(b"x")  # at no time is another session held up
            return lines_written(progress) * LINE_BYTES > far

        wait_until(is_far, UNREAD_LIMIT_S, "the program runs free again")
    view.until(lambda: view.next_offset > far)
    assert view.gaps
    rpc.call("session.kill", id=session, force=True)
    rpc.call("session.kill", id=other, force=True)


def test_O4_a_paced_reader_that_leaves_lets_the_program_go(
    rpc: Rpc, connect: Connect, tmp_path: Path
) -> None:
    lines = 200_000
    session = spawn(rpc, numbered_program(lines), scrollback_bytes=SMALLEST)
    leaver = connect()
    view = View(leaver, session, since="start", flow="pace", numbered=True)
    view.until(lambda: view.next_offset > SMALLEST)
    detach = leaver.call("session.detach", attachment=view.attachment)
    assert detach == {"detached": 1}
    wait_for_end(rpc, session)
    assert head(rpc, session) == lines * LINE_BYTES


def test_O4_pace_again_after_a_paced_reader_has_left(rpc: Rpc, connect: Connect) -> None:
    # The first is ahead of what we have read of it by what sockets hold: the ring is larger than that.
    lines = 400_000
    session = spawn(rpc, numbered_program(lines), scrollback_bytes=2048 * KIB)
    first = connect()
    view = View(first, session, since="start", flow="pace", numbered=True)
    view.until(lambda: view.next_offset > SMALLEST)
    again = View(connect(), session, since=view.next_offset, flow="pace", numbered=True)
    first.call("session.detach", attachment=view.attachment)
    while again.detached is None:
        again.step()
        time.sleep(0.001)
    assert (again.gaps, again.next_offset) == ([], lines * LINE_BYTES)


def test_O4_a_kill_does_not_wait_for_a_paced_reader(rpc: Rpc, connect: Connect) -> None:
    session = spawn(rpc, numbered_program(), scrollback_bytes=SMALLEST)
    view = View(connect(), session, since="start", flow="pace", numbered=True)
    wait_for_head(rpc, session, SMALLEST)
    assert rpc.call("session.kill", id=session, grace_ms=200)["outcome"] == "killed"
    view.until_end()


# --- bytes are bytes -------------------------------------------------------------------------------


def test_O5_random_bytes_through_a_raw_terminal(rpc: Rpc, connect: Connect) -> None:
    """64 KiB in and out again: identical, whoever reads."""
    data = random.Random(5).randbytes(64 * KIB)
    session = spawn_ready(rpc, "exec cat")
    start = head(rpc, session)
    view = View(connect(), session, since=start)
    assert rpc.call("session.input", id=session, data=data) == {"accepted": len(data)}
    view.until(lambda: len(view.data) >= len(data))
    assert hashlib.sha256(view.data).digest() == hashlib.sha256(data).digest()
    assert read_all(rpc, session, start) == data
    rpc.call("session.kill", id=session, force=True)


def test_O6_characters_and_escape_sequences_split_anywhere(rpc: Rpc, connect: Connect) -> None:
    """One byte at a time, and every piece as its own notification: nothing is re-encoded."""
    text = "aé漢😀\x1b[1;31mred\x1b[0m".encode() + b"\xff\xc3\x1b["
    session = spawn_ready(rpc, "exec cat")
    start = head(rpc, session)
    view = View(connect(), session, since=start)
    for n in range(len(text)):
        rpc.call("session.input", id=session, data=text[n : n + 1])
        view.until_output(text[: n + 1])
    assert bytes(view.data) == text
    for cut in range(len(text)):
        found = rpc.call("session.read", id=session, offset=start + cut, max_bytes=1)
        assert found["data"] == text[cut : cut + 1]
        assert found["next"] == start + cut + 1
    rpc.call("session.kill", id=session, force=True)


def test_O6_text_sent_as_str_is_the_same_bytes(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "exec cat")
    rpc.call("session.input", id=session, data="é漢")
    wait_for_output(rpc, session, "é漢".encode())
    rpc.call("session.kill", id=session, force=True)


# --- at the edge of the ring -----------------------------------------------------------------------


def test_O13_readers_at_the_edge_never_get_a_torn_byte(rpc: Rpc, connect: Connect) -> None:
    """A flood through the smallest ring, attachments and plain reads at its oldest byte."""
    session = spawn(rpc, numbered_program(), scrollback_bytes=SMALLEST)
    views = [View(connect(), session, since="start", numbered=True) for _ in range(3)]
    wanted = soak(8, 2000) * 1024 * KIB
    pieces = moved = 0
    while views[0].next_offset < wanted:
        for view in views:
            view.step()
        oldest = rpc.call("session.read", id=session, offset=0, max_bytes=1)["offset"]
        found = rpc.call("session.read", id=session, offset=oldest, max_bytes=256 * KIB)
        StreamChecker(found["offset"]).feed(found["offset"], found["data"])
        pieces += 1
        moved += found["offset"] != oldest
    assert moved, "the reads never came near the edge"
    rpc.call("session.kill", id=session, force=True)


# --- without a slave, and after the leader ---------------------------------------------------------

NO_SLAVE = """
import os, sys, time
os.write(1, b"before|")
name = os.ttyname(0)
for fd in (0, 1, 2):
    os.close(fd)
open(sys.argv[1], "w").close()
while not os.path.exists(sys.argv[2]):
    time.sleep(0.002)
os.write(os.open(name, os.O_RDWR), b"after")
"""


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_O14_a_leader_without_an_open_slave(
    shared_runtime: RuntimeDir, rpc: Rpc, connect: Connect, tmp_path: Path
) -> None:
    closed, go = tmp_path / "closed", tmp_path / "go"
    session = spawn(rpc, ["python3", "-S", "-c", NO_SLAVE, str(closed), str(go)])
    view = View(connect(), session, since="start")
    wait_until(closed.exists, what="every slave is closed")
    shim, before = shared_runtime.shim_pid(session), None
    before = cpu_ticks(shim)
    time.sleep(0.3)  # a shim that spins would burn all of this
    assert cpu_ticks(shim) - before < os.sysconf("SC_CLK_TCK") // 10
    assert rpc.call("session.get", id=session)["state"] == "running"
    go.touch()
    view.until_end()
    assert bytes(view.data) == b"before|after"
    assert view.exit is not None
    assert view.exit["exit"] == {"code": 0}


def test_O14_the_leader_is_gone_and_a_child_writes_on(rpc: Rpc, connect: Connect, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"trap '' HUP; (while [ ! -e {go} ]; do sleep 0.01; done; printf late) & printf early; exit 3"
    session = shell(rpc, script)
    view = View(connect(), session, since="start")
    view.until(lambda: view.exit is not None)
    assert bytes(view.data) == b"early"
    assert view.exit == {"attachment": view.attachment, "exit": {"code": 3}, "offset": 5}
    go.touch()
    view.until_end()
    assert bytes(view.data) == b"earlylate"
    assert view.end is not None
    assert (view.end["offset"], view.end["exit"]) == (9, {"code": 3})


@pytest.mark.parametrize("flow", ["skip", "pace"])
def test_O14_exit_is_told_in_its_place_while_a_child_floods(
    rpc: Rpc, connect: Connect, tmp_path: Path, flow: str
) -> None:
    """A child that never stops writing hides neither the leader's exit nor the shim's other duties."""
    progress = tmp_path / "progress"
    flood = " ".join(numbered_program(progress=progress))
    # The child's terminal is raw by the time it writes; the leader leaves in the middle of it.
    script = f"trap '' HUP; {flood} & while [ ! -s {progress} ]; do sleep 0.01; done; exit 4"
    session = shell(rpc, script, scrollback_bytes=SMALLEST)
    view = View(connect(), session, since="start", flow=flow)
    while view.exit is None:
        view.step()
        time.sleep(0.005)  # so slow that it never catches up with the child
        assert view.next_offset < 64 * IN_FLIGHT, "the exit is not told"
    exited_at = view.exit["offset"]
    assert view.exit["exit"] == {"code": 4}
    place = max([exited_at, *(to for at, to in view.gaps if at <= exited_at)])
    # The daemon may have sent some before it heard of the exit, but it does not wait for a pause.
    assert view.next_offset <= place + 4 * SMALLEST
    assert rpc.call("session.get", id=session)["state"] == "lingering"
    view.until(lambda: view.next_offset > exited_at + SMALLEST)
    assert rpc.call("session.kill", id=session, force=True)["outcome"] == "killed"


def test_O14_the_last_bytes_of_a_leader_come_before_its_exit(rpc: Rpc, connect: Connect) -> None:
    """Many times: what was written just before the exit was read, wherever it still was."""
    for n in range(soak(15, 500)):
        session = shell(rpc, f"printf 'last words {n}'")
        view = View(connect(), session, since="start")
        view.until_end()
        assert bytes(view.data) == b"last words %d" % n
        assert view.exit is not None
        assert view.exit["offset"] == len(view.data)


# --- several readers, and the shape of it all ------------------------------------------------------


def test_a_reply_does_not_wait_behind_output(rpc: Rpc, connect: Connect) -> None:
    """A burst of requests on a connection that reads floods more slowly than they come."""
    session = spawn(rpc, numbered_program(), scrollback_bytes=SMALLEST)
    client = connect()
    for _ in range(8):
        client.call("session.attach", id=session)
    wait_for_head(rpc, session, 4 * IN_FLIGHT)
    asked = range(1000, 1060)
    client.send_raw(b"".join(msgpack.packb([0, msgid, "session.list", []]) for msgid in asked))
    waiting, received = set(asked), 0
    while waiting:
        received += len(client.next_notification("session.output")[1]["data"])
        assert received < 8 * IN_FLIGHT, f"{len(waiting)} replies are still not there"
        time.sleep(0.002)
        for msgid in list(waiting):
            with suppress(TimeoutError):
                assert client.result(msgid, deadline_s=0)["complete"]
                waiting.discard(msgid)
    rpc.call("session.kill", id=session, force=True)


def test_many_attachments_on_one_connection(rpc: Rpc, connect: Connect) -> None:
    """All asked for in one packet; each gets the whole of its session."""
    client = connect()
    session = spawn_ready(rpc, "printf 0123456789; read x; exit 5")
    offset = wait_for_output(rpc, session, b"0123456789")
    whole = read_all(rpc, session)
    attach = ["session.attach", [{"id": session, "since": "start"}]]
    asked = range(1000, 1064)
    client.send_raw(b"".join(msgpack.packb([0, msgid, *attach]) for msgid in asked))
    numbers = [client.result(msgid)["attachment"] for msgid in asked]
    assert len(set(numbers)) == len(asked)
    assert rpc.call("session.get", id=session)["attached"] == len(asked)
    rpc.call("session.input", id=session, data=b"\n")
    got = dict.fromkeys(numbers, b"")
    over: set[int] = set()
    while len(over) < len(asked):
        method, params = client.next_notification()
        if method == "session.output":
            assert params["offset"] == len(got[params["attachment"]])
            got[params["attachment"]] += params["data"]
        elif method == "session.detached":
            over.add(params["attachment"])
    assert set(got.values()) == {whole}
    assert len(whole) == offset


def test_too_many_attachments(rpc: Rpc, connect: Connect) -> None:
    client = connect()
    session = spawn_ready(rpc, "exec sleep 1000")
    numbers = [client.call("session.attach", id=session)["attachment"] for _ in range(256)]
    with pytest.raises(RpcError) as caught:
        client.call("session.attach", id=session)
    assert caught.value.code == "too_many_attachments"
    client.call("session.detach", attachment=numbers[0])
    client.call("session.attach", id=session)
    rpc.call("session.kill", id=session, force=True)


def test_detach_is_the_last_word_of_an_attachment(rpc: Rpc, connect: Connect) -> None:
    client = connect()
    session = spawn(rpc, numbered_program(), scrollback_bytes=SMALLEST)
    view = View(client, session, since="start", numbered=True)
    view.step()
    client.call("session.detach", attachment=view.attachment)
    view.until_end()
    assert view.detached == "requested"
    with pytest.raises(RpcError) as caught:
        client.call("session.detach", attachment=view.attachment)
    assert caught.value.code == "not_found"
    wait_for_head(rpc, session, view.next_offset + IN_FLIGHT)
    # Only the answer: not another byte of output.
    client.call("daemon.stats")
    assert not client.notifications
    assert rpc.call("session.get", id=session)["attached"] == 0
    rpc.call("session.kill", id=session, force=True)


def test_attach_answers_as_the_protocol_says(rpc: Rpc, connect: Connect) -> None:
    session = spawn_ready(rpc, "exec sleep 1000", name="shown")
    answer: dict[str, Any] = connect().call("session.attach", id="shown")
    parse_map(RESULTS["session.attach"], answer)
    assert answer["session"]["attached"] == 1
    rpc.call("session.kill", id=session, force=True)


def test_P4_slow_clients_and_floods_delay_nobody(
    shared_runtime: RuntimeDir, rpc: Rpc, connect: Connect
) -> None:
    """Three floods with clients that never read, and one that asks for lists and never reads them."""
    floods = [spawn(rpc, numbered_program(), scrollback_bytes=SMALLEST) for _ in range(3)]
    deaf = [View(connect(), flood, since="start", flow=flow) for flood in floods for flow in ("skip", "pace")]
    glutton = connect()
    for _ in range(50):
        glutton.send("session.list", detail=True)
    assert len(deaf) == 6
    longest = 0.0
    for _ in range(soak(30, 1000)):
        begun = time.monotonic()
        victim = shell(rpc, "exec sleep 1000")
        assert victim in {row["id"] for row in rpc.call("session.list")["sessions"]}
        assert rpc.call("session.kill", id=victim, force=True)["outcome"] == "killed"
        longest = max(longest, time.monotonic() - begun)
    print(f"spawn, list and kill beside three floods: {longest * 1000:.0f} ms at most")
    assert longest < 5, "something was held up"
    for flood in floods:
        assert rpc.call("session.kill", id=flood, force=True)["outcome"] == "killed"
    assert processes.alive(shared_runtime.daemon_pid())


def resident_bytes(pid: int) -> int:
    """Return what the process has in memory of its own."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGESIZE")


def test_a_stopped_shim_holds_up_nobody_else(shared_runtime: RuntimeDir, rpc: Rpc, connect: Connect) -> None:
    session, other = spawn_ready(rpc, "exec cat"), spawn_ready(rpc, "exec cat")
    shim = shared_runtime.shim_pid(session)
    os.kill(shim, signal.SIGSTOP)
    try:
        client = connect()
        pending = client.send("session.input", id=session, data=b"later")
        resident = resident_bytes(shared_runtime.daemon_pid())
        for _ in range(400):
            client.notify("session.input", id=session, data=b"x" * (64 * KIB))
        _, refused = client.next_notification("session.input_refused")
        assert refused["code"] == "input_full"
        assert resident_bytes(shared_runtime.daemon_pid()) - resident < 16 * 1024 * KIB
        rows = {row["id"]: row for row in rpc.call("session.list", detail=True)["sessions"]}
        assert rows[session]["busy"] is True
        rpc.call("session.input", id=other, data=b"echo")
        wait_for_output(rpc, other, b"echo")
    finally:
        os.kill(shim, signal.SIGCONT)
    assert client.result(pending) == {"accepted": 5}
    wait_for_output(rpc, session, b"later")
    rpc.call("session.kill", id=session, force=True)
    rpc.call("session.kill", id=other, force=True)
