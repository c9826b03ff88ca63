"""What a real daemon says only in rare moments: lost events, another generation, a hang-up at hello."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import trio

from ptyd.blocking import BlockingClient
from ptyd.client import Code, Ended, Event, Exited, Gap, Lost, Output, PtydError, open_client
from tests.client.scripted import HANG_UP, ScriptedDaemon, refusal

SESSION: dict[str, Any] = {
    "id": "abc", "generation": 1, "name": "web", "state": "running", "argv": ["cat"], "cwd": "/", "pid": 2,
    "pid_start": 3, "rows": 24, "cols": 80, "labels": {}, "created_at_ms": 0, "age_ms": 0, "attached": 1,
    "output_offset": 0, "scrollback_start": 0, "a_field_of_tomorrow": 1,
}  # fmt: skip


def event(seq: int, kind: str = "session.updated", **fields: object) -> tuple[str, dict[str, object]]:
    return "event", {"daemon_id": "d1", "seq": seq, "type": kind, "at_ms": 0, **fields}


def output(offset: int, data: bytes, attachment: int = 1) -> tuple[str, dict[str, object]]:
    return "session.output", {"attachment": attachment, "offset": offset, "data": data}


async def test_missing_events_are_marked_and_doubled_ones_dropped(tmp_path: Path) -> None:
    replies = iter(
        [
            ({"daemon_id": "d1", "seq": 10, "truncated": 0}, [event(11, id="abc", more=1), event(11)]),
            (
                {"daemon_id": "d1", "seq": 20, "truncated": 5},
                [event(17), ("event_gap", {"from": 18, "to": 19})],
            ),
            ({"daemon_id": "d1", "seq": 20, "truncated": 0}, [event(20), event(21, "daemon.stopping")]),
        ]
    )
    with ScriptedDaemon(tmp_path / "r", {"events.subscribe": lambda params: next(replies)}) as daemon:
        async with open_client(daemon.path, start=False) as client, client.subscribe() as events:
            first = await anext(events)
            assert isinstance(first, Event)
            assert (first.seq, first.id, first.fields) == (11, "abc", {"more": 1})
            daemon.hang_up()
            seen = [await anext(events) for _ in range(3)]
            daemon.hang_up()
            seen += [await anext(events) for _ in range(2)]
    assert [e.seq if isinstance(e, Event) else e for e in seen] == [
        Lost(daemon_id="d1", count=5), 17, Lost(daemon_id="d1", count=2), 20, 21,
    ]  # fmt: skip
    subscribed = [params.get("since") for method, params in daemon.calls if method == "events.subscribe"]
    assert subscribed == [None, {"daemon_id": "d1", "seq": 11}, {"daemon_id": "d1", "seq": 19}]


async def test_events_of_a_known_place(tmp_path: Path) -> None:
    reply = {"daemon_id": "d2", "seq": 3, "truncated": 0}
    with ScriptedDaemon(tmp_path / "r", {"events.subscribe": lambda params: (reply, [])}) as daemon:
        async with open_client(daemon.path, start=False) as client, client.subscribe(("d1", 9)) as events:
            assert await anext(events) == Lost(daemon_id="d2", count=None)
            assert events.place == ("d2", 3)


async def test_doubled_output_and_ends_come_once(tmp_path: Path) -> None:
    ends = [
        ("session.exit", {"attachment": 1, "exit": {"code": 0}, "offset": 6}),
        ("session.end", {"attachment": 1, "exit": {"code": 0}, "proof": "echild", "offset": 9}),
        ("session.detached", {"attachment": 1, "reason": "ended"}),
    ]
    attached = {"attachment": 1, "offset": 0, "truncated": 0, "session": SESSION}
    gap = ("session.gap", {"attachment": 1, "from": 4, "to": 6})
    first = [output(0, b"abc"), ends[0]]
    second = [output(0, b"abcd"), output(9, b"other", 7), gap, output(6, b"ghi"), *ends]
    replies = iter([(attached, first), (attached, second)])
    with ScriptedDaemon(tmp_path / "r", {"session.attach": lambda params: next(replies)}) as daemon:
        async with (
            open_client(daemon.path, start=False) as client,
            client.attach("web", since=0, rows=5, cols=6) as attachment,
        ):
            assert [await anext(attachment), (await anext(attachment)).__class__] == [
                Output(0, b"abc"),
                Exited,
            ]
            daemon.hang_up()
            rest = [item async for item in attachment]
    assert rest[:-1] == [Output(3, b"d"), Gap(4, 6), Output(6, b"ghi")]
    assert isinstance(rest[-1], Ended)
    attached = [params for method, params in daemon.calls if method == "session.attach"]
    assert [(params["id"], params["since"]) for params in attached] == [("web", 0), ("abc", 3)]
    assert attached[0]["rows"] == 5


async def test_another_generation_is_not_taken_for_the_same_session(tmp_path: Path) -> None:
    generations = itertools.count(1)

    def attach(params: dict[str, Any]) -> Any:
        session = {**SESSION, "generation": next(generations)}
        return {"attachment": 1, "offset": 0, "truncated": 0, "session": session}, [output(0, b"x")]

    with ScriptedDaemon(tmp_path / "r", {"session.attach": attach}) as daemon:
        async with (
            open_client(daemon.path, start=False) as client,
            client.attach("web", since=0) as attachment,
        ):
            assert await anext(attachment) == Output(0, b"x")
            daemon.hang_up()
            with pytest.raises(PtydError) as raised:
                await anext(attachment)
            assert raised.value.code is Code.ENDED


async def test_new_daemon_that_has_not_heard_from_the_shim_yet_is_asked_again(tmp_path: Path) -> None:
    attached = {"attachment": 1, "offset": 0, "truncated": 0, "session": SESSION}
    answers = iter([(attached, []), refusal("busy", "try again"), (attached, [output(0, b"x")])])
    with ScriptedDaemon(tmp_path / "r", {"session.attach": lambda params: next(answers)}) as daemon:
        async with (
            open_client(daemon.path, start=False) as client,
            client.attach("web", since=0) as attachment,
        ):
            daemon.hang_up()
            assert await anext(attachment) == Output(0, b"x")


async def test_hang_up_at_hello_is_unreachable(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "r", {"hello": lambda params: (HANG_UP, [])}) as daemon:
        with pytest.raises(PtydError) as raised:
            async with open_client(daemon.path, start=False):
                pass
        assert raised.value.code is Code.UNREACHABLE
        with pytest.raises(PtydError) as raised:
            BlockingClient.connect(daemon.path, False)
        assert raised.value.code is Code.UNREACHABLE


async def test_hang_up_of_a_daemon_that_was_just_leaving_is_not_the_last_word(tmp_path: Path) -> None:
    answers = itertools.cycle([HANG_UP, {"daemon_id": "next", "pid": 1}])
    with ScriptedDaemon(tmp_path / "r", {"hello": lambda params: (next(answers), [])}) as daemon:
        async with open_client(daemon.path, start=False) as client:
            assert client.hello["daemon_id"] == "next"
        with BlockingClient.connect(daemon.path, False) as blocking:
            assert blocking.hello["daemon_id"] == "next"
        assert [method for method, _ in daemon.calls] == ["hello"] * 4


async def test_refused_hello_says_why(tmp_path: Path) -> None:
    with ScriptedDaemon(
        tmp_path / "r", {"hello": lambda params: refusal("too_many_clients", "1024")}
    ) as daemon:
        with pytest.raises(PtydError) as raised:
            async with open_client(daemon.path, start=False):
                pass
        assert raised.value.code is Code.TOO_MANY_CLIENTS


async def test_daemon_that_hangs_up_on_every_list_is_given_up(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path / "r", {"session.list": lambda params: (HANG_UP, [])}) as daemon:
        async with open_client(daemon.path, start=False) as client:
            with pytest.raises(PtydError) as raised, trio.fail_after(30):
                await client.list()
            assert raised.value.code is Code.UNREACHABLE
        assert len([1 for method, _ in daemon.calls if method == "session.list"]) == 8
        with BlockingClient.connect(daemon.path, False) as blocking:
            with pytest.raises(PtydError) as raised:
                blocking.call("session.list")
            assert raised.value.code is Code.UNREACHABLE


async def test_kill_by_labels_reports_each(tmp_path: Path) -> None:
    done = {"id": "a", "outcome": "killed", "exit": {"signal": 1}, "proof": "echild", "phase": "hangup",
            "stragglers": [], "duration_ms": 1}  # fmt: skip
    failed = {"id": "b", "error": {"code": "kill_unconfirmed", "message": "no", "data": {"survivors": [1]}}}
    script = {"session.kill": lambda params: ({"results": [done, failed]}, [])}
    with ScriptedDaemon(tmp_path / "r", script) as daemon:
        async with open_client(daemon.path, start=False) as client:
            killed, refused = await client.kill_labelled({"run": "1"}, grace_ms=5)
    assert not isinstance(killed, PtydError)
    assert killed.exit is not None
    assert killed.exit.status == 129
    assert isinstance(refused, PtydError)
    assert (refused.code, refused.data) == (Code.KILL_UNCONFIRMED, {"survivors": [1], "id": "b"})


def test_blocking_call_that_is_never_answered_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptyd.blocking.answer_deadline_s", lambda method, params: 0.05)
    answers = {"session.list": lambda params: ({}, [])}
    with (
        ScriptedDaemon(tmp_path / "r", answers) as daemon,
        BlockingClient.connect(daemon.path, False) as client,
    ):
        client._protocol.request("session.list", {})  # its answer will be another's
        for method, code in (("session.get", Code.TIMEOUT), ("session.kill", Code.MAYBE_APPLIED)):
            with pytest.raises(PtydError) as raised:
                client._answer(99, method, 0.05)
            assert raised.value.code is code


def test_blocking_client_does_not_start_a_daemon_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ("error", {"code": "stopping", "message": "the daemon is stopping"})
    hello = {"daemon_id": "d1", "pid": 1}
    monkeypatch.setattr("ptyd.blocking.RECONNECT_DEADLINE_S", 0.1)
    with ScriptedDaemon(tmp_path / "r", {"hello": lambda params: (hello, [said])}) as daemon:
        client = BlockingClient.connect(daemon.path)
    with client, pytest.raises(PtydError) as raised:
        client.call("session.list")
    assert raised.value.code is Code.UNREACHABLE
    assert "leave out --no-start" in raised.value.message  # the words of who may not start one
