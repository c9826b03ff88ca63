"""E1 to E6 for workspaces: gone stays gone, undone is usable, and a new generation is asked for by name."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostsvc.owned import PathRole
from hostsvc.store import sagas, workspaces
from hostsvc.store.database import close_database, open_database, writing
from tests.hostsvc.places import SLEEPER, editing, insert_session, is_alive, peek, serve, session, workspace
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService

pytestmark = pytest.mark.unmeasured


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One service for all that need no other setting and no restart; each has a workspace of its own."""
    host = serve(HostService(shared_runtime))
    yield host
    host.stop()


def _tables(host: HostService) -> dict[str, list[dict[str, object]]]:
    names = ("workspaces", "sessions", "tombstones", "sagas", "saga_steps", "trash", "audit")
    return {name: peek(host, f"SELECT * FROM {name}") for name in names}


def test_E1_reading_what_is_gone_or_never_was_creates_nothing(served: HostService) -> None:
    host = served
    place = workspace(host, id="e1", name="named-e1")
    host.call("workspace.delete", id="e1")
    before, folders = _tables(host), os.listdir(host.base_dir)
    for name in ("e1", "named-e1"):
        for method, params in {
            "workspace.get": {"id": name},
            "workspace.update": {"id": name, "labels": {"a": "b"}},
            "session.list": {"workspace": name},
            "session.create": {"workspace": name, "argv": SLEEPER},
            "session.adopt": {"owner": "another", "workspace": name},
        }.items():
            assert host.error(method, **params).code == "destroyed", (method, name)
    for method, params in {
        "workspace.get": {"id": "never"},
        "session.list": {"workspace": "never"},
        "session.create": {"workspace": "never", "argv": SLEEPER},
        "session.dispose": {"id": "never"},
        "saga.get": {"id": "never"},
    }.items():
        assert host.error(method, **params).code == "not_found", method
    host.call("workspace.delete", id="never", dry_run=True)
    assert _tables(host) == before
    assert os.listdir(host.base_dir) == folders
    assert not os.path.exists(place["path"])
    listed = host.runtime.call("session.list")["sessions"]
    assert all(one["state"] == "exited" for one in listed)


def test_E2_and_E5_destroyed_twice_and_never_known_over_restarts_of_both(host: HostService) -> None:
    serve(host)
    workspace(host, id="w", name="one")
    row = session(host, "w")
    first = host.call("workspace.delete", id="w")
    never = host.call("workspace.delete", id="never")
    assert (never["saga"], never["state"], never["warnings"]) == (None, "deleted", [])
    host.kill()
    host.runtime.kill_daemon()
    serve(host)
    for name in ("w", "one"):
        assert host.call("workspace.delete", id=name) == first
    assert host.call("workspace.delete", id="never") == never
    assert host.error("workspace.get", id="w").code == "destroyed"
    for name in ("w", "never"):
        late = host.error("workspace.create", id=name)
        assert (late.code, late.data["generation"]) == ("destroyed", 1)
    assert host.call("session.dispose", id=row["id"])["status"] == "disposed"
    assert len(peek(host, "SELECT * FROM tombstones WHERE kind = 'workspace'")) == 2
    assert not os.path.exists(host.base_dir / "one")


def test_E3_a_teardown_that_fails_leaves_it_usable(served: HostService) -> None:
    host = served
    place = workspace(host, id="e3", teardown=["sh", "-c", "echo no way; exit 3"])
    row = session(host, "e3")
    undone = host.error("workspace.delete", id="e3", force=True)
    assert undone.code == "spawn_failed"
    assert "no way" in str(undone.error["message"])
    found = host.call("workspace.get", id="e3")
    assert (found["state"], found["sessions"]) == ("active", 1)
    assert os.path.isdir(place["path"])
    assert is_alive(row), "the sessions come after the teardown"
    assert peek(host, "SELECT * FROM tombstones WHERE id = 'e3'") == []
    assert is_alive(session(host, "e3")), "it takes sessions again"
    [saga] = peek(host, "SELECT * FROM sagas WHERE workspace_id = 'e3'")
    assert saga["state"] == "compensated"
    assert host.call("workspace.delete", id="e3", skip_teardown=True)["state"] == "deleted"
    assert not is_alive(row)
    assert len(peek(host, "SELECT * FROM trash WHERE workspace_id = 'e3'")) == 1


def test_E4_a_crash_in_between_is_finished(host: HostService) -> None:
    """A row that a crash left half made is provided; one that it left half deleted is deleted."""
    serve(host).kill()
    path = host.base_dir / "deleting"
    path.mkdir()
    with editing(host) as db:
        for name in ("provisioning", "deleting"):
            _insert_half_made(db, name, host.base_dir / name)
        found = path.stat()
        db.execute(
            "UPDATE workspaces SET device = ?, inode = ?, state = 'active' WHERE id = 'deleting'",
            [found.st_dev, found.st_ino],
        )
        insert_session(db, "s", workspace_id="deleting", origin_workspace_id="deleting", status="exited")
        db.execute(
            "INSERT INTO sagas (id, workspace_id, generation, state, lease, lease_until_ms, created_at_ms)"
            " VALUES ('saga', 'deleting', 1, 'open', 'the-dead', ?, 1)",
            [2**53],
        )
        db.execute("UPDATE workspaces SET state = 'deleting' WHERE id = 'deleting'")
    serve(host)
    assert host.call("workspace.get", id="provisioning")["state"] == "active"
    assert (host.base_dir / "provisioning").is_dir()
    assert host.error("workspace.get", id="deleting").code == "destroyed"
    assert not path.exists()


def _insert_half_made(db: sqlite3.Connection, name: str, path: Path) -> None:
    db.execute(
        "INSERT INTO workspaces (id, generation, path, is_ours, state, created_at_ms)"
        " VALUES (?, 1, ?, 1, 'provisioning', 1)",
        [name, str(path)],
    )


def test_E4_half_made_and_deleted_at_once(host: HostService) -> None:
    """Its folder may be there without anybody knowing which it is: nothing of it is left behind."""
    serve(host).kill()
    with editing(host) as db:
        _insert_half_made(db, "w", host.base_dir / "w")
    (host.base_dir / "w").mkdir()
    host.start(HOSTSVC_REAPER_INTERVAL_S="3600")
    assert host.call("workspace.delete", id="w")["state"] == "deleted"
    assert not (host.base_dir / "w").exists()
    assert host.call("health")["status"] == "green"


def test_E6_a_new_generation_is_asked_for(served: HostService) -> None:
    host = served
    workspace(host, id="e6", name="named-e6")
    host.call("workspace.delete", id="e6")
    assert host.error("workspace.create", id="e6").code == "destroyed"
    assert host.error("workspace.create", id="e6", generation=1).code == "destroyed"
    made = workspace(host, id="e6", name="named-e6", generation=2)
    assert (made["generation"], made["state"]) == (2, "active")
    row = session(host, "e6")
    late = host.error("workspace.delete", id="e6", generation=1)
    assert (late.code, late.data["generation"]) == ("destroyed", 2)
    assert is_alive(row)
    assert host.error("workspace.create", id="e6", generation=2).code == "exists"
    assert host.call("workspace.delete", id="e6", generation=2)["state"] == "deleted"
    assert not is_alive(row)
    for generation in (1, 2):
        assert host.error("workspace.create", id="e6", generation=generation).code == "destroyed"
    assert len(peek(host, "SELECT * FROM trash WHERE workspace_id = 'e6'")) == 2


def test_a_deletion_asked_for_before_another_was_over_is_that_one(tmp_path: Path) -> None:
    """Whoever looked a moment too early must not open a second saga on what is gone."""
    db = open_database(tmp_path)
    asked = {"is_forced": False, "skips_teardown": False, "now_ms": 1}
    with writing(db):
        made = workspaces.insert(
            db,
            id_="w",
            generation=None,
            name=None,
            path="/w",
            is_ours=False,
            labels={},
            teardown=None,
            is_protected=False,
            now_ms=1,
        )
        workspaces.activate(db, made, {PathRole.FOLDER: (1, 1)})
        saga = sagas.open_saga(db, id_="first", workspace=made, **asked)
        sagas.seal(db, saga, made, 1)
        sagas.finish(db, saga, made, {}, 2)
        late = sagas.open_saga(db, id_="second", workspace=made, **asked)
    assert (late.id, late.state) == ("first", "done")
    assert sagas.find_open(db) == []
    close_database(db, tmp_path)
