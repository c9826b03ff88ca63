"""session.wait and session.read: what has happened already, what comes later, and what never will."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from ptyd.protocol.fields import parse_map
from ptyd.protocol.messages import RESULTS
from tests.daemon.conftest import Connect
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc, RpcError
from tests.support.sessions import (
    read_all,
    shell,
    spawn,
    spawn_ready,
    wait_for_end,
    wait_for_output,
)
from tests.support.stream import LINE_BYTES, expected, numbered_program
from tests.support.waiting import soak, wait_until

KIB = 1024


def wait(rpc: Rpc, session: str, what: Any, **params: Any) -> dict[str, Any]:
    """Wait, for at most ten seconds unless `params` says otherwise."""
    answer = rpc.call("session.wait", id=session, **{"for": what, "timeout_ms": 10_000, **params})
    parse_map(RESULTS["session.wait"], answer)
    found: dict[str, Any] = answer
    return found


def send_wait(rpc: Rpc, session: str, what: Any, **params: Any) -> int:
    return rpc.send("session.wait", id=session, **{"for": what, "timeout_ms": 10_000, **params})


def refused(rpc: Rpc, method: str, **params: Any) -> str:
    with pytest.raises(RpcError) as caught:
        rpc.call(method, **params)
    return caught.value.code


def settled(rpc: Rpc) -> None:
    """Return when the daemon has begun to serve everything sent before."""
    rpc.call("daemon.stats")


# --- exit and end ----------------------------------------------------------------------------------


def test_exit_and_end_of_one_that_ends_later(rpc: Rpc, connect: Connect) -> None:
    waiter = connect()
    session = spawn_ready(rpc, "read x; printf bye; exit 7")
    waits = {what: send_wait(waiter, session, what) for what in ("exit", "end")}
    default = waiter.send("session.wait", id=session)
    settled(waiter)
    rpc.call("session.input", id=session, data=b"\n")
    offset = len(b"ready\nbye")
    for what, msgid in waits.items():
        assert waiter.result(msgid) == {"event": what, "exit": {"code": 7}, "offset": offset}
    assert waiter.result(default)["event"] == "end"


def test_exit_and_end_of_one_that_has_ended(rpc: Rpc) -> None:
    session = shell(rpc, "printf bye; kill -9 $$")
    wait_for_end(rpc, session)
    for what in ("exit", "end"):
        assert wait(rpc, session, what) == {"event": what, "exit": {"signal": 9}, "offset": 3}
        assert wait(rpc, session, what, timeout_ms=0)["event"] == what


def test_the_exit_does_not_wait_for_the_end(rpc: Rpc, tmp_path: Path) -> None:
    go = tmp_path / "go"
    session = shell(rpc, f"trap '' HUP; (while [ ! -e {go} ]; do sleep 0.01; done; printf late) & exit 3")
    end = send_wait(rpc, session, "end")
    assert wait(rpc, session, "exit") == {"event": "exit", "exit": {"code": 3}, "offset": 0}
    assert rpc.call("session.get", id=session)["state"] == "lingering"
    go.touch()
    assert rpc.result(end) == {"event": "end", "exit": {"code": 3}, "offset": 4}


def test_a_wait_has_a_timeout(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "exec sleep 1000")
    for what in ("exit", "end", b"never", {"match": b"never"}, 100_000):
        params = {"id": session, "for": what, "timeout_ms": 20}
        assert refused(rpc, "session.wait", **params) == "timeout"
        assert refused(rpc, "session.wait", **{**params, "timeout_ms": 0}) == "timeout"
    rpc.call("session.kill", id=session, force=True)


def test_waits_of_a_client_that_has_left_are_gone(rpc: Rpc, connect: Connect) -> None:
    session = spawn_ready(rpc, "exec cat")
    for _ in range(20):
        leaver = connect()
        for what in ("end", b"never", 100_000):
            leaver.send("session.wait", id=session, **{"for": what})
        settled(leaver)
        leaver.close()
    rpc.call("session.input", id=session, data=b"x")
    wait_for_output(rpc, session, b"x")
    rpc.call("session.kill", id=session, force=True)


# --- bytes -----------------------------------------------------------------------------------------


def test_bytes_that_are_there_already(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "printf 'one two one'; exec sleep 1000")
    start = len(b"ready\n")
    wait_for_output(rpc, session, b"two one")
    assert wait(rpc, session, b"one") == {"event": "match", "exit": None, "offset": start + 3}
    assert wait(rpc, session, {"match": b"one"})["offset"] == start + 3
    assert wait(rpc, session, b"one", since=start)["offset"] == start + 3
    assert wait(rpc, session, b"one", since=start + 1)["offset"] == start + 11
    assert wait(rpc, session, b"o", since=start + 4)["offset"] == start + 7
    params = {"id": session, "for": b"one", "since": "live", "timeout_ms": 20}
    assert refused(rpc, "session.wait", **params) == "timeout"
    rpc.call("session.kill", id=session, force=True)


def test_bytes_that_come_one_at_a_time(rpc: Rpc, connect: Connect) -> None:
    """Across as many wake-ups as there are bytes, beside a false start."""
    session = spawn_ready(rpc, "exec cat")
    start = len(read_all(rpc, session))
    waiter = connect()
    words = b"nenenen-needle-"
    msgid = send_wait(waiter, session, b"nen-needle", since="live")
    settled(waiter)
    for n in range(len(words)):
        rpc.call("session.input", id=session, data=words[n : n + 1])
        wait_for_output(rpc, session, words[: n + 1], since=start)
    assert waiter.result(msgid)["offset"] == start + words.index(b"nen-needle") + len(b"nen-needle")
    rpc.call("session.kill", id=session, force=True)


def test_live_is_before_what_is_asked_for_next(rpc: Rpc) -> None:
    """A wait and the input that brings it about, in one packet: the answer cannot be missed."""
    session = spawn_ready(rpc, "exec cat")
    for n in range(soak(50, 2000)):
        word = b"<%d>" % n
        wait = {"id": session, "for": word, "since": "live", "timeout_ms": 5000}
        typed = {"id": session, "data": word}
        packets = [[0, 1000 + n, "session.wait", [wait]], [2, "session.input", [typed]]]
        rpc.send_raw(b"".join(map(msgpack.packb, packets)))
        assert rpc.result(1000 + n)["event"] == "match"
    rpc.call("session.kill", id=session, force=True)


@pytest.mark.parametrize("size", [1, 2, 1000, 4096])
@pytest.mark.parametrize("chunk", [1, 2])
def test_bytes_across_the_border_of_two_chunks(rpc: Rpc, tmp_path: Path, size: int, chunk: int) -> None:
    """Wherever a chunk of 64 KiB ends inside of them."""
    border = chunk * 64 * KIB
    needle = b"<" + b"x" * (size - 2) + b">" if size > 1 else b"!"
    for before in sorted({0, 1, size // 2, size - 1, size}):
        at = border - before
        stream = tmp_path / f"{before}"
        stream.write_bytes(b"." * at + needle + b"." * 1000)
        session = shell(rpc, f"stty raw; cat {stream}")
        assert wait(rpc, session, needle)["offset"] == at + size
        wait_for_end(rpc, session)
        assert wait(rpc, session, needle)["offset"] == at + size


def test_bytes_that_never_come(rpc: Rpc, connect: Connect) -> None:
    waiter = connect()
    session = spawn_ready(rpc, "read x; printf nearly; exit 0")
    msgid = send_wait(waiter, session, b"nearly there")
    settled(waiter)
    rpc.call("session.input", id=session, data=b"\n")
    with pytest.raises(RpcError) as caught:
        waiter.result(msgid)
    assert caught.value.code == "ended"
    assert refused(rpc, "session.wait", id=session, **{"for": b"nearly there"}) == "ended"
    assert wait(rpc, session, b"nearly")["offset"] == len(b"ready\nnearly")


def test_bytes_in_a_flood_are_found_or_the_flood_ends(rpc: Rpc) -> None:
    """Slower than the flood or not: what the ring still holds is looked through, and a gap joins nothing."""
    lines = 300_000
    session = spawn(rpc, numbered_program(lines), scrollback_bytes=64 * KIB)
    last = b"%015d\n" % (lines - 1)
    assert wait(rpc, session, last)["offset"] == lines * LINE_BYTES


def test_bytes_wanted_have_bounds(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "exec sleep 1000")
    for bad in (b"", b"x" * 4097, {"match": b""}, {}, {"match": 5}, "other", -1, 0, True, 1.5, [b"x"]):
        assert refused(rpc, "session.wait", id=session, **{"for": bad}) == "invalid_params", bad
    rpc.call("session.kill", id=session, force=True)


# --- quiet -----------------------------------------------------------------------------------------


def test_quiet_that_is_already_there(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "exec sleep 1000")
    found = wait(rpc, session, 30)
    assert found == {"event": "idle", "exit": None, "offset": len(b"ready\n")}
    rpc.call("session.kill", id=session, force=True)


def test_quiet_of_one_that_has_never_said_anything(rpc: Rpc) -> None:
    session = spawn(rpc, ["sleep", "1000"])
    assert wait(rpc, session, 30) == {"event": "idle", "exit": None, "offset": 0}
    rpc.call("session.kill", id=session, force=True)


def test_quiet_comes_after_the_last_output(rpc: Rpc) -> None:
    words = b"".join(b"%d," % n for n in range(20))
    session = shell(rpc, "i=0; while [ $i -lt 20 ]; do printf $i,; i=$((i+1)); sleep 0.02; done; sleep 1000")
    assert wait(rpc, session, 500)["offset"] == len(words)
    assert read_all(rpc, session) == words
    rpc.call("session.kill", id=session, force=True)


def test_quiet_of_the_dead_is_no_quiet(rpc: Rpc, connect: Connect) -> None:
    waiter = connect()
    session = spawn_ready(rpc, "read x")
    msgid = send_wait(waiter, session, 9_000)
    settled(waiter)
    rpc.call("session.input", id=session, data=b"\n")
    with pytest.raises(RpcError) as caught:
        waiter.result(msgid)
    assert caught.value.code == "ended"
    assert refused(rpc, "session.wait", id=session, **{"for": 10}) == "ended"


# --- reading ---------------------------------------------------------------------------------------


def test_read_in_pieces_to_the_end(rpc: Rpc) -> None:
    lines = 5000
    session = spawn(rpc, numbered_program(lines))
    offset, data = 0, b""
    while True:
        piece = rpc.call("session.read", id=session, offset=offset, max_bytes=7001, wait_ms=10_000)
        parse_map(RESULTS["session.read"], piece)
        assert piece["offset"] == offset
        assert piece["next"] == offset + len(piece["data"])
        data, offset = data + piece["data"], piece["next"]
        if piece["ended"]:
            break
        assert 0 < len(piece["data"]) <= 7001
    assert data == expected(0, lines * LINE_BYTES)


def test_read_waits_only_when_there_is_nothing(rpc: Rpc, connect: Connect) -> None:
    reader = connect()
    session = spawn_ready(rpc, "read x; printf more; read x")
    found = rpc.call("session.read", id=session, offset=0, wait_ms=10_000)
    assert found == {"offset": 0, "data": b"ready\n", "next": 6, "ended": False}
    nothing = {"offset": 6, "data": b"", "next": 6, "ended": False}
    assert rpc.call("session.read", id=session, offset=6) == nothing
    assert rpc.call("session.read", id=session, offset=6, wait_ms=20) == nothing
    msgid = reader.send("session.read", id=session, offset=6, wait_ms=10_000)
    settled(reader)
    rpc.call("session.input", id=session, data=b"\n")
    piece = reader.result(msgid)
    assert b"more".startswith(piece["data"])
    assert piece["data"]
    wait_for_output(rpc, session, b"more")
    msgid = reader.send("session.read", id=session, offset=10, wait_ms=10_000)
    settled(reader)
    rpc.call("session.input", id=session, data=b"\n")
    assert reader.result(msgid) == {"offset": 10, "data": b"", "next": 10, "ended": True}


def test_read_beyond_the_output_has_nothing_yet(rpc: Rpc) -> None:
    session = shell(rpc, "printf 0123456789")
    wait_for_end(rpc, session)
    found = rpc.call("session.read", id=session, offset=1000, wait_ms=10_000)
    assert (found["data"], found["ended"]) == (b"", True)
    for bad in (-1, "start", 1.0, None):
        assert refused(rpc, "session.read", id=session, offset=bad) == "invalid_params"
    for most in (0, -1, 256 * KIB + 1):
        assert refused(rpc, "session.read", id=session, offset=0, max_bytes=most) == "invalid_params"


def test_many_waits_on_one_session(rpc: Rpc, connect: Connect) -> None:
    session = spawn_ready(rpc, "exec cat")
    waiters = [connect() for _ in range(soak(5, 50))]
    asked = [
        (waiter, n, send_wait(waiter, session, b"<%d>" % n, since="live"))
        for waiter in waiters
        for n in range(50)
    ]
    for waiter in waiters:
        settled(waiter)
    for n in range(50):
        rpc.call("session.input", id=session, data=b"<%d>" % n)
    for waiter, _, msgid in asked:
        assert waiter.result(msgid)["event"] == "match"
    rpc.call("session.kill", id=session, force=True)


def test_a_long_look_through_the_output_holds_up_nobody(rpc: Rpc, connect: Connect) -> None:
    """Megabytes are looked through in many turns; and all of it even when there is no time to wait."""
    lines = soak(500_000, 4_000_000)
    session = spawn(rpc, numbered_program(lines), scrollback_bytes=64 * KIB * KIB)
    wait_for_end(rpc, session)
    last = b"%015d\n" % (lines - 1)
    asked = [send_wait(rpc, session, b"never") for _ in range(10)]
    found = wait(connect(), session, last, timeout_ms=0)
    assert found["offset"] == lines * LINE_BYTES
    for msgid in asked:
        with pytest.raises(RpcError):
            rpc.result(msgid)


# --- over a shim's death, and a daemon's -----------------------------------------------------------


def test_what_can_no_longer_come_without_a_shim(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc, daemon.connect() as waiter:
        session = shell(rpc, "trap '' HUP; echo ready; exec sleep 1000")  # outlives its terminal
        wait_for_output(rpc, session, b"ready")
        msgid = send_wait(waiter, session, b"never")
        end = send_wait(waiter, session, "end")
        settled(waiter)
        daemon.kill_shim(session)
        with pytest.raises(RpcError) as caught:
            waiter.result(msgid)
        assert caught.value.code == "unsupervised"
        assert refused(rpc, "session.wait", id=session, **{"for": b"never"}) == "unsupervised"
        assert wait(rpc, session, b"ready")["offset"] == len(b"ready")
        rpc.call("session.kill", id=session, force=True)
        assert waiter.result(end)["event"] == "end"


def test_an_ended_session_keeps_its_tail_without_a_shim(runtime: RuntimeDir) -> None:
    """Its ring is given back, also in the daemon; what the record keeps can still be read and waited for."""
    runtime.start(PTYD_RING_LINGER_S="0")
    lines = 10_000
    size = lines * LINE_BYTES
    with runtime.connect() as rpc:
        session = spawn(rpc, numbered_program(lines, exit_code=5))
        wait_for_end(rpc, session)
        wait_until(lambda: "ptyd-ring" not in maps(runtime), what="the daemon has let go of the ring")
        found = rpc.call("session.read", id=session, offset=0, max_bytes=256 * KIB)
        assert (found["offset"], found["next"], found["ended"]) == (size - 4096, size, True)
        assert found["data"] == expected(size - 4096, 4096)
        assert wait(rpc, session, b"%015d\n" % (lines - 1))["offset"] == size
        assert wait(rpc, session, "end") == {"event": "end", "exit": {"code": 5}, "offset": size}
        row = rpc.call("session.get", id=session)
        assert (row["output_offset"], row["scrollback_start"]) == (size, size - 4096)
    runtime.wait_for_new_daemon(runtime.kill_daemon())
    with runtime.connect() as rpc:
        found = rpc.call("session.read", id=session, offset=0, max_bytes=256 * KIB)
        assert found["data"] == expected(size - 4096, 4096)
        assert wait(rpc, session, "exit") == {"event": "exit", "exit": {"code": 5}, "offset": size}


def maps(runtime: RuntimeDir) -> str:
    return Path(f"/proc/{runtime.daemon_pid()}/maps").read_text()
