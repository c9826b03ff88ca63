"""The daemon's events as an async iterator that resumes by (daemon_id, number).

Owns a connection of its own and reads only when asked, as an attachment does: a slow consumer is
overtaken in the daemon's log, which then says how many it missed.

Source: protocol.md, "events.subscribe"
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Self

from ptyd.calls import Params
from ptyd.client.values import Event, Lost, checked, parse_event
from ptyd.client.wire import Dialer, Message, Wire, WireLost
from ptyd.protocol.connection import NotificationReceived
from ptyd.protocol.errors import Code


class EventStream:
    """Made by `Client.subscribe`. Iterate over it; one task at a time; it does not end by itself.

    Yields Event, and Lost where events are missing: take that as a reason to list anew.

    Raises (from the iteration):
        PtydError: unreachable, no daemon within the client's `reconnect_deadline_s`; iterate again
            to try again.

    Cancellation: nothing is lost; iterate again to go on.
    """

    def __init__(self, dialer: Dialer, since: tuple[str, int] | None, reconnect_deadline_s: float) -> None:
        self._dialer = dialer
        self._since = since
        self._deadline_s = reconnect_deadline_s
        self._wire: Wire | None = None
        self._events: deque[Event | Lost] = deque()

    @property
    def place(self) -> tuple[str, int] | None:
        """(daemon_id, number) of the last event taken in: what to give `subscribe` to go on after
        it."""
        return self._since

    async def __aenter__(self) -> Self:
        await self._subscribe(await self._dialer.dial())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hang_up()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Lost:
        while not self._events:
            if self._wire is None:
                await self._subscribe(await self._dialer.redial(self._deadline_s))
                continue
            try:
                self._take(await self._wire.receive())
            except WireLost:
                self._hang_up()
        return self._events.popleft()

    async def _subscribe(self, wire: Wire) -> None:
        self._wire = wire
        params: Params = {}
        if self._since is not None:
            params["since"] = {"daemon_id": self._since[0], "seq": self._since[1]}
        try:
            reply, rest = await wire.exchange("events.subscribe", params)
            self._subscribed(reply)
            self._take(rest)
        except WireLost:
            self._hang_up()
        except BaseException:
            self._hang_up()
            raise

    @checked
    def _subscribed(self, reply: Params) -> None:
        daemon_id = reply["daemon_id"]
        if self._since is None:
            self._since = (daemon_id, reply["seq"])
        elif self._since[0] != daemon_id:
            self._events.append(Lost(daemon_id=daemon_id, count=None))
            self._since = (daemon_id, reply["seq"])
        elif reply["truncated"]:
            self._events.append(Lost(daemon_id=daemon_id, count=reply["truncated"]))
            self._since = (daemon_id, self._since[1] + reply["truncated"])

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _take(self, messages: list[Message] | deque[Message]) -> None:
        for message in messages:
            if isinstance(message, NotificationReceived):
                self._apply(message.method, message.params)

    @checked
    def _apply(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "event":
                self._happened(parse_event(params))
            case "event_gap" if self._since is not None:
                daemon_id, last = self._since
                count = params["to"] - params["from"] + 1
                self._events.append(Lost(daemon_id=daemon_id, count=count))
                self._since = (daemon_id, max(last, params["to"]))
            case "error" if params.get("code") == Code.STOPPING:
                self._dialer.told_stopping()

    def _happened(self, event: Event) -> None:
        if self._since is None or event.seq <= self._since[1]:
            return  # sent twice
        self._since = (event.daemon_id, event.seq)
        self._events.append(event)
        if event.type == "daemon.stopping":
            self._dialer.told_stopping()
