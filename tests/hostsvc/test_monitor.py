"""The monitor of ptyd on real processes: B32 to B41. A daemon that is stopped, that burns, that is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from hostsvc.live import Live
from hostsvc.monitor import Monitor
from hostsvc.ptyd_process import PtydProcess, identify
from hostsvc.watchdog import Patience, Probe
from ptyd.protocol.eventlog import EventLog
from tests.hostsvc.places import SLEEPER, is_alive, peek, reap, serve, session, workspace
from tests.hostsvc.store import inline_index
from tests.support import processes
from tests.support.daemon import ROOT, RuntimeDir
from tests.support.host import HostService
from tests.support.rpc import RpcError
from tests.support.waiting import trio_wait_until, wait_until

pytestmark = pytest.mark.unmeasured


PATIENCE = Patience(failures=3, interval_s=0.2, stale_s=1.0, restarts=2, budget_s=600)
EAGER = {"HOSTSVC_PROBE_INTERVAL_S": "1", "HOSTSVC_PROBE_FAILURES": "1"}

# A daemon that burns from SIGUSR1 to SIGUSR2, and that does not get on with its start while a file is there.
BURNING = """
import os, signal, sys, time
if "ptyd.daemon" in sys.orig_argv:
    burns = []
    def burn(*_):
        burns.append(1)
        while burns:
            pass
    signal.signal(signal.SIGUSR1, burn)
    signal.signal(signal.SIGUSR2, lambda *_: burns.clear())
    while os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
"""


@attrs.define
class Watched:
    monitor: Monitor
    events: EventLog

    def told(self, type_: str) -> list[dict[str, Any]]:
        return [event for event in self.events.after(0, 1000) if event["type"] == type_]

    @property
    def last(self) -> Probe | None:
        return self.monitor._last


@contextlib.asynccontextmanager
async def watched(runtime: RuntimeDir, patience: Patience = PATIENCE) -> AsyncIterator[Watched]:
    """A monitor whose looks the test asks for, after one that was answered."""
    live = Live(str(runtime.path), start=False)
    index = inline_index(runtime.base / "state")
    events = EventLog("tests", lambda: 0)
    monitor = Monitor(index, live, PtydProcess(str(runtime.path)), events, patience)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(live.run)  # noqa: ASYNC113 - `tried` says when it is up
        await live.tried.wait()
        await monitor.look()
        assert monitor._last is Probe.ANSWERED
        yield Watched(monitor, events)
        nursery.cancel_scope.cancel()
    index.close()


@pytest.fixture
def burning(runtime: RuntimeDir, tmp_path: Path) -> RuntimeDir:
    (tmp_path / "sitecustomize.py").write_text(BURNING)
    runtime.settings["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    runtime.settings["GATE"] = str(tmp_path / "gate")
    return runtime.start()


async def test_B32_B36_one_failure_too_few_is_borne_and_the_last_costs_no_session(daemon: RuntimeDir) -> None:
    spawned = daemon.call("session.spawn", id="s", argv=SLEEPER)
    pid = daemon.daemon_pid()
    async with watched(daemon) as one:
        with processes.stopped(pid):
            await one.monitor.look()
            await one.monitor.look()
            assert (one.last, one.monitor.watch.failures) == (Probe.FAILED, 2)
        await one.monitor.look()
        assert (one.last, one.monitor.watch.failures) == (Probe.ANSWERED, 0)
        assert daemon.find_daemon_pid() == pid
        os.kill(pid, signal.SIGSTOP)
        for _ in range(3):
            await one.monitor.look()
        assert not processes.alive(pid)
        await trio.to_thread.run_sync(daemon.wait_for_new_daemon, pid)
    assert [event["reason"] for event in one.told("ptyd.restarted")] == ["3 probes in a row failed"]
    after = daemon.call("session.get", id="s")
    assert (after["state"], after["pid"]) == ("running", spawned["pid"])


async def test_B33_looks_at_once_count_once(daemon: RuntimeDir) -> None:
    async with watched(daemon) as one:
        with processes.stopped(daemon.daemon_pid()):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(one.monitor.look)
            assert one.monitor.watch.failures == 1


async def test_B34_B38_one_that_is_gone_is_replaced_at_once_but_not_for_ever(runtime: RuntimeDir) -> None:
    """The zygote has given it up, so nothing comes back: a budget, then the circuit, then a person."""
    runtime.start(PTYD_CRASH_BUDGET="0")
    async with watched(runtime) as one:
        await trio.to_thread.run_sync(runtime.kill_daemon)
        for spent in (1, 2):
            await one.monitor.look()
            assert (one.last, len(one.told("ptyd.restarted"))) == (Probe.GONE, spent)
        for _ in range(3):
            await one.monitor.look()
        assert len(one.told("ptyd.restarted")) == 2
        (opened,) = one.told("ptyd.circuit_opened")
        assert opened["reason"].startswith("2 restarts within 600 s did not help")
        assert one.monitor.view["open_because"] == opened["reason"]


async def test_B35_one_that_works_is_waited_for_until_that_is_stale(burning: RuntimeDir) -> None:
    pid = burning.daemon_pid()
    async with watched(burning) as one:
        os.kill(pid, signal.SIGUSR1)
        for _ in range(3):
            await one.monitor.look()
            assert (one.last, one.monitor.watch.failures) == (Probe.BUSY, 0)
        os.kill(pid, signal.SIGUSR2)
        await one.monitor.look()
        assert one.last is Probe.ANSWERED
        assert (one.monitor.view["busy_ms"], burning.find_daemon_pid()) == (None, pid)
        os.kill(pid, signal.SIGUSR1)
        await trio_wait_until_restarted(one)
        assert not processes.alive(pid)
        await trio.to_thread.run_sync(burning.wait_for_new_daemon, pid)
    (told,) = one.told("ptyd.restarted")
    assert told["reason"].startswith("busy for 1 s")


async def trio_wait_until_restarted(one: Watched) -> None:
    with trio.fail_after(10):
        while not one.told("ptyd.restarted"):
            await one.monitor.look()


async def test_B37_two_triggers_are_one_restart(daemon: RuntimeDir) -> None:
    pid = daemon.daemon_pid()
    async with watched(daemon, attrs.evolve(PATIENCE, failures=1)) as one:
        os.kill(pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.monitor.look)
            nursery.start_soon(one.monitor.look)
        assert len(one.told("ptyd.restarted")) == 1
        new = await trio.to_thread.run_sync(daemon.wait_for_new_daemon, pid)
        await one.monitor.look()
        assert daemon.find_daemon_pid() == new


async def test_B40_none_while_it_is_starting(burning: RuntimeDir, tmp_path: Path) -> None:
    """Its process is there, whether it has its lock yet or not; it takes as long as it takes."""
    pid = burning.daemon_pid()
    async with watched(burning, attrs.evolve(PATIENCE, failures=1)) as one:
        gate = tmp_path / "gate"
        gate.touch()
        os.kill(pid, signal.SIGSTOP)
        await one.monitor.look()
        assert len(one.told("ptyd.restarted")) == 1
        zygote = PtydProcess(str(burning.path))
        await trio_wait_until(zygote.has_successor, what="the zygote starts another")
        for _ in range(4):
            await one.monitor.look()
            assert one.last is Probe.STARTING
        assert len(one.told("ptyd.restarted")) == 1
        gate.unlink()
        with trio.fail_after(10):
            while one.last is not Probe.ANSWERED:
                await one.monitor.look()


async def test_one_that_was_stopped_on_purpose_is_not_replaced(daemon: RuntimeDir) -> None:
    async with watched(daemon) as one:
        await trio.to_thread.run_sync(daemon.stop)
        for _ in range(4):
            await one.monitor.look()
        assert (one.last, one.told("ptyd.restarted")) == (Probe.STOPPED, [])


async def test_only_the_daemon_itself_is_ever_signalled(daemon: RuntimeDir) -> None:
    """Neither somebody else with that pid, nor one that does not hold the lock."""
    process = PtydProcess(str(daemon.path))
    with subprocess.Popen(["sleep", "100"]) as other:
        found = identify(other.pid)
        assert found is not None
        assert await process.kill(found) is False
        assert await process.kill(attrs.evolve(found, start=found.start + 1)) is True
        assert other.poll() is None
        other.kill()
    known = identify(daemon.daemon_pid())
    assert known is not None
    assert await process.kill(attrs.evolve(known, start=known.start - 1)) is True
    assert known.is_alive
    assert daemon.hello() is not None


# --- the whole service ---------------------------------------------------------------------------


def watch(host: HostService) -> dict[str, Any]:
    found: dict[str, Any] = host.call("health")["ptyd"]["watch"]
    return found


def stop_and_wait(host: HostService) -> int:
    """Stop the daemon for good and wait until the monitor has replaced it; return the pid that it had."""
    wait_until(lambda: watch(host)["last"] == "answered", what="it was asked")
    pid = host.runtime.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not processes.alive(pid), what="it is replaced")
    host.runtime.wait_for_new_daemon(pid)
    return pid


def test_B38_the_circuit_stays_open_over_a_restart_until_a_person_closes_it(host: HostService) -> None:
    host.code = "import hostsvc.live as live; live.LIST_DEADLINE_S = 1.0\n" + host.code
    serve(host, **EAGER, HOSTSVC_PROBE_RESTARTS="1")
    stop_and_wait(host)
    wait_until(lambda: watch(host)["last"] == "answered", what="the new one was asked")
    pid = host.runtime.daemon_pid()
    with processes.stopped(pid):
        wait_until(lambda: watch(host)["open_because"], 20, what="it is given up")
        health = host.call("health")
        assert health["status"] == "red"
        (reason,) = [reason for reason in health["reasons"] if "hostsvc health --reset" in reason]
        assert "1 restarts within 600 s did not help" in reason
        assert processes.alive(pid)
    assert host.log.count("is not restarted any more") == 1
    host.kill()
    serve(host, **EAGER, HOSTSVC_PROBE_RESTARTS="1")
    assert watch(host)["open_because"]
    assert host.run("health").returncode == 1
    done = host.run("health", "--reset")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "green"), done
    assert peek(host, "SELECT * FROM meta WHERE key = 'ptyd_circuit'") == []
    assert stop_and_wait(host) == pid, "and it is replaced again"


def test_B39_what_is_in_flight_is_settled_truthfully(host: HostService) -> None:
    """Spawns and kills meet a daemon that is replaced: each ends as what is true, and nothing is left."""
    serve(host, **EAGER)
    workspace(host, id="w")
    kept, ended = session(host, "w"), session(host, "w")
    wait_until(lambda: watch(host)["last"] == "answered", what="it was asked")
    pid = host.runtime.daemon_pid()

    def ask(method: str, **params: Any) -> Any:
        try:
            return host.call(method, **params)
        except RpcError as error:
            return error

    with ThreadPoolExecutor() as threads:
        os.kill(pid, signal.SIGSTOP)
        created = [threads.submit(ask, "session.create", workspace="w", argv=SLEEPER) for _ in range(3)]
        disposed = threads.submit(ask, "session.dispose", id=ended["id"])
        host.runtime.wait_for_new_daemon(pid)
        answers = [one.result(60) for one in created]
        disposed.result(60)
    wait_until(lambda: reap(host)["counts"]["kept"] and not is_alive(ended), what="the reaper has gone on")
    told = {answer["id"] for answer in answers if isinstance(answer, dict)}
    assert {answer.code for answer in answers if isinstance(answer, RpcError)} <= {"ptyd_unreachable"}
    rows = {row["id"]: row for row in host.call("session.list")["sessions"]}
    assert rows[ended["id"]]["status"] == "disposed"
    assert rows[ended["id"]]["kill_evidence"]["proof"] == "echild"
    alive = {one["id"] for one in host.runtime.call("session.list", state="running")["sessions"]}
    assert alive == told | {kept["id"]}
    assert {id_ for id_, row in rows.items() if row["status"] in ("spawning", "active")} == alive
    assert is_alive(kept)


def test_B34_without_a_zygote_a_new_pair_is_started_and_takes_over(host: HostService) -> None:
    """A daemon hangs and its zygote is gone: the restart ends the one, and the service starts both."""
    serve(host, **EAGER)
    workspace(host, id="w")
    made = session(host, "w")
    wait_until(lambda: watch(host)["last"] == "answered", what="it was asked")
    pid = host.runtime.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    zygote = host.runtime.kill_zygote()
    host.runtime.wait_for_new_daemon(pid)
    wait_until(lambda: watch(host)["last"] == "answered", what="it answers")
    assert host.runtime.zygote_pid() != zygote
    assert (processes.alive(pid), is_alive(made)) == (False, True)
    assert host.call("session.dispose", id=made["id"])["status"] == "disposed"


def test_B41_one_that_is_slow_from_the_start_is_adopted(daemon: RuntimeDir, host: HostService) -> None:
    pid = daemon.daemon_pid()
    with processes.stopped(pid):
        host.code = "import hostsvc.app as app; app.WAIT_FOR_PTYD_S = 0.2\n" + host.code
        serve(host, **EAGER)
        wait_until(lambda: watch(host)["last"] == "starting", 20, what="it was asked")
        assert processes.alive(pid)
    wait_until(lambda: watch(host)["last"] == "answered", 20, what="it answers")
    assert (daemon.find_daemon_pid(), watch(host)["restarts"]) == (pid, 0)
