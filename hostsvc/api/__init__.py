"""The methods: what each request does, and how its answer looks. One handler a method, found by its type.

Owns no state. Whoever calls `handle` lets it finish: the server does, whether its client stays or not.
"""

from __future__ import annotations

from typing import Any

from hostsvc.api.handlers import Answer, Handlers
from hostsvc.api.reconcile import Reconcile
from hostsvc.api.runs import Runs
from hostsvc.api.sagas import Sagas
from hostsvc.api.sessions import Sessions
from hostsvc.api.trash import Trash
from hostsvc.api.upkeep import Upkeep
from hostsvc.api.workspaces import Workspaces
from hostsvc.service import Service


class Api:
    """Serves requests."""

    def __init__(self, service: Service) -> None:
        parts = (Workspaces, Reconcile, Sessions, Sagas, Runs, Trash, Upkeep)
        self._handlers: Handlers = {
            request: handler for part in parts for request, handler in part(service).handlers.items()
        }

    async def handle(self, request: Any) -> Answer:
        """Return the answer to a request.

        Raises:
            PtydError: the refusal to send.
        """
        return await self._handlers[type(request)](request)
