"""C22: an index that was lost, or comes from an old backup, kills nobody; its sessions can be taken over."""

from __future__ import annotations

import shutil

import pytest

from tests.hostsvc.places import acts, is_alive, owner_of, peek, reap, row_of, serve, session, workspace
from tests.support.host import HostService, remove_index
from tests.support.waiting import soak, wait_until

pytestmark = pytest.mark.unmeasured


SESSIONS = soak(50, 400)


def test_C22_an_empty_index_knows_nobody(host: HostService) -> None:
    """All of them are foreign to it, until a person takes them over."""
    serve(host)
    workspace(host, id="w")
    rows = [session(host, "w") for _ in range(SESSIONS)]
    owner = owner_of(host)
    host.stop()
    remove_index(host)
    serve(host)
    assert owner_of(host) != owner
    for _ in range(3):
        found = reap(host)
        assert (found["state"], found["acts"]) == ("ok", [])
        assert (found["counts"]["seen"], found["counts"]["observed"]) == (0, 0), "they do not even count"
        assert found["kept"]["sessions"]["foreign"] == SESSIONS
    assert all(is_alive(row) for row in rows)
    assert host.call("session.list")["sessions"] == []
    workspace(host, id="new")
    shown = host.call("session.adopt", owner=owner, workspace="new", dry_run=True)
    assert (len(shown["sessions"]), shown["adopted"]) == (SESSIONS, False)
    assert len(host.call("session.list")["foreign"]) == SESSIONS
    host.call("session.adopt", owner=owner, workspace="new")
    listed = host.call("session.list")
    assert listed["foreign"] == []
    assert {row["id"] for row in listed["sessions"]} == {row["id"] for row in rows}
    assert {(row["status"], row["workspace_id"]) for row in listed["sessions"]} == {("active", "new")}
    assert reap(host)["acts"] == []
    assert host.call("session.adopt", owner=owner, workspace="new")["sessions"] == [], "twice is once"
    assert host.call("workspace.delete", id="new")["warnings"] == []
    assert not any(is_alive(row) for row in rows)


def test_C22_an_adoption_that_was_cut_short_is_finished_by_asking_again(host: HostService) -> None:
    """Its row is there and its label is still the lost index's: nobody touches it meanwhile."""
    serve(host)
    workspace(host, id="w")
    row = session(host, "w")
    owner = owner_of(host)
    host.runtime.call(
        "session.update", id=row["id"], labels={"hostsvc.owner": "lost", "run": "lost-too", "mine": "too"}
    )
    assert reap(host)["acts"] == []
    assert [one["owner"] for one in host.call("session.list")["foreign"]] == ["lost"]
    host.call("session.adopt", owner="lost", workspace="w")
    labels = host.runtime.call("session.get", id=row["id"])["labels"]
    assert labels == {"hostsvc.owner": owner, "hostsvc.workspace": "w", "mine": "too"}
    assert host.call("session.list")["foreign"] == []


def test_C22_what_was_started_after_the_backup_can_be_taken_over(host: HostService) -> None:
    """To an index restored from a backup it is its own, without a row."""
    serve(host)
    workspace(host, id="w")
    host.stop()
    backup = host.runtime.base / "backup"
    shutil.copytree(host.state_dir, backup)
    serve(host)
    unknown = session(host, "w")["id"]
    host.stop()
    shutil.rmtree(host.state_dir)
    backup.rename(host.state_dir)
    serve(host)
    owner = owner_of(host)
    shown = host.call("session.list")
    assert ([one["owner"] for one in shown["foreign"]], shown["sessions"]) == ([owner], [])
    assert host.call("session.adopt", owner=owner, workspace="w")["adopted"]
    row = host.row(unknown)
    assert row is not None
    assert (row["status"], row["workspace_id"], row["live"]["state"]) == ("active", "w", "running")
    assert host.call("session.list")["foreign"] == []


def test_C22_an_index_from_an_old_backup_is_stopped_by_the_share_cap(host: HostService) -> None:
    """What it does not know is most of all there is: refused, shown, and done when a person accepts it."""
    serve(host)
    workspace(host, id="w")
    known = session(host, "w")
    host.stop()
    backup = host.runtime.base / "backup"
    shutil.copytree(host.state_dir, backup)
    serve(host)
    unknown = [session(host, "w") for _ in range(10)]
    host.stop()
    shutil.rmtree(host.state_dir)
    backup.rename(host.state_dir)
    serve(host)
    refused = wait_until(lambda: _refused(host), what="the unknown ones are old enough")
    assert refused["refusals"] == ["sessions: 10 of 11, more than 50% of all"]
    assert set(acts(refused).values()) == {"kill refused"}
    assert host.call("health")["status"] == "yellow"
    assert all(is_alive(row) for row in [known, *unknown])
    shown = reap(host, dry_run=True)
    assert shown["plan_hash"] == refused["plan_hash"], "the same plan has the same name"
    assert host.error("reap", accept="another").code == "plan_changed"
    assert all(is_alive(row) for row in [known, *unknown])
    host.runtime.call("session.kill", id=unknown.pop()["id"], force=True)
    changed = host.error("reap", accept=refused["plan_hash"])
    assert (changed.code, changed.data["plan_hash"] != refused["plan_hash"]) == ("plan_changed", True)
    done = reap(host, accept=changed.data["plan_hash"])
    assert acts(done) == {row["id"]: "kill done" for row in unknown}
    assert not any(is_alive(row) for row in unknown)
    assert is_alive(known)
    assert row_of(host, known["id"])["status"] == "active"
    assert [one["state"] for one in peek(host, "SELECT state FROM passes ORDER BY id DESC LIMIT 2")] == [
        "ok",
        "refused",
    ]


def _refused(host: HostService) -> dict[str, object] | None:
    found = reap(host)
    return found if found["state"] == "refused" else None
