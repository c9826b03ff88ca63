"""Every method of the real service: its answer has the declared shape, and says what is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostsvc.events import EVENT_TYPES
from hostsvc.kinds import LIMITS, MAX_LABELS
from hostsvc.messages import KINDS, METHODS, RESULTS
from hostsvc.shown import MANY
from ptyd.protocol.fields import parse_map
from ptyd.protocol.notifications import NOTIFICATIONS
from tests.support.host import HostService
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.sessions import wait_for_end
from tests.support.waiting import wait_until

SLEEP = ["sleep", "1000"]


class Checked:
    """Calls, and holds every answer to what the protocol says of it."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        rpc.call("hello", client="test", protocols=[1], errors="map")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.rpc.call(method, **params)
        parse_map(RESULTS[method], answer)
        assert answer.keys() <= set(RESULTS[method].__annotations__), "a key is undeclared"
        return answer

    def refused(self, method: str, **params: Any) -> RpcError:
        with pytest.raises(RpcError) as caught:
            self.rpc.call(method, **params)
        assert caught.value.error["message"]
        return caught.value

    def code(self, method: str, **params: Any) -> str:
        return self.refused(method, **params).code

    def row(self, session: str) -> dict[str, Any]:
        (row,) = (row for row in self("session.list")["sessions"] if row["id"] == session)
        assert isinstance(row, dict)
        return row

    def names(self, **params: Any) -> list[str]:
        return [row["id"] for row in self("workspace.list", **params)["workspaces"]]


@pytest.fixture
def call(shared_host: HostService) -> Iterator[Checked]:
    """A connection of a test's own; what the test has made is gone after it."""
    with shared_host.connect() as rpc:
        call = Checked(rpc)
        yield call
        for workspace in call("workspace.list")["workspaces"]:
            rpc.call("workspace.update", id=workspace["id"], is_protected=False)
            assert call("workspace.delete", id=workspace["id"])["warnings"] == []


def tree(host: HostService) -> list[str]:
    return sorted(str(path) for path in host.base_dir.rglob("*") if ".trash" not in path.parts)


# --- hello, health, events -------------------------------------------------------------------------


def test_hello_says_who_and_what_is_allowed(shared_host: HostService) -> None:
    with shared_host.connect() as rpc:
        answer = rpc.call("hello", client="test", protocols=[1])
        parse_map(RESULTS["hello"], answer)
        assert (answer["server"], answer["pid"], answer["limits"]) == ("hostsvc", shared_host.pid, LIMITS)
        with pytest.raises(RpcError) as caught:
            rpc.call("hello", client="test", protocols=[1])
        assert caught.value.code == "bad_request"
    with shared_host.connect() as rpc, pytest.raises(RpcError) as caught:
        rpc.call("hello", client="test", protocols=[2])
    assert caught.value.code == "invalid_params"


def test_health_is_green_and_tells_where_everything_is(call: Checked, shared_host: HostService) -> None:
    found = call("health")
    assert (found["status"], found["reasons"]) == ("green", [])
    assert found["ptyd"]["pid"] == shared_host.runtime.daemon_pid()
    assert found["index"]["path"] == str(shared_host.state_dir)


def test_events_tell_a_life_in_order_and_have_the_declared_shape(
    call: Checked, shared_host: HostService
) -> None:
    with shared_host.connect() as watcher:
        watcher.call("events.subscribe")
        workspace = call("workspace.create")["id"]
        session = call("session.create", workspace=workspace, argv=SLEEP)["id"]
        call("session.dispose", id=session)
        call("workspace.delete", id=workspace)
        told: list[dict[str, Any]] = []
        while not told or told[-1]["type"] != "workspace.deleted":
            told.append(watcher.next_notification("event")[1])
    for event in told:
        parse_map(NOTIFICATIONS["event"], event)
        assert event["type"] in EVENT_TYPES
    assert [event["type"] for event in told if event.get("id") == session] == [
        "session.created",
        "session.dispose_requested",
        "session.disposed",
    ]
    mine = [event["type"] for event in told if event.get("id") == workspace and event["type"] != "saga.step"]
    assert mine == ["workspace.created", "workspace.deleting", "workspace.deleted"]
    assert told[-1]["left"] == 0


# --- workspaces ------------------------------------------------------------------------------------


def test_a_workspace_is_as_asked_for(call: Checked, shared_host: HostService) -> None:
    asked = {
        "id": "ws-1",
        "name": "first",
        "labels": {"team": "a"},
        "teardown": ["true"],
        "is_protected": True,
    }
    made = call("workspace.create", **asked)
    assert {key: made[key] for key in asked} == asked
    assert (made["state"], made["generation"], made["is_ours"], made["sessions"]) == ("active", 1, True, 0)
    assert made["path"] == str(shared_host.base_dir / "first")
    assert Path(made["path"]).is_dir()
    assert call("workspace.get", id="ws-1") == call("workspace.get", id="first") == made
    assert call("workspace.list")["workspaces"] == [made]


def test_a_run_is_as_asked_for_and_listed_the_same(call: Checked, shared_host: HostService) -> None:
    made = call("run.start", holder_pid=shared_host.pid)
    assert (made["state"], made["holder_pid"], made["sessions"]) == ("open", shared_host.pid, 0)
    assert call("run.get", id=made["id"]) == made
    assert made in call("run.list")["runs"]
    ended = call("run.end", id=made["id"])
    assert (ended["state"], ended["run"]["state"], ended["warnings"]) == ("complete", "ended", [])


@pytest.mark.parametrize(
    "params, code",
    [
        ({"id": "a b"}, "invalid_params"),
        ({"id": "x" * 65}, "invalid_params"),
        ({"name": "a/b"}, "invalid_params"),
        ({"name": "x" * 65}, "invalid_params"),
        ({"name": ""}, "invalid_params"),
        ({"name": ".."}, "path_refused"),
        ({"name": ".trash"}, "path_refused"),
        ({"name": "é"}, "path_refused"),
        ({"name": "a-artifacts"}, "path_refused"),
        ({"path": "relative"}, "path_refused"),
        ({"path": ""}, "path_refused"),
        ({"path": "/"}, "path_refused"),
        ({"path": "/does/not/exist"}, "path_refused"),
        ({"labels": {"hostsvc.owner": "x"}}, "invalid_params"),
        ({"labels": {"hostsvc.": "x"}}, "invalid_params"),
        ({"labels": {f"l{n}": "x" for n in range(MAX_LABELS + 1)}}, "invalid_params"),
        ({"labels": {"a": "x" * 257}}, "invalid_params"),
        ({"labels": {"a": "\n"}}, "invalid_params"),
        ({"generation": 0}, "invalid_params"),
    ],
)  # fmt: skip
def test_what_no_workspace_can_be(
    call: Checked, shared_host: HostService, params: dict[str, Any], code: str
) -> None:
    before = tree(shared_host)
    assert call.code("workspace.create", **params) == code
    assert call.names() == []
    assert tree(shared_host) == before


def test_as_many_labels_as_there_may_be_fit_a_session_too(call: Checked, shared_host: HostService) -> None:
    """Two of ptyd's are the service's own."""
    labels = {f"label-{n}": "x" * 256 for n in range(MAX_LABELS)}
    workspace = call("workspace.create", labels=labels)["id"]
    row = call("session.create", workspace=workspace, argv=SLEEP, labels=labels)
    assert row["labels"] == labels
    with shared_host.runtime.connect() as ptyd:
        live = ptyd.call("session.get", id=row["id"])
    owner = call("health")["index"]["id"]
    assert live["labels"] == {**labels, "hostsvc.owner": owner, "hostsvc.workspace": workspace}


def test_an_id_a_name_and_a_path_belong_to_one(call: Checked, tmp_path: Path) -> None:
    call("workspace.create", id="one", name="first", path=str(tmp_path))
    assert call.code("workspace.create", id="one") == "exists"
    assert call.code("workspace.create", name="first") == "name_taken"
    assert call.code("workspace.create", path=str(tmp_path)) == "exists"
    call("workspace.create", id="two", name="second")
    assert call.code("workspace.update", id="two", name="first") == "name_taken"
    assert call("workspace.update", id="two", name="")["name"] is None
    assert call("workspace.update", id="two", labels={"a": "b"})["labels"] == {"a": "b"}
    assert call.code("workspace.update", id="two", labels={"hostsvc.x": "b"}) == "invalid_params"


def test_a_list_of_workspaces_is_filtered_by_labels(call: Checked) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "1", "y": "2"}), ("c", {"x": "2"})):
        call("workspace.create", id=name, labels=labels)
    assert call.names(labels={"x": "1"}) == ["a", "b"]
    assert call.names(labels={"x": "1", "y": "2"}) == ["b"]
    assert call.names(labels={"z": "1"}) == []
    call("workspace.delete", id="a")
    assert call.names() == ["b", "c"]
    assert "a" in call.names(deleted=True)
    gone = next(one for one in call("workspace.list", deleted=True)["workspaces"] if one["id"] == "a")
    assert (gone["state"], gone["sessions"], gone["deleted_at_ms"] is not None) == ("deleted", 0, True)


@pytest.mark.parametrize("reference", ["the-id", "the-name"])
def test_E2_a_delete_by_id_or_by_name_is_the_same_twice(call: Checked, reference: str) -> None:
    generation = 1 if reference == "the-id" else 2
    made = call("workspace.create", id="the-id", name="the-name", generation=generation)
    first = call("workspace.delete", id=reference)
    assert (first["state"], first["warnings"]) == ("deleted", [])
    assert not Path(made["path"]).exists()
    assert call("workspace.delete", id=reference) == first
    assert call.code("workspace.get", id="the-id") == "destroyed"
    assert call.code("workspace.update", id="the-id", name="x") == "destroyed"
    assert call.code("session.create", workspace="the-id", argv=SLEEP) == "destroyed"
    saga = call("saga.get", id=first["saga"])
    assert (saga["saga"]["state"], saga["saga"]["workspace_id"]) == ("done", "the-id")
    assert all(step["done_at_ms"] for step in saga["steps"])
    assert saga["saga"] in call("saga.list")["sagas"]
    assert call("saga.resume", id=first["saga"]) == saga["saga"]


def test_what_is_in_the_trash_is_told_restored_and_purged(call: Checked) -> None:
    made = call("workspace.create", name="there", teardown=["true"], labels={"a": "b"})
    Path(made["path"], "work").write_text("kept")
    assert call("workspace.risk", id="there") == {"safe": True, "reasons": [], "head": None, "branch": None}
    saga = call("workspace.delete", id="there")["saga"]
    [entry] = [one for one in call("trash.list")["entries"] if one["workspace_id"] == made["id"]]
    assert (entry["id"], entry["kind"], entry["path"]) == (saga, "folder", made["path"])
    assert (entry["size_bytes"], entry["who"]) == (4, "workspace.delete")
    back = call("workspace.restore", id=saga)
    same = ("id", "name", "path", "labels", "teardown", "is_ours", "state")
    assert {name: back[name] for name in same} == {name: made[name] for name in same}
    assert back["generation"] == 2
    assert Path(back["path"], "work").read_text() == "kept"
    assert saga not in [one["id"] for one in call("trash.list")["entries"]]
    again = call("workspace.delete", id="there")["saga"]
    assert call("trash.purge", id=again)["workspace_id"] == made["id"]
    for method in ("trash.purge", "workspace.restore"):
        assert call.code(method, id=again) == call.code(method, id=saga) == "not_found"
    assert call.code("workspace.risk", id="there") == "destroyed"
    assert call.code("workspace.risk", id="never") == "not_found"


def test_E1_reading_creates_nothing_and_deleting_what_never_was_is_remembered(call: Checked) -> None:
    assert call.code("workspace.get", id="never") == "not_found"
    assert call.code("workspace.get", id="never") == "not_found"
    assert call("workspace.delete", id="never-1") == {"saga": None, "state": "deleted", "warnings": []}
    assert call.code("workspace.create", id="never-1") == "destroyed"
    assert call("workspace.create", id="never-1", generation=2)["generation"] == 2
    assert call.code("saga.get", id="never") == call.code("saga.resume", id="never") == "not_found"


def test_E6_a_delete_names_the_generation_that_it_means(call: Checked) -> None:
    call("workspace.create", id="again")
    call("workspace.delete", id="again", generation=1)
    call("workspace.create", id="again", generation=2)
    late = call.refused("workspace.delete", id="again", generation=1)
    assert (late.code, late.data) == ("destroyed", {"generation": 2})
    assert call.code("workspace.delete", id="again", generation=3) == "not_found"
    assert call("workspace.get", id="again")["state"] == "active"


def test_a_protected_workspace_stays(call: Checked) -> None:
    call("workspace.create", id="kept", is_protected=True)
    assert call.code("workspace.delete", id="kept", force=True) == "protected"
    assert call("workspace.get", id="kept")["state"] == "active"
    call("workspace.update", id="kept", is_protected=False)
    assert call("workspace.delete", id="kept")["state"] == "deleted"


def test_a_dry_run_of_a_delete_says_what_it_would_do_and_does_nothing(
    call: Checked, shared_host: HostService
) -> None:
    workspace = call("workspace.create", id="planned", teardown=["touch", "torn-down"])
    session = call("session.create", workspace="planned", argv=SLEEP)["id"]
    before = tree(shared_host), call("saga.list"), call("workspace.get", id="planned"), call.row(session)
    plan = call("workspace.delete", id="planned", dry_run=True)
    assert (plan["saga"], plan["state"]) == (None, "planned")
    subjects = {line["step"]: line["subjects"] for line in plan["plan"]}
    assert subjects["dispose"] == [session]
    assert subjects["folder"] == [workspace["path"]]
    assert subjects["teardown"] == ["touch", "torn-down"]
    skipped = call("workspace.delete", id="planned", dry_run=True, skip_teardown=True)["plan"]
    assert "teardown" not in {line["step"] for line in skipped}
    after = tree(shared_host), call("saga.list"), call("workspace.get", id="planned"), call.row(session)
    assert after == before
    assert call("workspace.delete", id="not-there", dry_run=True)["plan"] == []
    assert call.code("workspace.get", id="not-there") == "not_found"
    call("workspace.create", id="not-there")


# --- sessions --------------------------------------------------------------------------------------


def test_a_session_is_as_asked_for_and_listed_the_same(call: Checked, shared_host: HostService) -> None:
    workspace = call("workspace.create", name="ws")
    made = call(
        "session.create",
        workspace="ws",
        argv=["sh", "-c", "echo $WHO; exec sleep 1000"],
        env={"WHO": "me"},
        rows=11,
        cols=22,
        name="shell",
        labels={"task": "7"},
    )
    id_ = workspace["id"]
    assert (made["status"], made["workspace_id"], made["origin_workspace_id"]) == ("active", id_, id_)
    assert (made["name"], made["labels"], made["attempts"]) == ("shell", {"task": "7"}, 0)
    assert (made["live"]["state"], made["live"]["cwd"]) == ("running", workspace["path"])
    assert call.row(made["id"]) == made
    assert call("workspace.get", id="ws")["sessions"] == 1
    with shared_host.runtime.connect() as ptyd:
        live = ptyd.call("session.get", id="shell")
    assert (live["id"], live["rows"], live["cols"]) == (made["id"], 11, 22)


@pytest.mark.parametrize(
    "params, code",
    [
        ({"workspace": "nowhere"}, "not_found"),
        ({"argv": []}, "invalid_params"),
        ({"argv": [""]}, "invalid_params"),
        ({"argv": ["sh", "a\0b"]}, "invalid_params"),
        ({"argv": ["x" * (600 << 10)]}, "invalid_params"),
        ({"argv": ["x"] * 4097}, None),
        ({"argv": ["/does/not/exist"]}, "program_not_found"),
        ({"argv": ["/etc/passwd"]}, "program_not_executable"),
        ({"cwd": "/does/not/exist"}, "cwd_unavailable"),
        ({"cwd": "relative"}, "invalid_params"),
        ({"env": {"A=B": "x"}}, "invalid_params"),
        ({"rows": 0}, "invalid_params"),
        ({"cols": 65536}, "invalid_params"),
        ({"name": "a b"}, "invalid_params"),
        ({"labels": {"hostsvc.owner": "me"}}, "invalid_params"),
        ({"on_leader_exit": "restart"}, "invalid_params"),
    ],
)  # fmt: skip
def test_what_no_session_can_be(
    call: Checked, shared_host: HostService, params: dict[str, Any], code: str | None
) -> None:
    """Nothing lives afterwards; a row is only there where ptyd was asked, and says that it failed."""
    call("workspace.create", name="ws")
    asked: dict[str, Any] = {"workspace": "ws", "argv": SLEEP, **params}
    if code is None:  # more than one message may have: the connection is closed
        with shared_host.connect() as rpc, pytest.raises((Disconnected, ConnectionResetError)):
            rpc.call("session.create", **asked)
    else:
        assert call.code("session.create", **asked) == code
    assert all(row["status"] == "failed" for row in call("session.list", workspace="ws")["sessions"])
    with shared_host.runtime.connect() as ptyd:
        assert not [row for row in ptyd.call("session.list")["sessions"] if row["state"] != "exited"]


def test_a_name_is_ptyds_too(call: Checked) -> None:
    call("workspace.create", name="ws")
    call("session.create", workspace="ws", argv=SLEEP, name="taken")
    assert call.code("session.create", workspace="ws", argv=SLEEP, name="taken") == "name_taken"


def test_a_list_of_sessions_is_filtered(call: Checked, shared_host: HostService) -> None:
    for name in ("here", "there"):
        call("workspace.create", name=name)
    kept, gone = (call("session.create", workspace="here", argv=SLEEP)["id"] for _ in range(2))
    other = call("session.create", workspace="there", argv=SLEEP)["id"]
    assert call("session.dispose", id=gone)["status"] == "disposed"

    def listed(**params: Any) -> set[str]:
        found = call("session.list", **params)
        assert found["foreign"] == []
        return {row["id"] for row in found["sessions"]}

    assert listed(workspace="here") == {kept, gone}
    assert listed(workspace="here", status="active") == {kept}
    assert listed(status="disposed", workspace="here") == {gone}
    assert listed(status="active") == {kept, other}
    assert call.code("session.list", workspace="nowhere") == "not_found"
    assert call.code("session.list", status="living") == "invalid_params"


def test_C21_a_session_of_somebody_else_is_listed_as_foreign_and_left_alone(
    call: Checked, shared_host: HostService
) -> None:
    with shared_host.runtime.connect() as ptyd:
        plain = ptyd.call("session.spawn", argv=SLEEP)["id"]
        owned = ptyd.call("session.spawn", argv=SLEEP, labels={"hostsvc.owner": "another"})["id"]
        workspace = call("workspace.create", name="ws")["id"]
        found = {one["id"]: one["owner"] for one in call("session.list")["foreign"]}
        assert found == {plain: None, owned: "another"}
        assert call.code("session.dispose", id=plain) == "not_found"
        assert call("reap")["counts"]["done"] == 0
        shown = call("session.adopt", owner="another", workspace="ws", dry_run=True)
        assert ([one["id"] for one in shown["sessions"]], shown["adopted"]) == ([owned], False)
        assert ptyd.call("session.get", id=owned)["labels"] == {"hostsvc.owner": "another"}
        owner = call("health")["index"]["id"]
        assert call("session.adopt", owner=owner, workspace="ws")["sessions"] == []
        assert call("session.adopt", owner="another", workspace="ws")["adopted"]
        assert call.row(owned)["workspace_id"] == workspace
        assert [one["id"] for one in call("session.list")["foreign"]] == [plain]
        ptyd.call("session.kill", id=plain, force=True)
        assert call("session.list")["foreign"] == []


def test_what_is_shown_of_ptyd_is_never_older_than_its_last_event(
    call: Checked, shared_host: HostService
) -> None:
    """The list is kept as long as nothing happens there; whatever happens is seen by the very next list."""
    call("workspace.create", name="ws")
    with shared_host.runtime.connect() as ptyd, shared_host.runtime.connect() as viewer:
        session = call(
            "session.create", workspace="ws", argv=["sh", "-c", "trap '' HUP; sleep 1000 & read x"]
        )["id"]
        assert call.row(session)["live"]["attached"] == 0
        attachment = viewer.call("session.attach", id=session)["attachment"]
        assert call.row(session)["live"]["attached"] == 1
        viewer.call("session.detach", attachment=attachment)
        assert call.row(session)["live"]["attached"] == 0
        ptyd.call("session.input", id=session, data=b"\n")
        wait_for_end(ptyd, session, "exit")
        assert call.row(session)["live"]["state"] == "lingering"
        ptyd.call("session.kill", id=session, force=True)
        assert call.row(session)["live"]["state"] == "exited"
        ptyd.call("session.forget", id=session)
        row = call.row(session)
        assert (row["live"], row["live_unknown"]) == (None, None)


def test_what_is_shown_of_ptyd_is_looked_at_anew_after_many_events(
    call: Checked, shared_host: HostService
) -> None:
    call("workspace.create", name="ws")
    session = call("session.create", workspace="ws", argv=SLEEP)["id"]
    call("session.list")
    with shared_host.runtime.connect() as viewer:
        for _ in range(MANY):
            attachment = viewer.call("session.attach", id=session)["attachment"]
            viewer.call("session.detach", attachment=attachment)
        viewer.call("session.attach", id=session)
        assert call.row(session)["live"]["attached"] == 1


def test_what_is_shown_of_ptyd_is_the_new_daemons_after_a_restart(host: HostService) -> None:
    """Its numbers mean nothing in another: nothing of the old daemon's is shown any more."""
    host.start()
    with host.connect() as rpc:
        call = Checked(rpc)
        workspace = call("workspace.create")["id"]
        sessions = [call("session.create", workspace=workspace, argv=SLEEP)["id"] for _ in range(2)]
        assert {row["live"]["state"] for row in call("session.list")["sessions"]} == {"running"}
        host.runtime.wait_for_new_daemon(host.runtime.kill_daemon())
        with host.runtime.connect() as ptyd:
            wait_until(lambda: ptyd.call("session.list")["complete"])
            ptyd.call("session.kill", id=sessions[0], force=True)
        states = {row["id"]: row["live"]["state"] for row in call("session.list")["sessions"]}
        assert states == {sessions[0]: "exited", sessions[1]: "running"}
        call("workspace.delete", id=workspace)


def test_C1_dispose_answers_the_row_with_its_evidence(call: Checked) -> None:
    call("workspace.create", name="ws")
    session = call("session.create", workspace="ws", argv=SLEEP, name="doomed")["id"]
    row = call("session.dispose", id="doomed")
    assert (row["id"], row["status"], row["live"]["state"]) == (session, "disposed", "exited")
    assert row["kill_evidence"]["proof"] == "echild"
    assert row["dispose_requested_at_ms"] <= row["ended_at_ms"]
    assert call("session.dispose", id=session, force=True)["ended_at_ms"] == row["ended_at_ms"]
    assert call.code("session.dispose", id="doomed") == "not_found"  # a name is for the living
    assert call.code("session.dispose", id=session, generation=2) == "not_found"
    call("workspace.delete", id="ws")
    archived = call("session.dispose", id=session)
    assert {key: archived[key] for key in ("id", "status", "kill_evidence", "ended_at_ms")} == {
        key: row[key] for key in ("id", "status", "kill_evidence", "ended_at_ms")
    }
    assert call.code("session.dispose", id=session, generation=2) == "not_found"


# --- the reaper ------------------------------------------------------------------------------------


def test_a_pass_is_answered_and_recorded(call: Checked) -> None:
    found = call("reap", kinds=["sessions", "rows"])
    assert (found["state"], found["origin"], found["kinds"]) == ("ok", "manual", ["rows", "sessions"])
    assert call("passes", limit=1)["passes"] == [found]
    assert call("reap")["kinds"] == list(KINDS)
    assert call("health")["reaper"]["last"]["id"] == found["id"] + 1
    dry = call("reap", dry_run=True)
    assert (dry["dry_run"], dry["counts"]["planned"]) == (True, 0)
    assert call.refused("reap", accept="0" * 16).code == "plan_changed"
    for kinds in ([], ["everything"], "sessions"):
        assert call.code("reap", kinds=kinds) == "invalid_params"
    for limit in (0, 101):
        assert call.code("passes", limit=limit) == call.code("saga.list", limit=limit) == "invalid_params"


def test_health_is_reset_and_a_list_is_compared(call: Checked) -> None:
    assert call("health.reset")["ptyd"]["watch"]["open_because"] is None
    call("workspace.create", id="here")
    told = call("workspace.reconcile", live=["here"], complete=True)
    assert (told["dropped"], told["refused"]) == ([], None)
    assert call("workspace.reconcile")["refused"] == "the peer sends no list"


# --- whoever leaves --------------------------------------------------------------------------------


def ask_and_leave(host: HostService, method: str, **params: Any) -> None:
    with host.connect() as rpc:
        rpc.send(method, **params)


def test_a_delete_goes_on_when_its_client_leaves(call: Checked, shared_host: HostService) -> None:
    call("workspace.create", name="left")
    sessions = [call("session.create", workspace="left", argv=SLEEP)["id"] for _ in range(5)]
    ask_and_leave(shared_host, "workspace.delete", id="left")
    wait_until(lambda: call.names() == [], what="it is deleted")
    assert call("workspace.delete", id="left")["state"] == "deleted"
    with shared_host.runtime.connect() as ptyd:
        assert {ptyd.call("session.get", id=one)["state"] for one in sessions} == {"exited"}


def test_a_session_is_made_when_its_client_leaves(call: Checked, shared_host: HostService) -> None:
    call("workspace.create", name="left")
    ask_and_leave(shared_host, "session.create", workspace="left", argv=SLEEP)

    def statuses() -> list[str]:
        return [row["status"] for row in call("session.list", workspace="left")["sessions"]]

    wait_until(lambda: statuses() == ["active"], what="its row is active")


def test_a_pass_and_a_dispose_go_on_when_their_client_leaves(call: Checked, shared_host: HostService) -> None:
    call("workspace.create", name="ws")
    session = call("session.create", workspace="ws", argv=SLEEP)["id"]
    before = call("passes", limit=1)["passes"][0]["id"]
    ask_and_leave(shared_host, "reap")
    wait_until(lambda: call("passes", limit=1)["passes"][0]["id"] > before, what="there is a pass")
    wait_until(lambda: call("passes", limit=1)["passes"][0]["state"] == "ok", what="it is over")
    ask_and_leave(shared_host, "session.dispose", id=session)
    wait_until(lambda: call.row(session)["status"] == "disposed", what="it is disposed of")


def test_every_method_was_called_here() -> None:
    """A method that is added gets its answer held to its shape too."""
    source = Path(__file__).read_text()
    assert [name for name in METHODS if f'"{name}"' not in source] == []
