"""Group K: killing with proof, on real processes, over the real socket."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc, RpcError
from tests.support.victim import NEEDS_MORE_THAN_HANGUP, Victim
from tests.support.waiting import soak, wait_until

pytestmark = pytest.mark.unmeasured


GRACE_MS = 200


@pytest.fixture
def rpc(daemon: RuntimeDir) -> Iterator[Rpc]:
    with daemon.connect() as rpc:
        rpc.call("hello", client="test", protocols=[1], errors="map")
        yield rpc


def spawn(rpc: Rpc, argv: list[str], **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = rpc.call("session.spawn", argv=argv, **params)
    return found


def spawn_victim(rpc: Rpc, tmp_path: Path, **kinds: Any) -> tuple[str, Victim]:
    victim = Victim(tmp_path / "victim", **kinds)
    session = spawn(rpc, victim.argv)
    victim.wait_up()
    return session["id"], victim


def test_K1_polite_victim(rpc: Rpc, tmp_path: Path) -> None:
    session, victim = spawn_victim(rpc, tmp_path)
    result = rpc.call("session.kill", id=session, grace_ms=GRACE_MS)
    assert victim.living() == {}
    assert (result["outcome"], result["proof"], result["phase"]) == ("killed", "echild", "kill")
    assert len(result["stragglers"]) >= len(NEEDS_MORE_THAN_HANGUP)
    assert {straggler["phase"] for straggler in result["stragglers"]} == {"terminate", "kill"}
    assert result["exit"] == {"signal": signal.SIGHUP}


def test_K2_rude_victim(rpc: Rpc, tmp_path: Path) -> None:
    session, victim = spawn_victim(rpc, tmp_path, rude=True)
    result = rpc.call("session.kill", id=session, grace_ms=GRACE_MS)
    assert victim.living() == {}
    assert (result["outcome"], result["proof"], result["phase"]) == ("killed", "echild", "kill")
    assert result["exit"] == {"signal": signal.SIGKILL}
    assert result["duration_ms"] >= 2 * GRACE_MS


@pytest.mark.parametrize("rude", [False, True])
def test_K3_forced(rpc: Rpc, tmp_path: Path, rude: bool) -> None:
    durations = []
    for n in range(soak(3, 50)):
        session, victim = spawn_victim(rpc, tmp_path / str(n), rude=rude)
        result = rpc.call("session.kill", id=session, force=True)
        assert victim.living() == {}
        assert (result["outcome"], result["phase"], result["stragglers"]) == ("killed", "kill", [])
        durations.append(result["duration_ms"])
    print(f"forced kill, rude={rude}: median {statistics.median(durations)} ms")


@pytest.mark.parametrize("force", [False, True])
def test_K4_storm_of_new_sessions(rpc: Rpc, tmp_path: Path, force: bool) -> None:
    session, victim = spawn_victim(rpc, tmp_path, storm=True)
    result = rpc.call("session.kill", id=session, grace_ms=GRACE_MS, force=force)
    assert victim.living() == {}
    assert result["outcome"] == "killed"


# Becomes another user, whom a ptyd without CAP_KILL may not signal, as sudo's root may not be by a user.
STRANGER = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.setsid()
os.setresuid(65534, 65534, 65534)
print(os.getpid(), flush=True)
while sys.argv[1] == "stay" or os.read(0, 100):
    signal.pause() if sys.argv[1] == "stay" else None
"""


@pytest.fixture
def unprivileged(runtime: RuntimeDir) -> Iterator[Rpc]:
    """A ptyd that may not signal other users' processes."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv: only root can make a process that we may not signal")
    drop = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"]
    subprocess.run(
        [*drop, sys.executable, "-P", "-m", "ptyd.shim", "--runtime", str(runtime.path)], check=True
    )
    with runtime.connect() as rpc:
        rpc.call("hello", client="test", protocols=[1], errors="map")
        yield rpc


def spawn_stranger(rpc: Rpc, what: str) -> tuple[str, int]:
    argv = [
        sys.executable,
        "-c",
        f"import subprocess, sys; subprocess.run({[sys.executable, '-c', STRANGER, what]!r})",
    ]
    session = spawn(rpc, argv)["id"]
    return session, int(rpc_read_line(rpc, session))


def test_K5_survivor_that_cannot_be_signalled(unprivileged: Rpc) -> None:
    rpc = unprivileged
    session, pid = spawn_stranger(rpc, "stay")
    with pytest.raises(RpcError) as caught:
        rpc.call("session.kill", id=session, force=True, deadline_s=30)
    assert caught.value.code == "kill_unconfirmed"
    [survivor] = caught.value.data["survivors"]
    assert (survivor["pid"], survivor["reason"]) == (pid, "not_permitted")
    assert survivor["command"]
    assert survivor["state"]
    [listed] = rpc.call("session.list")["sessions"]
    assert listed["state"] == "killing"
    os.kill(pid, signal.SIGKILL)
    again = rpc.call("session.kill", id=session)
    assert (again["proof"], rpc.call("session.get", id=session)["state"]) == ("echild", "exited")


def test_K13_a_stranger_is_hung_up(unprivileged: Rpc) -> None:
    """Nobody may signal it, but it reads the terminal: it ends as when a terminal window is closed."""
    session, pid = spawn_stranger(unprivileged, "read")
    result = unprivileged.call("session.kill", id=session, force=True)
    assert (result["outcome"], result["proof"]) == ("killed", "echild")
    assert not processes.alive(pid)


def rpc_read_line(rpc: Rpc, session: str) -> str:
    """Return the first line of a session's output."""
    data = b""
    while b"\n" not in data:
        data += rpc.call("session.read", id=session, offset=len(data), wait_ms=5000)["data"]
    return data.decode().splitlines()[0]


def test_K6_two_kills_at_once_have_one_result(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    session, victim = spawn_victim(rpc, tmp_path, rude=True)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(daemon.call, "session.kill", id=session, grace_ms=GRACE_MS) for _ in range(4)]
        results = [future.result() for future in asked]
    assert victim.living() == {}
    assert all(result == results[0] for result in results)
    assert results[0]["outcome"] == "killed"


def test_K6_ended_and_unknown(rpc: Rpc) -> None:
    session = spawn(rpc, ["sh", "-c", "exit 3"])["id"]
    rpc.call("session.wait", id=session, timeout_ms=5000)
    result = rpc.call("session.kill", id=session)
    assert (result["outcome"], result["exit"], result["proof"]) == ("already_exited", {"code": 3}, "echild")
    with pytest.raises(RpcError) as caught:
        rpc.call("session.kill", id="nobody")
    assert caught.value.code == "not_found"


def test_K7_leader_exits_and_children_linger(rpc: Rpc, tmp_path: Path) -> None:
    session, victim = spawn_victim(rpc, tmp_path, leave=7)
    rpc.call("session.wait", id=session, **{"for": "exit"}, timeout_ms=5000)
    found = rpc.call("session.get", id=session)
    assert (found["state"], found["processes"], found["exit"]) == ("lingering", 2, {"code": 7})
    result = rpc.call("session.kill", id=session, grace_ms=GRACE_MS)
    assert victim.living() == {}
    assert (result["outcome"], result["exit"]) == ("killed", {"code": 7})


def test_K7_on_leader_exit_kill(rpc: Rpc, tmp_path: Path) -> None:
    victim = Victim(tmp_path / "victim", leave=0)
    session = spawn(rpc, victim.argv, on_leader_exit="kill")["id"]
    rpc.call("session.wait", id=session, timeout_ms=10_000)
    assert rpc.call("session.get", id=session)["state"] == "exited"
    assert not any(processes.alive(int((victim.directory / role).read_text())) for role in victim.roles)


def test_K8_kill_overtakes_a_spawn(rpc: Rpc) -> None:
    with pytest.raises(RpcError):
        rpc.call("session.kill", id="early", generation=2)
    for generation in (1, 2):
        with pytest.raises(RpcError) as caught:
            spawn(rpc, ["sleep", "100"], id="early", generation=generation)
        assert caught.value.code == "fenced"
    assert spawn(rpc, ["sleep", "100"], id="early", generation=3)["state"] == "running"


def test_K8_kill_in_flight(rpc: Rpc) -> None:
    """Spawn and kill sent back to back: whatever their order inside, nothing is alive afterwards."""
    for n in range(soak(20, 1000)):
        spawned = rpc.send("session.spawn", id=f"s{n}", argv=["sleep", "1000"])
        killed = rpc.send("session.kill", id=f"s{n}", force=True)
        spawn_code, session = answer(rpc, spawned)
        assert spawn_code in ("ok", "fenced", "ended")
        kill_code, result = answer(rpc, killed)
        assert kill_code in ("ok", "not_found")
        assert result is None or result["outcome"] in ("killed", "already_exited")
        assert session is None or not processes.alive(session["pid"])


def answer(rpc: Rpc, msgid: int) -> tuple[str, dict[str, Any] | None]:
    """Return ("ok", result) or (the error's code, None)."""
    try:
        return "ok", rpc.result(msgid)
    except RpcError as err:
        return err.code, None


def test_K9_by_labels(rpc: Rpc) -> None:
    blue = {spawn(rpc, ["sleep", "100"], labels={"run": "blue", "n": str(n)})["id"] for n in range(5)}
    red = spawn(rpc, ["sleep", "100"], labels={"run": "red"})["id"]
    plain = spawn(rpc, ["sleep", "100"])["id"]
    results = rpc.call("session.kill", labels={"run": "blue"}, force=True)["results"]
    assert {result["id"] for result in results} == blue
    assert {result["outcome"] for result in results} == {"killed"}
    living = {row["id"] for row in rpc.call("session.list")["sessions"] if row["state"] == "running"}
    assert living == {red, plain}


@pytest.mark.parametrize("labels", [{}, {"run": "*"}, {"run": ""}, {"": "blue"}, {"*": "x"}])
def test_K9_careless_selectors_are_refused(rpc: Rpc, labels: dict[str, str]) -> None:
    session = spawn(rpc, ["sleep", "100"], labels={"run": "blue"})["id"]
    with pytest.raises(RpcError) as caught:
        rpc.call("session.kill", labels=labels)
    assert caught.value.code == "invalid_params"
    assert rpc.call("session.get", id=session)["state"] == "running"


def test_K10_output_of_the_graces_is_in_the_log(rpc: Rpc) -> None:
    words = (
        "trap 'echo hung-up' HUP; trap 'echo told-to-end; exit 5' TERM; echo up; while :; do sleep 0.01; done"
    )
    session = spawn(rpc, ["sh", "-c", words])["id"]
    rpc.call("session.wait", id=session, **{"for": {"match": b"up"}}, timeout_ms=5000)
    result = rpc.call("session.kill", id=session, grace_ms=GRACE_MS)
    assert result["exit"] == {"code": 5}
    data = rpc.call("session.read", id=session, offset=0)["data"]
    assert b"hung-up" in data
    assert b"told-to-end" in data


def test_K11_every_exit_code_and_signal(daemon: RuntimeDir, rpc: Rpc) -> None:
    codes = range(0, 256, soak(15, 1))
    ended = {spawn(rpc, ["sh", "-c", f"exit {code}"])["id"]: {"code": code} for code in codes}
    for n in (1, 2, 3, 6, 9, 11, 13, 15, 31, 34, 64):
        ended[spawn(rpc, ["sh", "-c", f"ulimit -c 0; kill -{n} $$; sleep 9"])["id"]] = {"signal": n}
    for session in ended:
        rpc.call("session.wait", id=session, timeout_ms=10_000)
    assert {row["id"]: row["exit"] for row in rpc.call("session.list")["sessions"]} == ended
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    assert {row["id"]: row["exit"] for row in daemon.call("session.list")["sessions"]} == ended


@pytest.mark.parametrize("multiplexer", ["tmux", "screen"])
def test_K12_a_multiplexer_inside_a_session(rpc: Rpc, tmp_path: Path, multiplexer: str) -> None:
    if shutil.which(multiplexer) is None:
        pytest.skip(f"{multiplexer} is not installed")
    pid_file = tmp_path / "pid"
    inner = f"echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    start = {
        "tmux": ["tmux", "-S", str(tmp_path / "tmux"), "new-session", "-d", inner],
        "screen": ["screen", "-dmS", "inner", "sh", "-c", inner],
    }[multiplexer]
    env = {"SCREENDIR": str(tmp_path)} if multiplexer == "screen" else {}
    tmp_path.chmod(0o700)
    outer = spawn(rpc, ["sh", "-c", '"$@"; sleep 1000', "sh", *start], env=env)["id"]
    wait_until(pid_file.exists, what="the inner program runs")
    result = rpc.call("session.kill", id=outer, grace_ms=GRACE_MS)
    assert result["outcome"] == "killed"
    assert not processes.alive(int(pid_file.read_text()))


def test_K12_a_ptyd_inside_a_session(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    inner = RuntimeDir()
    try:
        start = [sys.executable, "-P", "-m", "ptyd.shim", "--runtime", str(inner.path)]
        env = {key: value for key, value in inner.env.items() if key.startswith(("PTYD", "PYTHON", "PATH"))}
        outer = spawn(rpc, ["sh", "-c", '"$@"; exec sleep 1000', "sh", *start], env=env)["id"]
        wait_until(inner.serves, 15, "the inner ptyd serves")
        session = inner.call("session.spawn", argv=["sleep", "1000"])
        pids = [session["pid"], inner.shim_pid(session["id"]), inner.zygote_pid(), inner.daemon_pid()]
        assert rpc.call("session.kill", id=outer, grace_ms=GRACE_MS)["outcome"] == "killed"
        assert not any(processes.alive(pid) for pid in pids)
        assert daemon.serves()
    finally:
        inner.remove()


def test_K14_force_during_the_graces(daemon: RuntimeDir, rpc: Rpc, tmp_path: Path) -> None:
    session, victim = spawn_victim(rpc, tmp_path, rude=True)
    gentle = rpc.send("session.kill", id=session, grace_ms=60_000)
    wait_until(
        lambda: daemon.call("session.get", id=session)["state"] == "killing", what="the kill has begun"
    )
    begun = time.monotonic()
    forced = daemon.call("session.kill", id=session, force=True)
    assert time.monotonic() - begun < 20
    assert rpc.result(gentle) == forced
    assert victim.living() == {}
