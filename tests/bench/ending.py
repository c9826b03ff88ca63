"""How long a forced kill takes: from the request to the proof that nobody is left."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.bench.report import Figure, percentile
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc

# A shell with a background job, one that left its session, and a foreground job.
VICTIM: Final = ["sh", "-c", "sleep 1000 & setsid sleep 1000 & echo up; sleep 1000"]


def measure_kill(runtime: RuntimeDir, rounds: int, kills: int) -> list[Figure]:
    """Measure `session.kill` with `force`, of sessions of four processes each."""
    with runtime.connect() as rpc:
        times = [[_kill_ms(rpc) for _ in range(kills)] for _ in range(rounds)]
    return [
        Figure(
            name=f"`kill --force` p{percent}",
            unit="ms",
            samples=[percentile(of_round, percent) for of_round in times],
            at_most=20 if percent == 50 else None,
            group="many sessions",
        )
        for percent in (50, 99)
    ]


def _kill_ms(rpc: Rpc) -> float:
    session_id = rpc.call("session.spawn", argv=VICTIM)["id"]
    params: dict[str, Any] = {"id": session_id, "for": {"match": b"up"}}
    rpc.call("session.wait", **params)
    began = time.perf_counter()
    result = rpc.call("session.kill", id=session_id, force=True)
    spent_ms = (time.perf_counter() - began) * 1000
    assert (result["outcome"], result["proof"]) == ("killed", "echild"), result
    return spent_ms
