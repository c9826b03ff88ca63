"""B5 to B18, B24, B25 through the service: a deletion names the work at risk and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostsvc.places import peek, serve, session, workspace
from tests.hostsvc.test_risk import CASES, FAILING, Damage
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.repos import Repository, fingerprint, git

pytestmark = pytest.mark.unmeasured


HOSTILE = {
    "GIT_DIR": "/nowhere",
    "GIT_WORK_TREE": "/nowhere",
    "GIT_INDEX_FILE": "/nowhere",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "status.showUntrackedFiles",
    "GIT_CONFIG_VALUE_0": "no",
    "GIT_OBJECT_DIRECTORY": "/nowhere",
}


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One service for all, in an environment that would lead any git astray."""
    host = serve(HostService(shared_runtime), **HOSTILE)
    yield host
    host.stop()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r")


def worktree(host: HostService, repository: Repository, name: str) -> Path:
    """A workspace whose folder is a worktree on the branch `work`, clean and pushed."""
    made = workspace(host, id=name, repository=str(repository.main), branch="work")
    folder = Path(made["path"])
    git(folder, "push", "-q", "-u", "origin", "work")
    return folder


def refuse(host: HostService, name: str, code: str, *kept: Path) -> None:
    """Ask for a deletion; it is refused with that reason, and not a byte has changed."""
    before = fingerprint(*kept)
    reasons = host.call("workspace.risk", id=name)["reasons"]
    refused = host.error("workspace.delete", id=name)
    assert refused.code == "at_risk"
    assert code in {reason["code"] for reason in reasons}
    assert all(reason["text"] in refused.error["message"] for reason in reasons)
    assert fingerprint(*kept) == before
    assert host.call("workspace.get", id=name)["state"] == "active"
    assert peek(host, "SELECT * FROM trash WHERE workspace_id = ?", name) == []


@pytest.mark.parametrize("number,code,damage", [pytest.param(*case, id=case[0]) for case in CASES])
def test_B5_to_B15_are_refused_by_name_and_stay(
    served: HostService, repository: Repository, number: str, code: str, damage: Damage
) -> None:
    folder = worktree(served, repository, number)
    damage(repository, folder)
    refuse(served, number, code, folder, repository.main, repository.remote)
    head = git(folder, "rev-parse", "HEAD")
    before = fingerprint(folder)
    saga = served.call("workspace.delete", id=number, force=True)
    assert saga["state"] == "deleted", "force is the consent"
    git(repository.main, "merge-base", "--is-ancestor", head, f"refs/hostsvc/trash/{saga['saga']}")
    served.call("workspace.restore", id=number)
    assert fingerprint(folder) == before, "and not even that loses it"
    served.call("workspace.delete", id=number, force=True)


@pytest.mark.parametrize("how", FAILING)
def test_B16_a_git_that_cannot_tell(
    host: HostService, repository: Repository, tmp_path: Path, how: str
) -> None:
    serve(host)
    folder = worktree(host, repository, "w")
    host.stop()
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    if (script := FAILING[how]) is not None:
        program.write_text(script)
        program.chmod(0o755)
    serve(host, PATH=str(program.parent), HOSTSVC_GIT_DEADLINE_S="1")
    refuse(host, "w", "unknown", folder, repository.main)
    forced = host.call("workspace.delete", id="w", force=True)
    assert forced["state"] == "partial", "its repository cannot be told that it goes: it stays, and is told"
    assert folder.exists()


def test_B17_a_missing_link_is_not_the_outer_repositorys(served: HostService, repository: Repository) -> None:
    folder = worktree(served, repository, "B17")
    (folder / ".git").unlink()
    refuse(served, "B17", "unknown", folder, repository.main)


def test_B18_a_broken_link(served: HostService, repository: Repository) -> None:
    """Refused; by force it goes to the trash as it is, and its repository is not touched."""
    folder = worktree(served, repository, "B18")
    (folder / ".git").write_text("gitdir: /nowhere/at/all\n")
    refuse(served, "B18", "unknown", folder, repository.main)
    before = fingerprint(repository.main)
    assert served.call("workspace.delete", id="B18", force=True)["state"] == "deleted"
    assert fingerprint(repository.main) == before
    [entry] = [one for one in served.call("trash.list")["entries"] if one["workspace_id"] == "B18"]
    assert entry["kind"] == "broken"


def test_B25_an_unmounted_neighbour_keeps_its_registration(
    served: HostService, repository: Repository, tmp_path: Path
) -> None:
    away = repository.worktree(tmp_path / "away", "away")
    worktree(served, repository, "B25")
    away.rename(tmp_path / "unmounted")
    assert served.call("workspace.delete", id="B25")["state"] == "deleted"
    assert str(away) in git(repository.main, "worktree", "list")
    (tmp_path / "unmounted").rename(away)
    assert git(away, "status", "--porcelain") == ""


def test_a_refusal_ends_no_session(served: HostService, repository: Repository) -> None:
    folder = worktree(served, repository, "busy")
    row = session(served, "busy")
    (folder / "new").touch()
    refuse(served, "busy", "untracked", folder, repository.main)
    assert served.row(row["id"])["status"] == "active"  # type: ignore[index]
    assert os.path.exists(f"/proc/{row['live']['pid']}")
