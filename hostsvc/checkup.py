"""A check-up: the signs of health, looked for where they are. What they mean is `health`'s to decide."""

from __future__ import annotations

import os
from typing import Any

import trio

from hostsvc.health import Signs, counts, decide_health
from hostsvc.service import Service
from hostsvc.states import SagaState
from hostsvc.store import passes, sagas, sessions


async def check_up(service: Service) -> dict[str, Any]:
    """Return how the service is.

    Raises:
        PtydError: index_failed.
    """
    trouble = await service.live.trouble()
    last = await service.index.read(passes.find_last, 1)
    done = await service.index.read(passes.find_last_done) or {}
    open_sagas = await service.index.read(sagas.find_open)
    stuck_sagas = sum(saga.state is SagaState.STUCK for saga in open_sagas)
    unwanted = await service.index.read(sessions.count_unwanted)
    status, reasons = decide_health(
        Signs(
            index_trouble=service.index.trouble,
            ptyd_trouble=trouble,
            ptyd_circuit=service.monitor.watch.open_because,
            last_pass_state=done.get("state"),
            blind_kinds=done.get("errors"),
            missed=service.reaper.missed,
            stuck_sagas=stuck_sagas,
            stuck_sessions=unwanted[1],
        )
    )
    hello = service.live.hello
    return {
        "status": status,
        "reasons": reasons,
        "ptyd": {
            "reachable": trouble is None,
            **{key: hello.get(key) for key in ("instance_id", "daemon_id", "pid", "version")},
            "watch": service.monitor.view,
        },
        "reaper": {
            "last": last[0] if last else None,
            "missed": service.reaper.missed,
            "running": service.reaper.progress,
            "interval_s": service.config.reaper_interval_s,
        },
        "sagas": {"open": len(open_sagas), "stuck": stuck_sagas},
        "sessions": counts(await service.index.read(sessions.count_by_status), unwanted),
        "index": {"id": service.owner, "path": str(service.config.state_dir)},
        "pid": os.getpid(),
        "uptime_ms": int((trio.current_time() - service.started_at_s) * 1000),
    }
