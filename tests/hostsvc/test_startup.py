"""Starting: C24 and C25, one service in a directory, and what no workspace can be called."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.hostsvc.places import (
    OWNER,
    QUIET,
    SLEEPER,
    editing,
    insert_session,
    is_alive,
    last_pass,
    owner_of,
    peek,
    serve,
    session,
    stray,
    workspace,
)
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import _SERVE, HostService
from tests.support.waiting import soak, wait_until

pytestmark = pytest.mark.unmeasured


ORPHANS = soak(60, 400)
ACTS = 26  # of one pass: the drain takes several, and each shows its progress once
REFUSED = 1  # sys.exit with the reason


def test_C24_orphans_are_drained_at_the_start(host: HostService) -> None:
    """Within the caps, pass after pass, while everybody is served; nothing else is touched."""
    serve(host)
    owner = owner_of(host)
    workspace(host, id="w")
    wanted = session(host, "w")
    pids = {name: stray(host, name, **{OWNER: owner}) for name in (f"o{n}" for n in range(ORPHANS))}
    host.stop()
    with editing(host) as db:
        for number, name in enumerate(pids):
            insert_session(db, name, status="disposed" if number % 2 else "active")
    host.start(**QUIET, HOSTSVC_REAPER_ACTS=str(ACTS))
    with host.connect() as rpc:
        run = rpc.call("hello", client="tests", protocols=[1])["daemon_id"]
        rpc.call("events.subscribe", since={"daemon_id": run, "seq": 0})
        assert host.call("health")["sessions"]["active"] >= 1, "nobody waits for the drain"
        progress = []
        while any(map(processes.alive, pids.values())):
            event = rpc.next_notification("event", deadline_s=60)[1]
            progress += [event] if event["type"] == "reaper.progress" else []
    assert len(progress) >= ORPHANS // ACTS
    assert all(event["done"] < event["total"] <= ACTS for event in progress)
    wait_until(lambda: _is_drained(host), what="the last pass of the drain is recorded")
    passes = host.call("passes", limit=100)["passes"][:-1]
    assert [one["origin"] for one in reversed(passes)][:2] == ["startup", "interval"]
    assert all(one["counts"]["done"] <= ACTS for one in passes)
    assert sum(one["counts"]["done"] for one in passes) == ORPHANS
    assert is_alive(wanted)


def _is_drained(host: HostService) -> bool:
    found = last_pass(host)
    return found is not None and not found["counts"]["deferred"]


CLI = "import sys; from hostsvc.cli import main; sys.argv[:] = ['hostsvc', 'serve']; sys.exit(main())"


@pytest.mark.parametrize("code", [_SERVE, CLI], ids=["app", "command-line"])
def test_C25_every_entry_point_starts_the_reaper(host: HostService, code: str) -> None:
    """Nobody asks for a pass, and there is one; health shows it."""
    host.code = code
    host.start(HOSTSVC_REAPER_INTERVAL_S="1")
    wait_until(lambda: len(host.call("passes")["passes"]) >= 2, what="the schedule runs")
    origins = [one["origin"] for one in host.call("passes")["passes"]]
    assert (origins[-1], origins[-2]) == ("startup", "interval")
    shown = host.call("health")["reaper"]
    assert shown["last"]["state"] in ("ok", "running")
    assert shown["missed"] < 3
    assert shown["interval_s"] == 1.0


def test_a_ptyd_that_is_slow_is_waited_for_and_never_displaced(daemon: RuntimeDir, host: HostService) -> None:
    """It is alive and does not answer: hostsvc serves without it, says so, and goes on when it is back."""
    pid = daemon.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        host.code = "import hostsvc.app as app; app.WAIT_FOR_PTYD_S = 0.2\n" + _SERVE
        serve(host)
        workspace(host, id="w")
        assert host.error("session.create", workspace="w", argv=SLEEPER).code == "ptyd_unreachable"
        health = host.call("health")
        assert (health["status"], health["ptyd"]["reachable"]) == ("red", False)
        found = last_pass(host)
        assert found is not None
        assert (found["state"], sorted(found["errors"])) == ("error", ["rows", "runs", "sessions"])
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: host.call("health")["ptyd"]["pid"] == pid, what="the same one is used")
    assert is_alive(session(host, "w"))
    assert daemon.find_daemon_pid() == pid


def test_two_services_in_one_directory(host: HostService) -> None:
    """The second says who is there; neither the runtime directory nor the index is shared."""
    serve(host)
    second = HostService(host.runtime)
    assert second.launch().wait(20) == REFUSED
    assert f"hostsvc {host.pid} runs already" in second.log
    elsewhere = RuntimeDir()
    try:
        third = HostService(elsewhere, HOSTSVC_STATE_DIR=str(host.state_dir))
        assert third.launch().wait(20) == REFUSED
        assert f"hostsvc {host.pid} runs already" in third.log
    finally:
        elsewhere.remove()
    assert host.call("health")["status"] == "green"
    host.kill()
    serve(host)


def test_X4_a_state_directory_that_cannot_be_trusted(host: HostService) -> None:
    """Somebody else could have written the index that says whom to kill."""
    real = host.runtime.base / "real"
    for mode in (0o750, 0o701):
        host.state_dir.mkdir()
        host.state_dir.chmod(mode)
        _is_refused(host, "chmod 700")
        host.state_dir.rmdir()
    real.mkdir(mode=0o700)
    host.state_dir.symlink_to(real)
    _is_refused(host, str(host.state_dir))
    assert list(real.iterdir()) == []


def _is_refused(host: HostService, word: str) -> None:
    assert host.launch().wait(20) == REFUSED
    assert word in host.log.splitlines()[-1]
    assert host.runtime.find_daemon_pid() is None, "nothing was started for it"


def _tables(host: HostService) -> list[list[dict[str, Any]]]:
    return [peek(host, f"SELECT * FROM {name}") for name in ("workspaces", "sessions", "sagas", "tombstones")]


NAMES = [
    "a/b",
    "../w",
    "..",
    ".",
    "",
    " ",
    "a\0b",
    "a\nb",
    "\x1b[31m",
    "-",
    ".hidden",
    "ü",
    "x" * 4096,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_no_workspace_can_have(shared_host: HostService, name: str) -> None:
    """Refused by a typed error before anything is made, whichever field they come in."""
    shared_host.call("workspace.list")
    before, folders = _tables(shared_host), sorted(os.listdir(shared_host.base_dir))
    for params in ({"id": name}, {"name": name}, {"path": name}, {"id": "w", "path": f"/tmp/{name}"}):
        if params == {"name": "-"} or params == {"id": "-"}:
            continue
        refused = shared_host.error("workspace.create", **params)
        assert refused.code in ("invalid_params", "path_refused", "bad_request"), (params, refused)
    assert shared_host.error("workspace.get", id=name).code in ("invalid_params", "not_found", "bad_request")
    assert _tables(shared_host) == before
    assert sorted(os.listdir(shared_host.base_dir)) == folders
