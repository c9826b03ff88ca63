"""The trio client against a real daemon: every method, the attachment's helpers, its errors."""

from __future__ import annotations

import hashlib
import re
import sys

import pytest
import trio
import trio.testing

from ptyd.client import (
    Code,
    Ended,
    Event,
    Exit,
    Exited,
    Gap,
    Line,
    Output,
    PtydError,
    open_client,
)
from tests.support.daemon import RuntimeDir

RAW_SUM = "stty raw -echo; echo up; head -c {} | sha256sum; sleep 100"


async def test_journey(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        assert client.hello["pid"] == daemon.daemon_pid()
        session = await client.spawn(
            ["sh"], name="web", labels={"a": "b"}, env={"PS1": "$ "}, rows=30, cols=90
        )
        assert (session.title, session.rows, session.cols) == ("web", 30, 90)
        async with client.attach("web", since="start") as attachment:
            await attachment.wait_for(b"$ ")
            await client.send_all("web", b"echo he''llo\n")
            found = await attachment.wait_for(b"hello\r\n")
            assert found.offset == attachment.offset
            await client.resize("web", rows=40, cols=100)
            await client.input("web", b"stty size; exit 3\n")
            await attachment.wait_for(re.compile(rb"\b40 100\r\n"))
            rest = [event async for event in attachment]
        assert isinstance(rest[-1], Ended)
        assert Exited(Exit(code=3), rest[-1].offset) in rest
        assert rest[-1].exit == Exit(code=3)
        assert rest[-1].proof == "echild"
        assert (await client.wait("web")).exit == Exit(code=3)
        killed = await client.kill("web")
        assert killed.outcome == "already_exited"
        await client.forget("web")
        with pytest.raises(PtydError) as raised:
            await client.get("web")
        assert raised.value.code is Code.NOT_FOUND


async def test_methods(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        one = await client.spawn(["sleep", "100"], labels={"run": "1"})
        two = await client.spawn(["sleep", "100"], labels={"run": "2"})
        listing = await client.list(labels={"run": "1"})
        assert listing.complete
        assert [session.id for session in listing.sessions] == [one.id]
        detailed = (await client.list(detail=True)).sessions
        assert {session.processes for session in detailed} == {1}
        assert (await client.update(one.id, name="uno", labels={"run": "3"})).name == "uno"
        assert (await client.get("uno")).labels == {"run": "3"}
        assert await client.signal("uno", "TERM") == 1
        assert (await client.wait(one.id, "exit")).exit == Exit(signal=15)
        (result,) = await client.kill_labelled({"run": "2"})
        assert not isinstance(result, PtydError)
        assert (result.id, result.outcome) == (two.id, "killed")
        stats = await client.stats()
        assert stats["sessions"] == {"exited": 2}


async def test_O8_mebibyte_goes_whole_and_in_order(daemon: RuntimeDir) -> None:
    data = bytes(i % 251 for i in range(1 << 20))
    async with open_client(str(daemon.path)) as client:
        session = await client.spawn(["sh", "-c", RAW_SUM.format(len(data))])
        async with client.attach(session.id, since="start") as attachment:
            await attachment.wait_for(b"up")
            await client.send_all(session.id, data)
            with trio.fail_after(30):
                await attachment.wait_for(hashlib.sha256(data).hexdigest().encode())


async def test_O7_input_that_nobody_reads_tells_how_much_was_taken(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        session = await client.spawn(["sh", "-c", "stty raw -echo; echo up; sleep 100"])
        async with client.attach(session.id, since="start") as attachment:
            await attachment.wait_for(b"up")
        with pytest.raises(PtydError) as raised:
            await client.send_all(session.id, bytes(4 << 20), wait_ms=50)
        assert raised.value.code is Code.INPUT_FULL
        assert 0 < raised.value.data["sent"] < 4 << 20
        assert raised.value.data["sent"] % 65536 == 0


async def test_lines_and_gaps(daemon: RuntimeDir) -> None:
    program = "import os; os.write(1, b'a\\n' * 60000); os.write(1, b'last\\nrest')"
    async with open_client(str(daemon.path)) as client:
        session = await client.spawn([sys.executable, "-S", "-c", program], scrollback_bytes=65536)
        await client.wait(session.id, "exit")
        async with client.attach(session.id, since="start") as attachment:
            lines = [item async for item in attachment.lines()]
        first = lines[0]
        assert isinstance(first, Gap)
        assert first.from_ == 0
        assert attachment.truncated == first.to
        assert [item.data for item in lines[-2:] if isinstance(item, Line)] == [b"last", b"rest"]
        offset = first.to
        for item in lines[1:-1]:
            assert isinstance(item, Line)
            assert item.offset == offset
            offset += len(item.data) + 2  # CR LF


async def test_wait_for_goes_on_behind_the_match(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        session = await client.spawn(["printf", "one two three"])
        async with client.attach(session.id, since="start") as attachment:
            assert (await attachment.wait_for(b"one")).data == b"one"
            assert attachment.offset == 3
            assert (await attachment.wait_for(re.compile(b"t(w)o"))).data == b" two"
            assert await anext(attachment) == Output(7, b" three")
            with pytest.raises(PtydError) as raised:
                await attachment.wait_for(b"four")
            assert raised.value.code is Code.ENDED


async def test_wait_kinds(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        session = await client.spawn(["sh", "-c", "printf start; read x; printf more; sleep 100"])
        assert (await client.wait(session.id, b"start")).event == "match"
        assert (await client.wait(session.id, 20)).event == "idle"
        async with trio.open_nursery() as nursery:
            happened: list[str] = []

            async def wait_live() -> None:
                happened.append((await client.wait(session.id, b"more", since="live")).event)

            nursery.start_soon(wait_live)
            await trio.testing.wait_all_tasks_blocked(0.1)  # it has found out where "live" is
            await client.input(session.id, b"\n")
        assert happened == ["match"]
        with pytest.raises(PtydError) as raised:
            await client.wait(session.id, "end", timeout_s=0.05)
        assert raised.value.code is Code.TIMEOUT


async def test_cancelled_iteration_loses_nothing(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        session = await client.spawn(["cat"])
        async with client.attach(session.id, since="start") as attachment:
            with trio.move_on_after(0.02):
                await anext(attachment)
            await client.input(session.id, b"x\n")
            assert (await attachment.wait_for(b"x\r\nx\r\n")).offset == 6


async def test_many_waits_leave_room_for_a_list(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        session = await client.spawn(["sleep", "100"])
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(client.wait, session.id)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with trio.fail_after(2):
                await client.list()
            nursery.cancel_scope.cancel()


async def test_own_exceptions_come_out_bare(daemon: RuntimeDir) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_client(str(daemon.path)):
            raise ZeroDivisionError
    with pytest.raises(PtydError):
        async with open_client(str(daemon.path)) as client:
            await client.get("nobody")


async def test_events_tell_a_life(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client, client.subscribe() as events:
        session = await client.spawn(["sh", "-c", "exit 5"])
        types = []
        with trio.fail_after(10):
            async for event in events:
                assert isinstance(event, Event)
                assert event.id == session.id
                types.append(event.type)
                if event.type == "session.ended":
                    break
        assert types[0] == "session.spawned"
        assert types.index("session.exited") < types.index("session.ended")
        assert events.place == (event.daemon_id, event.seq)


async def test_no_start_says_that_nothing_runs(runtime: RuntimeDir) -> None:
    with pytest.raises(PtydError) as raised:
        async with open_client(str(runtime.path), start=False):
            pass
    assert raised.value.code is Code.UNREACHABLE


async def test_start_brings_a_daemon_and_stop_leaves_none(runtime: RuntimeDir) -> None:
    async with open_client(str(runtime.path)) as client:
        session = await client.spawn(["sleep", "100"])
        assert await client.stop() == 1
    async with open_client(str(runtime.path)) as client:
        assert (await client.get(session.id)).state == "running"
        await client.stop(kill=True)


async def test_attach_of_nobody(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        with pytest.raises(PtydError) as raised:
            async with client.attach("nobody"):
                pass
        assert raised.value.code is Code.NOT_FOUND
