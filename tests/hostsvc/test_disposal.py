"""Disposal: C1 to C8 on a real ptyd. `disposed` only with proof; all else leaves the row and the intent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostsvc.places import (
    DEAF,
    SLEEPER,
    editing,
    insert_session,
    is_alive,
    peek,
    reap,
    reap_until,
    row_of,
    serve,
    session,
    shell,
    workspace,
)
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.victim import Victim
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


IMPATIENT = {"HOSTSVC_KILL_DEADLINE_S": "1"}


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One service for all that need no other setting and no restart; each has a workspace of its own."""
    host = serve(HostService(shared_runtime))
    yield host
    host.stop()


def test_C1_confirmed_kill_is_disposed_with_evidence(served: HostService) -> None:
    host = served
    place = workspace(host)["id"]
    row = session(host, place)
    after = host.call("session.dispose", id=row["id"])
    assert not is_alive(row)
    assert (after["status"], after["kill_evidence"]["proof"]) == ("disposed", "echild")
    assert (after["attempts"], after["exit"], after["live"]["state"]) == (0, {"signal": 1}, "exited")
    assert after["dispose_requested_at_ms"] <= after["ended_at_ms"]
    again = host.call("session.dispose", id=row["id"], force=True)
    assert again == after, "what is over stays as it is"
    [audited] = peek(host, "SELECT * FROM audit WHERE subject = ? AND event = 'disposed'", row["id"])
    assert json.loads(audited["detail"])["evidence"]["proof"] == "echild"


def test_C2_unanswered_kill_changes_nothing_but_the_attempts(host: HostService) -> None:
    """The shim stands still, so its kill is neither done nor refused."""
    serve(host, **IMPATIENT)
    workspace(host, id="w")
    row, other = session(host, "w"), session(host, "w")
    shim = host.runtime.shim_pid(row["id"])
    os.kill(shim, signal.SIGSTOP)
    refused = host.error("session.dispose", id=row["id"])
    assert refused.code == "ptyd_unreachable"
    assert is_alive(row)
    kept = row_of(host, row["id"])
    assert (kept["status"], kept["kill_evidence"], kept["attempts"]) == ("active", None, 1)
    assert kept["dispose_requested_at_ms"]
    assert "did not answer the kill" in kept["last_error"]
    host.call("session.dispose", id=other["id"])
    assert not is_alive(other), "another lane is not held up"
    os.kill(shim, signal.SIGCONT)
    wait_until(lambda: row_of(host, row["id"])["status"] == "disposed", what="ptyd's kill is entered")
    assert not is_alive(row)
    assert row_of(host, row["id"])["dispose_requested_at_ms"] == kept["dispose_requested_at_ms"]


def test_C3_unreachable_daemon_changes_nothing_but_the_attempts(host: HostService) -> None:
    serve(host, **IMPATIENT)
    workspace(host, id="w")
    row = session(host, "w")
    daemon = host.runtime.daemon_pid()
    os.kill(daemon, signal.SIGSTOP)
    try:
        refused = host.error("session.dispose", id=row["id"], force=True)
        kept = row_of(host, row["id"])
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert refused.code == "ptyd_unreachable"
    assert (kept["status"], kept["kill_evidence"], kept["attempts"]) == ("active", None, 1)
    reap(host)
    assert row_of(host, row["id"])["status"] == "disposed"
    assert not is_alive(row)


def test_C4_ended_session_with_a_record_is_disposed_by_it(host: HostService) -> None:
    """Its end was asked for, and it came while nobody looked."""
    serve(host)
    workspace(host, id="w")
    intended, plain = (session(host, "w", ["sh", "-c", "read _; exit 3"])["id"] for _ in range(2))
    host.stop()
    for one in (intended, plain):
        host.runtime.call("session.input", id=one, data=b"\n")
        host.runtime.call("session.wait", id=one, timeout_ms=10_000)
    with editing(host) as db:
        db.execute("UPDATE sessions SET dispose_requested_at_ms = 1 WHERE id = ?", [intended])
    serve(host)
    after, ended = row_of(host, intended), row_of(host, plain)
    assert (after["status"], json.loads(after["exit"])) == ("disposed", {"code": 3})
    assert json.loads(after["kill_evidence"])["proof"] == "echild"
    assert (ended["status"], json.loads(ended["exit"])) == ("exited", {"code": 3})
    assert host.call("session.dispose", id=plain)["status"] == "exited", "what is over stays as it is"


def test_C4_unknown_to_ptyd_is_no_death(served: HostService) -> None:
    """Its record was dropped: only its processes' absence, seen twice and old enough, ends the row."""
    host = served
    place = workspace(host)["id"]
    row, unwanted = session(host, place), session(host, place)
    os.kill(host.pid, signal.SIGSTOP)  # it hears of the ends only when there is nothing to ask for any more
    for one in (row, unwanted):
        host.runtime.call("session.kill", id=one["id"], force=True)
        host.runtime.call("session.forget", id=one["id"])
    os.kill(host.pid, signal.SIGCONT)
    refused = host.error("session.dispose", id=unwanted["id"])
    assert (refused.code, refused.data["survivors"]) == ("kill_unconfirmed", [])
    kept = row_of(host, unwanted["id"])
    assert (kept["status"], kept["attempts"], kept["kill_evidence"]) == ("active", 1, None)
    found = reap(host)
    assert row_of(host, row["id"])["status"] == "active", "once is not enough"
    assert found["counts"]["done"] == 0
    reap_until(host, unwanted["id"], "bury done")
    after, lost = row_of(host, unwanted["id"]), row_of(host, row["id"])
    assert (after["status"], json.loads(after["kill_evidence"])["proof"]) == ("disposed", "processes_gone")
    assert lost["status"] == "lost", "nobody had asked for its end"


def test_C5_another_runtime_directory_proves_nothing(host: HostService, guard: processes.Guard) -> None:
    """As after sudo, cron or a logout: other shims, and ours live on where nobody looks."""
    serve(host, PTYD_RING_LINGER_S="0")  # its shims are to be gone when its sessions are
    workspace(host, id="w")
    # They have dropped the mark from their environment: only their pids tell that they live.
    wanted, unwanted = (session(host, "w", ["env", "-i", *SLEEPER]) for _ in range(2))
    host.stop()
    elsewhere = RuntimeDir()
    moved = HostService(elsewhere, **{name: host.settings[name] for name in host.settings})
    moved.state_dir, moved.base_dir = host.state_dir, host.base_dir
    try:
        serve(moved)
        refused = moved.error("session.dispose", id=unwanted["id"])
        assert refused.code == "wrong_instance"
        wait_until(lambda: row_of(host, unwanted["id"])["created_at_ms"] + 1500 < _now_ms(moved))
        for _ in range(3):
            found = reap(moved)
            assert (found["counts"]["done"], found["counts"]["observed"]) == (0, 0)
        assert is_alive(wanted)
        assert is_alive(unwanted)
        assert row_of(host, wanted["id"])["status"] == "active"
        assert row_of(host, unwanted["id"])["status"] == "active"
        for one in (wanted, unwanted):
            host.runtime.call("session.kill", id=one["id"], force=True)
        wait_until(lambda: reap(moved) and row_of(host, unwanted["id"])["status"] == "disposed")
        wait_until(lambda: reap(moved) and row_of(host, wanted["id"])["status"] == "lost")
    finally:
        moved.stop()
        elsewhere.stop()
        elsewhere.remove()


def _now_ms(host: HostService) -> int:
    return int(reap(host, dry_run=True)["started_at_ms"])


def test_C5_signs_of_life_and_of_death(host: HostService) -> None:
    """Another boot; shim and leader gone; something that carries the mark: believed at the second look."""
    serve(host).stop()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    born = {"shim_pid": 2**22 - 1, "shim_start": 2**40, "pid": 2**22 - 2, "pid_start": 2**40}
    with editing(host) as db:
        for name, fields in {
            "other-boot": {**born, "boot_id": "another"},
            "marked": {**born, "boot_id": boot_id},
            "unmarked": {**born, "boot_id": boot_id},
            "nobody-knows": {},
        }.items():
            insert_session(db, name, **fields, dispose_requested_at_ms=1)
        insert_session(db, "wanted", **born, boot_id="another")
    left = subprocess.Popen(["sleep", "100000"], env={"PATH": os.defpath, "PTYD_SESSION": "marked"})
    serve(host)
    assert {row["status"] for row in peek(host, "SELECT * FROM sessions")} == {"active"}
    reap_until(host, "unmarked", "bury done")
    assert _end_of(host, "unmarked") == ("disposed", "processes_gone")
    assert _end_of(host, "other-boot") == ("disposed", "other_boot")
    assert _end_of(host, "wanted") == ("lost", "other_boot")
    assert row_of(host, "wanted")["dispose_requested_at_ms"] is None
    assert row_of(host, "marked")["status"] == "active"
    left.kill()
    left.wait()
    reap_until(host, "marked", "bury done")
    assert _end_of(host, "marked") == ("disposed", "processes_gone")
    assert row_of(host, "nobody-knows")["status"] == "active", "who ran it was never told"


def _end_of(host: HostService, id_: str) -> tuple[str, str]:
    row = row_of(host, id_)
    return row["status"], json.loads(row["kill_evidence"])["proof"]


def test_C6_a_shell_that_ignores_hangups(served: HostService, tmp_path: Path) -> None:
    host = served
    place = workspace(host)["id"]
    row = shell(host, place, DEAF, tmp_path / "ready")
    after = host.call("session.dispose", id=row["id"])
    assert (after["status"], after["kill_evidence"]["proof"]) == ("disposed", "echild")
    assert not is_alive(row)


@pytest.mark.parametrize("rude", [False, True], ids=["K1", "K2"])
def test_C8_every_process_of_a_victim(served: HostService, tmp_path: Path, rude: bool) -> None:
    host = served
    place = workspace(host)["id"]
    victim = Victim(tmp_path / "victim", rude=rude)
    row = session(host, place, victim.argv)
    victim.wait_up()
    after = host.call("session.dispose", id=row["id"])
    assert victim.living() == {}
    assert (after["status"], after["kill_evidence"]["proof"]) == ("disposed", "echild")


def test_a_request_that_comes_twice_is_one_kill(served: HostService, tmp_path: Path) -> None:
    """The first request's time stays; force may be added while the kill is in its graces."""
    host = served
    place = workspace(host)["id"]
    row = shell(host, place, DEAF, tmp_path / "ready")
    with host.connect() as first:
        first.call("hello", client="tests", protocols=[1], errors="map")
        asked = [first.send("session.dispose", id=row["id"]) for _ in range(3)]
        answers = [first.result(msgid) for msgid in asked]
    assert all(answer == answers[0] for answer in answers)
    assert len(peek(host, "SELECT * FROM audit WHERE subject = ? AND event = 'disposed'", row["id"])) == 1


def test_dispose_of_what_is_not_there(served: HostService) -> None:
    host = served
    assert host.error("session.dispose", id="never").code == "not_found"
    place = workspace(host)["id"]
    row = session(host, place)
    assert host.error("session.dispose", id=row["id"], generation=2).code == "not_found"
    assert is_alive(row)
