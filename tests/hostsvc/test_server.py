"""The server alone, with handlers that a test holds in its hand: crowds, floods, leaving, stopping."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from hostsvc import messages, server
from hostsvc.server import Server
from ptyd import paths
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog
from ptyd.protocol.limits import EVENTS_KEPT, MAX_REPLY_BYTES, MAX_REQUESTS_IN_FLIGHT
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.waiting import wait_until

MIB: Final = 1 << 20


class Served:
    """A server in a thread of its own. `saga.get` does what its id says; lists have `size` bytes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.size = 1000
        self.asked: list[str] = []
        self.done: list[str] = []
        self.at_once = self.most_at_once = 0
        self._gate: trio.Event
        self._token: trio.lowlevel.TrioToken
        self._stop: trio.Event
        self._scope: trio.CancelScope
        self._events: EventLog
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))

    async def _main(self) -> None:
        self._token, self._gate, self._stop = trio.lowlevel.current_trio_token(), trio.Event(), trio.Event()
        self._events = EventLog("the-daemon", lambda: 1)
        with paths.open_runtime(str(self.directory)) as runtime:
            self.server = Server(runtime, self._handle, self._events)
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                await nursery.start(self.server.run)
                self._is_up.set()
                await self._stop.wait()
                await self.server.say_stopping()
                nursery.cancel_scope.cancel()

    async def _handle(self, request: Any) -> dict[str, Any]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(request)
        finally:
            self.at_once -= 1

    async def _answer(self, request: Any) -> dict[str, Any]:
        if isinstance(request, messages.LONG_ANSWERS):
            await trio.lowlevel.checkpoint()
            return {"data": bytes(self.size)}
        if isinstance(request, messages.sagas.SagaGet):
            self.asked.append(request.id)
            if request.id == "fail":
                raise RuntimeError("a fault of ours")
            if request.id == "refuse":
                raise PtydError(Code.NOT_FOUND, "no such thing", at=7)
            if request.id.startswith("wait"):
                await self._gate.wait()
            self.done.append(request.id)
        return {"ok": True}

    @property
    def socket(self) -> Path:
        return self.directory / server.SOCKET

    def connect(self) -> Rpc:
        return Rpc(self.socket)

    def open_gate(self) -> None:
        trio.from_thread.run_sync(self._gate.set, trio_token=self._token)

    def emit(self, count: int) -> None:
        def emit_all() -> None:
            for _ in range(count):
                self._events.emit("workspace.updated", "a", padding="x" * 100)

        trio.from_thread.run_sync(emit_all, trio_token=self._token)

    def unread_bytes(self) -> int:
        """What the client that reads least has not read."""
        return max((client._unread_bytes for client in tuple(self.server._clients)), default=0)

    def stop(self) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._is_up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(server, "LOOK_S", 0.02)
    directory = tmp_path / "r"
    directory.mkdir(mode=0o700)
    with Served(directory) as served:
        yield served


def assert_closed(rpc: Rpc, code: str) -> None:
    """It is told why, and then closed."""
    assert rpc.next_notification("error")[1]["code"] == code
    with pytest.raises((Disconnected, ConnectionResetError)):
        rpc.next_notification()


def code_of(ask: Callable[[], Any]) -> str:
    with pytest.raises(RpcError) as caught:
        ask()
    return caught.value.code


# --- the socket ------------------------------------------------------------------------------------


def test_the_socket_is_ours_alone_and_gone_with_us(served: Served) -> None:
    assert stat.S_IMODE(os.lstat(served.socket).st_mode) == 0o600
    served.stop()
    assert not served.socket.exists()


def test_a_socket_file_that_is_removed_comes_back(served: Served) -> None:
    """Whoever is there is served all the while."""
    with served.connect() as before:
        before.call("health")
        served.socket.unlink()
        before.call("health")
        wait_until(served.socket.exists, what="the socket file is back")
        with served.connect() as after:
            assert after.call("health") == before.call("health")


def test_a_socket_that_cannot_come_back_ends_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that cannot be replaced stands in the way: tried again until it has gone."""
    tries, bind = [], Server._bind

    def counted(self: Server) -> Any:
        tries.append(1)
        return bind(self)

    monkeypatch.setattr(Server, "_bind", counted)
    draft = served.directory / f".{server.SOCKET}"
    with served.connect() as before:
        before.call("health")
        draft.mkdir()
        served.socket.unlink()
        wait_until(lambda: len(tries) > 2, what="it has tried more than once")
        assert before.call("health")
        assert not served.socket.exists()
        draft.rmdir()
        wait_until(served.socket.exists, what="the socket file is back")


def test_a_file_of_somebody_else_is_not_removed_at_the_end(served: Served) -> None:
    served.socket.unlink()
    served.socket.write_text("mine")
    served.stop()
    assert served.socket.read_text() == "mine"


# --- requests --------------------------------------------------------------------------------------


def test_an_exception_in_a_handler_is_internal_and_ends_nothing(served: Served) -> None:
    with served.connect() as rpc:
        rpc.call("hello", client="test", protocols=[1], errors="map")
        waiting = rpc.send("saga.get", id="wait")
        error = code_of(lambda: rpc.call("saga.get", id="fail"))
        assert error == "internal"
        with pytest.raises(RpcError) as caught:
            rpc.call("saga.get", id="refuse")
        assert (caught.value.code, caught.value.data) == ("not_found", {"at": 7})
        served.open_gate()
        assert rpc.result(waiting)


def test_64_requests_in_flight_and_one_more(served: Served) -> None:
    with served.connect() as rpc, served.connect() as other:
        pending = [rpc.send("saga.get", id=f"wait-{n}") for n in range(MAX_REQUESTS_IN_FLIGHT)]
        assert code_of(lambda: rpc.call("saga.get", id="too-many")) == "too_many_requests"
        assert other.call("saga.get", id="other")
        served.open_gate()
        assert [rpc.result(msgid) for msgid in pending] == [{"ok": True}] * len(pending)
        assert "too-many" not in served.asked
        assert rpc.call("saga.get", id="again")


@pytest.mark.parametrize("how", ["closed", "nonsense", "deaf"])
def test_what_a_client_has_asked_for_is_done_though_it_leaves(served: Served, how: str) -> None:
    """It has gone, or was sent away, or never read what it was sent before it went."""
    rpc = served.connect()
    pending = [f"wait-{n}" for n in range(10)]
    for name in pending:
        rpc.send("saga.get", id=name)
    wait_until(lambda: len(served.asked) == len(pending), what="all were begun")
    if how == "deaf":
        served.size = 4 * MIB
        for _ in range(20):
            rpc.send("session.list")
    if how == "nonsense":
        rpc.send_raw(b"\xc1")
        assert_closed(rpc, "bad_request")
    rpc.close()
    with served.connect() as other:
        assert other.call("health")
        assert served.done == []
        served.open_gate()
        wait_until(lambda: sorted(served.done) == pending, what="everything was done")


def test_X1_a_client_that_never_reads_costs_one_long_answer(served: Served) -> None:
    """It asks for 64 lists of 4 MiB; the first ones fill what it may leave unread, the others wait."""
    served.size = 4 * MIB
    with served.connect() as glutton, served.connect() as other:
        pending = [glutton.send("session.list") for _ in range(MAX_REQUESTS_IN_FLIGHT)]
        for _ in range(20):
            assert other.call("health")
        wait_until(lambda: served.unread_bytes() > server.UNREAD_BYTES)
        for _ in range(20):
            assert other.call("health")
        assert served.unread_bytes() <= served.size + server.UNREAD_BYTES + 1000
        for msgid in pending[:3]:
            assert len(glutton.result(msgid)["data"]) == served.size


def test_X1_requests_of_a_client_that_does_not_read_are_not_read(served: Served) -> None:
    served.size = 2 * MIB
    with served.connect() as glutton, served.connect() as other:
        glutton.send("session.list")
        wait_until(lambda: served.unread_bytes() > server.UNREAD_BYTES)
        glutton.socket.settimeout(1)  # for each piece
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < MIB:
                sent += glutton.socket.send(b"\x94\x00\x01\xa1x\x90" * 200)  # each is refused, at length
        assert sent < MIB
        assert other.call("health")


def test_an_error_is_the_last_that_is_sent(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is done by then: its answer would come after the end of the conversation."""
    monkeypatch.setattr(server, "FAREWELL_S", 10)
    served.size = MIB - 1000
    with served.connect() as rpc:
        rpc.send("saga.get", id="wait")
        listed = rpc.send("session.list")
        wait_until(lambda: served.unread_bytes() > served.size)
        rpc.send_raw(b"\xc1")
        wait_until(lambda: any(client._is_closing for client in served.server._clients))
        served.open_gate()
        wait_until(lambda: served.done == ["wait"])
        assert rpc.result(listed)
        assert_closed(rpc, "bad_request")
        assert not rpc._responses


def test_an_answer_longer_than_a_client_may_expect_is_refused(served: Served) -> None:
    served.size = MAX_REPLY_BYTES
    with served.connect() as rpc:
        assert code_of(lambda: rpc.call("session.list")) == "invalid_params"
        served.size = 10
        assert rpc.call("session.list")


# --- events ----------------------------------------------------------------------------------------


def test_events_resume_after_the_last_one_seen(served: Served) -> None:
    with served.connect() as rpc:
        start = rpc.call("events.subscribe")
        served.emit(3)
        seen = [rpc.next_notification("event")[1] for _ in range(3)]
        assert [event["seq"] for event in seen] == [start["seq"] + n for n in (1, 2, 3)]
    served.emit(5)
    with served.connect() as rpc:
        since = {"daemon_id": start["daemon_id"], "seq": seen[-1]["seq"]}
        assert rpc.call("events.subscribe", since=since)["truncated"] == 0
        again = [rpc.next_notification("event")[1]["seq"] for _ in range(5)]
        assert again == [seen[-1]["seq"] + n for n in range(1, 6)]
        stranger = rpc.call("events.subscribe", since={"daemon_id": "another", "seq": 1})
        assert (stranger["seq"], stranger["truncated"]) == (again[-1], 0)
        assert not rpc.notifications


def test_a_flood_of_events_is_a_gap_for_whoever_does_not_read(served: Served) -> None:
    """Exact bounds, nothing twice; and the others get all of it."""
    with served.connect() as slow, served.connect() as quick:
        slow.call("events.subscribe")
        quick.call("events.subscribe")
        for _ in range(4):
            served.emit(EVENTS_KEPT // 2)
            for _ in range(EVENTS_KEPT // 2):
                assert quick.next_notification()[0] == "event"
        expected, gaps = 1, 0
        while expected <= 2 * EVENTS_KEPT:
            method, told = slow.next_notification()
            if method == "event_gap":
                assert told["from"] == expected
                gaps, expected = gaps + 1, told["to"] + 1
            else:
                assert told["seq"] == expected
                expected += 1
        assert gaps == 1
        assert slow.call("health")


def test_events_wait_behind_no_more_than_answers_do(served: Served) -> None:
    """A subscriber that asks for something gets its answer, however many events are due."""
    with served.connect() as rpc:
        rpc.call("events.subscribe")
        served.emit(EVENTS_KEPT)
        assert rpc.call("health")
        assert len(rpc.notifications) < EVENTS_KEPT


# --- the end ---------------------------------------------------------------------------------------


def test_a_stop_is_told_to_everyone_and_waits_for_nobody(served: Served) -> None:
    """Requests under way, a client that does not read, one that has never spoken."""
    served.size = 4 * MIB
    with served.connect() as busy, served.connect() as deaf, served.connect() as silent:
        busy.call("events.subscribe")
        busy.send("saga.get", id="wait")
        deaf.send("session.list")
        wait_until(lambda: served.asked == ["wait"])
        served.stop()
        assert busy.next_notification("event")[1]["type"] == "service.stopping"
        for rpc in (busy, silent):
            assert_closed(rpc, "stopping")


def test_a_fault_at_the_start_is_told(served: Served, tmp_path: Path) -> None:
    directory = tmp_path / "other"
    directory.mkdir(mode=0o700)
    (directory / f".{server.SOCKET}").mkdir()

    async def serve() -> None:
        with paths.open_runtime(str(directory)) as runtime:
            await Server(runtime, served._handle, EventLog("d", lambda: 1)).run()

    with pytest.raises(OSError, match=r"irectory|ermitted"):
        trio.run(serve)
