"""Labelled runs on real sessions and a real ptyd: group D of the acceptance, each case by its number.

The gate, and what several kinds share, is tested with the engine; here it is seen to stand before runs too.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostsvc.liar import DeceivedHost, Edit, Hold, Liar, Refuse, Silence
from tests.hostsvc.places import (
    OWNER,
    SLEEPER,
    acts,
    editing,
    is_alive,
    owner_of,
    peek,
    reap,
    reap_until,
    row_of,
    serve,
    session,
    stray,
    workspace,
)
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.repos import Repository
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


RUNS = {"kinds": ["runs"]}
SOON = {"HOSTSVC_RUN_AGE_S": "1"}
Deceived = tuple[Liar, HostService]
Holder = subprocess.Popen[bytes]
FUTURE_MS = 4_000_000_000_000


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One service for all that need no other setting and no restart."""
    host = serve(HostService(shared_runtime), **SOON)
    workspace(host, id="w")
    yield host
    host.stop()


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds runs."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def deceived(daemon: RuntimeDir) -> Iterator[tuple[Liar, HostService]]:
    """A service, not started yet, whose ptyd may lie."""
    with Liar(daemon.base / "liar", daemon.socket) as liar:
        host = DeceivedHost(liar, HostService(daemon))
        yield liar, host
        liar.lies.clear()
        host.stop()


def die(holder: Holder) -> None:
    """SIGKILL, as nobody can foresee it."""
    holder.kill()
    holder.wait()


def state(host: HostService, run: str) -> str:
    return str(host.call("run.get", id=run)["state"])


def sweep_until(host: HostService, subject: str, act: str) -> dict[str, Any]:
    return reap_until(host, f"sessions/{subject}", act, **RUNS)


# -- ending exactly one ----------------------------------------------------------------------------


def test_D1_and_D2_ending_a_run_ends_exactly_its_sessions(served: HostService) -> None:
    host = served
    for run in ("a", "b"):
        host.call("run.start", id=run)
    rows: dict[str, list[dict[str, Any]]] = {"a": [], "b": [], "": []}
    for _ in range(3):
        for run, made in rows.items():
            made.append(session(host, "w", **({"run": run} if run else {})))
    foreign = stray(host, "looks-like-a", run="a")
    another = stray(host, "anothers-a", run="a", **{OWNER: "another"})
    answer = host.call("run.end", id="a")
    assert (answer["state"], answer["ended"], answer["failed"], answer["warnings"]) == ("complete", 3, 0, [])
    assert answer["run"]["state"] == "ended"
    assert not any(map(is_alive, rows["a"]))
    assert all(map(is_alive, rows["b"] + rows[""]))
    assert processes.alive(foreign), "the label alone is nobody's consent"
    assert processes.alive(another)
    assert {row_of(host, row["id"])["status"] for row in rows["a"]} == {"disposed"}
    assert reap(host, **RUNS)["acts"] == []
    host.call("run.end", id="b")
    assert all(map(is_alive, rows[""]))
    for one in ("looks-like-a", "anothers-a"):
        host.runtime.call("session.kill", id=one, force=True)
    for row in rows[""]:
        host.call("session.dispose", id=row["id"], force=True)


def test_a_session_of_a_run_says_so(served: HostService) -> None:
    host = served
    host.call("run.start", id="labelled")
    row = session(host, "w", ["sh", "-c", "echo $HOSTSVC_RUN $HOSTSVC_OWNER; sleep 1000"], run="labelled")
    assert row["run"] == "labelled"
    seen = host.runtime.call("session.get", id=row["id"])
    assert seen["labels"]["run"] == "labelled"
    told = host.runtime.call(
        "session.wait", id=row["id"], **{"for": owner_of(host).encode(), "since": "start"}
    )
    assert told["event"] == "match"
    assert host.call("run.get", id="labelled")["sessions"] == 1
    host.call("run.end", id="labelled")


def test_twice_is_once_and_two_at_once_are_one(served: HostService) -> None:
    host = served
    host.call("run.start", id="twice")
    row = session(host, "w", run="twice")
    answers: list[dict[str, Any]] = []
    ends = [
        threading.Thread(target=lambda: answers.append(host.call("run.end", id="twice"))) for _ in range(3)
    ]
    for end in ends:
        end.start()
    for end in ends:
        end.join()
    assert {answer["state"] for answer in answers} == {"complete"}
    assert sum(answer["ended"] for answer in answers) == 1
    assert not is_alive(row)
    again = host.call("run.end", id="twice")
    assert (again["state"], again["ended"], again["run"]["state"]) == ("complete", 0, "ended")


@pytest.mark.parametrize("params", [{"id": ""}, {"id": "*"}, {}, {"id": None}, {"id": "a b"}, {"id": ["a"]}])
def test_D3_no_run_is_ended_by_a_value_that_names_none(served: HostService, params: dict[str, Any]) -> None:
    host = served
    assert host.error("run.end", **params).code == "invalid_params"
    assert host.error("run.end", id="never-was").code == "not_found"


def test_the_label_is_not_set_by_hand(served: HostService) -> None:
    host = served
    for method, params in (
        ("session.create", {"workspace": "w", "argv": SLEEPER}),
        ("workspace.create", {"id": "by-hand"}),
        ("workspace.update", {"id": "w"}),
    ):
        assert host.error(method, labels={"run": "a"}, **params).code == "invalid_params"


def test_D4_nothing_is_ever_listed_without_a_label(deceived: Deceived) -> None:
    liar, host = deceived
    serve(host, **SOON)
    workspace(host, id="w")
    host.call("run.start", id="a")
    session(host, "w", run="a")
    liar.asked.clear()
    host.call("run.end", id="a")
    listed = [params for method, params in liar.asked if method == "session.list"]
    assert listed, "a last look"
    assert all(params["labels"] == {OWNER: owner_of(host), "run": "a"} for params in listed)


# -- late spawns -----------------------------------------------------------------------------------


def test_D5_an_ended_run_refuses_late_spawns(served: HostService) -> None:
    host = served
    host.call("run.start", id="late")
    session(host, "w", run="late")
    host.call("run.end", id="late")
    refused = host.error("session.create", workspace="w", argv=SLEEPER, run="late")
    assert refused.code == "destroyed"
    assert host.error("session.create", workspace="w", argv=SLEEPER, run="unborn").code == "not_found"
    assert host.error("run.start", id="late").code == "destroyed"
    host.call("run.start", id="once")
    assert host.error("run.start", id="once").code == "exists"
    assert peek(host, "SELECT id FROM sessions WHERE run = 'late' AND status <> 'disposed'") == []


def test_D5_from_the_moment_that_its_end_was_asked_for(deceived: Deceived) -> None:
    """A kill that nobody answers: the run is `ending`, refuses, is retried by the sweep, and then over."""
    liar, host = deceived
    serve(host, HOSTSVC_KILL_DEADLINE_S="1", **SOON)
    workspace(host, id="w")
    host.call("run.start", id="a")
    row = session(host, "w", run="a")
    liar.lies["session.kill"] = Silence()
    answer = host.call("run.end", id="a")
    assert (answer["state"], answer["failed"], answer["run"]["state"]) == ("partial", 1, "ending")
    assert row["id"] in answer["warnings"][0]
    assert host.error("session.create", workspace="w", argv=SLEEPER, run="a").code == "being_deleted"
    assert is_alive(row)
    host.kill()  # the intent is on the disk
    liar.lies.clear()
    serve(host, HOSTSVC_KILL_DEADLINE_S="5", **SOON)
    wait_until(lambda: not is_alive(row), what="the first pass has ended it")
    reap(host)
    assert state(host, "a") == "ended"


def test_D5_a_spawn_that_meets_the_end_is_ended(deceived: Deceived) -> None:
    liar, host = deceived
    host.code = host.code.replace("SPAWN_DEADLINE_S = 0.5", "SPAWN_DEADLINE_S = 20")
    serve(host, **SOON)
    workspace(host, id="w")
    host.call("run.start", id="a")
    hold = liar.lies["session.spawn"] = Hold("answer")
    refused: list[str] = []
    spawning = threading.Thread(
        target=lambda: refused.append(host.error("session.create", workspace="w", argv=SLEEPER, run="a").code)
    )
    spawning.start()
    hold.wait_held()
    host.call("run.end", id="a")
    hold.release.set()
    spawning.join()
    liar.lies.clear()
    assert refused == ["being_deleted"]
    reap(host)
    left = host.runtime.call("session.list", labels={"run": "a"})["sessions"]
    assert [one for one in left if one["state"] != "exited"] == []
    reap(host)
    assert state(host, "a") == "ended"


def test_D5_what_waits_to_be_started_again_is_not(served: HostService) -> None:
    host = served
    host.call("run.start", id="again")
    lasting = session(host, "w", run="again", restart="always")
    brief = session(host, "w", ["false"], run="again", restart="always")
    wait_until(lambda: row_of_all(host, brief["id"], "exited"), what="it has ended by itself")
    host.call("run.end", id="again")
    wait_until(lambda: peek(host, "SELECT * FROM launches") == [], what="nobody starts them again")
    assert peek(host, "SELECT id FROM sessions WHERE run = 'again' AND ended_at_ms IS NULL") == []
    assert not is_alive(lasting)
    wait_until(lambda: reap(host, **RUNS) and state(host, "again") == "ended")


def row_of_all(host: HostService, id_: str, status: str) -> list[dict[str, Any]]:
    return peek(host, "SELECT id FROM sessions WHERE id = ? AND status = ?", id_, status)


# -- the sweep -------------------------------------------------------------------------------------


def test_D6_a_holder_that_was_killed_is_found_after_the_age_and_not_before(
    host: HostService, holder: Holder
) -> None:
    serve(host, HOSTSVC_RUN_AGE_S="3")
    workspace(host, id="w")
    host.call("run.start", id="held", holder_pid=holder.pid)
    old = session(host, "w", run="held")
    kept = session(host, "w")
    for _ in range(3):
        assert reap(host, **RUNS)["kept"]["runs"] == {"its run goes on": 1}
    die(holder)
    found = reap(host, **RUNS)
    assert found["counts"]["observed"] == 1
    assert is_alive(old), "it is younger than the age"
    done = sweep_until(host, old["id"], "end done")
    [act] = done["acts"]
    assert (act["basis"], act["reason"]) == ("absence", "its run's holder is gone")
    born_ms = row_of(host, old["id"])["created_at_ms"]
    assert done["started_at_ms"] - born_ms >= 3000
    assert not is_alive(old)
    assert is_alive(kept)
    assert row_of(host, old["id"])["status"] == "disposed"
    assert host.error("session.create", workspace="w", argv=SLEEPER, run="held").code == "being_deleted"
    assert acts(reap(host, **RUNS)) == {"run/held": "settle done"}
    assert state(host, "held") == "ended"


def test_a_deadline_and_a_run_that_nobody_knows(served: HostService) -> None:
    host = served
    with host.connect() as rpc:
        rpc.result(rpc.send("run.start", id="short", deadline_s=1))
    row = session(host, "w", run="short")
    unknown = stray(host, "unknown", run="no-such-run", **{OWNER: owner_of(host)})
    assert sweep_until(host, row["id"], "end done")
    assert not is_alive(row)
    wait_until(lambda: reap(host, **RUNS) and not processes.alive(unknown), what="nobody knows its run")


def test_a_holder_is_known_by_its_start_and_boot(host: HostService, holder: Holder) -> None:
    """A pid that is somebody else's by now holds nothing."""
    serve(host, **SOON)
    for run in ("held", "recycled", "rebooted"):
        host.call("run.start", id=run, holder_pid=holder.pid)
    host.call("run.start", id="free")
    host.stop()
    with editing(host) as db:
        db.execute("UPDATE runs SET holder_start = holder_start - 1 WHERE id = 'recycled'")
        db.execute("UPDATE runs SET boot_id = 'another' WHERE id = 'rebooted'")
    serve(host, **SOON)
    reap_until(host, "run/recycled", "bury done", **RUNS)
    assert {run: state(host, run) for run in ("held", "recycled", "rebooted", "free")} == {
        "held": "open",
        "recycled": "ended",
        "rebooted": "ended",
        "free": "open",
    }
    assert host.error("run.start", holder_pid=2**22).code == "not_found"


def aged(change: Callable[[dict[str, Any]], None]) -> Edit:
    """A lie about every session that carries a run."""

    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        for one in answer.get("sessions", [answer]):
            if "run" in one.get("labels", {}):
                change(one)
        return answer

    return Edit(edit)


def test_D7_and_D8_age_is_from_creation_and_a_future_one_is_kept(deceived: Deceived, holder: Holder) -> None:
    liar, host = deceived
    serve(host, **SOON)
    workspace(host, id="w")
    host.call("run.start", id="held", holder_pid=holder.pid)
    row = session(host, "w", run="held")
    die(holder)
    lie = aged(lambda one: one.update(created_at_ms=FUTURE_MS))
    liar.lies |= {"session.list": lie, "session.get": lie}
    for _ in range(5):
        found = reap(host, **RUNS)
        assert (found["acts"], found["state"]) == ([], "ok")
        assert found["kept"]["runs"] == {"its creation lies in the future": 1}
    assert is_alive(row)
    liar.lies.clear()
    sweep_until(host, row["id"], "end done")


def test_what_is_young_outlives_the_sweep_of_its_run(deceived: Deceived, holder: Holder) -> None:
    """That a run was given up is nobody's intent: each thing is judged by its own age."""
    liar, host = deceived
    serve(host, HOSTSVC_RUN_AGE_S="3600")
    workspace(host, id="w")
    host.call("run.start", id="held", holder_pid=holder.pid)
    old, young = session(host, "w", run="held"), session(host, "w", run="held")
    die(holder)
    grown = {old["id"]}
    lie = aged(lambda one: one.update(created_at_ms=1) if one["id"] in grown else None)
    liar.lies |= {"session.list": lie, "session.get": lie}
    sweep_until(host, old["id"], "end done")
    for _ in range(3):
        assert reap(host)["acts"] == []
    assert is_alive(young)
    assert row_of(host, young["id"])["dispose_requested_at_ms"] is None
    assert state(host, "held") == "ending"
    grown.add(young["id"])
    sweep_until(host, young["id"], "end done")


def crowd(host: HostService, holder: Holder, many: int) -> list[dict[str, Any]]:
    """Sessions of a run whose holder is gone, old enough and seen once."""
    workspace(host, id="w")
    host.call("run.start", id="held", holder_pid=holder.pid)
    rows = [session(host, "w", run="held") for _ in range(many)]
    die(holder)
    return rows


def refused(host: HostService, **params: Any) -> dict[str, Any]:
    """Run passes until one is refused."""
    return wait_until(
        lambda: found if (found := reap(host, **RUNS, **params))["state"] == "refused" else None,
        what="a pass is refused",
    )


def test_D9_more_than_the_cap_and_nothing_is_removed(host: HostService, holder: Holder) -> None:
    """D11: a dry run shows the same plan and does nothing. Accepting exactly that plan does it."""
    serve(host, HOSTSVC_INFERRED_CAP="2", **SOON)
    rows = crowd(host, holder, 3)
    found = refused(host)
    assert found["refusals"] == ["runs: 3 at once, more than 2"]
    assert set(acts(found).values()) == {"end refused"}
    assert all(map(is_alive, rows))
    assert state(host, "held") == "open"
    command = host.run("run", "sweep")
    assert command.returncode == 4, command
    assert f"hostsvc run sweep --accept {found['plan_hash']}" in command.stderr
    rehearsed = reap(host, dry_run=True, **RUNS)
    assert (rehearsed["plan_hash"], acts(rehearsed)) == (found["plan_hash"], acts(found))
    assert all(map(is_alive, rows))
    assert host.run("run", "sweep", "--accept", "0123456789abcdef").returncode == 4
    assert all(map(is_alive, rows))
    assert host.run("run", "sweep", "--accept", found["plan_hash"]).returncode == 0
    assert not any(map(is_alive, rows))


def test_D10_more_than_half_and_at_least_five(host: HostService, holder: Holder) -> None:
    serve(host, **SOON)
    rows = crowd(host, holder, 5)
    found = refused(host)
    assert found["refusals"] == ["runs: 5 of 5, more than 50% of all"]
    assert all(map(is_alive, rows))
    host.call("run.start", id="others")
    for _ in range(5):
        session(host, "w", run="others")
    assert reap(host, **RUNS)["counts"]["done"] == 5, "half of ten is not more than half"
    assert not any(map(is_alive, rows))


def test_D12_what_cannot_be_seen_is_an_error_and_never_clean(deceived: Deceived, holder: Holder) -> None:
    liar, host = deceived
    serve(host, **SOON)
    rows = crowd(host, holder, 1)
    reap(host, **RUNS)
    liar.lies["session.list"] = Refuse("internal")
    found = reap(host, **RUNS)
    assert (found["state"], found["acts"]) == ("error", [])
    assert "sessions:" in found["errors"]["runs"]
    assert host.run("run", "sweep").returncode == 1
    assert host.call("health")["status"] == "yellow"
    liar.lies["session.list"] = Edit(lambda answer: {**answer, "complete": False})
    assert reap(host, **RUNS)["state"] == "error"
    ended = host.call("run.end", id="held")
    assert (ended["state"], ended["run"]["state"]) == ("partial", "ending"), "a last look is owed"
    liar.lies.clear()
    assert not any(map(is_alive, rows))
    assert acts(reap(host, **RUNS)) == {"run/held": "settle done"}


def test_D13_seven_of_ten_is_partial(deceived: Deceived, holder: Holder) -> None:
    liar, host = deceived
    serve(host, HOSTSVC_INFERRED_SHARE="1", HOSTSVC_KILL_DEADLINE_S="5", **SOON)
    rows = crowd(host, holder, 10)
    deaf = {row["id"] for row in rows[:3]}
    liar.lies["session.kill"] = lambda asked: Refuse("kill_unconfirmed") if asked["id"] in deaf else None
    found = wait_until(lambda: one if (one := reap(host, **RUNS))["acts"] else None, what="they are old")
    assert found["state"] == "partial"
    assert (found["counts"]["done"], found["counts"]["failed"]) == (7, 3)
    assert {row["id"] for row in rows if is_alive(row)} == deaf
    assert host.run("run", "sweep").returncode == 5
    ended = host.run("run", "end", "held")
    assert ended.returncode == 5, ended
    assert "3 are left to the reaper" in ended.stderr
    told = [event for event in events(host) if event["type"] == "run.ended"]
    assert told[-1]["partial"] is True
    liar.lies.clear()
    assert host.run("run", "end", "held").returncode == 0
    assert not any(map(is_alive, rows))
    told = [event for event in events(host) if event["type"] == "run.ended"]
    assert told[-1]["partial"] is False


def events(host: HostService) -> list[dict[str, Any]]:
    """Everything that the service has told so far."""
    with host.connect() as rpc:
        daemon = rpc.call("hello", client="tests", protocols=[1])["daemon_id"]
        last = rpc.call("events.subscribe", since={"daemon_id": daemon, "seq": 0})["seq"]
        found: list[dict[str, Any]] = []
        while not found or found[-1]["seq"] < last:
            found.append(rpc.next_notification()[1])
        return found


def test_D14_two_sweeps_at_once_are_one(served: HostService, holder: Holder) -> None:
    host = served
    host.call("run.start", id="contested", holder_pid=holder.pid)
    rows = [session(host, "w", run="contested") for _ in range(3)]
    others = [session(host, "w") for _ in range(3)]
    die(holder)
    assert reap(host, **RUNS)["counts"]["done"] == 0
    wait_until(lambda: reap(host, dry_run=True, **RUNS)["counts"]["planned"] == 3, what="they are old")
    found: list[dict[str, Any]] = []
    sweeps = [threading.Thread(target=lambda: found.append(reap(host, **RUNS))) for _ in range(3)]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join()
    ended = [act["subject"] for one in found for act in one["acts"] if act["action"] == "end"]
    assert len(ended) == len(set(ended)) <= 3
    assert {act["outcome"] for one in found for act in one["acts"]} <= {"done"}
    assert not any(map(is_alive, rows))
    assert all(map(is_alive, others))
    for row in others:
        host.call("session.dispose", id=row["id"], force=True)


def test_D16_the_schedule_does_what_the_command_does(host: HostService, holder: Holder) -> None:
    serve(host, HOSTSVC_REAPER_INTERVAL_S="1", **SOON)
    rows = crowd(host, holder, 2)
    wait_until(lambda: not any(map(is_alive, rows)), what="nobody had to ask")
    wait_until(lambda: state(host, "held") == "ended")
    by_itself = [
        act
        for one in host.call("passes")["passes"]
        for act in one.get("acts") or ()  # the next one may be running
        if one["origin"] == "interval" and act["kind"] == "runs"
    ]
    assert [act["outcome"] for act in by_itself] == ["done", "done", "done"]
    assert {act["reason"] for act in by_itself} == {"its run's holder is gone", "nothing of it is left"}


def test_D17_a_sweeper_that_misses_three_passes_turns_health_red(deceived: Deceived) -> None:
    liar, host = deceived
    host.code = host.code.replace("LIST_DEADLINE_S = 0.5", "LIST_DEADLINE_S = 60")
    serve(host, HOSTSVC_REAPER_INTERVAL_S="1", **SOON)
    liar.lies["session.list"] = Silence()
    health = wait_until(
        lambda: told if "missed" in str((told := host.call("health"))["reasons"]) else None,
        what="three passes are missed",
    )
    assert health["status"] == "red"
    assert host.run("health").returncode == 1
    liar.lies.clear()


# -- workspaces of a run ---------------------------------------------------------------------------


def dirty(host: HostService, tmp_path: Path, **params: Any) -> dict[str, Any]:
    """A worktree of a run, with a file that is nowhere else."""
    repository = Repository(tmp_path / f"of-{params['id']}").main
    made = workspace(host, repository=str(repository), branch=params["id"], is_ephemeral=True, **params)
    Path(made["path"], "work").write_text("of hours")
    return made


def test_an_ephemeral_workspace_goes_with_its_run(served: HostService, tmp_path: Path) -> None:
    host = served
    host.call("run.start", id="places")
    plain = workspace(host, id="plain", run="places", is_ephemeral=True, credential=b"secret")
    kept = workspace(host, id="kept", run="places")
    others = workspace(host, id="others", is_ephemeral=True)
    row = session(host, "plain")
    assert (plain["run"], plain["is_expendable"]) == ("places", False)
    answer = host.call("run.end", id="places")
    assert (answer["state"], answer["ended"], answer["run"]["state"]) == ("complete", 1, "ended")
    assert not is_alive(row), "what runs in it goes with it, of the run or not"
    assert not list(host.base_dir.glob("plain*")), "its folder, its credential and its artifacts"
    for one in (kept, others):
        assert Path(one["path"]).is_dir()
        assert host.call("workspace.get", id=one["id"])["state"] == "active"
        host.call("workspace.delete", id=one["id"])
    assert host.error("workspace.create", run="places").code == "destroyed"
    assert host.error("workspace.create", run="no-such-run").code == "not_found"


def test_work_at_risk_keeps_a_workspace_and_its_run(served: HostService, tmp_path: Path) -> None:
    host = served
    host.call("run.start", id="risky")
    made = dirty(host, tmp_path, id="risky-place", run="risky")
    answer = host.call("run.end", id="risky")
    assert (answer["state"], answer["run"]["state"]) == ("partial", "ending")
    assert "workspaces/risky-place: at_risk" in answer["warnings"][0]
    assert Path(made["path"], "work").read_text() == "of hours"
    again = reap(host, **RUNS)
    assert (again["state"], acts(again)) == ("partial", {"workspaces/risky-place": "end failed"})
    Path(made["path"], "work").unlink()
    assert host.call("run.end", id="risky")["state"] == "complete"
    assert not Path(made["path"]).exists()


def test_an_expendable_one_goes_with_what_is_in_it(served: HostService, tmp_path: Path) -> None:
    host = served
    host.call("run.start", id="careless")
    made = dirty(host, tmp_path, id="careless-place", run="careless", is_expendable=True)
    assert host.call("run.end", id="careless")["state"] == "complete"
    assert not Path(made["path"]).exists()
    restored = host.call("workspace.restore", id="careless-place")
    assert Path(restored["path"], "work").read_text() == "of hours", "to the trash, as ever"
    assert (restored["run"], restored["is_ephemeral"]) == (None, False)
    host.call("workspace.delete", id="careless-place", force=True)


def test_D6_a_workspace_is_as_young_as_what_runs_in_it(host: HostService, holder: Holder) -> None:
    """Or its deletion would end what is too young to be swept."""
    age_ms = 2000
    serve(host, HOSTSVC_RUN_AGE_S="2")
    host.call("run.start", id="held", holder_pid=holder.pid)
    place = workspace(host, id="w", run="held", is_ephemeral=True)
    wait_until(lambda: time.time() * 1000 > place["created_at_ms"] + age_ms, what="it is old enough itself")
    row = session(host, "w")
    [stored] = peek(host, "SELECT created_at_ms FROM sessions WHERE id = ?", row["id"])
    die(holder)
    reap(host, **RUNS)
    found = reap_until(host, "workspaces/w", "end done", **RUNS)
    assert found["started_at_ms"] - stored["created_at_ms"] >= age_ms
    assert not is_alive(row)


def test_D6_a_workspace_of_a_run_that_nobody_holds(host: HostService, holder: Holder, tmp_path: Path) -> None:
    serve(host, **SOON)
    host.call("run.start", id="held", holder_pid=holder.pid)
    clean = workspace(host, id="clean", run="held", is_ephemeral=True)
    risky = dirty(host, tmp_path, id="risky", run="held")
    reap(host, **RUNS)
    die(holder)
    reap_until(host, "workspaces/clean", "end done", **RUNS)
    assert not Path(clean["path"]).exists()
    assert Path(risky["path"], "work").read_text() == "of hours"
    assert state(host, "held") == "ending"
