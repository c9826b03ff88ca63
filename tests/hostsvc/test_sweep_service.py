"""The base directory of a running service: A5, A7, A11, A13, B1 and B4, with what it made itself."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.hostsvc.places import (
    QUIET,
    acts,
    editing,
    is_alive,
    peek,
    reap,
    reap_until,
    serve,
    session,
    workspace,
)
from tests.support.host import HostService
from tests.support.repos import Repository, fingerprint, git
from tests.support.rpc import Disconnected

pytestmark = pytest.mark.unmeasured


SHORT = {"HOSTSVC_SWEEP_AGE_S": "1", "HOSTSVC_WORKTREE_GRACE_S": "1"}
KINDS = ["worktrees", "triples"]
DAY_S = 86_400
AT_ONCE = 12
_DIES = """
import os, signal
import {module} as module
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{target} = die
"""


def dying(host: HostService, module: str, target: str) -> str:
    """The service's program, which dies as soon as it comes to call something."""
    return _DIES.format(module=module, target=f"module.{target}") + host.code


def age(*folders: Path, by_s: float = 2 * DAY_S) -> None:
    """Let everything there have changed long ago."""
    at_s = time.time() - by_s
    for folder in folders:
        for path in (*folder.rglob("*"), folder):
            os.utime(path, (at_s, at_s), follow_symlinks=False)


def base_names(host: HostService) -> set[str]:
    return {path.name for path in host.base_dir.iterdir()} - {".trash"}


def worktree(host: HostService, repository: Repository, id_: str) -> Path:
    folder = Path(workspace(host, id=id_, repository=str(repository.main), branch=id_)["path"])
    git(folder, "push", "-q", "-u", "origin", id_)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r")


def lose(host: HostService, *, with_row: bool) -> None:
    """Let every workspace be deleted, its paths left behind; with the row that says so, or without."""
    with editing(host) as db:
        db.execute("UPDATE workspaces SET state = 'deleting' WHERE state = 'active'")
        db.execute("UPDATE workspaces SET state = 'deleted'")
        if not with_row:
            db.execute("DELETE FROM workspaces")


def test_A5_what_the_service_left_behind_is_swept_and_told(host: HostService) -> None:
    serve(host, **SHORT)
    for name in ("old", "young"):
        workspace(host, id=name, credential=b"secret")
    workspace(host, id="live", credential=b"secret")
    (host.base_dir / "notes").write_text("somebody's")
    host.stop()
    age(*(path for path in host.base_dir.iterdir() if not path.name.startswith("young")))
    with editing(host) as db:
        db.execute("UPDATE workspaces SET state = 'deleting' WHERE id <> 'live'")
        db.execute("UPDATE workspaces SET state = 'deleted' WHERE id <> 'live'")
    host.start(**QUIET, HOSTSVC_SWEEP_AGE_S="3600")
    with host.connect() as events:
        hello = events.call("hello", client="tests", protocols=[1])
        events.call("events.subscribe", since={"daemon_id": hello["daemon_id"], "seq": 0})
        told: dict[str, Any] = {}
        while told.get("type") != "triples.swept":
            told = events.next_notification("event")[1]
    counted = {key: told[key] for key in ("swept", "retained", "failed", "unrecognised")}
    assert counted == {"swept": 3, "retained": 6, "failed": 0, "unrecognised": 1}
    assert base_names(host) == {
        *("live", "live-artifacts", "live.cred.sh", "young", "young-artifacts", "young.cred.sh", "notes")
    }


def test_A7_what_is_in_use_survives_a_restart_however_old(host: HostService, repository: Repository) -> None:
    serve(host, **SHORT)
    folder = worktree(host, repository, "tree")
    workspace(host, id="plain", credential=b"secret")
    row = session(host, "plain")
    host.kill()
    age(*host.base_dir.iterdir())
    before = fingerprint(host.base_dir)
    serve(host, **SHORT)
    for _ in range(3):
        assert reap(host)["acts"] == []
    assert fingerprint(host.base_dir) == before
    assert folder.exists()
    assert is_alive(row)


def test_A11_a_service_killed_while_it_made_one(host: HostService) -> None:
    """What it left is taken back by its row; without one, by its age, and not before."""
    plain, host.code = host.code, dying(host, "hostsvc.store.workspaces", "activate")
    serve(host, **SHORT)
    with pytest.raises((Disconnected, OSError)):
        workspace(host, id="w", credential=b"secret")
    host.wait()
    assert base_names(host) == {"w", "w-artifacts", "w.cred.sh"}
    (host.base_dir / "w" / "begun").write_text("x")
    (host.base_dir / "w-artifacts" / "begun").write_text("x")
    with editing(host) as db:
        db.execute("DELETE FROM workspaces")
    host.code = plain
    serve(host, HOSTSVC_SWEEP_AGE_S="3600")
    for _ in range(3):
        assert reap(host)["acts"] == []
    assert reap(host)["kept"]["triples"] == {"it is not old enough": 3}
    age(*host.base_dir.iterdir())
    reap_until(host, "w", "trash done")
    assert base_names(host) == set()
    assert host.call("workspace.create", id="w")["state"] == "active"


def test_A11_a_service_killed_while_it_deleted_one(host: HostService) -> None:
    plain, host.code = host.code, dying(host, "hostsvc.tree", "move_to_trash")
    serve(host, **SHORT)
    made = workspace(host, id="w", credential=b"secret")
    (Path(made["path"]) / "work").write_text("x")
    age(*host.base_dir.iterdir())
    with pytest.raises((Disconnected, OSError)):
        host.call("workspace.delete", id="w")
    host.wait()
    assert "w" in base_names(host)
    host.code = plain
    serve(host, **SHORT)
    assert base_names(host) == set()
    assert host.call("workspace.delete", id="w")["state"] == "deleted"
    assert len(peek(host, "SELECT * FROM trash WHERE path LIKE '%/w'")) == 1, "not twice"


def test_A13_a_sweep_races_normal_deletions(host: HostService, repository: Repository) -> None:
    serve(host, **SHORT)
    for number in range(AT_ONCE):
        folder = (
            worktree(host, repository, f"w{number}")
            if number % 3 == 0
            else Path(workspace(host, id=f"w{number}", credential=b"secret")["path"])
        )
        if number % 3:
            (folder / "work").write_text("x")
    age(*host.base_dir.iterdir())
    passes = []
    with ThreadPoolExecutor(4) as pool:
        deletions = [pool.submit(host.call, "workspace.delete", id=f"w{n}") for n in range(AT_ONCE)]
        while not all(one.done() for one in deletions):
            passes.append(reap(host, kinds=KINDS))
    for one in deletions:
        assert (one.result()["state"], one.result()["warnings"]) == ("deleted", [])
    assert {found["state"] for found in passes} == {"ok"}
    assert base_names(host) == set()
    paths = [row["path"] for row in peek(host, "SELECT path FROM trash")]
    assert len(paths) == len(set(paths)), "each went once"


@pytest.mark.parametrize("with_row", [True, False], ids=["B4-by-row", "B1-by-absence"])
def test_B1_and_B4_an_orphan_of_the_service(
    host: HostService, repository: Repository, with_row: bool
) -> None:
    serve(host, **SHORT)
    folder = worktree(host, repository, "w")
    host.stop()
    lose(host, with_row=with_row)
    with editing(host) as db:
        db.execute("UPDATE paths SET created_at_ms = created_at_ms - 5000")
    serve(host, **SHORT)
    if with_row:
        assert not folder.exists(), "the first pass has done it"
    else:
        assert folder.exists(), "at the start an absence is only observed"
        found = reap_until(host, "w", "trash done")
        assert acts(found)["w"] == "trash done"
    assert str(folder) not in git(repository.main, "worktree", "list")
    assert git(repository.main, "branch", "--list", "w")
    (entry,) = peek(host, "SELECT * FROM trash WHERE path LIKE '%/w'")
    assert (Path(entry["trash_path"]) / "file").exists()
