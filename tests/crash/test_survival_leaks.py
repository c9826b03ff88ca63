"""Group S, S10: many sessions come and go, and nothing of them is left in daemon and zygote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc, RpcError
from tests.support.waiting import soak, wait_until

BATCH = 20
# What is kept on purpose grows with the sessions until it is full: the newest 4096 events, and a fence for
# each of the newest 10 000 kills. Measured: 0.5 MB after 200 sessions, 2.8 MB after 4000.
SLACK_BYTES = 3 << 19
KEPT_BYTES = 450


def count_fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def private_bytes(pid: int) -> int:
    """Return the memory that only this process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def mapped_rings(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("ptyd-ring")


def run_batch(rpc: Rpc, watcher: Rpc) -> None:
    """Start and end sessions in every way there is; all are gone when this returns."""
    scripts = ["exit 3", "echo something; kill -9 $$", "sleep 1000", "sleep 1000 & exit 0"]
    asked = [rpc.send("session.spawn", argv=["sh", "-c", scripts[n % 4]]) for n in range(BATCH)]
    wrong = [rpc.send("session.spawn", argv=["/nonexistent"]), rpc.send("session.kill", id="unknown")]
    ids = [rpc.result(msgid)["id"] for msgid in asked]
    for msgid, code in zip(wrong, ("program_not_found", "not_found"), strict=True):
        with pytest.raises(RpcError, match=code):
            rpc.result(msgid)
    for session_id in ids[:3]:
        watcher.call("session.attach", id=session_id, since="start")
    killed = [rpc.send("session.kill", id=session_id, force=True) for session_id in ids]
    assert all(rpc.result(msgid)["proof"] == "echild" for msgid in killed)
    for _ in range(3):
        watcher.next_notification("session.detached")


def test_S10_nothing_is_left_of_many_sessions(runtime: RuntimeDir) -> None:
    kept, count = 40, soak(200, 10_000)
    runtime.start(PTYD_RING_LINGER_S="0", PTYD_KEEP_ENDED=str(kept))
    pair = {"zygote": runtime.zygote_pid(), "daemon": runtime.daemon_pid()}
    with runtime.connect() as rpc, runtime.connect() as watcher:
        for _ in range(5):  # fill what is kept on purpose
            run_batch(rpc, watcher)
        settle(pair, None)
        fds = {role: count_fds(pid) for role, pid in pair.items()}
        memory = {role: private_bytes(pid) for role, pid in pair.items()}
        for _ in range(count // BATCH):
            run_batch(rpc, watcher)
        settle(pair, fds)
        grown = {role: private_bytes(pid) - memory[role] for role, pid in pair.items()}
        print(f"grown by {count} sessions: {grown}")
        assert all(bytes_ < SLACK_BYTES + count * KEPT_BYTES for bytes_ in grown.values()), grown
        wait_until(lambda: len(rpc.call("session.list")["sessions"]) == kept, what=f"{kept} are kept")
    wait_until(lambda: len(files(runtime, ".json")) == kept, what=f"{kept} records are kept")
    wait_until(lambda: not strange_files(runtime), what="nothing but records and fences is left")


def files(runtime: RuntimeDir, suffix: str) -> list[str]:
    return [name for name in os.listdir(runtime.path / "sessions") if name.endswith(suffix)]


def strange_files(runtime: RuntimeDir) -> list[str]:
    names = os.listdir(runtime.path / "sessions")
    return [name for name in names if not name.endswith((".json", ".fence"))]


def settle(pair: dict[str, int], fds: dict[str, int] | None) -> None:
    """Wait until every shim has left and its descriptors with it."""
    zygote, daemon = pair["zygote"], pair["daemon"]
    wait_until(lambda: processes.children(zygote) == [daemon], 15, "only the daemon is left below the zygote")
    wait_until(lambda: mapped_rings(daemon) == 0, what="every ring is given back")
    if fds is not None:
        wait_until(
            lambda: {role: count_fds(pid) for role, pid in pair.items()} == fds, what=f"descriptors {fds}"
        )
