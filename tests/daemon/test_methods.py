"""The methods around a session: births, names, labels, generations, what is kept; and the daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack
import pytest

from ptyd.protocol.fields import parse_map
from ptyd.protocol.limits import ADVERTISED
from ptyd.protocol.messages import RESULTS
from tests.daemon.conftest import Connect
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.sessions import read_all, shell, spawn, spawn_ready, wait_for_end, wait_for_output
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


def call(rpc: Rpc, method: str, **params: Any) -> dict[str, Any]:
    """Call, and hold the answer to what the protocol says of it."""
    answer: dict[str, Any] = rpc.call(method, **params)
    parse_map(RESULTS[method], answer)
    return answer


def refused(rpc: Rpc, method: str, **params: Any) -> RpcError:
    """Call what must be refused, and leave nothing behind; return the error."""
    with pytest.raises(RpcError) as caught:
        rpc.call(method, **params)
    assert caught.value.error["message"]
    return caught.value


def ended(rpc: Rpc, argv: list[str] | None = None, **params: Any) -> str:
    """Spawn what ends at once, and wait for that."""
    session = spawn(rpc, argv or ["true"], **params)
    wait_for_end(rpc, session)
    return session


def end(rpc: Rpc, *sessions: str) -> None:
    for session in sessions:
        rpc.call("session.kill", id=session, force=True)


def listed(rpc: Rpc, **params: Any) -> list[str]:
    answer = call(rpc, "session.list", **params)
    assert answer["complete"]
    return [row["id"] for row in answer["sessions"]]


# --- birth -----------------------------------------------------------------------------------------


def test_a_session_is_as_asked_for(rpc: Rpc, tmp_path: Path) -> None:
    asked = {
        "id": "as-asked",
        "generation": 3,
        "argv": ["sleep", "1000"],
        "cwd": str(tmp_path),
        "rows": 5,
        "cols": 6,
        "name": "wanted",
        "labels": {"run": "blue", "empty": ""},
    }
    row = call(rpc, "session.spawn", **asked)
    assert {key: row[key] for key in asked} == asked
    assert row["state"] == "running"
    assert processes.started(row["pid"]) == row["pid_start"]
    assert (row["attached"], row["output_offset"], row["scrollback_start"], row["exit"]) == (0, 0, 0, None)
    assert (row["last_output_age_ms"], row["proof"], row["ended_at_ms"]) == (None, None, None)
    again = call(rpc, "session.get", id="as-asked")
    assert {**again, "foreground": None, "busy": None, "processes": None} == {
        **row,
        "age_ms": again["age_ms"],
    }
    end(rpc, "as-asked")
    row = call(rpc, "session.get", id="as-asked")
    assert (row["state"], row["exit"], row["proof"]) == ("exited", {"signal": 9}, "echild")
    assert row["ended_at_ms"] >= row["created_at_ms"]
    assert (row["rows"], row["labels"], row["generation"]) == (5, asked["labels"], 3)


def test_ids_are_made_up_unless_given(rpc: Rpc) -> None:
    sessions = [spawn(rpc, ["true"]) for _ in range(5)]
    assert len(set(sessions)) == 5


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "..", "é", "x" * 65, "a.b", 5, b"bytes", "a\n"])
def test_ids_are_file_names(rpc: Rpc, bad: Any) -> None:
    assert refused(rpc, "session.spawn", argv=["true"], id=bad).code == "invalid_params"


def test_a_living_id_exists(rpc: Rpc) -> None:
    session = spawn(rpc, ["sleep", "1000"])
    assert refused(rpc, "session.spawn", argv=["true"], id=session).code == "exists"
    assert refused(rpc, "session.spawn", argv=["true"], id=session, generation=2).code == "exists"
    assert call(rpc, "session.get", id=session)["state"] == "running"
    end(rpc, session)


def test_an_ended_id_exists_up_to_its_generation(rpc: Rpc) -> None:
    session = ended(rpc, generation=4)
    for generation in (1, 3, 4):
        error = refused(rpc, "session.spawn", argv=["true"], id=session, generation=generation)
        assert (error.code, error.data["generation"]) == ("exists", 4)
    row = call(rpc, "session.spawn", argv=["sleep", "1000"], id=session, generation=5)
    assert (row["generation"], row["state"]) == (5, "running")
    assert listed(rpc).count(session) == 1
    end(rpc, session)


def test_spawns_of_one_id_at_once_are_one_session(rpc: Rpc, connect: Connect) -> None:
    clients = [connect() for _ in range(8)]
    asked = [client.send("session.spawn", argv=["sleep", "1000"], id="only-one") for client in clients]
    codes = []
    for client, msgid in zip(clients, asked, strict=True):
        try:
            client.result(msgid)
            codes.append("born")
        except RpcError as err:
            codes.append(err.code)
    assert sorted(codes) == ["born", *["exists"] * 7]
    end(rpc, "only-one")


def test_a_killed_id_is_fenced_up_to_its_generation(rpc: Rpc) -> None:
    session = spawn(rpc, ["sleep", "1000"], generation=2)
    end(rpc, session)
    for generation in (1, 2):
        error = refused(rpc, "session.spawn", argv=["true"], id=session, generation=generation)
        assert (error.code, error.data["generation"]) == ("fenced", 2)
    call(rpc, "session.forget", id=session)
    assert refused(rpc, "session.spawn", argv=["true"], id=session, generation=2).code == "fenced"
    assert spawn(rpc, ["true"], id=session, generation=3) == session
    wait_for_end(rpc, session)


def test_a_kill_of_an_id_that_never_was_fences_it(rpc: Rpc) -> None:
    assert refused(rpc, "session.kill", id="never-was", generation=7).code == "not_found"
    assert refused(rpc, "session.spawn", argv=["true"], id="never-was", generation=7).code == "fenced"
    assert refused(rpc, "session.kill", id="never-was").code == "not_found"
    assert refused(rpc, "session.spawn", argv=["true"], id="never-was", generation=7).code == "fenced"
    assert spawn(rpc, ["true"], id="never-was", generation=8) == "never-was"
    wait_for_end(rpc, "never-was")


def test_a_kill_of_an_older_generation_leaves_the_newer_alone(rpc: Rpc) -> None:
    session = spawn(rpc, ["sleep", "1000"], generation=5)
    error = refused(rpc, "session.kill", id=session, generation=4, force=True)
    assert (error.code, error.data["generation"]) == ("not_found", 5)
    assert call(rpc, "session.get", id=session)["state"] == "running"
    call(rpc, "session.kill", id=session, generation=9, force=True)
    assert refused(rpc, "session.spawn", argv=["true"], id=session, generation=9).code == "fenced"


def test_fences_outlive_the_daemon(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc:
        rpc.call("hello", client="t", protocols=[1], errors="map")
        refused(rpc, "session.kill", id="late", generation=2)
        session = spawn(rpc, ["sleep", "1000"])
        end(rpc, session)
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    with daemon.connect() as rpc:
        rpc.call("hello", client="t", protocols=[1], errors="map")
        assert refused(rpc, "session.spawn", argv=["true"], id="late", generation=2).code == "fenced"
        assert refused(rpc, "session.spawn", argv=["true"], id=session).code == "fenced"
        call(rpc, "session.spawn", argv=["sleep", "1000"], id="late", generation=3)


@pytest.mark.parametrize("generation", [0, -1, 2**31, 1.0, "1", True])
def test_generations_count_from_one(rpc: Rpc, generation: Any) -> None:
    assert refused(rpc, "session.spawn", argv=["true"], generation=generation).code == "invalid_params"


def test_what_was_meant_for_another_instance_is_refused(rpc: Rpc) -> None:
    instance = rpc.call("daemon.stats")["instance_id"]
    session = spawn(rpc, ["sleep", "1000"], expect_instance=instance)
    for method, params in (("session.spawn", {"argv": ["true"]}), ("session.kill", {"id": session})):
        error = refused(rpc, method, **params, expect_instance="another")
        assert (error.code, error.data["instance_id"]) == ("wrong_instance", instance)
    assert call(rpc, "session.get", id=session)["state"] == "running"
    rpc.call("session.kill", id=session, force=True, expect_instance=instance)


def test_no_more_sessions_than_allowed(runtime: RuntimeDir) -> None:
    runtime.start(PTYD_MAX_SESSIONS="2")
    with runtime.connect() as rpc:
        rpc.call("hello", client="t", protocols=[1], errors="map")
        first, _ = spawn(rpc, ["sleep", "1000"]), spawn(rpc, ["sleep", "1000"])
        assert refused(rpc, "session.spawn", argv=["true"]).code == "too_many_sessions"
        end(rpc, first)
        ended(rpc)
        spawn(rpc, ["sleep", "1000"])


# --- names -----------------------------------------------------------------------------------------


def test_a_name_is_as_good_as_an_id(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "exec cat", name="my.name")
    attachment = call(rpc, "session.attach", id="my.name")["attachment"]
    call(rpc, "session.detach", attachment=attachment)
    call(rpc, "session.input", id="my.name", data=b"typed")
    wait_for_output(rpc, "my.name", b"typed")
    call(rpc, "session.resize", id="my.name", rows=9, cols=9)
    assert call(rpc, "session.signal", id="my.name", signal="CONT")["signalled"] == 1
    assert call(rpc, "session.get", id="my.name")["id"] == session
    call(rpc, "session.update", id="my.name", labels={"a": "1"})
    assert call(rpc, "session.kill", id="my.name", force=True)["outcome"] == "killed"
    assert call(rpc, "session.read", id="my.name", offset=0)["data"].endswith(b"typed")
    call(rpc, "session.forget", id="my.name")
    assert refused(rpc, "session.get", id="my.name").code == "not_found"
    assert refused(rpc, "session.get", id=session).code == "not_found"


def test_names_are_unique_among_the_living(rpc: Rpc) -> None:
    first, second = spawn(rpc, ["sleep", "1000"], name="taken"), spawn(rpc, ["sleep", "1000"])
    assert refused(rpc, "session.spawn", argv=["true"], name="taken").code == "name_taken"
    assert refused(rpc, "session.update", id=second, name="taken").code == "name_taken"
    call(rpc, "session.update", id=first, name="taken")  # its own it may keep
    end(rpc, first)
    third = spawn(rpc, ["sleep", "1000"], name="taken")
    assert call(rpc, "session.get", id="taken")["id"] == third
    end(rpc, third)
    assert call(rpc, "session.get", id="taken")["id"] == third  # the newest of the dead
    call(rpc, "session.forget", id=third)
    assert call(rpc, "session.get", id="taken")["id"] == first
    end(rpc, second)


def test_two_cannot_take_a_name_at_once(rpc: Rpc, connect: Connect) -> None:
    sessions = [spawn(rpc, ["sleep", "1000"]) for _ in range(4)]
    clients = [connect() for _ in sessions]
    asked = [
        client.send("session.update", id=session, name="the-one")
        for client, session in zip(clients, sessions, strict=True)
    ]
    codes = []
    for client, msgid in zip(clients, asked, strict=True):
        try:
            codes.append(client.result(msgid)["name"])
        except RpcError as err:
            codes.append(err.code)
    assert sorted(codes) == ["name_taken"] * 3 + ["the-one"]
    names = [row["name"] for row in rpc.call("session.list", state="running")["sessions"]]
    assert names.count("the-one") == 1
    end(rpc, *sessions)


def test_updates_at_once_do_not_undo_each_other(rpc: Rpc, connect: Connect) -> None:
    session, other = spawn(rpc, ["sleep", "1000"]), connect()
    name = rpc.send("session.update", id=session, name="one")
    labels = other.send("session.update", id=session, labels={"a": "b"})
    rpc.result(name)
    other.result(labels)
    row = call(rpc, "session.get", id=session)
    assert (row["name"], row["labels"]) == ("one", {"a": "b"})
    end(rpc, session)


def test_an_id_wins_over_a_name(rpc: Rpc) -> None:
    by_id = spawn(rpc, ["sleep", "1000"], id="ambiguous")
    by_name = spawn(rpc, ["sleep", "1000"], name="ambiguous")
    assert call(rpc, "session.get", id="ambiguous")["id"] == by_id
    end(rpc, by_id, by_name)


def test_a_name_can_be_dropped(rpc: Rpc) -> None:
    session = spawn(rpc, ["sleep", "1000"], name="for-now")
    assert call(rpc, "session.update", id=session, name="")["name"] is None
    assert refused(rpc, "session.get", id="for-now").code == "not_found"
    other = spawn(rpc, ["sleep", "1000"], name="for-now")
    end(rpc, session, other)


@pytest.mark.parametrize("bad", ["a b", "a/b", "a\n", "\x7f", "x" * 65, 5, "\x85"])
def test_names_are_one_word(rpc: Rpc, bad: Any) -> None:
    assert refused(rpc, "session.spawn", argv=["true"], name=bad).code == "invalid_params"
    session = spawn(rpc, ["sleep", "1000"])
    assert refused(rpc, "session.update", id=session, name=bad).code == "invalid_params"
    end(rpc, session)


# --- labels ----------------------------------------------------------------------------------------


def test_labels_select(rpc: Rpc) -> None:
    mine = {"suite": "labels"}
    blue = spawn(rpc, ["sleep", "1000"], labels={**mine, "colour": "blue"})
    red = spawn(rpc, ["sleep", "1000"], labels={**mine, "colour": "red"})
    plain = spawn(rpc, ["sleep", "1000"])
    assert set(listed(rpc, labels=mine)) == {blue, red}
    assert listed(rpc, labels={**mine, "colour": "red"}) == [red]
    assert listed(rpc, labels={**mine, "colour": "grey"}) == []
    for bad in ({}, {"colour": ""}, {"colour": "*"}):
        assert refused(rpc, "session.list", labels=bad).code == "invalid_params"
    assert {blue, red, plain} <= set(listed(rpc))
    call(rpc, "session.update", id=red, labels={**mine, "colour": "green"})
    assert listed(rpc, labels={**mine, "colour": "red"}) == []
    call(rpc, "session.update", id=red, labels={})
    assert listed(rpc, labels=mine) == [blue]
    results = rpc.call("session.kill", labels=mine, force=True)["results"]
    assert [result["id"] for result in results] == [blue]
    assert call(rpc, "session.get", id=red)["state"] == "running"
    end(rpc, red, plain)


@pytest.mark.parametrize(
    "bad",
    [
        {"a b": "c"},
        {"": "c"},
        {"a": 5},
        {"a": "\n"},
        {"a": "x" * 257},
        {f"k{n}": "" for n in range(33)},
        "a=b",
        5,
    ],
)
def test_labels_have_bounds(rpc: Rpc, bad: Any) -> None:
    assert refused(rpc, "session.spawn", argv=["true"], labels=bad).code == "invalid_params"


def test_names_and_labels_outlive_the_daemon(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc:
        session = spawn(rpc, ["sleep", "1000"], name="old", labels={"old": "1"})
        rpc.call("session.update", id=session, name="new", labels={"new": "2"})
        dead = spawn(rpc, ["sleep", "1000"], name="dead")
        rpc.call("session.update", id=dead, labels={"kept": "3"})
        rpc.call("session.kill", id=dead, force=True)
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    with daemon.connect() as rpc:
        row = rpc.call("session.get", id="new")
        assert (row["id"], row["name"], row["labels"]) == (session, "new", {"new": "2"})
        row = rpc.call("session.get", id="dead")
        assert (row["id"], row["labels"], row["state"]) == (dead, {"kept": "3"}, "exited")


# --- looking ---------------------------------------------------------------------------------------


def test_list_by_state(rpc: Rpc, tmp_path: Path) -> None:
    mine = {"suite": "states"}
    running = spawn(rpc, ["sleep", "1000"], labels=mine)
    exited = ended(rpc, labels=mine)
    lingering = shell(rpc, "trap '' HUP; sleep 1000 & exit 0", labels=mine)
    wait_for_end(rpc, lingering, "exit")
    found = {state: listed(rpc, labels=mine, state=state) for state in ("running", "exited", "lingering")}
    assert found == {"running": [running], "exited": [exited], "lingering": [lingering]}
    assert listed(rpc, labels=mine, state="killing") == []
    assert refused(rpc, "session.list", state="asleep").code == "invalid_params"
    assert call(rpc, "session.get", id=lingering)["processes"] == 1
    end(rpc, running, lingering)


def test_a_list_is_never_older_than_a_look_at_one(rpc: Rpc) -> None:
    """What a list keeps of a row it drops with every change of record, facts or state."""
    mine = {"suite": "kept rows"}
    still = ("age_ms", "last_output_age_ms", "foreground", "busy", "processes")

    def same_row() -> dict[str, Any]:
        call(rpc, "session.list")  # keeps it as it is now
        row = call(rpc, "session.get", id=session)
        [line] = call(rpc, "session.list", labels=row["labels"])["sessions"]
        assert {key: line[key] for key in line if key not in still} == {
            key: row[key] for key in row if key not in still
        }
        assert line.keys() == row.keys()
        return row

    session = spawn_ready(rpc, "trap '' HUP; read x; echo more; sleep 1000 & exit 3", labels=mine)
    assert same_row()["state"] == "running"
    call(rpc, "session.update", id=session, name="kept", labels={**mine, "more": "x"})
    assert (same_row()["name"], same_row()["labels"]["more"]) == ("kept", "x")
    call(rpc, "session.resize", id=session, rows=11, cols=22)
    assert (same_row()["rows"], same_row()["cols"]) == (11, 22)
    call(rpc, "session.attach", id=session)
    assert same_row()["attached"] == 1
    call(rpc, "session.input", id=session, data=b"\n")
    wait_for_output(rpc, session, b"more")
    wait_for_end(rpc, session, "exit")
    assert (same_row()["state"], same_row()["exit"]) == ("lingering", {"code": 3})
    end(rpc, session)
    assert (same_row()["state"], same_row()["proof"]) == ("exited", "echild")


def test_detail_only_when_asked_for(rpc: Rpc) -> None:
    mine = {"suite": "detail"}
    session = spawn_ready(rpc, "sleep 1000; true", labels=mine)
    [row] = call(rpc, "session.list", labels=mine)["sessions"]
    assert (row["foreground"], row["busy"], row["processes"]) == (None, None, None)
    wait_until(lambda: call(rpc, "session.get", id=session)["processes"] == 2)
    [row] = call(rpc, "session.list", labels=mine, detail=True)["sessions"]
    assert (row["foreground"]["pgid"], row["foreground"]["command"]) == (row["pid"], "sh")
    assert (row["busy"], row["processes"]) == (True, 2)
    end(rpc, session)
    [row] = call(rpc, "session.list", labels=mine, detail=True)["sessions"]
    assert (row["foreground"], row["busy"], row["processes"]) == (None, False, 0)


def test_a_quiet_shell_is_not_busy(rpc: Rpc) -> None:
    """Until somebody looks, or something else runs in its foreground; and what is no shell is."""
    session = shell(rpc, "stty -echo; read x; set -m; sh -c 'read x'; read x", name="quiet")

    def busy() -> bool:
        found: bool = call(rpc, "session.get", id=session)["busy"]
        return found

    wait_until(lambda: call(rpc, "session.get", id=session)["processes"] == 1, what="stty is done")
    assert not busy()
    attachment = call(rpc, "session.attach", id=session)["attachment"]
    assert busy()
    call(rpc, "session.detach", attachment=attachment)
    assert not busy()
    call(rpc, "session.input", id=session, data=b"\n")
    wait_until(busy, what="a foreground job runs")
    call(rpc, "session.input", id=session, data=b"\n")
    wait_until(lambda: not busy(), what="the job is done")
    other = spawn(rpc, ["sleep", "1000"])
    assert call(rpc, "session.get", id=other)["busy"] is True
    end(rpc, session, other)


def test_output_is_counted_and_dated(rpc: Rpc) -> None:
    session = spawn_ready(rpc, "printf 0123456789; exec sleep 1000")
    wait_for_output(rpc, session, b"0123456789")
    row = call(rpc, "session.get", id=session)
    assert (row["output_offset"], row["scrollback_start"]) == (16, 0)
    assert 0 <= row["last_output_age_ms"] < 60_000
    end(rpc, session)


@pytest.mark.parametrize(
    "method, params",
    [
        ("session.get", {}),
        ("session.attach", {}),
        ("session.input", {"data": b""}),
        ("session.resize", {"rows": 1, "cols": 1}),
        ("session.read", {"offset": 0}),
        ("session.signal", {"signal": 1}),
        ("session.wait", {}),
        ("session.update", {}),
        ("session.forget", {}),
    ],
)
def test_nobody_is_not_found(rpc: Rpc, method: str, params: dict[str, Any]) -> None:
    error = refused(rpc, method, id="nobody", **params)
    assert error.code == "not_found"
    assert "nobody" in error.error["message"]


# --- update and forget -----------------------------------------------------------------------------


def test_an_ended_session_is_not_updated(shared_runtime: RuntimeDir, rpc: Rpc) -> None:
    """Its record says how it ended; nothing may replace that."""
    session = ended(rpc, ["sh", "-c", "exit 6"], name="last-words")
    assert refused(rpc, "session.update", id=session, name="other").code == "ended"
    record = shared_runtime.record(session)
    assert (record["ended"], record["exit"], record["name"]) == (True, {"code": 6}, "last-words")


def test_forget_drops_the_record_and_the_shim(shared_runtime: RuntimeDir, rpc: Rpc) -> None:
    session = ended(rpc, ["echo", "words"])
    shim = shared_runtime.shim_pid(session)
    assert call(rpc, "session.forget", id=session) == {}
    assert not shared_runtime.has_record(session)
    wait_until(lambda: not processes.alive(shim), what="the shim leaves")
    assert session not in listed(rpc)
    for method, params in (("session.get", {}), ("session.forget", {}), ("session.read", {"offset": 0})):
        assert refused(rpc, method, id=session, **params).code == "not_found"
    assert ended(rpc, id=session) == session  # nobody killed it: its id is free


def test_the_living_are_not_forgotten(shared_runtime: RuntimeDir, rpc: Rpc) -> None:
    session = spawn(rpc, ["sleep", "1000"])
    assert refused(rpc, "session.forget", id=session).code == "still_running"
    lingering = shell(rpc, "trap '' HUP; sleep 1000 & exit 0")
    wait_for_end(rpc, lingering, "exit")
    assert refused(rpc, "session.forget", id=lingering).code == "still_running"
    assert shared_runtime.has_record(session)
    end(rpc, session, lingering)


def test_only_so_many_ended_ones_are_kept(runtime: RuntimeDir) -> None:
    """The oldest go first, with their files; the living do not count."""
    runtime.start(PTYD_KEEP_ENDED="3")
    with runtime.connect() as rpc:
        rpc.call("hello", client="t", protocols=[1], errors="map")
        living = spawn(rpc, ["sleep", "1000"])
        dead = [ended(rpc) for _ in range(6)]
        wait_until(lambda: len(listed(rpc)) == 4, what="the oldest are forgotten")
        assert set(listed(rpc)) == {living, *dead[-3:]}
        sessions = runtime.path / "sessions"
        assert {path.stem for path in sessions.glob("*.json")} == {living, *dead[-3:]}


def test_none_are_kept_when_so_set(runtime: RuntimeDir) -> None:
    runtime.start(PTYD_KEEP_ENDED="0")
    with runtime.connect() as rpc:
        rpc.call("hello", client="t", protocols=[1], errors="map")
        session = spawn_ready(rpc, "read x; exit 4")
        wait = rpc.send("session.wait", id=session)
        rpc.call("session.input", id=session, data=b"\n")
        assert rpc.result(wait)["exit"] == {"code": 4}  # whoever waits still hears of it
        wait_until(lambda: listed(rpc) == [], what="it is forgotten")


# --- the daemon itself -----------------------------------------------------------------------------


def test_hello_and_stats(shared_runtime: RuntimeDir, connect: Connect) -> None:
    rpc = connect()
    with shared_runtime.connect() as other:
        hello = call(other, "hello", client="stranger 1.0", protocols=[1, 2, 99])
        assert (hello["server"], hello["protocol"]) == ("ptyd", 1)
        assert hello["pid"] == shared_runtime.daemon_pid()
        assert hello["limits"].items() >= ADVERTISED.items()
        before = call(rpc, "daemon.stats")
        assert (before["instance_id"], before["daemon_id"]) == (hello["instance_id"], hello["daemon_id"])
        session = spawn(rpc, ["sleep", "1000"])
        other.call("session.attach", id=session)
        after = call(rpc, "daemon.stats")
        assert after["sessions"]["running"] == before["sessions"].get("running", 0) + 1
        assert after["attachments"] == before["attachments"] + 1
        assert after["events"] > before["events"]
        assert after["clients"] == before["clients"]
    wait_until(lambda: rpc.call("daemon.stats")["clients"] == before["clients"] - 1)
    assert rpc.call("daemon.stats")["attachments"] == before["attachments"]
    end(rpc, session)


def test_hello_comes_first_or_never(shared_runtime: RuntimeDir) -> None:
    with shared_runtime.connect() as rpc:
        assert rpc.call("daemon.stats")
        with pytest.raises(RpcError) as caught:
            rpc.call("hello", client="late", protocols=[1])
        assert caught.value.code == "bad_request"
        with pytest.raises(RpcError) as caught:
            rpc.call("session.get", id="nobody")
        number, text = caught.value.error  # as every MessagePack-RPC client can show it
        assert isinstance(number, int)
        assert text.startswith("not_found: no session nobody")


@pytest.mark.parametrize("protocols", [[], [2], [0], "1", [1.0], ["1"]])
def test_a_protocol_we_do_not_speak_is_refused(shared_runtime: RuntimeDir, protocols: Any) -> None:
    with shared_runtime.connect() as rpc, pytest.raises(RpcError) as caught:
        rpc.call("hello", client="new", protocols=protocols)
    assert caught.value.code == "invalid_params"


def test_unknown_methods_and_notifications(rpc: Rpc) -> None:
    with pytest.raises(RpcError) as caught:
        rpc.call("session.explode")
    assert caught.value.code == "unknown_method"
    rpc.notify("session.explode")
    rpc.notify("session.kill", id="nobody")  # only input may be a notification
    rpc.call("daemon.stats", unknown="key")
    assert not rpc.notifications


def test_params_may_be_no_map_at_all(rpc: Rpc) -> None:
    for n, params in enumerate(([], [{}], [[]])):
        rpc.send_raw(msgpack.packb([0, 1000 + n, "daemon.stats", params]))
        assert rpc.result(1000 + n)["pid"]


def test_requests_run_side_by_side_up_to_a_limit(rpc: Rpc) -> None:
    session = spawn(rpc, ["sleep", "1000"])
    waits = [rpc.send("session.wait", id=session) for _ in range(64)]
    with pytest.raises(RpcError) as caught:
        rpc.call("daemon.stats")
    assert caught.value.code == "too_many_requests"
    processes.kill(rpc_pid(rpc, waits, session))
    for msgid in waits:
        assert rpc.result(msgid)["exit"] == {"signal": 9}
    assert rpc.call("daemon.stats")


def rpc_pid(rpc: Rpc, waits: list[int], session: str) -> int:
    """Find the leader without another request."""
    [pid] = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if carries(path, f"PTYD_SESSION={session}")
    ]
    return pid


def carries(path: Path, item: str) -> bool:
    try:
        return item.encode() in path.read_bytes().split(b"\0")
    except OSError:
        return False


def test_stop_leaves_the_sessions_to_the_next_daemon(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc:
        session = spawn_ready(rpc, "printf before; read x; printf after; exec sleep 1000")
        wait_for_output(rpc, session, b"before")
        rpc.call("session.attach", id=session)
        old, shim = daemon.daemon_pid(), daemon.shim_pid(session)
        assert call(rpc, "daemon.stop") == {"sessions": 1}
        _, params = rpc.next_notification("session.detached")
        assert params["reason"] == "stopping"
        method, params = rpc.next_notification()
        assert (method, params["code"]) == ("error", "stopping")
        with pytest.raises(Disconnected):
            rpc.next_notification()
    wait_until(lambda: not processes.alive(old), what="the daemon leaves")
    assert processes.alive(shim)
    daemon.wait_for_new_daemon(start_again(daemon, old))
    with daemon.connect() as rpc:
        row = rpc.call("session.get", id=session)
        assert (row["state"], row["attached"]) == ("running", 0)
        rpc.call("session.input", id=session, data=b"\n")
        wait_for_output(rpc, session, b"after")
        assert read_all(rpc, session) == b"ready\nbeforeafter"


def start_again(daemon: RuntimeDir, old: int) -> int:
    """Ask the zygote, which lives on with its shim, for a daemon; return the pid of the one before."""
    from ptyd import launch

    env = dict(os.environ)
    os.environ.update(daemon.settings)
    try:
        launch.start_daemon(str(daemon.path))
    finally:
        os.environ.clear()
        os.environ.update(env)
    return old


def test_stop_and_kill(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc:
        session = spawn(rpc, ["sleep", "1000"])
        pid = rpc.call("session.get", id=session)["pid"]
        zygote = daemon.zygote_pid()
        assert call(rpc, "daemon.stop", kill=True) == {"sessions": 0}
    assert not processes.alive(pid)
    wait_until(lambda: not processes.alive(zygote), what="the zygote leaves with its last shim")
    assert daemon.record(session)["proof"] == "echild"
    assert not daemon.socket.exists()
