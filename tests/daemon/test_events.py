"""events.subscribe: every change once and in order, from a number on, or an exact gap."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from ptyd.protocol.eventlog import EventLog
from ptyd.protocol.limits import EVENTS_KEPT
from tests.daemon.conftest import Connect
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.sessions import spawn, spawn_ready, wait_for_end, wait_for_output
from tests.support.stream import numbered_program
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


class Subscriber:
    """What one subscriber is told, checked for order as it comes."""

    def __init__(self, rpc: Rpc, **params: Any) -> None:
        self.rpc = rpc
        answer = rpc.call("events.subscribe", **params)
        self.daemon_id: str = answer["daemon_id"]
        self.seq: int = answer["seq"]
        self.truncated: int = answer["truncated"]
        self.gaps: list[tuple[int, int]] = []
        self._next: int | None = None

    def next(self) -> dict[str, Any]:
        """Return the next event; gaps are noted on the way."""
        while True:
            method, params = self.rpc.next_notification("event", "event_gap")
            if method == "event":
                assert params["daemon_id"] == self.daemon_id
                assert params["seq"] == (self._next or params["seq"]), "an event is missing"
                assert params["at_ms"] > 0
                self._next = params["seq"] + 1
                return params
            assert params["from"] == (self._next or params["from"])
            assert params["to"] >= params["from"]
            self.gaps.append((params["from"], params["to"]))
            self._next = params["to"] + 1

    def until(self, kind: str, session: str | None = None) -> list[dict[str, Any]]:
        """Return all events up to one of this type, of this session."""
        events = [self.next()]
        while (events[-1]["type"], events[-1].get("id")) != (kind, session):
            events.append(self.next())
        return events


def types(events: list[dict[str, Any]], session: str) -> list[str]:
    return [event["type"] for event in events if event.get("id") == session]


def test_the_life_of_a_session(rpc: Rpc, connect: Connect) -> None:
    told = Subscriber(rpc)
    client = connect()
    session = spawn_ready(client, "read x; exit 3", name="first", labels={"a": "b"})
    client.call("session.update", id=session, name="second")
    attachment = client.call("session.attach", id=session)["attachment"]
    client.call("session.detach", attachment=attachment)
    client.call("session.input", id=session, data=b"\n")
    wait_for_end(client, session)
    client.call("session.forget", id=session)
    events = told.until("session.forgotten", session)
    assert types(events, session) == [
        "session.spawned",
        "session.updated",
        "session.attached",
        "session.detached",
        "session.exited",
        "session.ended",
        "session.forgotten",
    ]
    spawned, updated, attached, detached, exited, ended, _ = (e for e in events if e.get("id") == session)
    assert spawned["generation"] == 1
    assert spawned["pid"] > 1
    assert (updated["name"], updated["labels"]) == ("second", {"a": "b"})
    assert attached["attachment"] == detached["attachment"] == attachment
    assert exited["exit"] == ended["exit"] == {"code": 3}
    assert ended["proof"] == "echild"


def test_a_kill_is_told(rpc: Rpc, connect: Connect) -> None:
    told, client = Subscriber(rpc), connect()
    session = spawn(client, ["sleep", "1000"])
    client.call("session.kill", id=session, force=True)
    events = told.until("session.ended", session)
    assert types(events, session)[:2] == ["session.spawned", "session.killing"]
    assert "session.exited" in types(events, session)


def test_a_program_that_never_ran_is_no_event(rpc: Rpc, connect: Connect) -> None:
    told, client = Subscriber(rpc), connect()
    with pytest.raises(RpcError):
        spawn(client, ["/nonexistent"], id="never-was")
    session = spawn(client, ["true"])
    assert types(told.until("session.spawned", session), "never-was") == []


def test_a_lost_shim_is_told(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc, daemon.connect() as client:
        told = Subscriber(rpc)
        session = spawn_ready(client, "trap '' HUP; echo deaf; exec sleep 1000")  # outlives its terminal
        wait_for_output(client, session, b"deaf")
        daemon.kill_shim(session)
        told.until("session.unsupervised", session)
        client.call("session.kill", id=session, force=True)
        [*_, ended] = told.until("session.ended", session)
        assert ended["proof"] == "zygote_echild"


def test_resuming_after_the_last_one_seen(rpc: Rpc, connect: Connect) -> None:
    first = Subscriber(connect())
    client = connect()
    seen = [first.until("session.spawned", spawn(client, ["true"]))[-1] for _ in range(3)]
    last = first.until("session.ended", seen[-1]["id"])[-1]
    for event in seen:
        since = {"daemon_id": first.daemon_id, "seq": event["seq"]}
        again = Subscriber(connect(), since=since)
        assert again.truncated == 0
        assert again.next()["seq"] == event["seq"] + 1
        assert again.until("session.ended", last["id"])[-1] == last
    everything = Subscriber(connect(), since={"daemon_id": first.daemon_id, "seq": 0})
    assert everything.truncated == 0
    assert everything.next()["type"] == "daemon.ready"


def test_only_new_ones_unless_asked(rpc: Rpc, connect: Connect) -> None:
    client = connect()
    old = spawn(client, ["sleep", "1000"])
    told = Subscriber(rpc)
    client.call("session.update", id=old, name="new-name")
    event = told.next()
    assert (event["type"], event["id"], event["seq"]) == ("session.updated", old, told.seq + 1)
    client.call("session.kill", id=old, force=True)


def test_since_of_another_daemon_or_the_future_is_only_new_ones(rpc: Rpc, connect: Connect) -> None:
    ours = Subscriber(connect())
    for since in ({"daemon_id": "another", "seq": 1}, {"daemon_id": ours.daemon_id, "seq": ours.seq + 1000}):
        told = Subscriber(connect(), since=since)
        assert told.truncated == 0
        session = spawn(rpc, ["true"])
        event = told.next()
        assert event["seq"] == told.seq + 1
        told.until("session.ended", session)


@pytest.mark.parametrize(
    "since",
    [5, "x", {}, {"seq": 1}, {"daemon_id": "x"}, {"daemon_id": "x", "seq": -1}, {"daemon_id": 1, "seq": 1}],
)
def test_a_bad_since_is_refused(rpc: Rpc, since: Any) -> None:
    with pytest.raises(RpcError) as caught:
        rpc.call("events.subscribe", since=since)
    assert caught.value.code == "invalid_params"


def test_subscribing_again_starts_there(rpc: Rpc, connect: Connect) -> None:
    client = connect()
    told = Subscriber(rpc)
    session = spawn(client, ["true"])
    told.until("session.ended", session)
    again = Subscriber(rpc, since={"daemon_id": told.daemon_id, "seq": told.seq})
    events = again.until("session.ended", session)
    assert events[0]["seq"] == told.seq + 1
    rpc.call("daemon.stats")
    assert not rpc.notifications, "told twice"


def emit(client: Rpc, session: str, pairs: int) -> None:
    """Have twice as many events by attaching and detaching, in batches."""
    done = 0
    while done < pairs:
        count = min(30, pairs - done)
        attach = [client.send("session.attach", id=session) for _ in range(count)]
        numbers = [client.result(msgid)["attachment"] for msgid in attach]
        detach = [client.send("session.detach", attachment=number) for number in numbers]
        for msgid in detach:
            client.result(msgid)
        client.notifications.clear()
        done += count


def test_a_lapped_subscriber_gets_an_exact_gap(rpc: Rpc, connect: Connect) -> None:
    """It reads nothing until more has happened than is kept and its socket can hold."""
    client = connect()
    flood = spawn(client, numbered_program(), scrollback_bytes=64 << 10)
    session = spawn_ready(client, "exec sleep 1000")
    told = Subscriber(rpc)
    rpc.call("session.attach", id=flood)  # so that nothing else fits its socket, soon
    far = rpc.call("session.get", id=flood)["output_offset"] + (4 << 20)
    wait_until(lambda: client.call("session.get", id=flood)["output_offset"] > far, what="its socket is full")
    emit(client, session, EVENTS_KEPT // 2 + 500)
    client.call("session.update", id=session, name="the-last")
    events = told.until("session.updated", session)
    assert told.gaps, "it was never lapped"
    missed = sum(to - at + 1 for at, to in told.gaps)
    assert len(events) + missed == events[-1]["seq"] - told.seq
    late = Subscriber(connect(), since={"daemon_id": told.daemon_id, "seq": told.seq})
    assert late.truncated == late.seq - told.seq - EVENTS_KEPT
    assert late.next()["seq"] == told.seq + late.truncated + 1
    for each in (flood, session):
        client.call("session.kill", id=each, force=True)


def test_a_subscriber_that_never_reads_holds_up_nobody(rpc: Rpc, connect: Connect) -> None:
    client, deaf = connect(), connect()
    deaf.send_raw(msgpack.packb([0, 1, "events.subscribe", [{}]]))
    session = spawn_ready(client, "exec sleep 1000")
    emit(client, session, EVENTS_KEPT)
    told = Subscriber(rpc)
    client.call("session.kill", id=session, force=True)
    told.until("session.ended", session)


def test_numbers_begin_anew_with_each_daemon(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc:
        told = Subscriber(rpc)
        session = spawn(rpc, ["sleep", "1000"])
        told.until("session.spawned", session)
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    with daemon.connect() as rpc:
        again = Subscriber(rpc, since={"daemon_id": told.daemon_id, "seq": told.seq})
        assert again.daemon_id != told.daemon_id
        rpc.call("session.kill", id=session, force=True)
        assert again.next()["seq"] == again.seq + 1


def test_stopping_is_told(daemon: RuntimeDir) -> None:
    with daemon.connect() as rpc, daemon.connect() as other:
        told = Subscriber(rpc)
        session = spawn(other, ["sleep", "1000"])
        other.call("session.attach", id=session)
        other.call("daemon.stop", kill=True)
        told.until("daemon.stopping")
        while True:
            method, params = other.next_notification("session.detached")
            if params["reason"] in ("stopping", "ended"):
                break
        assert method == "session.detached"


def test_stopping_is_told_to_every_connection_last(daemon: RuntimeDir) -> None:
    with daemon.connect() as idle, daemon.connect() as rpc, daemon.connect() as subscribed:
        told = Subscriber(subscribed)
        idle.call("daemon.stats")
        rpc.call("daemon.stop")
        told.until("daemon.stopping")
        for connection in (idle, rpc, subscribed):
            _, params = connection.next_notification("error")
            assert params["code"] == "stopping"
            with pytest.raises(Disconnected):
                connection.next_notification()


def test_a_daemon_that_leaves_for_a_new_pair_does_not_say_that_it_stops(daemon: RuntimeDir) -> None:
    with daemon.connect() as idle:
        idle.call("daemon.stats")
        daemon.kill_zygote()
        with pytest.raises(Disconnected):
            idle.next_notification()


# --- the log itself --------------------------------------------------------------------------------


def make_log() -> EventLog:
    return EventLog("me", lambda: 123)


def test_an_empty_log_has_nothing_and_no_gap() -> None:
    log = make_log()
    assert (log.first_seq, log.last_seq, log.after(0, 10)) == (1, 0, [])


def test_the_log_keeps_the_last_ones() -> None:
    log = make_log()
    for n in range(EVENTS_KEPT + 10):
        log.emit("kind", f"id{n}", n=n)
    assert (log.first_seq, log.last_seq) == (11, EVENTS_KEPT + 10)
    assert [event["seq"] for event in log.after(0, 3)] == [11, 12, 13]
    assert [event["seq"] for event in log.after(12, 3)] == [13, 14, 15]
    assert log.after(log.last_seq, 3) == []
    [last] = log.after(log.last_seq - 1, 3)
    assert last == {
        "daemon_id": "me",
        "seq": EVENTS_KEPT + 10,
        "type": "kind",
        "at_ms": 123,
        "id": f"id{EVENTS_KEPT + 9}",
        "n": EVENTS_KEPT + 9,
    }
