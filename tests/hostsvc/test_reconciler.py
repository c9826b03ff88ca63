"""Reconciliation with a control plane on the real service: E7 to E9, E11; E3 and E4 for what is healed."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hostsvc.saga import Step
from tests.hostsvc.liar import DeceivedHost, Edit, Liar
from tests.hostsvc.places import editing, is_alive, peek, serve, session, workspace
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


IDLE = ["sh", "-c", "exec sleep 100000"]
NOTHING: dict[str, Any] = {
    "dropped": [],
    "kept_busy": [],
    "healed": [],
    "gone": [],
    "kept": {},
    "dry_run": False,
}


def serve_old(host: HostService, *ids: str, **settings: str) -> HostService:
    """A service whose workspaces, all of them idle, are older than any list."""
    serve(host)
    for id_ in ids:
        workspace(host, id=id_)
    host.stop()
    with editing(host) as db:
        db.execute("UPDATE workspaces SET created_at_ms = created_at_ms - 3600000")
    return serve(host, **settings)


def reconcile(host: HostService, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = host.call("workspace.reconcile", **params)
    return found


def states(host: HostService) -> dict[str, str]:
    return {one["id"]: one["state"] for one in host.call("workspace.list", deleted=True)["workspaces"]}


def test_E7_idle_is_dropped_busy_is_kept_and_the_destroyed_stays(host: HostService) -> None:
    serve_old(host, "live", "idle", "shell", "busy", "safe", "gone", HOSTSVC_AGE_FLOOR_S="60")
    host.call("workspace.update", id="safe", is_protected=True)
    host.call("workspace.delete", id="gone")
    young = workspace(host, id="young")
    working, shell = session(host, "busy"), session(host, "shell", IDLE)
    folder = Path(host.call("workspace.get", id="idle")["path"])
    (folder / "file").write_text("kept in the trash")
    wait_until(lambda: is_idle(host, shell["id"]), what="the shell is idle")
    asked = {"live": ["live", "gone", "never-here"], "complete": True}
    planned = reconcile(host, **asked, dry_run=True)
    assert (planned["dropped"], planned["dry_run"]) == (["idle", "safe", "shell"], True)
    assert states(host)["idle"] == "active"
    done = reconcile(host, **asked)
    assert done.pop("kept").keys() == {"safe", "young"}
    assert done == {
        "dropped": ["idle", "shell"],
        "kept_busy": ["busy"],
        "healed": [],
        "gone": ["gone"],
        "refused": None,
        "dry_run": False,
    }
    assert {id_ for id_, state in states(host).items() if state == "active"} == {
        "live",
        "busy",
        "safe",
        young["id"],
    }
    assert (is_alive(working), is_alive(shell)) == (True, False)
    assert not folder.exists()
    assert [path.read_text() for path in host.base_dir.glob(".trash/*/file")] == ["kept in the trash"]
    assert host.error("workspace.get", id="gone").code == "destroyed"


def is_idle(host: HostService, id_: str) -> bool:
    found = host.runtime.call("session.get", id=id_)
    return found["busy"] is False and found["age_ms"] > 2000


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"complete": True},
        {"live": None, "complete": True},
        {"live": 7, "complete": True},
        {"live": "idle", "complete": True},
        {"live": {"idle": 1}, "complete": True},
        {"live": [1, 2], "complete": True},
        {"live": ["other", None], "complete": True},
        {"live": [""], "complete": True},
        {"live": ["other"]},
        {"live": ["other"], "complete": "yes"},
        {"live": ["other"], "complete": 1},
        {"live": ["other"], "complete": False},
        {"live": [], "complete": False},
        {"live": []},
    ],
    ids=str,
)
def test_E8_E9_E11_less_than_a_whole_list_drops_nothing(
    shared_host: HostService, asked: dict[str, Any]
) -> None:
    """Missing, malformed, truncated, from an older peer: answered, refused, and nothing is touched."""
    if "w8" not in states(shared_host):
        workspace(shared_host, id="w8")
    done = reconcile(shared_host, **asked)
    assert done.pop("refused")
    assert done == NOTHING
    assert states(shared_host)["w8"] == "active"


def test_E8_whoever_cannot_be_looked_at_is_kept(host: HostService) -> None:
    """ptyd does not answer: nobody can tell whether anything is idle."""
    host.code = "import hostsvc.live as live; live.LIST_DEADLINE_S = 0.5\n" + host.code
    serve_old(host, "a", "b")
    pid = host.runtime.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        done = reconcile(host, live=[], complete=True)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (done["dropped"], done["kept_busy"]) == ([], ["a", "b"])


def test_E9_an_empty_list_counts_only_within_the_cap(host: HostService) -> None:
    serve_old(host, "a", "b", "c", HOSTSVC_RECONCILE_CAP="2")
    done = reconcile(host, live=[], complete=True)
    assert done["refused"] == "3 of 3 would be dropped at once, more than 2"
    assert set(states(host).values()) == {"active"}
    assert reconcile(host, live=["b"], complete=True)["dropped"] == ["a", "c"]


def half_delete(host: HostService, id_: str, *steps: Step) -> None:
    """Leave a deletion as a crash may have: these steps done, nobody at it, not due for long."""
    host.stop()
    later = int(time.time() * 1000) + 3_600_000
    with editing(host) as db:
        db.execute(
            "INSERT INTO sagas (id, workspace_id, generation, state, next_attempt_at_ms, created_at_ms)"
            " VALUES ('half', ?, 1, 'open', ?, 1)",
            [id_, later],
        )
        for step in steps:
            db.execute("INSERT INTO saga_steps VALUES ('half', ?, 1, 1, NULL)", [step.value])
        db.execute("UPDATE workspaces SET state = 'deleting' WHERE id = ?", [id_])
        db.execute("INSERT INTO tombstones VALUES ('workspace', ?, 1, 0, 1, '{}')", [id_])
    serve(host)


def test_E3_E4_E7_live_and_tombstoned_is_healed(host: HostService) -> None:
    """Left before its point of no return: usable again, with no lasting tombstone."""
    serve_old(host, "w")
    half_delete(host, "w", Step.PREFLIGHT, Step.SEAL)
    assert host.error("session.create", workspace="w", argv=IDLE).code == "being_deleted"
    asked = {"live": ["w"], "complete": True}
    assert reconcile(host, **asked, dry_run=True)["healed"] == ["w"]
    assert states(host) == {"w": "deleting"}
    assert reconcile(host, **asked)["healed"] == ["w"]
    assert states(host) == {"w": "active"}
    assert peek(host, "SELECT * FROM tombstones") == []
    assert host.call("saga.get", id="half")["saga"]["state"] == "compensated"
    assert is_alive(session(host, "w"))
    assert reconcile(host, **asked)["healed"] == [], "once"


def test_E4_past_its_point_of_no_return_it_only_goes_forward(host: HostService) -> None:
    serve_old(host, "w")
    half_delete(host, "w", *Step)
    with_all = [step for step in Step if step is not Step.FINISH]
    host.stop()
    with editing(host) as db:
        db.execute("DELETE FROM saga_steps WHERE step = ?", [Step.FINISH.value])
    serve(host)
    assert len(host.call("saga.get", id="half")["steps"]) == len(with_all)
    done = reconcile(host, live=["w"], complete=True)
    assert (done["healed"], list(done["kept"])) == ([], ["w"])
    assert host.call("saga.resume", id="half")["state"] == "done"
    assert reconcile(host, live=["w"], complete=True)["gone"] == ["w"]


def test_E4_a_deletion_that_somebody_is_at_is_not_healed(host: HostService) -> None:
    serve_old(host)
    wait = ["sh", "-c", "until [ -e go ]; do sleep 0.02; done"]
    place = workspace(host, id="w", teardown=wait)
    with ThreadPoolExecutor() as threads:
        deleting = threads.submit(host.call, "workspace.delete", id="w")
        wait_until(lambda: states(host) == {"w": "deleting"}, what="its deletion is sealed")
        done = reconcile(host, live=["w"], complete=True)
        Path(place["path"], "go").touch()
        assert deleting.result(30)["state"] == "deleted"
    assert (done["healed"], list(done["kept"])) == ([], ["w"])
    assert states(host) == {"w": "deleted"}


def test_E7_what_comes_into_use_between_plan_and_act_is_kept(daemon: RuntimeDir) -> None:
    looks = []

    def change(told: Any) -> Any:
        looks.append(1)
        for one in told["sessions"]:
            one.update(busy=len(looks) > 1, age_ms=3_600_000)
        return told

    with Liar(daemon.base / "liar", daemon.socket) as liar:
        host = DeceivedHost(liar, HostService(daemon))
        serve_old(host, "w")
        made = session(host, "w", IDLE)
        liar.lies["session.list"] = Edit(change)
        done = reconcile(host, live=[], complete=True)
        assert (done["dropped"], list(done["kept"])) == ([], ["w"])
        assert states(host) == {"w": "active"}
        assert is_alive(made)
        host.stop()


# --- the command line ----------------------------------------------------------------------------


def test_the_command_says_what_it_did_and_what_it_kept(host: HostService, tmp_path: Path) -> None:
    serve_old(host, "a", "b", "c")
    session(host, "b")
    file = tmp_path / "live.json"
    file.write_text(json.dumps({"live": ["c"], "complete": True, "more": 1}))
    dry = host.run("workspace", "reconcile", "--live", str(file), "--dry-run")
    assert (dry.returncode, dry.stdout.splitlines()[0]) == (5, "a would be dropped")
    done = host.run("workspace", "reconcile", "--live", "-", input=file.read_text())
    assert done.stdout.splitlines() == ["a dropped", "b kept: it is in use, or may be"]
    again = host.run("--json", "workspace", "reconcile", "--live", str(file))
    assert json.loads(again.stdout)["kept_busy"] == ["b"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '["a"]', "7", '{"live": ["a"]}', '{"live": 7, "complete": true}', "\xff"]
)
def test_E8_the_command_with_a_list_that_is_none(shared_host: HostService, tmp_path: Path, text: str) -> None:
    file = tmp_path / "live.json"
    file.write_bytes(text.encode("latin-1"))
    done = shared_host.run("workspace", "reconcile", "--live", str(file))
    assert (done.returncode, done.stdout) == (4, "")
    assert "nothing was done" in done.stderr
