"""P5 and P6 with a ptyd that lies: nothing is killed, removed or marked lost by it, and health says so.

One service, and one lie after the other; each test ends with the truth and finds everything where it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hostsvc.liar import (
    Answer,
    DeceivedHost,
    Edit,
    Garbage,
    HangUp,
    Hold,
    Liar,
    Lie,
    Refuse,
    Silence,
)
from tests.hostsvc.places import (
    OWNER,
    acts,
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
from tests.support.rpc import RpcError
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


@pytest.fixture(scope="module")
def deceived(shared_runtime: RuntimeDir) -> Iterator[tuple[Liar, HostService]]:
    """A service that believes to speak to ptyd, and three sessions of it that somebody wants."""
    with Liar(shared_runtime.base / "liar", shared_runtime.socket) as liar:
        host = DeceivedHost(liar, HostService(shared_runtime))
        serve(host, HOSTSVC_KILL_DEADLINE_S="1", HOSTSVC_KEEP_TRASH_S="0")
        workspace(host, id="w")
        for _ in range(3):
            session(host, "w")
        yield liar, host
        host.stop()


@pytest.fixture
def liar(deceived: tuple[Liar, HostService]) -> Liar:
    return deceived[0]


@pytest.fixture
def told(deceived: tuple[Liar, HostService]) -> Iterator[HostService]:
    """The service; afterwards, told the truth again, everything that is wanted is where it was."""
    liar, host = deceived
    listed = host.call("session.list", workspace="w", status="active")["sessions"]
    wanted = [row for row in listed if row["dispose_requested_at_ms"] is None]
    assert len(wanted) >= 3
    yield host
    liar.lies = {}
    wait_until(lambda: reap(host)["state"] == "ok", what="told the truth, a pass is fine")
    assert host.call("health")["status"] == "green"
    after = {row["id"]: row for row in host.call("session.list", workspace="w")["sessions"]}
    for row in wanted:
        assert is_alive(row)
        assert after[row["id"]]["status"] == "active"
        assert after[row["id"]]["attempts"] == row["attempts"]


def _drop_all(listing: dict[str, Any]) -> dict[str, Any]:
    return {**listing, "sessions": []}


def _spoil(**fields: Any) -> Edit:
    """Answer the list with every session changed."""
    return Edit(lambda told: {**told, "sessions": [{**one, **fields} for one in told["sessions"]]})


UNSEEN: dict[str, Lie] = {
    "refuses": Refuse("internal"),
    "is-stopping": Refuse("stopping"),
    "says-nothing": Silence(),
    "hangs-up": HangUp(),
    "garbage": Garbage(b"\xc1" * 100),
    "another-protocol": Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "no-map": Answer("everything is fine"),
    "nil": Answer(None),
    "no-instance": Edit(lambda told: {**told, "instance_id": None}),
    "half": Edit(lambda told: {**told, "complete": False, "sessions": told["sessions"][:1]}),
    "half-and-empty": Edit(lambda told: {**_drop_all(told), "complete": False}),
    "complete-is-no-boolean": Edit(lambda told: {**_drop_all(told), "complete": "no"}),
    "an-older-peer": Edit(lambda told: {"instance_id": told["instance_id"], "sessions": []}),
    "sessions-are-no-list": Edit(lambda told: {**told, "sessions": 7}),
    "sessions-are-no-maps": Edit(lambda told: {**told, "sessions": ["a", "b"]}),
    "ids-are-numbers": _spoil(id=7),
    "ages-are-words": _spoil(created_at_ms="yesterday"),
    "labels-are-nil": _spoil(labels=None),
    "ended-without-a-proof-we-know": _spoil(state="exited", proof="trust me"),
}


@pytest.mark.parametrize("lie", UNSEEN.values(), ids=UNSEEN.keys())
def test_P5_a_list_that_is_none(liar: Liar, told: HostService, lie: Lie) -> None:
    """C18: the pass is an error, forgets what it had observed, and does nothing."""
    mine = f"stray-{os.urandom(4).hex()}"
    stray(told, mine, **{OWNER: owner_of(told)})
    assert reap(told, kinds=["sessions"])["counts"]["observed"] >= 1
    with liar.lying(session_list=lie):
        found = reap(told)
        assert (found["state"], found["acts"]) == ("error", [])
        assert {"rows", "sessions"} <= set(found["errors"])
        assert told.call("health")["status"] != "green"
        listed = told.call("session.list")["sessions"]
        assert all(row["live"] or row["live_unknown"] for row in listed)
    assert peek(told, "SELECT * FROM observations WHERE kind = 'sessions'") == []
    told.runtime.call("session.kill", id=mine, force=True)


UNBELIEVED: dict[str, Edit] = {
    "empty": Edit(_drop_all),
    "empty-of-another-instance": Edit(lambda told: {**_drop_all(told), "instance_id": "another"}),
    "another-instance": Edit(lambda told: {**told, "instance_id": "another"}),
    "all-lingering": _spoil(state="lingering"),
    "all-of-nobody": _spoil(labels={}),
    "all-of-another-generation": _spoil(generation=9, labels={}),
}


@pytest.mark.parametrize("lie", UNBELIEVED.values(), ids=UNBELIEVED.keys())
def test_P5_a_list_that_looks_fine(liar: Liar, told: HostService, lie: Edit) -> None:
    """Their processes are seen to live, whatever ptyd says: nothing is lost, however often it is said."""
    with liar.lying(session_list=lie):
        for _ in range(3):
            found = reap(told)
            assert (found["state"], found["counts"]["done"]) == ("ok", 0)


UNPROVEN: dict[str, tuple[Lie, str]] = {
    "refuses": (Refuse("busy"), "ptyd_unreachable"),
    "cannot-write-it-down": (Refuse("no_space"), "no_space"),
    "survivors": (Refuse("kill_unconfirmed", {"survivors": [{"pid": 1}]}), "kill_unconfirmed"),
    "another-instance": (Refuse("wrong_instance"), "wrong_instance"),
    "says-nothing": (Silence(), "ptyd_unreachable"),
    "hangs-up": (HangUp(), "ptyd_unreachable"),
    "garbage": (Garbage(b"\xc1" * 100), "ptyd_unreachable"),
    "never-heard-of-it": (Refuse("not_found"), "kill_unconfirmed"),
    "no-map": (Answer(True), "ptyd_unreachable"),
    "killed-without-proof": (
        Answer({"outcome": "killed", "proof": None, "stragglers": []}),
        "kill_unconfirmed",
    ),
    "killed-with-a-proof-we-do-not-know": (
        Answer({"outcome": "killed", "proof": "trust me", "stragglers": []}),
        "kill_unconfirmed",
    ),
}


@pytest.mark.parametrize("lie, code", UNPROVEN.values(), ids=UNPROVEN.keys())
def test_P1_a_kill_without_proof(liar: Liar, told: HostService, lie: Lie, code: str) -> None:
    """C2: the row stays active with its intent, and the next pass that is told the truth ends it."""
    row = session(told, "w")
    workspace(told, id=f"for-{row['id']}")
    with liar.lying(session_kill=lie):
        refused = told.error("session.dispose", id=row["id"])
        kept = row_of(told, row["id"])
    assert refused.code == code
    assert is_alive(row)
    assert (kept["status"], kept["attempts"], kept["kill_evidence"]) == ("active", 1, None)
    assert acts(reap(told)) == {row["id"]: "kill done"}
    assert not is_alive(row)


def test_C7_what_cannot_be_killed_stays_active_and_is_reported_once(liar: Liar, told: HostService) -> None:
    row = session(told, "w")
    survivors = {"survivors": [{"pid": 1, "command": "init", "state": "D", "reason": "not_permitted"}]}
    with told.connect() as events, liar.lying(session_kill=Refuse("kill_unconfirmed", survivors)):
        events.call("events.subscribe")
        for attempts in range(1, 11):
            refused = told.error("session.dispose", id=row["id"])
            assert (refused.code, refused.data["survivors"]) == ("kill_unconfirmed", survivors["survivors"])
            assert row_of(told, row["id"])["attempts"] == attempts
        kept = row_of(told, row["id"])
        assert (kept["status"], kept["kill_evidence"]) == ("active", None)
        assert kept["stuck_at_ms"]
        assert kept["next_attempt_at_ms"] > kept["stuck_at_ms"] + 3_000_000, "retried hourly"
        health = told.call("health")
        assert (health["status"], health["sessions"]["stuck"]) == ("yellow", 1)
        assert reap(told)["counts"]["failed"] == 0, "not due before its hour is over"
        told.call("workspace.create", id="marker")
        types = []
        while "workspace.created" not in types:
            types.append(events.next_notification("event")[1]["type"])
        assert types.count("session.stuck") == 1
    assert told.call("session.dispose", id=row["id"])["status"] == "disposed", "asked for, it is due at once"
    told.call("workspace.delete", id="marker")


def test_P5_a_deletion_while_kills_fail(liar: Liar, told: HostService) -> None:
    """The workspace goes, its survivor stays reachable, and the trash waits for it though its time is up."""
    place = workspace(told, id="doomed")
    row = session(told, "doomed")
    with liar.lying(session_kill=Answer({"outcome": "killed", "proof": None, "stragglers": []})):
        answer = told.call("workspace.delete", id="doomed")
        assert (answer["state"], len(answer["warnings"])) == ("deleted", 1)
        for _ in range(2):
            assert acts(reap(told)) == {row["id"]: "kill failed"}
    assert is_alive(row)
    assert not os.path.exists(place["path"])
    [kept] = peek(told, "SELECT * FROM trash WHERE workspace_id = 'doomed'")
    assert os.path.isdir(kept["trash_path"])
    assert (row_of(told, row["id"])["status"], row_of(told, row["id"])["workspace_id"]) == ("active", None)
    told.call("session.dispose", id=row["id"])
    assert not is_alive(row)
    wait_until(lambda: reap(told) and not os.path.exists(kept["trash_path"]), what="the trash is purged")


SPAWNS: dict[str, Lie] = {
    "hangs-up": HangUp(),
    "says-nothing": Silence(),
    "forgets-to-say": Edit(lambda told: "fine"),
    "says-it-wrong": Edit(lambda told: {**told, "id": 7}),
    "fails-in-between": Edit(lambda told: {**told, "shim_pid": "none"}),
    "says-it-failed-inside": Refuse("internal"),
    "is-busy": Refuse("busy"),
}


@pytest.mark.parametrize("lie", SPAWNS.values(), ids=SPAWNS.keys())
def test_P6_a_spawn_whose_answer_is_none(liar: Liar, told: HostService, lie: Lie) -> None:
    """Whether it ran is not known, so what may have is ended: nobody was ever told its id."""
    before = set(_living(told))
    with liar.lying(session_spawn=lie):
        refused = told.error("session.create", workspace="w", argv=["sleep", "100000"])
    assert refused.code == "ptyd_unreachable"
    reap(told)
    assert set(_living(told)) == before
    rows = peek(told, "SELECT status FROM sessions WHERE status IN ('spawning')")
    assert rows == []


def _living(host: HostService) -> list[int]:
    listed = host.runtime.call("session.list")["sessions"]
    return [one["pid"] for one in listed if one["state"] != "exited" and processes.alive(one["pid"])]


def test_P5_everything_at_once_is_garbage(liar: Liar, told: HostService) -> None:
    """No answer at all makes sense: hostsvc lives on, answers, and says so."""
    methods = ("hello", "session.list", "session.get", "session.kill", "session.spawn", "daemon.stats",
               "events.subscribe")  # fmt: skip
    for lie in (Answer("x"), Answer([1]), Answer(None), Garbage(b"\xc1"), Refuse("x" * 100)):
        liar.lies = dict.fromkeys(methods, lie)
        liar.cut()
        assert reap(told)["state"] == "error"
        assert told.call("health")["status"] != "green"
        assert told.call("workspace.get", id="w")["state"] == "active"
        assert told.error("session.create", workspace="w", argv=["true"]).code == "ptyd_unreachable"
    liar.lies = {}
    liar.cut()
    wait_until(lambda: told.call("health")["ptyd"]["reachable"], 20, "the truth is believed again")


def test_C16_a_failed_kill_of_an_orphan_is_tried_again_at_the_very_next_pass(
    liar: Liar, told: HostService
) -> None:
    pid = stray(told, "orphan", **{OWNER: owner_of(told)})
    with liar.lying(session_kill=Refuse("kill_unconfirmed", {"survivors": []})):
        reap_until(told, "orphan", "kill failed")
        assert acts(reap(told)) == {"orphan": "kill failed"}
    assert processes.alive(pid)
    assert acts(reap(told)) == {"orphan": "kill done"}
    assert not processes.alive(pid)


def test_P6_what_is_being_born_is_not_touched(liar: Liar, told: HostService) -> None:
    """ptyd has it alive, the index has not heard of it yet: its spawn's answer is on the way."""
    hold = Hold("answer")
    with told.connect() as asking, liar.lying(session_spawn=hold):
        asked = asking.send("session.create", workspace="w", argv=["sleep", "100000"])
        hold.wait_held()
        for _ in range(3):
            assert reap(told)["acts"] == []
        hold.release.set()
        row = asking.result(asked)
    assert (row["status"], is_alive(row)) == ("active", True)
    told.call("session.dispose", id=row["id"])


def test_C19_an_empty_list_needs_a_second_look_even_where_it_is_true(liar: Liar, told: HostService) -> None:
    """Its processes are gone and ptyd does not list it: once is not enough to call it lost."""
    row = session(told, "w")
    with liar.lying(session_list=Edit(_drop_all), events_subscribe=Silence()):
        liar.cut()  # and no event tells of the end
        told.runtime.call("session.kill", id=row["id"], force=True)
        shim = row_of(told, row["id"])["shim_pid"]
        told.runtime.call("session.forget", id=row["id"])
        wait_until(lambda: not processes.alive(shim), what="its shim has left")
        assert reap(told)["counts"]["done"] == 0
        assert row_of(told, row["id"])["status"] == "active"
        reap_until(told, row["id"], "bury done")
    assert row_of(told, row["id"])["status"] == "lost"


def test_C20_the_answer_to_a_spawn_comes_after_the_workspace_is_gone(liar: Liar, told: HostService) -> None:
    for what in ("request", "answer"):
        workspace(told, id=f"going-{what}")
        hold = Hold(what)
        with told.connect() as asking, liar.lying(session_spawn=hold):
            asking.call("hello", client="tests", protocols=[1], errors="map")
            asked = asking.send("session.create", workspace=f"going-{what}", argv=["sleep", "100000"])
            hold.wait_held()
            before = set(_living(told))
            assert told.call("workspace.delete", id=f"going-{what}")["state"] == "deleted"
            hold.release.set()
            with pytest.raises(RpcError, match="being_deleted"):
                asking.result(asked)
        assert set(_living(told)) <= before
        assert reap(told, kinds=["rows", "sessions"])["counts"]["done"] == 0


def test_C20_a_spawn_is_answered_after_its_kill_has_failed(liar: Liar, told: HostService) -> None:
    """Its workspace is gone and it runs: whoever waits for it ends it, and does not leave it to a pass."""
    workspace(told, id="going-unkilled")
    hold = Hold("answer")
    with told.connect() as asking, liar.lying(session_spawn=hold, session_kill=Refuse("busy")):
        asking.call("hello", client="tests", protocols=[1], errors="map")
        asked = asking.send("session.create", workspace="going-unkilled", argv=["sleep", "100000"])
        hold.wait_held()
        before = set(_living(told))
        assert len(told.call("workspace.delete", id="going-unkilled")["warnings"]) == 1
        assert set(_living(told)) == before
        liar.lies = {}
        hold.release.set()
        with pytest.raises(RpcError, match="being_deleted"):
            asking.result(asked)
    assert len(set(_living(told))) == len(before) - 1
    [row] = peek(told, "SELECT * FROM sessions WHERE origin_workspace_id = 'going-unkilled'")
    assert (row["status"], row["workspace_id"], row["attempts"]) == ("disposed", None, 1)
