"""The host service beside a thousand sessions and ten thousand rows: list, pass, start, drain, delete.

Also runs alone: `python -m tests.bench.host [--quick]`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import attrs

from tests.bench.private import run_part
from tests.bench.report import Figure, host_figure, percentile
from tests.bench.usage import process_s
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.rpc import Rpc
from tests.support.waiting import wait_until

IDLE: Final = ["sh"]
CREATED_AT_ONCE: Final = 16
INTERVAL_S: Final = 300.0  # of the reaper, unless it is told otherwise
DRAIN_DEADLINE_S: Final = 180.0
CALL_DEADLINE_S: Final = 180.0
_ENDED_ROW: Final = (
    "INSERT INTO sessions (id, generation, workspace_id, origin_workspace_id, status, argv, run_id,"
    " created_at_ms, ended_at_ms, kill_evidence, exit)"
    " VALUES (?, 1, 'crowd', 'crowd', 'exited', '[\"sh\"]', 'before', ?, ?, ?, '{\"code\":0}')"
)
_EVIDENCE: Final = '{"by":"ptyd","proof":"echild"}'


@attrs.frozen(kw_only=True)
class Sizes:
    """How much is measured."""

    rounds: int = 5
    lists: int = 20
    rows: int = 10_000
    sessions: int = 1000
    orphans: int = 400
    doomed: int = 100


FULL: Final = Sizes()
QUICK: Final = Sizes(rounds=3, lists=5, rows=1000, sessions=100, orphans=40, doomed=10)


def measure(runtime: RuntimeDir, sizes: Sizes) -> list[Figure]:
    """Run every measurement, in a runtime directory where ptyd runs and has no session."""
    host = HostService(runtime).start()
    try:
        figures = _measure_delete(host, sizes)
        _fill(host, sizes)
        figures += _measure_list(host, sizes)
        figures += _measure_pass(host, sizes)
        figures += _measure_start(host, sizes)
        figures += _measure_drain(host, sizes)
    finally:
        host.stop()
    return figures


# -- what is measured beside -----------------------------------------------------------------------


def _fill(host: HostService, sizes: Sizes) -> None:
    """Live sessions in two workspaces, and rows of ended ones until there are as many as wanted."""
    with host.connect() as rpc:
        for workspace, count in (("orphans", sizes.orphans), ("crowd", sizes.sessions - sizes.orphans)):
            rpc.call("workspace.create", id=workspace)
            _create(rpc, workspace, count)
    host.stop()
    now_ms = time.time_ns() // 1_000_000
    with _index(host) as index:
        index.executemany(
            _ENDED_ROW,
            [(f"ended-{n}", now_ms - n, now_ms - n, _EVIDENCE) for n in range(sizes.rows - sizes.sessions)],
        )
    host.start()
    _wait_for_pass(host)


def _create(rpc: Rpc, workspace: str, count: int) -> None:
    pending: deque[int] = deque()
    for _ in range(count):
        if len(pending) == CREATED_AT_ONCE:
            rpc.result(pending.popleft())
        pending.append(rpc.send("session.create", workspace=workspace, argv=IDLE))
    for msgid in pending:
        rpc.result(msgid)


@contextlib.contextmanager
def _index(host: HostService) -> Iterator[sqlite3.Connection]:
    """The index of a service that is stopped, in one transaction."""
    with contextlib.closing(sqlite3.connect(host.index_path)) as index, index:
        yield index


def _wait_for_pass(host: HostService) -> dict[str, Any]:
    """Return the first pass of the service that runs now, once it is over."""

    def finished() -> dict[str, Any] | None:
        health = host.call("health")
        last: dict[str, Any] | None = health["reaper"]["last"]
        is_over = last is not None and last["finished_at_ms"] is not None and not health["reaper"]["running"]
        return last if is_over else None

    return wait_until(finished, DRAIN_DEADLINE_S, "the pass at the start is over")


# -- figures ---------------------------------------------------------------------------------------


def _measure_delete(host: HostService, sizes: Sizes) -> list[Figure]:
    """Measure `workspace.delete` of sessions that obey the hang-up."""
    samples = []
    with host.connect() as rpc:
        for n in range(sizes.rounds):
            rpc.call("workspace.create", id=f"doomed-{n}")
            _create(rpc, f"doomed-{n}", sizes.doomed)
            began = time.perf_counter()
            answer = rpc.call("workspace.delete", id=f"doomed-{n}", deadline_s=CALL_DEADLINE_S)
            samples.append(time.perf_counter() - began)
            assert (answer["state"], answer["warnings"]) == ("deleted", []), answer
    return [
        host_figure(
            name=f"delete a workspace with {sizes.doomed} sessions", unit="s", samples=samples, at_most=3
        )
    ]


def _measure_list(host: HostService, sizes: Sizes) -> list[Figure]:
    """Measure `session.list` of the living, from the request to the decoded answer."""
    with host.connect() as rpc:
        same = [
            percentile([_list_ms(rpc, sizes) for _ in range(sizes.lists)], 50) for _ in range(sizes.rounds)
        ]
        changed = []
        for n in range(sizes.rounds):
            with host.runtime.connect() as ptyd:
                some = rpc.call("session.list", status="active")["sessions"][n]
                ptyd.call("session.update", id=some["id"], name=f"changed-{n}")
            changed.append(_list_ms(rpc, sizes))
    name = f"hostsvc: `session.list` of {sizes.sessions}, {sizes.rows} rows"
    return [
        host_figure(name=f"{name}, p50", unit="ms", samples=same, at_most=20),
        host_figure(name=f"{name}, the first after a change in ptyd", unit="ms", samples=changed),
    ]


def _list_ms(rpc: Rpc, sizes: Sizes) -> float:
    began = time.perf_counter()
    found = rpc.call("session.list", status="active")["sessions"]
    spent_ms = (time.perf_counter() - began) * 1000
    assert len(found) == sizes.sessions, len(found)
    return spent_ms


def _measure_pass(host: HostService, sizes: Sizes) -> list[Figure]:
    """Measure a pass that finds nothing to do, and what processor time it takes, ptyd's too."""
    seconds, shares = [], []
    pids = [host.pid, host.runtime.daemon_pid()]
    with host.connect() as rpc:
        for _ in range(sizes.rounds):
            busy_s, began = sum(map(process_s, pids)), time.perf_counter()
            found = rpc.call("reap", deadline_s=CALL_DEADLINE_S)
            seconds.append(time.perf_counter() - began)
            shares.append(100 * (sum(map(process_s, pids)) - busy_s) / INTERVAL_S)
            assert (found["state"], found["counts"]["done"]) == ("ok", 0), found
    name = f"a pass, {sizes.sessions} sessions, {sizes.rows} rows"
    return [
        host_figure(name=name, unit="s", samples=seconds, at_most=1),
        host_figure(
            name=f"{name}, over {INTERVAL_S:g} s",
            unit="% of a core",
            samples=shares,
            at_most=5,
            note="ptyd's daemon included",
        ),
    ]


def _measure_start(host: HostService, sizes: Sizes) -> list[Figure]:
    """Measure from the start of its process to its first answer, after a stop and after SIGKILL."""
    samples: dict[str, list[float]] = {"a stop": [], "SIGKILL": []}
    for _ in range(sizes.rounds):
        for how, end in (("a stop", host.stop), ("SIGKILL", host.kill)):
            end()
            began = time.perf_counter()
            host.start()
            samples[how].append(time.perf_counter() - began)
            _wait_for_pass(host)
    return [
        host_figure(
            name=f"start after {how}, {sizes.rows} rows, ptyd runs", unit="s", samples=found, at_most=1
        )
        for how, found in samples.items()
    ]


def _measure_drain(host: HostService, sizes: Sizes) -> list[Figure]:
    """Measure from the start until sessions whose workspace was lost meanwhile are gone, with proof."""
    host.stop()
    with _index(host) as index:
        index.execute("UPDATE sessions SET workspace_id = NULL WHERE workspace_id = 'orphans'")
    began = time.perf_counter()
    host.start()
    drained = _wait_for_pass(host)
    spent_s = time.perf_counter() - began
    assert drained["counts"]["done"] == sizes.orphans, drained["counts"]
    return [
        host_figure(
            name=f"start with {sizes.orphans} orphans to the last gone",
            unit="s",
            samples=[spent_s],
            at_most=60,
        )
    ]


if __name__ == "__main__":
    sys.exit(run_part(__doc__, measure, full=FULL, quick=QUICK))
