"""S4 and what belongs to it: lost connections and lost daemons, and what a client makes of them."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
import trio
import trio.testing

from ptyd.client import Code, Ended, Event, Gap, Lost, Output, PtydError, open_client
from tests.client.proxy import Proxy
from tests.support import stream
from tests.support.daemon import RuntimeDir
from tests.support.waiting import soak, trio_wait_until

pytestmark = pytest.mark.unmeasured


LINES = soak(60_000, 1_000_000)
TOTAL_BYTES = LINES * stream.LINE_BYTES


def test_S4_plan() -> None:
    """A short stream fits into the scrollback, so that nothing may be missing."""
    assert 60_000 * stream.LINE_BYTES <= 1 << 20


async def read_all(client: object, session: str, checker: stream.StreamChecker, **how: object) -> Ended:
    async with client.attach(session, since="start", **how) as attachment:  # type: ignore[attr-defined]
        async for event in attachment:
            match event:
                case Output(offset, data):
                    checker.feed(offset, data)
                case Gap(start, end):
                    checker.gap(start, end)
                case Ended():
                    return event
    raise AssertionError("the attachment ended without an end")


@pytest.mark.parametrize("flow", ["skip", "pace"])
async def test_S4_daemon_killed_again_and_again(daemon: RuntimeDir, tmp_path: Path, flow: str) -> None:
    go = tmp_path / "go"
    checker = stream.StreamChecker()
    async with open_client(str(daemon.path)) as client:
        argv = stream.numbered_program(lines=LINES, pause_ms=20, go=go, exit_code=9)
        session = await client.spawn(argv, scrollback_bytes=64 << 20)

        async def wreck() -> None:
            for wanted in (TOTAL_BYTES // 4, TOTAL_BYTES // 2, TOTAL_BYTES * 3 // 4):
                await trio_wait_until(lambda wanted=wanted: checker.next_offset > wanted, 60)
                await trio.to_thread.run_sync(daemon.kill_daemon)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wreck)
            go.touch()
            end = await read_all(client, session.id, checker, flow=flow)
        assert end.exit is not None
        assert end.exit.code == 9
    assert checker.gaps == []
    assert checker.next_offset == TOTAL_BYTES == end.offset


async def test_S4_connection_cut_at_any_byte(proxy: Proxy) -> None:
    choice = random.Random(4)
    checker = stream.StreamChecker()
    async with open_client(proxy.path, start=False) as client:
        session = await client.spawn(stream.numbered_program(lines=20_000), scrollback_bytes=1 << 20)
        # At least the answers to hello and attach and one chunk: else nothing would ever come through.
        proxy.budget = lambda: choice.randrange(2_000, 140_000)
        await read_all(client, session.id, checker)
    assert checker.gaps == []
    assert checker.next_offset == 20_000 * stream.LINE_BYTES
    assert proxy.connections > 3


async def test_S4_what_is_gone_is_one_exact_gap(daemon: RuntimeDir, proxy: Proxy, tmp_path: Path) -> None:
    progress, go = tmp_path / "progress", tmp_path / "go"
    checker = stream.StreamChecker()
    async with open_client(proxy.path, start=False) as client:
        argv = stream.numbered_program(lines=100_000, go=go, progress=progress)
        session = await client.spawn(argv, scrollback_bytes=64 * 1024)
        async with client.attach(session.id, since="start") as attachment:
            proxy.cut()
            go.touch()
            await client.wait(session.id, "exit")
            async for event in attachment:
                match event:
                    case Output(offset, data):
                        checker.feed(offset, data)
                    case Gap(start, end):
                        checker.gap(start, end)
    assert checker.next_offset == 100_000 * stream.LINE_BYTES
    assert len(checker.gaps) == 1


@pytest.mark.parametrize("loss", ["request", "reply"])
async def test_spawn_is_never_sent_twice(proxy: Proxy, loss: str) -> None:
    async with open_client(proxy.path, start=False) as client:
        proxy.lose("session.spawn", loss)  # type: ignore[arg-type]
        with pytest.raises(PtydError) as raised:
            await client.spawn(["sleep", "100"], id="mine")
        assert raised.value.code is Code.MAYBE_APPLIED
        assert proxy.seen["session.spawn"] == 1
        sessions = (await client.list()).sessions  # the same client goes on by itself
        assert [session.id for session in sessions] == ([] if loss == "request" else ["mine"])


@pytest.mark.parametrize("method", ["input", "kill", "resize", "signal", "update", "forget"])
async def test_nothing_that_changes_is_sent_twice(proxy: Proxy, method: str) -> None:
    async with open_client(proxy.path, start=False) as client:
        session = await client.spawn(["sleep", "100"])
        calls = {
            "input": lambda: client.input(session.id, b"x"),
            "kill": lambda: client.kill(session.id),
            "resize": lambda: client.resize(session.id, rows=10, cols=10),
            "signal": lambda: client.signal(session.id, "CONT"),
            "update": lambda: client.update(session.id, name="x"),
            "forget": lambda: client.forget(session.id),
        }
        proxy.lose(f"session.{method}", "reply")
        with pytest.raises(PtydError) as raised:
            await calls[method]()
        assert raised.value.code is Code.MAYBE_APPLIED
        assert proxy.seen[f"session.{method}"] == 1


@pytest.mark.parametrize("loss", ["request", "reply"])
async def test_reading_is_repeated(proxy: Proxy, loss: str) -> None:
    async with open_client(proxy.path, start=False) as client:
        session = await client.spawn(["sh", "-c", "printf hello; sleep 100"])
        await client.wait(session.id, b"hello")
        calls = {
            "session.list": client.list,
            "session.get": lambda: client.get(session.id),
            "session.read": lambda: client.read(session.id, 0),
            "session.wait": lambda: client.wait(session.id, b"hello"),
            "daemon.stats": client.stats,
        }
        for method, call in calls.items():
            before = proxy.seen[method]
            proxy.lose(method, loss)  # type: ignore[arg-type]
            assert await call()
            assert proxy.seen[method] == before + 2


async def test_wait_outlives_the_daemon(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client, trio.open_nursery() as nursery:
        session = await client.spawn(["sh", "-c", "read x; exit 4"])
        statuses: list[int] = []

        async def wait() -> None:
            happened = await client.wait(session.id, "exit")
            assert happened.exit is not None
            statuses.append(happened.exit.status)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await trio.to_thread.run_sync(daemon.kill_daemon)
        await client.list()
        await client.input(session.id, b"\n")
        nursery.cancel_scope.deadline = trio.current_time() + 20
    assert statuses == [4]


async def test_unreachable_after_the_deadline_and_back_afterwards(daemon: RuntimeDir) -> None:
    proxy = Proxy(daemon.base / "p", daemon.socket)
    with proxy:
        async with open_client(proxy.path, start=False, reconnect_deadline_s=0.3) as client:
            session = await client.spawn(["cat"])
            async with client.attach(session.id, since="start") as attachment:
                proxy.close_door()
                proxy.cut()
                for call in (client.list, lambda: anext(attachment), lambda: client.spawn(["true"])):
                    with pytest.raises(PtydError) as raised:
                        await call()
                    assert raised.value.code in (Code.UNREACHABLE, Code.MAYBE_APPLIED)
                with Proxy(daemon.base / "p", daemon.socket):
                    for _ in range(20):
                        with contextlib.suppress(PtydError):
                            await client.list()
                            break
                    await client.input(session.id, b"x\n")
                    with trio.fail_after(10):
                        assert (await attachment.wait_for(b"x\r\nx\r\n")).offset == 6


async def test_events_resume_by_number(proxy: Proxy) -> None:
    async with open_client(proxy.path, start=False) as client, client.subscribe() as events:
        first = await client.spawn(["sleep", "100"])
        event = await anext(events)
        assert isinstance(event, Event)
        assert event.type == "session.spawned"
        proxy.cut()
        await client.list()  # its connection was cut too
        second = await client.spawn(["sleep", "100"])
        event = await anext(events)
        assert isinstance(event, Event)
        assert (event.type, event.id) == ("session.spawned", second.id)
        assert first.id != second.id


async def test_events_of_another_daemon_are_marked(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client, client.subscribe() as events:
        old = client.hello["daemon_id"]
        await trio.to_thread.run_sync(daemon.kill_daemon)
        with trio.fail_after(20):
            lost = await anext(events)
        assert isinstance(lost, Lost)
        assert lost.count is None
        assert lost.daemon_id != old
        session = await client.spawn(["true"])
        event = await anext(events)
        while isinstance(event, Lost) or event.type != "session.spawned":
            event = await anext(events)
        assert event.id == session.id


async def test_S6_zygote_killed_and_the_same_client_goes_on(daemon: RuntimeDir) -> None:
    async with open_client(str(daemon.path)) as client:
        session = await client.spawn(["cat"])
        async with client.attach(session.id, since="start") as attachment:
            await trio.to_thread.run_sync(daemon.kill_zygote)
            with trio.fail_after(30):
                await trio_wait_until(lambda: daemon.find_zygote_pid() is not None, 20)
                await client.list()
                await client.input(session.id, b"x\n")
                found = await attachment.wait_for(b"x\r\nx\r\n")
        assert found.offset >= 6
        assert (await client.spawn(["true"])).id


async def test_slow_consumer_holds_up_nobody(daemon: RuntimeDir) -> None:
    """O3 from the client's side: its other attachment and its calls go on; its gap is exact."""
    checker = stream.StreamChecker()
    async with open_client(str(daemon.path)) as client:
        flood = await client.spawn(stream.numbered_program(), scrollback_bytes=65536)
        echo = await client.spawn(["cat"])
        async with (
            client.attach(flood.id, since="start") as slow,
            client.attach(echo.id, since="start") as quick,
        ):
            for _ in range(20):
                with trio.fail_after(2):
                    await client.input(echo.id, b"x\n")
                    await quick.wait_for(b"x\r\nx\r\n")
                    await client.list()
            await client.kill(flood.id, force=True)
            async for event in slow:
                match event:
                    case Output(offset, data):
                        checker.feed(offset, data)
                    case Gap(start, end):
                        checker.gap(start, end)
        assert checker.gaps
