"""Group S, S4: the client library is attached through restarts and delivers every byte exactly once."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ptyd.client import Attachment, Client, Ended, Exit, Exited, Gap, Output, open_client
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.stream import StreamChecker, numbered_program
from tests.support.waiting import soak, trio_wait_until

STEADY_MS = 5
DEADLINE_S = 60


class Reader:
    """Takes in an attachment's events, checking each."""

    def __init__(self, attachment: Attachment) -> None:
        self.checker = StreamChecker()
        self.ends: list[Exited | Ended] = []
        self._attachment = attachment

    async def run(self) -> None:
        async for event in self._attachment:
            match event:
                case Output(offset=offset, data=data):
                    self.checker.feed(offset, data)
                case Gap(from_=start, to=end):
                    self.checker.gap(start, end)
                case _:
                    self.ends.append(event)

    async def read_on(self, more_bytes: int = 128 << 10) -> None:
        wanted = self.checker.received_bytes + more_bytes
        await trio_wait_until(lambda: self.checker.received_bytes >= wanted, 30, "output goes on")


async def kill_daemon(runtime: RuntimeDir) -> None:
    old = runtime.kill_daemon()
    await trio_wait_until(lambda: runtime.find_daemon_pid() not in (None, old), 15, "a new daemon")


async def test_S4_attached_through_daemon_restarts(runtime: RuntimeDir) -> None:
    runtime.start(PTYD_CRASH_BUDGET="100000")
    chance = random.Random(4)
    with trio.fail_after(soak(DEADLINE_S, 3600)):
        async with open_client(str(runtime.path)) as client:
            steady = await client.spawn(numbered_program(pause_ms=STEADY_MS), scrollback_bytes=16 << 20)
            flood = await client.spawn(numbered_program())
            short = await client.spawn(numbered_program(4000, pause_ms=STEADY_MS, exit_code=7))
            async with (
                client.attach(steady.id, since="start") as first,
                client.attach(flood.id, since="start") as second,
                client.attach(short.id, since="start") as third,
                trio.open_nursery() as nursery,
            ):
                readers = [Reader(attachment) for attachment in (first, second, third)]
                for reader in readers:
                    nursery.start_soon(reader.run)
                for _ in range(soak(4, 200)):
                    await trio.sleep(chance.uniform(0, 0.1))  # a random instant is the case
                    await kill_daemon(runtime)
                    await readers[0].read_on()
                    await readers[1].read_on()
                await end_all(client, steady.id, flood.id)
            check(readers)


async def end_all(client: Client, *ids: str) -> None:
    for session_id in ids:
        assert (await client.kill(session_id, force=True)).proof == "echild"


def check(readers: list[Reader]) -> None:
    steady, flood, short = readers
    assert steady.checker.gaps == [], "lost although it was all in the scrollback"
    for reader in (steady, flood):
        assert [type(end) for end in reader.ends] == [Exited, Ended]
        assert [end.exit for end in reader.ends] == [Exit(signal=9)] * 2
        assert reader.ends[1].offset == reader.checker.next_offset
    assert (short.checker.received_bytes, short.checker.gaps) == (64_000, [])
    assert [end.exit for end in short.ends] == [Exit(code=7)] * 2


async def replace_by_new_pair(runtime: RuntimeDir) -> None:
    """SIGKILL the zygote; its daemon steps down; nobody but the client wants a new pair."""
    old = runtime.daemon_pid()
    runtime.kill_zygote()
    await trio_wait_until(lambda: not processes.alive(old), 10, "the daemon steps down")


async def replace_both(runtime: RuntimeDir) -> None:  # noqa: ASYNC124 - one of two, awaited alike
    runtime.kill_zygote()
    runtime.kill_daemon()


@pytest.mark.parametrize("wreck", [replace_by_new_pair, replace_both])
async def test_S4_attached_through_the_death_of_the_zygote(
    runtime: RuntimeDir, tmp_path: Path, wreck: Callable[..., object]
) -> None:
    runtime.start()
    with trio.fail_after(DEADLINE_S):
        async with open_client(str(runtime.path)) as client:
            session = await client.spawn(numbered_program(pause_ms=STEADY_MS), scrollback_bytes=16 << 20)
            async with (
                client.attach(session.id, since="start") as attachment,
                trio.open_nursery() as nursery,
            ):
                reader = Reader(attachment)
                nursery.start_soon(reader.run)
                await reader.read_on()
                await wreck(runtime)  # type: ignore[misc]
                await reader.read_on()
                assert (await client.get(session.id)).pid == session.pid
                await end_all(client, session.id)
            assert reader.checker.gaps == []
