"""The methods of the wire: a table from request class to handler.

A handler gets a checked request. What can be answered at once it returns; what takes time it returns as a
coroutine, which the connection runs beside everything else; what it answers by itself is `LATER`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptyd.daemon.connection import Client
from ptyd.daemon.handlers.context import Context
from ptyd.daemon.handlers.ending import Ending
from ptyd.daemon.handlers.service import Service
from ptyd.daemon.handlers.sessions import Sessions
from ptyd.daemon.handlers.streams import Streams
from ptyd.daemon.handlers.typing import Typing


class Methods:
    """Every method of the wire."""

    def __init__(self, context: Context, clients: set[Client], stop: Callable[[bool], None]) -> None:
        ending = Ending(context)
        service = Service(context, ending, clients, stop)
        rooms = (service, Sessions(context), Streams(context), Typing(context), ending)
        self._table = {request: handler for room in rooms for request, handler in room.table().items()}

    def handle(self, client: Client, msgid: int | None, request: Any) -> object:
        return self._table[type(request)](client, msgid, request)
