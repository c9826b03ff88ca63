"""The daemon itself: hello, stats, stop."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import trio

from ptyd import __version__
from ptyd.daemon.connection import LATER, Client
from ptyd.daemon.handlers.context import Context
from ptyd.daemon.handlers.ending import Ending
from ptyd.daemon.handlers.table import Table
from ptyd.protocol import limits, messages

FEATURES = ["pace", "events", "wait", "labels", "shm"]


class Service:
    """The daemon itself."""

    def __init__(
        self, context: Context, ending: Ending, clients: set[Client], stop: Callable[[bool], None]
    ) -> None:
        self._context = context
        self._ending = ending
        self._clients = clients
        self._stop = stop

    def _hello(self, client: Client, msgid: int | None, request: messages.Hello) -> object:
        return {
            "server": "ptyd",
            "version": __version__,
            "protocol": limits.PROTOCOL,
            "instance_id": self._context.identity.instance_id,
            "daemon_id": self._context.identity.daemon_id,
            "pid": os.getpid(),
            "features": FEATURES,
            "limits": self._limits(),
        }

    def _limits(self) -> dict[str, int]:
        config = self._context.registry.config
        own = {"max_sessions": config.max_sessions, "max_clients": self._context.registry.config.max_clients}
        return {**limits.ADVERTISED, **own}

    def _stats(self, client: Client, msgid: int | None, request: messages.DaemonStats) -> object:
        by_state = Counter(session.state for session in self._context.registry.sessions.values())
        return {
            "pid": os.getpid(),
            "version": __version__,
            "instance_id": self._context.identity.instance_id,
            "daemon_id": self._context.identity.daemon_id,
            "uptime_ms": round((trio.current_time() - self._context.identity.started_at) * 1000),
            "sessions": {state.value: count for state, count in by_state.items()},
            "complete": self._context.registry.is_complete,
            "clients": len(self._clients),
            "attachments": sum(len(other.attachments) for other in self._clients),
            "events": self._context.events.last_seq,
            "limits": self._limits(),
        }

    async def _stop_daemon(self, client: Client, msgid: int | None, request: messages.DaemonStop) -> object:
        if request.kill and (failed := await self._ending.kill_all()):
            raise failed[0]
        client.reply(msgid, {"sessions": sum(1 for _ in self._context.registry.living())})
        self._stop(True)
        return LATER

    def table(self) -> Table:
        return {
            messages.Hello: self._hello,
            messages.DaemonStats: self._stats,
            messages.DaemonStop: self._stop_daemon,
        }
