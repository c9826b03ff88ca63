"""The data plane: one persistent, level-triggered epoll set with plain callbacks.

Owns the epoll set; trio waits on it as one descriptor. Registering with trio at every wait, and a task
for every session and client, would be most of the cost of a keystroke; this way a burst is one wake-up
however many descriptors it touches. Callbacks never block and never raise: whoever registers one catches
what is its own.

A callback that has more to do than is fair puts itself in the queue for the next turn, so that one busy
session cannot hold up another's echo.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable

import trio

Callback = Callable[[int], None]
EVENTS_PER_POLL = 256
TURNS_PER_WAKE = 32  # before trio looks at its deadlines; a task that is ready goes first anyway
LINGER_S = 0.001  # an echo follows its keystroke at once: waiting for it here saves trio's way out and in


class Queued(trio.abc.Instrument):
    """The trio tasks that wait for their turn; true while there are any.

    trio's statistics would tell, too, and cost a tenth of a keystroke each time they are asked.
    """

    def __init__(self) -> None:
        self._tasks: set[trio.lowlevel.Task] = set()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self._tasks.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._tasks.discard(task)


class Poller:
    """Descriptors and what to call when they are ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._again: deque[Callable[[], None]] = deque()
        self._is_asleep = False
        self._alarm_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.add(self._alarm_fd, select.EPOLLIN, self._silence)

    def add(self, fd: int, mask: int, callback: Callback) -> None:
        self._callbacks[fd] = callback
        self._epoll.register(fd, mask)

    def change(self, fd: int, mask: int) -> None:
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def later(self, work: Callable[[], None]) -> None:
        """Run `work` in the next turn, after everything that is ready now."""
        self._again.append(work)
        if self._is_asleep:  # another task asks: nothing else might wake us for a long time
            os.eventfd_write(self._alarm_fd, 1)

    def _silence(self, _: int) -> None:
        os.eventfd_read(self._alarm_fd)

    async def run(self) -> None:
        """Serve for ever."""
        others = Queued()
        trio.lowlevel.add_instrument(others)
        while True:
            if self._again:
                await trio.lowlevel.checkpoint()
            else:
                self._is_asleep = True
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._is_asleep = False
            wait_s = 0.0
            for _ in range(TURNS_PER_WAKE):
                if not self._turn(wait_s) or others:
                    break
                wait_s = 0.0 if self._again else LINGER_S

    def _turn(self, wait_s: float) -> bool:
        """Serve what is ready; tell whether there was anything."""
        again, self._again = self._again, deque()
        events = self._epoll.poll(wait_s, EVENTS_PER_POLL)
        for fd, mask in events:
            # An earlier callback of this batch may have removed it.
            if callback := self._callbacks.get(fd):
                callback(mask)
        for work in again:
            work()
        return bool(events or again)
