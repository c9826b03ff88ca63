"""Group S, starting: who may start, who may not, and what a dead or slow daemon leaves in the way."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ptyd import launch
from tests.support import processes
from tests.support.daemon import ROOT, RuntimeDir
from tests.support.rpc import Rpc, RpcError
from tests.support.sessions import read_all, wait_for_end, wait_for_output
from tests.support.waiting import soak, wait_until

ZYGOTE = [sys.executable, "-P", "-m", "ptyd.shim", "--foreground", "--runtime"]
EXIT_REFUSED = 4


def identity(runtime: RuntimeDir) -> str:
    found: str = (runtime.hello() or {})["daemon_id"]
    return found


# -- S7, S8 --------------------------------------------------------------------------------------------


def test_S7_socket_file_removed(daemon: RuntimeDir) -> None:
    before = identity(daemon)
    with daemon.connect() as rpc:
        for _ in range(3):
            daemon.socket.unlink()
            wait_until(daemon.socket.exists, 3, "the socket file comes back")
            assert identity(daemon) == before
        assert rpc.call("session.list")["complete"], "who was connected still is"


def test_S7_socket_file_of_a_shim_removed(daemon: RuntimeDir) -> None:
    """It comes back while a daemon watches, and the next daemon finds its session."""
    session = daemon.call("session.spawn", argv=["cat"])
    file = daemon.path / "sessions" / f"{session['id']}.sock"
    file.unlink()
    wait_until(file.exists, 3, "the shim binds it again")
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    [row] = daemon.call("session.list")["sessions"]
    assert (row["state"], row["pid"]) == ("running", session["pid"])


def test_S8_stale_socket_and_locks(daemon: RuntimeDir) -> None:
    """All files of a dead pair are there, and name pids that are somebody else's by now."""
    before = (daemon.hello() or {})["instance_id"]
    os.kill(daemon.daemon_pid(), signal.SIGSTOP)  # or it would tidy up when its zygote dies
    daemon.kill_zygote()
    daemon.kill_daemon()
    assert daemon.socket.exists()
    for name in ("lock", "zygote.lock"):
        (daemon.path / name).write_text(json.dumps({"pid": os.getpid(), "started_at_ms": 1}))
    launch.connect(str(daemon.path)).close()
    hello = daemon.hello() or {}
    assert (hello["instance_id"], hello["pid"] == daemon.daemon_pid()) == (before, True)
    assert daemon.call("session.list") == {"instance_id": before, "complete": True, "sessions": []}


def test_S8_slow_daemon_is_not_displaced(daemon: RuntimeDir) -> None:
    before = daemon.hello()
    with processes.stopped(daemon.daemon_pid()):
        with fill_backlog(daemon), pytest.raises(launch.Busy):
            launch.connect(str(daemon.path), deadline_s=0.3)
        refused = subprocess.run([*ZYGOTE, str(daemon.path)], env=daemon.env, capture_output=True, text=True)
        assert (refused.returncode, f"zygote {daemon.zygote_pid()}" in refused.stderr) == (EXIT_REFUSED, True)
    assert daemon.hello() == before


@contextlib.contextmanager
def fill_backlog(runtime: RuntimeDir) -> Iterator[None]:
    """Connect until the daemon, which accepts nobody, has no room for another."""
    with contextlib.ExitStack() as stack:
        while True:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            if sock.connect_ex(str(runtime.socket)) == errno.EAGAIN:
                break
        yield


def test_S8_slow_daemon_without_its_zygote(daemon: RuntimeDir) -> None:
    """Its successor waits for the lock; nobody takes it by force."""
    old = daemon.daemon_pid()
    with processes.stopped(old):
        daemon.kill_zygote()
        daemon.socket.unlink()  # so that a client starts a new pair instead of waiting
        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(launch.connect, str(daemon.path))
            new_zygote = daemon.zygote_pid()
            wait_until(lambda: processes.children(new_zygote), what="the successor waits")
            assert processes.state(old) == "T"
            assert not started.done()
            os.kill(old, signal.SIGCONT)
            started.result().close()
    assert (daemon.hello() or {})["pid"] == daemon.daemon_pid() != old


# -- S9 ------------------------------------------------------------------------------------------------


def test_S9_two_started_at_once(runtime: RuntimeDir) -> None:
    """The other says who serves. Neither leaves anything of its own behind."""
    runtime.was_wrecked = True
    for _ in range(soak(2, 50)):
        with start_zygote(runtime) as one, start_zygote(runtime) as other:
            loser = wait_until(lambda: next((p for p in (one, other) if p.poll() is not None), None))
            winner = other if loser is one else one
            said = loser.communicate()[1]
            assert loser.returncode == EXIT_REFUSED, said
            assert f"already served by zygote {winner.pid}" in said
            assert runtime.zygote_pid() == winner.pid
            assert processes.parent((runtime.hello() or {})["pid"]) == winner.pid
            assert runtime.stop()
            assert winner.wait(5) == 0


@contextlib.contextmanager
def start_zygote(runtime: RuntimeDir) -> Iterator[subprocess.Popen[str]]:
    command = [*ZYGOTE, str(runtime.path)]
    with subprocess.Popen(command, env=runtime.env, stderr=subprocess.PIPE, text=True) as zygote:
        try:
            yield zygote
        finally:
            zygote.kill()


def test_S9_many_clients_start_it_at_once(runtime: RuntimeDir) -> None:
    for _ in range(soak(2, 50)):
        with ThreadPoolExecutor(8) as pool:
            sockets = list(pool.map(lambda _: launch.connect(str(runtime.path)), range(8)))
        for sock in sockets:
            sock.close()
        assert runtime.find_zygote_pid() == processes.parent(runtime.daemon_pid())
        assert runtime.stop()


# -- S12 -----------------------------------------------------------------------------------------------


def spawn_error(rpc: Rpc, **params: Any) -> str:
    with pytest.raises(RpcError) as caught:
        rpc.call("session.spawn", argv=["sleep", "1000"], **params)
    return caught.value.code


def test_S12_fence_outlives_the_daemon(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc, pytest.raises(RpcError, match="not_found"):
        rpc.call("session.kill", id="late", generation=2)
    second = daemon.wait_for_new_daemon(daemon.kill_daemon())
    daemon.kill_zygote()
    wait_until(lambda: not processes.alive(second), what="the daemon steps down")
    launch.connect(str(daemon.path)).close()
    with daemon.connect() as rpc:
        assert spawn_error(rpc, id="late") == "fenced"
        assert spawn_error(rpc, id="late", generation=2) == "fenced"
        assert rpc.call("session.spawn", id="late", generation=3, argv=["true"])["generation"] == 3
        assert [row["id"] for row in rpc.call("session.list")["sessions"]] == ["late"]
        wait_for_end(rpc, "late")


def test_S12_spawn_overtaken_by_kill_and_restart(daemon: RuntimeDir) -> None:
    """The spawn is on its way to the zygote when its id is killed and the daemon dies."""
    token = f"token-{os.urandom(8).hex()}"
    with processes.stopped(daemon.zygote_pid()), daemon.connect() as rpc, daemon.connect() as other:
        rpc.send("session.spawn", id="late", argv=["sleep", "1000"], env={"TOKEN": token})
        wait_until(lambda: other.call("session.list")["sessions"], what="the spawn is under way")
        other.send("session.kill", id="late")
        wait_until((daemon.path / "sessions" / "late.fence").exists, what="the fence is written")
        old = daemon.kill_daemon()
    daemon.wait_for_new_daemon(old)
    with daemon.connect() as rpc:
        wait_until(lambda: rpc.call("session.list")["complete"])
        assert [row["state"] for row in rpc.call("session.list")["sessions"]] in ([], ["exited"])
        assert spawn_error(rpc, id="late") == "fenced"
        zygote = daemon.zygote_pid()
        wait_until(lambda: len(processes.children(zygote)) == 1, what="only the daemon is left")
    assert runs_nowhere(token)


def runs_nowhere(token: str) -> bool:
    """Tell that no process has the token in its environment."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if token.encode() in path.read_bytes():
                return False
    return True


def test_S12_kill_outlives_the_daemon(daemon: RuntimeDir) -> None:
    """The intent is on disk before anybody is signalled: the next daemon goes on with it."""
    session = daemon.call("session.spawn", argv=["sleep", "1000"])
    shim = daemon.shim_pid(session["id"])
    with processes.stopped(shim), daemon.connect() as rpc:
        rpc.send("session.kill", id=session["id"], force=True)
        wait_until((daemon.path / "sessions" / f"{session['id']}.fence").exists)
        old = daemon.kill_daemon()
    daemon.wait_for_new_daemon(old)
    with daemon.connect() as rpc:
        assert wait_for_end(rpc, session["id"])["exit"] == {"signal": signal.SIGKILL}


# -- S13 -----------------------------------------------------------------------------------------------

INSIDE = """
import os, sys, time
from ptyd import launch
path, go = sys.argv[1:]
print("inside", flush=True)
while go and not os.path.exists(go):
    time.sleep(0.01)
try:
    launch.connect(path).close()
    print("connected")
except launch.Nested as err:
    print("nested:", err)
"""


def run_inside(rpc: Rpc, path: Path, go: Path | str = "", **env: str) -> str:
    """Start a client of `path` inside a session; return the session's id."""
    argv = [sys.executable, "-P", "-c", INSIDE, str(path), str(go)]
    session: str = rpc.call("session.spawn", argv=argv, env={"PYTHONPATH": str(ROOT), **env}, cols=400)["id"]
    wait_for_output(rpc, session, b"inside")
    return session


def test_S13_client_inside_a_session(daemon: RuntimeDir, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with daemon.connect() as rpc:
        session = run_inside(rpc, other)
        wait_for_end(rpc, session)
        said = read_all(rpc, session).decode()
        assert "nested: this runs inside a session" in said
        assert "would die with it" in said
        assert not (other / "zygote.lock").exists()
        session = run_inside(rpc, daemon.path)
        wait_for_end(rpc, session)
        assert "connected" in read_all(rpc, session).decode(), "the running one is used"


def test_S13_client_inside_a_session_that_lost_its_daemon(daemon: RuntimeDir, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with daemon.connect() as rpc:
        session = run_inside(rpc, daemon.path, go)
    shim = daemon.shim_pid(session)
    daemon.kill_zygote()
    daemon.kill_daemon()
    go.touch()
    wait_until(lambda: daemon.record(session).get("ended"), what="the client inside gives up")
    assert processes.children(shim) == []
    assert (daemon.find_zygote_pid(), daemon.find_daemon_pid()) == (None, None)
    launch.connect(str(daemon.path)).close()
    with daemon.connect() as rpc:
        assert "nested: this runs inside a session" in read_all(rpc, session).decode()


def test_S13_insisting(daemon: RuntimeDir, tmp_path: Path) -> None:
    """PTYD_ALLOW_NESTED starts one below a session; it dies with that session, as it was told."""
    other = tmp_path / "other"
    with daemon.connect() as rpc:
        session = run_inside(rpc, other, PTYD_ALLOW_NESTED="1")
        wait_for_end(rpc, session, "exit")
        assert "connected" in read_all(rpc, session).decode()
        shim = daemon.shim_pid(session)
        assert len(processes.descendants(shim)) == 2
        assert rpc.call("session.kill", id=session, force=True)["proof"] == "echild"
