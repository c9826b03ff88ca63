"""The reaper: C11 to C15, C17 and C21 on a real ptyd. What is wanted, busy, being born or another's stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from hostsvc.clock import wall_ms
from hostsvc.config import read_config
from hostsvc.index import open_index
from hostsvc.live import Live
from hostsvc.service import Service
from hostsvc.store import database
from ptyd.client import open_client
from tests.hostsvc.places import (
    OWNER,
    SLEEPER,
    acts,
    editing,
    insert_session,
    is_alive,
    owner_of,
    peek,
    reap,
    reap_until,
    row_of,
    serve,
    session,
    stray,
    workspace,
)
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured

PASSES = 100


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One service for all that need no other setting and no restart; each has a workspace of its own."""
    host = serve(HostService(shared_runtime))
    yield host
    host.stop()


def test_C11_and_C12_rows_that_are_over_end_what_lives(host: HostService) -> None:
    """One pass is enough: it is not an absence that speaks, but a row."""
    serve(host)
    owner = owner_of(host)
    workspace(host, id="w")
    pids = {name: stray(host, name, **{OWNER: owner}) for name in ("disposed", "exited", "failed", "lost")}
    host.stop()
    with editing(host) as db:
        for status in pids:
            insert_session(db, status, status=status, ended_at_ms=wall_ms(), workspace_id="w")
    serve(host)
    assert {name for name, pid in pids.items() if processes.alive(pid)} == {"lost"}
    assert row_of(host, "disposed")["status"] == "disposed"
    assert row_of(host, "lost")["dispose_requested_at_ms"] is None, "it is here again and nobody minds"
    host.call("session.dispose", id="lost")
    reap(host)
    assert not processes.alive(pids["lost"])


LEAVES = ["sh", "-c", "trap '' HUP; sleep 100000 & exit 0"]


def test_C12_a_lingering_session(host: HostService) -> None:
    """Its leader is gone and something of it lives on: that is no end, and nobody's orphan."""
    serve(host)
    workspace(host, id="w")
    kept, intended, homeless = (session(host, "w", LEAVES)["id"] for _ in range(3))
    for one in (kept, intended, homeless):
        wait_until(lambda one=one: _state(host, one) == "lingering", what="its leader has left")
    host.stop()
    with editing(host) as db:
        db.execute("UPDATE sessions SET dispose_requested_at_ms = 1 WHERE id = ?", [intended])
        db.execute("UPDATE sessions SET workspace_id = NULL WHERE id = ?", [homeless])
    serve(host)
    assert [_state(host, one) for one in (kept, intended, homeless)] == ["lingering", "exited", "exited"]
    assert row_of(host, kept)["status"] == "active"
    assert {row_of(host, one)["status"] for one in (intended, homeless)} == {"disposed"}


def _state(host: HostService, id_: str) -> str:
    return str(host.runtime.call("session.get", id=id_)["state"])


def test_C13_what_is_wanted_is_untouched_for_a_hundred_passes(host: HostService) -> None:
    serve(host)
    workspace(host, id="w")
    rows = [session(host, "w"), session(host, "w", ["sh", "-c", "exec 0<&-; trap '' HUP; sleep 100000"])]
    with host.connect() as rpc:
        for _ in range(PASSES):
            found = rpc.call("reap")
            assert (found["state"], found["acts"], found["counts"]["observed"]) == ("ok", [], 0)
    assert all(is_alive(row) for row in rows)
    assert host.call("passes", limit=1)["passes"][0]["id"] == PASSES + 1
    assert sum("[info" in line and " pass " in line for line in host.log.splitlines()) == 1, (
        "no news, no line"
    )


def test_C14_and_C15_ours_without_a_row_only_twice_and_only_when_old(served: HostService) -> None:
    """C21: those of another owner, or without our mark, are never touched, however often they are seen."""
    host = served
    ours = stray(host, "ours", **{OWNER: owner_of(host)})
    others = [
        stray(host, "anothers", **{OWNER: "another"}),
        stray(host, "nobodys"),
        stray(host, "looks-like-ours", **{"hostsvc.workspace": "w"}),
    ]
    first, second = reap(host), reap(host)
    assert processes.alive(ours), "two looks a moment apart are one"
    assert first["counts"]["observed"] == second["counts"]["observed"] == 1
    assert first["kept"]["sessions"]["foreign"] == 3
    reap_until(host, "ours", "kill done")
    assert not processes.alive(ours)
    assert all(processes.alive(pid) for pid in others)
    foreign = host.call("session.list")["foreign"]
    assert {(one["id"], one["owner"]) for one in foreign} == {
        ("anothers", "another"),
        ("nobodys", None),
        ("looks-like-ours", None),
    }
    for one in foreign:
        host.runtime.call("session.kill", id=one["id"], force=True)


def test_C14_a_dry_run_does_not_even_look_twice(served: HostService) -> None:
    host = served
    ours = stray(host, "dry", **{OWNER: owner_of(host)})
    for _ in range(2):
        assert reap(host, dry_run=True)["counts"]["observed"] == 1
    assert peek(host, "SELECT * FROM observations WHERE subject = 'dry:1'") == []
    reap(host)
    wait_until(lambda: acts(reap(host, dry_run=True)).get("dry") == "kill planned", what="it is old enough")
    assert processes.alive(ours)
    assert acts(reap(host)) == {"dry": "kill done"}


def test_P9_every_pass_is_recorded_and_a_crash_in_one_shows(host: HostService) -> None:
    serve(host)
    workspace(host, id="w")
    found = reap(host, kinds=["rows"])
    assert found["kinds"] == ["rows"]
    host.kill()
    with editing(host) as db:
        db.execute("UPDATE passes SET state = 'running', finished_at_ms = NULL WHERE id = ?", [found["id"]])
    serve(host)
    passes = {one["id"]: one for one in host.call("passes")["passes"]}
    assert passes[found["id"]]["state"] == "interrupted"
    assert host.call("health")["reaper"]["last"]["id"] == max(passes)


async def test_C17_two_reapers_in_one_process_share_nothing(daemon: RuntimeDir, tmp_path: Path) -> None:
    """Each ends its own orphan, in its own time, by its own observations."""
    async with trio.open_nursery() as nursery, open_client(str(daemon.path)) as client:
        one, other = [await _service(tmp_path / name, nursery) for name in ("one", "other")]
        pids = {}
        for service in (one, other):
            spawned = await client.spawn(SLEEPER, labels={OWNER: service.owner})
            pids[service.owner] = spawned.pid or 0
        await one.reaper.run_pass("manual")
        while processes.alive(pids[one.owner]):
            await trio.sleep(0.1)
            await one.reaper.run_pass("manual")
            assert other.reaper.last_at_s is None
        first = await other.reaper.run_pass("manual")
        assert (first["counts"]["observed"], first["counts"]["done"]) == (1, 0), "it has not seen it before"
        assert processes.alive(pids[other.owner])
        for service in (one, other):
            service.places.close()
            service.index.close()
        nursery.cancel_scope.cancel()


async def _service(directory: Path, nursery: trio.Nursery) -> Service:
    directory.mkdir(mode=0o700)
    env = {
        "HOSTSVC_STATE_DIR": str(directory),
        "HOSTSVC_BASE_DIR": str(directory / "base"),
        "HOSTSVC_AGE_FLOOR_S": "1",
    }
    config = read_config(env={**os.environ, **env})
    index = open_index(directory)
    live = Live(str(config.runtime_dir), start=False)
    nursery.start_soon(live.run)
    await live.tried.wait()
    owner = await index.read(database.index_id)
    return Service(config, index, owner, live, nursery, wall_ms)
