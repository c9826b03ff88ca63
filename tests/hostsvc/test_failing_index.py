"""An index or a disk that fails underneath a running service: typed errors, and nothing half done."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostsvc.places import (
    SLEEPER,
    acts,
    is_alive,
    peek,
    reap,
    row_of,
    serve,
    session,
    workspace,
)
from tests.support.host import _SERVE, HostService, remove_index
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


REFUSED = 1  # sys.exit with the reason


def _tables(host: HostService) -> list[list[dict[str, Any]]]:
    return [peek(host, f"SELECT * FROM {name}") for name in ("workspaces", "sessions", "sagas", "tombstones")]


def test_an_index_that_somebody_else_holds(host: HostService) -> None:
    """Whoever wants to write is told to try again; whoever looks is served."""
    host.code = "import hostsvc.store.database as db; db.LOCKED_WAIT_MS = 50\n" + _SERVE
    serve(host)
    workspace(host, id="w")
    row = session(host, "w")
    with contextlib.closing(sqlite3.connect(host.index_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        before = _tables(host)
        for method, params in _WRITES(row).items():
            assert host.error(method, **params).code == "busy", method
        assert host.call("workspace.get", id="w")["state"] == "active"
        health = host.call("health")
        assert health["status"] == "red"
        assert _tables(host) == before
        assert _living(host) == {row["id"]}
    assert host.call("session.dispose", id=row["id"])["status"] == "disposed"
    assert host.call("health")["status"] == "green"


def _WRITES(row: dict[str, Any]) -> dict[str, dict[str, Any]]:  # a table of the one row
    return {
        "workspace.create": {"id": "new"},
        "session.create": {"workspace": "w", "argv": SLEEPER},
        "session.dispose": {"id": row["id"], "force": True},
        "workspace.delete": {"id": "w"},
        "reap": {},
    }


def _living(host: HostService) -> set[str]:
    listed = host.runtime.call("session.list")["sessions"]
    return {one["id"] for one in listed if one["state"] != "exited"}


def test_an_index_that_is_deleted_underneath(host: HostService) -> None:
    """What SQLite would still write would be lost: nothing is done that could not be remembered."""
    serve(host)
    workspace(host, id="w")
    row = session(host, "w")
    remove_index(host)
    for method, params in _WRITES(row).items():
        refused = host.error(method, **params)
        assert refused.code == "index_failed", method
        assert "restore a backup" in refused.error["message"]
    assert _living(host) == {row["id"]}
    assert not (host.base_dir / "new").exists()
    health = host.call("health")
    assert health["status"] == "red"
    assert "deleted or replaced" in " ".join(health["reasons"])


def test_an_index_that_is_overwritten_underneath(host: HostService) -> None:
    serve(host)
    workspace(host, id="w")
    row = session(host, "w")
    with contextlib.closing(sqlite3.connect(host.index_path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = host.index_path.stat().st_size
    with host.index_path.open("r+b") as file:
        file.write(b"\xff" * size)
    for method, params in _WRITES(row).items():
        assert host.error(method, **params).code == "index_failed", method
    assert _living(host) == {row["id"]}
    assert host.error("session.list").code == "index_failed"
    assert host.serves()
    host.stop()
    assert host.launch().wait(20) == REFUSED
    assert "hostsvc db check" in host.log.splitlines()[-1]
    assert _living(host) == {row["id"]}


@pytest.fixture
def small_disk(host: HostService) -> Iterator[Path]:
    """A state directory that 2 MB fill."""
    host.state_dir.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(host.state_dir)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    yield host.state_dir
    host.stop()
    subprocess.run(["umount", str(host.state_dir)], check=True)


def test_X5_the_disk_is_full(host: HostService, small_disk: Path) -> None:
    """Intents cannot be written, so nothing is killed, spawned or deleted; afterwards all of it works."""
    serve(host)
    workspace(host, id="w")
    row = session(host, "w")
    before = _tables(host)
    _fill(small_disk / "ballast")
    for method, params in _WRITES(row).items():
        assert host.error(method, **params).code == "no_space", method
    assert host.call("health")["status"] == "red"
    assert _living(host) == {row["id"]}
    assert not (host.base_dir / "new").exists()
    (small_disk / "ballast").unlink()
    assert _tables(host) == before
    assert host.call("workspace.delete", id="w")["state"] == "deleted"
    assert not is_alive(row)
    assert host.call("health")["status"] == "green"


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (64 << 10, 4 << 10, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


_FAILING = """
import os
from hostsvc.index import Index
from ptyd.protocol.errors import Code, PtydError
write, failing = Index.write, os.environ["FAILING"].split()
async def fails(self, work, *arguments, **fields):
    name = f"{work.__module__.rsplit('.')[-1]}.{work.__name__}"
    if name in failing:
        failing.remove(name)
        raise PtydError(Code.NO_SPACE, "the disk is full; nothing was written")
    return await write(self, work, *arguments, **fields)
Index.write = fails
"""


def test_a_birth_that_cannot_be_entered_is_ended(host: HostService) -> None:
    """Nobody is told its id, so it must not live on; its row is settled when there is room again."""
    host.code = _FAILING + _SERVE
    serve(host, FAILING="sessions.confirm")
    workspace(host, id="w")
    assert host.error("session.create", workspace="w", argv=SLEEPER).code == "no_space"
    assert _living(host) == set()
    [row] = peek(host, "SELECT * FROM sessions")
    wait_until(lambda: reap(host) and row_of(host, row["id"])["status"] == "exited", what="it is settled")
    assert is_alive(session(host, "w"))


def test_a_deletion_that_cannot_be_written_is_told_and_goes_on_later(host: HostService) -> None:
    host.code = _FAILING + _SERVE
    serve(host, FAILING="sagas.begin_step sagas.seal sagas.finish")
    workspace(host, id="w")
    row = session(host, "w")
    assert host.error("workspace.delete", id="w").code == "no_space"
    [saga] = peek(host, "SELECT * FROM sagas")
    outcomes = [acts(reap(host))[saga["id"]] for _ in range(3)]
    assert outcomes == ["resume failed", "resume failed", "resume done"]
    assert host.error("workspace.get", id="w").code == "destroyed"
    assert not is_alive(row)
    assert reap(host)["acts"] == []


_PROTECTING = """
from hostsvc.store import sagas, workspaces
seal = sagas.seal
def late(db, saga, workspace, now_ms):
    workspaces.update(db, workspace.id, name=None, labels=None, is_protected=True)
    return seal(db, saga, workspace, now_ms)
sagas.seal = late
"""


def test_a_workspace_that_is_protected_while_its_deletion_begins_stays(host: HostService) -> None:
    host.code = _PROTECTING + _SERVE
    serve(host)
    made = workspace(host, id="w")
    row = session(host, "w")
    assert host.error("workspace.delete", id="w", force=True).code == "protected"
    assert host.call("workspace.get", id="w")["state"] == "active"
    assert Path(made["path"]).is_dir()
    assert is_alive(row)
