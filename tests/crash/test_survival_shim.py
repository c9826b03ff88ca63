"""Group S, S5: a shim is killed. Only its session is affected, and the zygote can still prove its death."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptyd import launch
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc, RpcError
from tests.support.sessions import wait_for_output
from tests.support.stream import check_numbered, numbered_program
from tests.support.victim import Victim
from tests.support.waiting import wait_until


@pytest.fixture
def rpc(daemon: RuntimeDir) -> Iterator[Rpc]:
    with open_rpc(daemon) as rpc:
        yield rpc


def open_rpc(runtime: RuntimeDir) -> Rpc:
    rpc = runtime.connect()
    rpc.call("hello", client="test", protocols=[1], errors="map")
    return rpc


def spawn_victim(rpc: Rpc, directory: Path, **kinds: Any) -> tuple[str, Victim]:
    victim = Victim(directory, **kinds)
    session_id = rpc.call("session.spawn", argv=victim.argv)["id"]
    victim.wait_up()
    return session_id, victim


def state(rpc: Rpc, session_id: str) -> str:
    found: str = rpc.call("session.get", id=session_id)["state"]
    return found


def wait_unsupervised(rpc: Rpc, *ids: str) -> None:
    for session_id in ids:
        wait_until(lambda session_id=session_id: state(rpc, session_id) == "unsupervised")  # type: ignore[misc]


def kill_shims_at_once(runtime: RuntimeDir, *ids: str) -> None:
    """Kill several shims so that the zygote learns of all in one go."""
    zygote = runtime.zygote_pid()
    os.kill(zygote, signal.SIGSTOP)
    try:
        wait_until(lambda: processes.state(zygote) == "T")
        for session_id in ids:
            runtime.kill_shim(session_id)
    finally:
        os.kill(zygote, signal.SIGCONT)


def test_S5_shim_killed(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    neighbour = rpc.call("session.spawn", argv=["cat"])
    session, victim = spawn_victim(rpc, tmp_path / "victim", rude=True)
    daemon.kill_shim(session)
    wait_unsupervised(rpc, session)
    listing = rpc.call("session.list")
    assert listing["complete"]
    assert {row["id"]: row["state"] for row in listing["sessions"]} == {
        session: "unsupervised",
        neighbour["id"]: "running",
    }
    assert victim.living(), "nothing was asked to die"
    for what, more in (("input", {"data": b"x"}), ("resize", {"rows": 9, "cols": 9})):
        with pytest.raises(RpcError) as caught:
            rpc.call(f"session.{what}", id=session, **more)
        assert caught.value.code == "unsupervised"
    result = rpc.call("session.kill", id=session, grace_ms=200)
    assert victim.living() == {}
    assert (result["outcome"], result["proof"]) == ("killed", "zygote_echild")
    assert result["exit"] == {"signal": signal.SIGKILL}
    assert (state(rpc, session), daemon.record(session)["proof"]) == ("exited", "zygote_echild")
    assert rpc.call("session.kill", id=session)["outcome"] == "already_exited"
    rpc.call("session.input", id=neighbour["id"], data=b"unharmed\n")
    wait_for_output(rpc, neighbour["id"], b"unharmed\r\nunharmed")
    assert rpc.call("session.get", id=neighbour["id"])["pid"] == neighbour["pid"]


def test_S5_output_up_to_then_is_readable(daemon: RuntimeDir, rpc: Rpc) -> None:
    argv = ["sh", "-c", '"$@"; exec sleep 1000', "sh", *numbered_program(3000)]
    session = rpc.call("session.spawn", argv=argv)["id"]
    wait_until(lambda: rpc.call("session.get", id=session)["output_offset"] == 48_000)
    daemon.kill_shim(session)
    wait_until(lambda: state(rpc, session) == "exited", what="the leader dies of the hang-up")
    found = rpc.call("session.read", id=session, offset=0, max_bytes=65536)
    assert (found["offset"], len(found["data"]), found["ended"]) == (0, 48_000, True)
    check_numbered(found["data"], 0)
    attached = rpc.call("session.attach", id=session, since=16_000)
    assert (attached["offset"], attached["truncated"]) == (16_000, 0)
    _, body = rpc.next_notification("session.end")
    assert (body["exit"], body["proof"], body["offset"]) == (
        {"signal": signal.SIGHUP},
        "zygote_echild",
        48_000,
    )


def test_S5_exit_status_is_kept(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    """The program ends by itself, after its shim and with another daemon; the zygote collects it."""
    go = tmp_path / "go"
    script = f"trap '' HUP; while ! test -e {go}; do sleep 0.01; done; exit 7"
    session = rpc.call("session.spawn", argv=["sh", "-c", script])["id"]
    daemon.kill_shim(session)
    wait_unsupervised(rpc, session)
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    with open_rpc(daemon) as rpc:
        assert state(rpc, session) == "unsupervised"
        go.touch()
        assert rpc.call("session.wait", id=session, timeout_ms=5000)["exit"] == {"code": 7}
        assert daemon.record(session)["proof"] == "zygote_echild"


def test_S5_leader_that_dies_with_its_shim(daemon: RuntimeDir, rpc: Rpc) -> None:
    """The zygote may find both dead at once."""
    session = rpc.call("session.spawn", argv=["sleep", "1000"])
    zygote = daemon.zygote_pid()
    os.kill(zygote, signal.SIGSTOP)
    try:
        daemon.kill_shim(session["id"])
        wait_until(lambda: not processes.alive(session["pid"]), what="the hang-up ends the leader")
    finally:
        os.kill(zygote, signal.SIGCONT)
    ended = rpc.call("session.wait", id=session["id"], timeout_ms=5000)
    assert ended["exit"] == {"signal": signal.SIGHUP}


def test_S5_two_shims_killed_at_once(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    """Each kill ends its own session's processes and nobody else's."""
    first, his = spawn_victim(rpc, tmp_path / "1", rude=True)
    second, hers = spawn_victim(rpc, tmp_path / "2", rude=True)
    kill_shims_at_once(daemon, first, second)
    wait_unsupervised(rpc, first, second)
    expected = hers.living()
    assert expected
    assert rpc.call("session.kill", id=first, force=True)["proof"] == "zygote_echild"
    assert his.living() == {}
    assert hers.living() == expected
    assert state(rpc, second) == "unsupervised"
    assert rpc.call("session.kill", id=second, force=True)["proof"] == "zygote_echild"
    assert hers.living() == {}


def test_S5_process_that_could_be_anybodys(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    """It left its session and its mark, and two shims die at once: nobody kills it, nobody denies it."""
    file = tmp_path / "pid"
    argv = [
        "sh",
        "-c",
        f"trap '' HUP; (setsid env -i sh -c 'echo $$ >{file}; exec sleep 1000' &); sleep 1000",
    ]
    first = rpc.call("session.spawn", argv=argv)["id"]
    second = rpc.call("session.spawn", argv=["sh", "-c", "trap '' HUP; echo up; sleep 1000"])["id"]
    wait_for_output(rpc, second, b"up")
    pid = int(wait_until(lambda: file.read_text() if file.exists() else ""))
    wait_until(lambda: processes.command(pid).startswith("sleep"))
    kill_shims_at_once(daemon, first, second)
    wait_unsupervised(rpc, first, second)
    for session in (first, second):
        with pytest.raises(RpcError) as caught:
            rpc.call("session.kill", id=session, force=True)
        assert caught.value.code == "kill_unconfirmed"
        assert [(s["pid"], s["reason"]) for s in caught.value.data["survivors"]] == [(pid, "unattributed")]
        assert processes.alive(pid)
        assert state(rpc, session) == "unsupervised"
    os.kill(pid, signal.SIGKILL)
    for session in (first, second):
        wait_until(lambda session=session: state(rpc, session) == "exited")  # type: ignore[misc]
        assert rpc.call("session.kill", id=session)["proof"] == "zygote_echild"


def test_S5_shim_and_daemon_killed(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    session, victim = spawn_victim(rpc, tmp_path / "victim", rude=True)
    old = daemon.kill_daemon()
    daemon.kill_shim(session)
    daemon.wait_for_new_daemon(old)
    with open_rpc(daemon) as rpc:
        wait_unsupervised(rpc, session)
        assert rpc.call("session.list")["complete"]
        assert rpc.call("session.kill", id=session, force=True)["proof"] == "zygote_echild"
        assert victim.living() == {}


def test_S5_killed_shim_under_a_kill(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    """The shim dies in the graces of a kill: the zygote goes on with it, and the same call gets the proof."""
    session, victim = spawn_victim(rpc, tmp_path / "victim", rude=True)
    asked = rpc.send("session.kill", id=session, grace_ms=300)
    with open_rpc(daemon) as other:
        wait_until(lambda: state(other, session) == "killing")
    daemon.kill_shim(session)
    result = rpc.result(asked)
    assert (result["outcome"], result["proof"]) == ("killed", "zygote_echild")
    assert victim.living() == {}


@pytest.mark.parametrize("zygote_first", [True, False])
def test_S5_shim_and_zygote_killed(daemon: RuntimeDir, tmp_path: Path, zygote_first: bool) -> None:
    """Nobody is left who could prove anything: a kill does what it can, and says so."""
    with open_rpc(daemon) as rpc:
        session, victim = spawn_victim(rpc, tmp_path / "victim", rude=True)
    old = daemon.daemon_pid()
    for kill in (daemon.kill_zygote, lambda: daemon.kill_shim(session))[:: 1 if zygote_first else -1]:
        kill()
    wait_until(lambda: not processes.alive(old), what="the daemon steps down")
    launch.connect(str(daemon.path)).close()
    with open_rpc(daemon) as rpc:
        wait_unsupervised(rpc, session)
        with pytest.raises(RpcError) as caught:
            rpc.call("session.kill", id=session, force=True)
        assert (caught.value.code, caught.value.data["reason"]) == ("kill_unconfirmed", "supervisor_lost")
        assert all(s["reason"] == "supervisor_lost" for s in caught.value.data["survivors"])
        # All that still carries the mark is gone; only what shed its environment may be left.
        wait_until(lambda: victim.living().keys() <= {"renamed"})
        assert state(rpc, session) == "unsupervised"
        assert "proof" not in daemon.record(session)
        rpc.call("daemon.stop")
    daemon.expect_leftovers("without zygote and shim, nobody can find every process")
