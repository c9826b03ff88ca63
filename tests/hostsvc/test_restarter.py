"""B42 on a real ptyd: a new generation under the same name, with back-off and a limit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.hostsvc.liar import DeceivedHost, Edit, Hold, Liar, Silence
from tests.hostsvc.places import SLEEPER, acts, editing, is_alive, peek, reap, serve, session, workspace
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import _SERVE, HostService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


QUICK = "import hostsvc.restart as restart\nrestart.FIRST_BACK_OFF_S = restart.LONGEST_BACK_OFF_S = 0.05\n"
PATIENT = (
    "import hostsvc.restart as restart\nrestart.FIRST_BACK_OFF_S = 3600\nrestart.LONGEST_BACK_OFF_S = 3600\n"
)
FAILS = "echo run >> ran; exit 3"
SECRET = "hunter2-hunter2"


def rows(host: HostService, id_: str) -> list[dict[str, Any]]:
    return peek(host, "SELECT * FROM sessions WHERE id = ? ORDER BY generation", id_)


def launches(host: HostService) -> list[dict[str, Any]]:
    return peek(host, "SELECT * FROM launches")


def waits(host: HostService) -> bool:
    return [one["due_at_ms"] is not None for one in launches(host)] == [True]


@pytest.fixture
def quick(host: HostService) -> HostService:
    host.code = QUICK + _SERVE
    return serve(host)


@pytest.fixture
def patient(host: HostService) -> HostService:
    host.code = PATIENT + _SERVE
    return serve(host)


def test_B42_on_failure_with_a_limit_that_is_told_once(quick: HostService) -> None:
    place = workspace(quick, id="w")
    with quick.connect() as rpc:
        rpc.call("events.subscribe")
        made = session(
            quick,
            "w",
            ["sh", "-c", FAILS],
            name="web",
            labels={"a": "b"},
            restart="on-failure",
            restart_limit=3,
        )
        told = rpc.next_notification("event")[1]
        generations = []
        while told["type"] != "session.restart_given_up":
            if told["type"] == "session.restarted":
                generations.append((told["generation"], told["restarts"]))
            told = rpc.next_notification("event")[1]
    assert generations == [(2, 1), (3, 2), (4, 3)]
    assert (told["id"], told["generation"]) == (made["id"], 4)
    assert Path(place["path"], "ran").read_text() == "run\n" * 4
    found = rows(quick, made["id"])
    assert [row["restarts"] for row in found] == [0, 1, 2, 3]
    assert {(row["name"], row["labels"], row["restart"]) for row in found} == {
        ("web", '{"a":"b"}', "on-failure")
    }
    assert launches(quick) == []
    assert quick.log.count("is not started again") == 1
    shown = [row for row in quick.call("session.list")["sessions"] if row["generation"] == 4]
    assert (shown[0]["restart"], shown[0]["restarts"]) == ("on-failure", 3)


def test_B42_what_ends_well_is_not_a_failure(quick: HostService) -> None:
    workspace(quick, id="w")
    made = session(quick, "w", ["true"], restart="on-failure")
    wait_until(lambda: launches(quick) == [], what="it was decided")
    assert len(rows(quick, made["id"])) == 1


def test_B42_always_starts_it_again_byte_for_byte(quick: HostService, tmp_path: Path) -> None:
    """Command, directory, environment and size, whatever bytes they have."""
    out = tmp_path / "out"
    script = 'printf "%s|%s|%s\\n" "$ODD" "$1" "$(pwd) $(stty size)" >> "$2"; sleep 100000'
    workspace(quick, id="w")
    made = session(
        quick,
        "w",
        [b"sh", b"-c", script.encode(), b"sh", b"\xfe\xff", os.fsencode(out)],
        cwd=str(tmp_path),
        env={"ODD": b"\xe9 \xff\n="},
        rows=33,
        cols=99,
        restart="always",
    )
    line = b"\xe9 \xff\n=|\xfe\xff|" + os.fsencode(tmp_path) + b" 33 99\n"
    wait_until(lambda: out.exists() and out.read_bytes() == line, what="it runs")
    processes.kill_and_wait(made["live"]["pid"])
    wait_until(lambda: out.read_bytes() == line * 2, what="it runs again")
    again = quick.runtime.call("session.get", id=made["id"])
    assert (again["generation"], again["state"]) == (2, "running")
    assert again["labels"]["hostsvc.workspace"] == "w"


@pytest.mark.parametrize("policy", ["on-failure", "always"])
def test_B42_what_is_disposed_of_never_restarts(quick: HostService, policy: str) -> None:
    workspace(quick, id="w")
    made = session(quick, "w", restart=policy)
    assert quick.call("session.dispose", id=made["id"])["status"] == "disposed"
    assert launches(quick) == []
    assert reap(quick)["state"] == "ok"
    assert len(rows(quick, made["id"])) == 1


def _dispose(host: HostService, id_: str) -> None:
    assert host.call("session.dispose", id=id_)["status"] == "exited", "it had ended before"


def _dispose_by_name(host: HostService, id_: str) -> None:
    assert host.call("session.dispose", id="named")["id"] == id_


def _delete(host: HostService, id_: str) -> None:
    host.call("workspace.delete", id="w")


@pytest.mark.parametrize("end", [_dispose, _dispose_by_name, _delete])
def test_B42_what_waits_for_its_restart_can_still_be_ended(
    patient: HostService, end: Callable[[HostService, str], None]
) -> None:
    workspace(patient, id="w")
    made = session(patient, "w", ["false"], restart="always", name="named")
    wait_until(lambda: waits(patient), what="its next start is written down")
    end(patient, made["id"])
    assert launches(patient) == []


def test_B42_the_time_of_the_next_start_survives_a_restart_of_the_service(patient: HostService) -> None:
    workspace(patient, id="w")
    made = session(patient, "w", ["false"], restart="always")
    wait_until(lambda: waits(patient), what="its next start is written down")
    due = launches(patient)[0]["due_at_ms"]
    patient.kill()
    serve(patient)
    assert launches(patient)[0]["due_at_ms"] == due
    assert len(rows(patient, made["id"])) == 1
    patient.stop()
    with editing(patient) as db:
        db.execute("UPDATE launches SET due_at_ms = 1")
    serve(patient)
    wait_until(lambda: len(rows(patient, made["id"])) == 2, what="it is due")


def test_B42_what_ended_while_nobody_looked_is_started_again(quick: HostService) -> None:
    workspace(quick, id="w")
    made = session(quick, "w", restart="on-failure")
    quick.kill()
    processes.kill_and_wait(made["live"]["pid"])
    serve(quick)
    wait_until(lambda: (quick.row(made["id"]) or {})["exit"] is not None, what="its end is entered")
    wait_until(lambda: len(rows(quick, made["id"])) == 2, what="it runs again")


def test_B42_without_ptyd_nothing_is_lost_and_nothing_counts(host: HostService) -> None:
    """There is nobody to start it: that is no failure of the session's."""
    host.code = PATIENT + "import hostsvc.restarter as restarter\nrestarter.LATER_MS = 50\n" + _SERVE
    serve(host)
    workspace(host, id="w")
    made = session(host, "w", ["false"], restart="always")
    wait_until(lambda: waits(host), what="its next start is written down")
    host.stop()
    with editing(host) as db:
        db.execute("UPDATE launches SET due_at_ms = 1")
    pid = host.runtime.daemon_pid()
    os.kill(pid, 19)
    try:
        host.code = "import hostsvc.app as app; app.WAIT_FOR_PTYD_S = 0.1\n" + host.code
        serve(host)
        wait_until(lambda: "could not be started again" in host.log, what="a start was tried")
        assert len(rows(host, made["id"])) == 1
    finally:
        os.kill(pid, 18)
    wait_until(lambda: len(rows(host, made["id"])) == 2, what="it runs again")
    assert rows(host, made["id"])[1]["restarts"] == 1


@pytest.fixture
def told(daemon: RuntimeDir) -> Iterator[tuple[Liar, HostService]]:
    with Liar(daemon.base / "liar", daemon.socket) as liar:
        host = DeceivedHost(liar, HostService(daemon))
        host.code = QUICK + host.code
        yield liar, serve(host)
        host.stop()


def test_B42_a_start_that_was_never_answered_counts_and_goes_on(told: tuple[Liar, HostService]) -> None:
    """Our own doubt is nobody's wish: it is ended, with proof, and the next generation is started."""
    liar, host = told
    workspace(host, id="w")
    made = session(host, "w", restart="always")
    liar.lies["session.spawn"] = Silence()
    processes.kill_and_wait(made["live"]["pid"])
    wait_until(lambda: len(rows(host, made["id"])) >= 2, what="a start was tried")
    liar.lies.clear()

    def runs() -> bool:
        newest = rows(host, made["id"])[-1]
        return bool(newest["status"] == "active" and newest["generation"] > 1)

    wait_until(runs, what="it runs again")
    statuses = [row["status"] for row in rows(host, made["id"])]
    assert statuses[0] == "exited"
    assert set(statuses[1:-1]) <= {"failed", "disposed"}, "fenced, before it came"
    assert len(host.runtime.call("session.list", state="running")["sessions"]) == 1


def test_B42_one_that_is_disposed_of_while_it_is_started_again_does_not_live(
    told: tuple[Liar, HostService],
) -> None:
    liar, host = told
    workspace(host, id="w")
    made = session(host, "w", restart="always")
    held = liar.lies["session.spawn"] = Hold("request")
    processes.kill_and_wait(made["live"]["pid"])
    held.wait_held()
    assert host.call("session.dispose", id=made["id"])["generation"] == 2
    liar.lies.clear()
    held.release.set()
    reap(host)
    assert launches(host) == []
    assert [row["status"] for row in rows(host, made["id"])][1:] in (["disposed"], ["failed"])
    assert host.runtime.call("session.list", state="running")["sessions"] == []


# Whoever disposes of the first generation does so only when the second is there.
_LATE = """
import trio
from hostsvc.disposal import Disposal
from hostsvc.store import sessions
dispose = Disposal.dispose
async def late(self, key, **how):
    while key[1] == 1 and (await self._index.read(sessions.find, key[0])).generation == 1:
        await trio.sleep(0.01)
    return await dispose(self, key, **how)
Disposal.dispose = late
"""


def test_B42_a_disposal_that_a_restart_has_overtaken_ends_the_new_one_too(host: HostService) -> None:
    host.code = QUICK + _LATE + _SERVE
    serve(host)
    workspace(host, id="w")
    made = session(host, "w", restart="always")
    with ThreadPoolExecutor() as threads:
        disposing = threads.submit(host.call, "session.dispose", id=made["id"])
        processes.kill_and_wait(made["live"]["pid"])
        answer = disposing.result(30)
    assert answer["generation"] == 2
    assert answer["status"] in ("disposed", "failed"), "failed: fenced, before it came"
    assert launches(host) == []
    assert host.runtime.call("session.list", state="running")["sessions"] == []


def test_B42_a_creation_that_was_never_answered_is_not_started_again(told: tuple[Liar, HostService]) -> None:
    liar, host = told
    workspace(host, id="w")
    liar.lies["session.spawn"] = Edit(lambda told: {**told, "id": 7})
    refused = host.error("session.create", workspace="w", argv=SLEEPER, restart="always")
    assert refused.code in ("protocol_violation", "ptyd_unreachable")
    liar.lies.clear()
    wait_until(lambda: launches(host) == [], what="it was decided")
    reap(host)
    assert len(peek(host, "SELECT * FROM sessions")) == 1


def test_what_is_kept_for_a_restart_is_shown_nowhere(patient: HostService) -> None:
    workspace(patient, id="w")
    with patient.connect() as rpc:
        rpc.call("events.subscribe")
        made = session(patient, "w", ["false"], env={"PASSWORD": SECRET}, restart="always")
        wait_until(lambda: waits(patient), what="its next start is written down")
        assert SECRET in launches(patient)[0]["spec"]
        answers = [patient.call(name) for name in ("session.list", "workspace.list", "passes", "health")]
        patient.call("session.dispose", id=made["id"])
        rpc.call("health")  # answered after what was told before
        answers.append(list(rpc.notifications))
    assert SECRET not in json.dumps(answers)
    assert SECRET not in patient.log
    assert SECRET not in json.dumps(peek(patient, "SELECT * FROM audit"))
    assert patient.index_path.stat().st_mode & 0o077 == 0


def test_B42_over_the_cap_it_waits_for_room(host: HostService) -> None:
    host.code = QUICK + "import hostsvc.restarter as restarter\nrestarter.LATER_MS = 50\n" + _SERVE
    serve(host, HOSTSVC_SESSIONS_PER_HOST="1")
    workspace(host, id="w")
    made = session(host, "w", restart="always")
    processes.kill_and_wait(made["live"]["pid"])
    wait_until(lambda: len(rows(host, made["id"])) == 2, what="it runs again, in its own place")
    assert acts(reap(host)) == {}
    assert not is_alive(made)


def test_the_command_starts_one_that_comes_back_and_tells_how_often(quick: HostService) -> None:
    workspace(quick, id="w")
    options = ["--restart", "always", "--restart-limit", "2"]
    made = quick.run("-q", "session", "new", "-w", "w", *options, "--", "true").stdout.strip()
    wait_until(lambda: len(rows(quick, made)) == 3 and launches(quick) == [], what="it is given up")
    shown = quick.run("session", "ls", "-a").stdout
    assert "started again 2 times" in shown
    refused = quick.run("session", "new", "-w", "w", "--restart", "sometimes", "--", "true")
    assert (refused.returncode, refused.stdout) == (2, "")
