"""The data plane's turns: who goes first, and that nobody waits for long."""

from __future__ import annotations

import os
import select

import trio

from ptyd.daemon.poller import TURNS_PER_WAKE, Poller


async def test_a_task_that_is_woken_goes_before_the_next_turn() -> None:
    """Descriptors that are always ready do not keep the tasks waiting that they have woken."""
    poller, turns, woken = Poller(), 0, trio.Event()
    always_ready = os.eventfd(1, os.EFD_CLOEXEC)

    def serve(_: int) -> None:
        nonlocal turns
        turns += 1
        if turns == 2:
            woken.set()

    poller.add(always_ready, select.EPOLLIN, serve)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await woken.wait()
        assert turns <= 3  # trio may run the poller once more, and then that one turn is enough
        nursery.cancel_scope.cancel()
    os.close(always_ready)


async def test_without_tasks_to_run_a_wake_serves_many_turns() -> None:
    poller, turns, done = Poller(), 0, trio.Event()
    always_ready = os.eventfd(1, os.EFD_CLOEXEC)
    wakes: list[int] = []

    class Wakes(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            wakes.append(turns)

    def serve(_: int) -> None:
        nonlocal turns
        turns += 1
        if turns == 3 * TURNS_PER_WAKE:
            done.set()

    poller.add(always_ready, select.EPOLLIN, serve)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        trio.lowlevel.add_instrument(Wakes())
        await done.wait()
        nursery.cancel_scope.cancel()
    assert [count for count in wakes if count][:2] == [TURNS_PER_WAKE, 2 * TURNS_PER_WAKE]
    os.close(always_ready)
