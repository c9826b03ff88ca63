"""The event log: what happened to sessions, numbered, kept for a while in one daemon's memory.

Owns the numbers. Every subscriber is a cursor over the one log, so a slow one costs nothing and is told
exactly which events it has missed.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ptyd.protocol.codec import pack_notification
from ptyd.protocol.limits import EVENTS_KEPT

Event = dict[str, Any]


class EventLog:
    """The last events, and who wants to be woken for new ones."""

    def __init__(self, daemon_id: str, now_ms: Callable[[], int]) -> None:
        self.daemon_id = daemon_id
        self.last_seq = 0
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._now_ms = now_ms
        self._listeners: set[Callable[[], None]] = set()

    def emit(self, kind: str, session_id: str | None = None, **fields: Any) -> None:
        """Append an event and wake the subscribers."""
        self.last_seq += 1
        event: Event = {
            "daemon_id": self.daemon_id,
            "seq": self.last_seq,
            "type": kind,
            "at_ms": self._now_ms(),
        }
        if session_id is not None:
            event["id"] = session_id
        self._events.append(event | fields)
        for wake in list(self._listeners):
            wake()

    @property
    def first_seq(self) -> int:
        """The oldest number still kept; one past the last when nothing is."""
        return self.last_seq - len(self._events) + 1

    def after(self, seq: int, most: int) -> list[Event]:
        """Return at most `most` events younger than `seq`, oldest first."""
        start = max(0, seq + 1 - self.first_seq)
        return list(itertools.islice(self._events, start, start + most))

    def place(self, since: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """Return the number that a subscriber starts after, and the answer to its request.

        Args:
            since: the last event that it has seen, and of which daemon; None for only new ones.
        """
        start, truncated = self.last_seq, 0
        if since is not None and since["daemon_id"] == self.daemon_id:
            start = min(since["seq"], self.last_seq)
            truncated = max(0, self.first_seq - 1 - start)
            start += truncated
        return start, {"daemon_id": self.daemon_id, "seq": self.last_seq, "truncated": truncated}

    def listen(self, wake: Callable[[], None]) -> None:
        self._listeners.add(wake)

    def unlisten(self, wake: Callable[[], None]) -> None:
        self._listeners.discard(wake)


class Subscription:
    """One subscriber's cursor over the log. Wakes it for new events; close it when it leaves."""

    def __init__(self, log: EventLog, seq: int, wake: Callable[[], None]) -> None:
        self._log = log
        self._seq = seq
        self._wake = wake
        log.listen(wake)

    def has_more(self) -> bool:
        return self._seq < self._log.last_seq

    def next_frames(self, most: int) -> list[bytes]:
        """Return the notifications that are due next: first of all the gap, if it was lapped."""
        frames: list[bytes] = []
        if self._seq + 1 < self._log.first_seq:
            gap = {"from": self._seq + 1, "to": self._log.first_seq - 1}
            frames.append(pack_notification("event_gap", gap))
            self._seq = gap["to"]
        for event in self._log.after(self._seq, most):
            frames.append(pack_notification("event", event))
            self._seq = event["seq"]
        return frames

    def close(self) -> None:
        self._log.unlisten(self._wake)
