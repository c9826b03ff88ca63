"""How long an attach takes beside many sessions: to its answer, and to the first byte of scrollback."""

from __future__ import annotations

import contextlib
import select
import time
from collections import defaultdict
from typing import Final

from ptyd.blocking import BlockingClient
from ptyd.direct import Direct
from ptyd.protocol.connection import NotificationReceived
from tests.bench.births import ms_since
from tests.bench.crowd import Crowd
from tests.bench.report import Figure, percentile
from tests.support.rpc import Rpc

SCROLLBACK: Final = ["sh", "-c", "seq 10000; read stay"]
"""49 kB: more than one message may bring."""
DEADLINE_S: Final = 60.0


def measure_attach(crowd: Crowd, rounds: int, attaches: int) -> list[Figure]:
    """Measure an attach to a session with scrollback, from the request to its answer and first byte."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    with crowd.runtime.connect() as rpc:
        session_id = rpc.call("session.spawn", argv=SCROLLBACK)["id"]
        rpc.call("session.wait", id=session_id, **{"for": {"match": b"10000"}})
        with BlockingClient.connect(str(crowd.runtime.path), start=False) as client:
            ways = {
                "streamed": lambda: _attach_streamed(rpc, session_id),
                "direct": lambda: _attach_direct(client, session_id),
            }
            for number in range(rounds):
                for way in list(ways) if number % 2 else reversed(ways):
                    times = [ways[way]() for _ in range(attaches)]
                    found[f"{way}, to the answer"].append(percentile([one for one, _ in times], 50))
                    found[f"{way}, to the first byte"].append(percentile([one for _, one in times], 50))
        rpc.call("session.kill", id=session_id, force=True)
        rpc.call("session.forget", id=session_id)
    crowd.wait_alone()
    return [
        Figure(
            name=f"attach p50 beside {crowd}, {how}",
            unit="ms",
            samples=samples,
            at_most=2,
            group="latency",
        )
        for how, samples in sorted(found.items())
    ]


def _attach_streamed(rpc: Rpc, session_id: str) -> tuple[float, float]:
    began = time.perf_counter()
    attached = rpc.call("session.attach", id=session_id, since="start")
    answered_ms = ms_since(began)
    rpc.next_notification("session.output")
    first_ms = ms_since(began)
    rpc.call("session.detach", attachment=attached["attachment"])
    rpc.notifications.clear()
    return answered_ms, first_ms


def _attach_direct(client: BlockingClient, session_id: str) -> tuple[float, float]:
    began = time.perf_counter()
    asked = {"id": session_id, "since": "start", "via": "shm"}
    reply, fds = client.call_for_fds("session.attach", asked)
    answered_ms = ms_since(began)
    with contextlib.closing(Direct(reply, fds, is_paced=False)) as direct:
        while not _has_output(direct):
            assert direct.is_more or select.select([direct], [], [], DEADLINE_S)[0], "no first byte"
        return answered_ms, ms_since(began)


def _has_output(direct: Direct) -> bool:
    heard = direct.receive()
    assert heard is not None, "the other end hung up"
    return any(isinstance(one, NotificationReceived) and one.method == "session.output" for one in heard)
