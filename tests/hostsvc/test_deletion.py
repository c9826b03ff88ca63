"""Deletion of workspaces: C9, C10 and C20 on a real ptyd, and what a folder may expect."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.hostsvc.places import (
    DEAF,
    SLEEPER,
    acts,
    is_alive,
    peek,
    reap,
    row_of,
    serve,
    session,
    shell,
    workspace,
)
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import _SERVE, HostService
from tests.support.repos import Repository, git
from tests.support.rpc import RpcError
from tests.support.waiting import soak, wait_until

pytestmark = pytest.mark.unmeasured


ROUNDS = soak(30, 300)


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One service for all that need no other setting and no restart; each has a workspace of its own."""
    host = serve(HostService(shared_runtime))
    yield host
    host.stop()


def test_C9_all_of_it_goes(served: HostService, tmp_path: Path) -> None:
    host = served
    place = workspace(host, id="c9", name="named-c9")
    Path(place["path"], "work").write_text("kept")
    rows = [session(host, "c9"), shell(host, "c9", DEAF, tmp_path / "ready"), session(host, "named-c9")]
    host.runtime.call("session.kill", id=rows[2]["id"], force=True)
    with host.connect() as events:
        events.call("events.subscribe")
        answer = host.call("workspace.delete", id="named-c9")
        types = []
        while "workspace.deleted" not in types:
            types.append(events.next_notification("event")[1]["type"])
    assert (answer["state"], answer["warnings"]) == ("deleted", [])
    assert types.index("workspace.deleting") < types.index("session.disposed")
    assert not any(is_alive(row) for row in rows)
    assert peek(host, "SELECT * FROM sessions WHERE origin_workspace_id = 'c9'") == []
    assert "c9" not in {one["id"] for one in host.call("workspace.list")["workspaces"]}
    stones = peek(host, "SELECT * FROM tombstones WHERE kind = 'session'")
    assert {stone["id"] for stone in stones} >= {row["id"] for row in rows}
    assert all(json.loads(stone["detail"])["kill_evidence"]["proof"] == "echild" for stone in stones)
    [trash] = peek(host, "SELECT * FROM trash WHERE workspace_id = 'c9'")
    assert Path(trash["trash_path"], "work").read_text() == "kept"
    assert not os.path.lexists(place["path"])
    assert reap(host)["acts"] == []
    assert host.call("session.dispose", id=rows[0]["id"])["status"] == "disposed", "known for ever"


def test_C10_one_kill_fails(host: HostService) -> None:
    serve(host, HOSTSVC_KILL_DEADLINE_S="1")
    place = workspace(host, id="w")
    row, other = session(host, "w"), session(host, "w")
    shim = host.runtime.shim_pid(row["id"])
    os.kill(shim, signal.SIGSTOP)
    answer = host.call("workspace.delete", id="w")
    assert answer["state"] == "deleted"
    [warning] = answer["warnings"]
    assert row["id"] in warning
    assert host.error("workspace.get", id="w").code == "destroyed"
    assert not os.path.exists(place["path"])
    assert not is_alive(other)
    kept = row_of(host, row["id"])
    assert (kept["status"], kept["workspace_id"], kept["origin_workspace_id"]) == ("active", None, "w")
    assert (kept["attempts"], kept["kill_evidence"]) == (1, None)
    assert is_alive(row)
    assert acts(reap(host)) == {row["id"]: "kill failed"}, "not resumed: it still does not answer"
    os.kill(shim, signal.SIGCONT)
    reap(host)
    wait_until(lambda: row_of(host, row["id"])["status"] == "disposed", what="the reaper has finished it")
    assert not is_alive(row)
    assert reap(host)["acts"] == []


def test_C20_spawns_and_a_delete_at_once(served: HostService) -> None:
    """Whatever is first: afterwards nothing of the workspace is alive, and nobody was told otherwise."""
    host = served

    def spawn(name: str) -> tuple[dict[str, Any] | None, str]:
        try:
            return session(host, name), "made"
        except RpcError as error:
            return None, error.code

    ends = set()
    with ThreadPoolExecutor(4) as pool:
        for number in range(ROUNDS):
            name = f"w{number}"
            workspace(host, id=name)
            asked = [pool.submit(spawn, name) for _ in range(3)]
            if number % 3:
                wait_until(partial(_has_rows, host, name, number % 3), what="some are under way")
            assert host.call("workspace.delete", id=name)["warnings"] == []
            for row, end in (one.result() for one in asked):
                ends.add(end)
                assert row is None or not is_alive(row)
            assert _rows(host, name) == 0
    assert ends <= {"made", "being_deleted", "destroyed"}
    listed = host.runtime.call("session.list")["sessions"]
    assert {one["state"] for one in listed} <= {"exited"}
    assert reap(host)["acts"] == []


def _has_rows(host: HostService, workspace_id: str, count: int) -> bool:
    return _rows(host, workspace_id) >= count


def _rows(host: HostService, workspace_id: str) -> int:
    [found] = peek(host, "SELECT count(*) AS n FROM sessions WHERE origin_workspace_id = ?", workspace_id)
    return int(found["n"])


def test_two_deletes_are_one_and_outlive_who_asked(served: HostService, tmp_path: Path) -> None:
    host = served
    workspace(host, id="twice")
    row = shell(host, "twice", DEAF, tmp_path / "ready")
    with host.connect() as events, host.connect() as first, host.connect() as second:
        events.call("events.subscribe")
        first.send("workspace.delete", id="twice")
        while events.next_notification("event")[1].get("step") != "dispose":
            pass
        asked = second.send("workspace.delete", id="twice", force=True)
        first.close()
        answer = second.result(asked)
    assert (answer["state"], answer["warnings"]) == ("deleted", [])
    assert not is_alive(row)
    [saga] = peek(host, "SELECT * FROM sagas WHERE workspace_id = 'twice'")
    assert (saga["id"], saga["state"]) == (answer["saga"], "done")
    assert host.call("workspace.delete", id="twice")["saga"] == saga["id"], (
        "a third comes too late, and is the same"
    )


def test_an_adopted_folder_is_only_forgotten(served: HostService, tmp_path: Path) -> None:
    host = served
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "work").write_text("kept")
    before = os.stat(folder)
    workspace(host, id="adopted", path=str(folder))
    row = session(host, "adopted", ["sh", "-c", "echo $PWD; exec sleep 100000"])
    assert host.call("workspace.delete", id="adopted")["state"] == "deleted"
    assert not is_alive(row)
    after = os.stat(folder)
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_mode,
    )
    assert (folder / "work").read_text() == "kept"
    assert peek(host, "SELECT * FROM trash WHERE workspace_id = 'adopted'") == []
    assert workspace(host, id="again", path=str(folder))["state"] == "active"


def test_a_folder_that_cannot_be_moved_is_left_alone(served: HostService, tmp_path: Path) -> None:
    """After the point of no return it waits, visibly; a person may finish it without that step."""
    host = served
    repository = Repository(tmp_path / "r")
    place = workspace(host, id="held", repository=str(repository.main), start="main")
    git(repository.main, "update-ref", "refs/hostsvc/trash", "HEAD")  # no ref can be below that one
    answer = host.call("workspace.delete", id="held", force=True)
    assert answer["state"] == "partial"
    assert f"cannot move {place['path']} to the trash" in answer["warnings"][0]
    found = host.call("saga.get", id=answer["saga"])
    assert f"cannot move {place['path']} to the trash" in found["saga"]["last_error"]
    assert found["steps"][-1]["done_at_ms"] is None
    for attempts in range(2, 9):
        assert host.call("saga.resume", id=answer["saga"])["attempts"] == attempts
    health = host.call("health")
    assert (health["status"], health["sagas"]) == ("yellow", {"open": 1, "stuck": 1})
    assert host.error("session.create", workspace="held", argv=SLEEPER).code == "being_deleted"
    after = host.call("saga.resume", id=answer["saga"], leave_out=True)
    assert after["state"] == "done"
    assert "left out by hand" in after["warnings"][0]
    assert Path(place["path"], "file").exists()
    assert host.error("workspace.get", id="held").code == "destroyed"
    assert host.call("health")["status"] == "green"


_UNEXPECTED = """
import os
from hostsvc.deletion_disk import DeletionDisk
step, left = os.environ["UNEXPECTED"].split()
real, left = getattr(DeletionDisk, step), int(left)
async def fails(self, *arguments):
    global left
    left -= 1
    if left >= 0:
        raise ValueError("nobody thought of that")
    return await real(self, *arguments)
setattr(DeletionDisk, step, fails)
"""


def test_a_step_that_fails_as_nobody_expects_is_undone_as_any_other(host: HostService) -> None:
    host.code = _UNEXPECTED + _SERVE
    serve(host, UNEXPECTED="risk 1")
    workspace(host, id="w")
    refused = host.error("workspace.delete", id="w")
    assert (refused.code, "ValueError" in refused.error["message"]) == ("internal", True)
    assert host.call("workspace.get", id="w")["state"] == "active"
    assert host.call("workspace.delete", id="w")["state"] == "deleted"


def test_after_the_point_of_no_return_it_is_tried_again_as_any_other(host: HostService) -> None:
    host.code = _UNEXPECTED + _SERVE
    serve(host, UNEXPECTED="trash_folder 8")
    workspace(host, id="w")
    answer = host.call("workspace.delete", id="w")
    assert (answer["state"], "ValueError" in answer["warnings"][0]) == ("partial", True)
    for attempts in range(2, 9):
        assert host.call("saga.resume", id=answer["saga"])["attempts"] == attempts
    [saga] = peek(host, "SELECT * FROM sagas")
    assert saga["state"] == "stuck"
    assert reap(host)["acts"] == [], "its next attempt is not due yet"
    assert host.call("saga.resume", id=answer["saga"])["state"] == "done"


def test_a_folder_that_is_gone_is_no_obstacle(served: HostService) -> None:
    host = served
    place = workspace(host, id="gone")
    os.rmdir(place["path"])
    assert host.call("workspace.delete", id="gone")["state"] == "deleted"
    [trash] = peek(host, "SELECT * FROM trash WHERE workspace_id = 'gone'")
    assert trash["purged_at_ms"]
    assert reap(host)["acts"] == []


def test_the_trash_is_purged_in_time_but_under_nobody(host: HostService) -> None:
    serve(host, HOSTSVC_KEEP_TRASH_S="0")
    place = workspace(host, id="w")
    Path(place["path"], "deep", "er").mkdir(parents=True)
    with subprocess.Popen(["sleep", "100000"], cwd=Path(place["path"], "deep")) as inside:
        try:
            host.call("workspace.delete", id="w")
            [trash] = peek(host, "SELECT * FROM trash")
            found = reap(host)
            assert acts(found) == {trash["id"]: "purge failed"}
            assert str(inside.pid) in found["acts"][0]["error"]
            assert Path(trash["trash_path"], "deep", "er").is_dir()
        finally:
            inside.kill()
    assert not processes.alive(inside.pid)
    assert acts(reap(host)) == {trash["id"]: "purge done"}
    assert not os.path.exists(trash["trash_path"])
