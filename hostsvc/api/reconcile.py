"""Methods for a control plane."""

from __future__ import annotations

from hostsvc.api.handlers import Answer, Handlers
from hostsvc.messages import reconcile as asked
from hostsvc.reconcile import parse_live_list
from hostsvc.service import Service


class Reconcile:
    """Handlers, by the type of what they answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.handlers: Handlers = {asked.WorkspaceReconcile: self._reconcile}

    async def _reconcile(self, request: asked.WorkspaceReconcile) -> Answer:
        live = parse_live_list({"live": request.live, "complete": request.complete})
        plan, done = await self._service.reconciler.reconcile(live, is_dry=request.dry_run)
        young = dict.fromkeys(plan.keep_young, "it was made so lately that no list may know it yet")
        return {
            "dropped": done.dropped,
            "kept_busy": list(plan.keep_busy),
            "healed": done.healed,
            "gone": list(plan.gone),
            "kept": {**young, **done.kept},
            "refused": plan.refusal,
            "dry_run": request.dry_run,
        }
