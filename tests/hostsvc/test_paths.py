"""Workspaces on a real disk, through the service: triples, worktrees, and what takes them away again."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostsvc.places import editing, peek, reap, serve, session, workspace
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.repos import Repository, commit, fingerprint, git
from tests.support.rpc import RpcError
from tests.support.waiting import wait_until

SECRET = b"#!/bin/sh\necho password=hunter2-is-secret\n"


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One service for all that need no other setting and no restart; each has a workspace of its own."""
    host = serve(HostService(shared_runtime))
    yield host
    host.stop()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "r")


def worktree(host: HostService, repository: Repository, id_: str, **params: Any) -> Path:
    """Make a workspace whose folder is a worktree, clean and pushed."""
    params = {"branch": id_, **params}
    made = workspace(host, id=id_, repository=str(repository.main), **params)
    folder = Path(made["path"])
    git(folder, "push", "-q", "-u", "origin", params["branch"])
    return folder


def triple(host: HostService, name: str) -> list[str]:
    """Return what there is of a workspace's paths."""
    return sorted(
        one for one in os.listdir(host.base_dir) if one == name or one.startswith((f"{name}-", f"{name}."))
    )


def registered(repository: Repository) -> list[str]:
    listed = git(repository.main, "worktree", "list", "--porcelain")
    return [line.split(" ", 1)[1] for line in listed.splitlines() if line.startswith("worktree ")]


def says(host: HostService, where: str, tmp_path: Path, script: str) -> str:
    """Return what a script in a session of a workspace writes to its first argument."""
    out = tmp_path / f"said-{where}"
    session(
        host, where, ["sh", "-c", f"{{ {script}; }} > {out}.draft; mv {out}.draft {out}; exec sleep 100000"]
    )
    wait_until(out.exists, what="the script has spoken")
    return out.read_text()


# --- making --------------------------------------------------------------------------------------


def test_A1_the_triple_is_made_and_goes(served: HostService, tmp_path: Path) -> None:
    host = served
    made = workspace(host, id="a1", credential=SECRET)
    assert triple(host, "a1") == ["a1", "a1-artifacts", "a1.cred.sh"]
    modes = {name: stat.S_IMODE((host.base_dir / name).stat().st_mode) for name in triple(host, "a1")}
    assert set(modes.values()) == {0o700}
    folder = Path(made["path"])
    told = says(host, "a1", tmp_path, 'echo $HOSTSVC_WORKSPACE $HOSTSVC_ARTIFACTS; "$HOSTSVC_CREDENTIAL"')
    assert told == f"a1 {folder}-artifacts\npassword=hunter2-is-secret\n"
    (folder / "work").write_text("kept")
    Path(f"{folder}-artifacts", "report").write_text("kept too")
    answer = host.call("workspace.delete", id="a1")
    assert (answer["state"], answer["warnings"]) == ("deleted", [])
    assert triple(host, "a1") == []
    entries = {
        row["id"]: Path(row["trash_path"])
        for row in peek(host, "SELECT * FROM trash WHERE workspace_id = 'a1'")
    }
    assert (entries[answer["saga"]] / "work").read_text() == "kept"
    assert (entries[answer["saga"] + ".artifacts"] / "report").read_text() == "kept too"


def test_A12_what_is_gone_is_forgotten(served: HostService) -> None:
    """By its deletion, its purge, and when it was taken back: the same inode may be a stranger's next."""
    host = served

    def known(name: str) -> list[str]:
        rows = peek(host, "SELECT * FROM paths WHERE workspace_id = ? AND inode IS NOT NULL", name)
        return sorted(row["role"] for row in rows)

    workspace(host, id="forgotten", credential=SECRET)
    assert known("forgotten") == ["artifacts", "credential", "folder"]
    saga = host.call("workspace.delete", id="forgotten")["saga"]
    assert known("forgotten") == ["folder"], "that is in the trash"
    host.call("workspace.restore", id="forgotten")
    saga = host.call("workspace.delete", id="forgotten")["saga"]
    assert known("forgotten") == ["folder", "folder"]
    host.call("trash.purge", id=saga)
    assert known("forgotten") == []


def test_M_no_secret_in_trash_log_audit_or_answer(served: HostService) -> None:
    host = served
    with host.connect() as events:
        events.call("events.subscribe")
        made = workspace(host, id="secret", credential=SECRET)
        Path(f"{made['path']}-artifacts", "x").touch()
        answers = [made, host.call("workspace.get", id="secret"), host.call("workspace.delete", id="secret")]
        heard = []
        while not heard or heard[-1]["type"] != "workspace.deleted":
            heard.append(events.next_notification("event")[1])
    refused = [
        host.error("workspace.create", id="b", path="/etc", credential=SECRET),
        host.error("workspace.create", id="..", credential=SECRET),
        host.error("workspace.create", name="..", credential=SECRET),
        host.error("workspace.create", id="b", credential=SECRET * 5000),
        host.error("workspace.create", id="b", repository="/nowhere", credential=SECRET),
    ]
    texts = repr((answers, heard, [error.error for error in refused]))
    assert "hunter2" not in texts
    needle = b"hunter2-is-secret"
    for root in (host.runtime.base, host.base_dir, host.state_dir):
        for path in root.rglob("*"):
            assert not path.is_file() or needle not in path.read_bytes(), path


def test_A2_without_any_of_its_paths(served: HostService) -> None:
    host = served
    made = workspace(host, id="a2", credential=SECRET)
    os.rmdir(made["path"])
    os.rmdir(made["path"] + "-artifacts")
    os.unlink(made["path"] + ".cred.sh")
    assert host.call("workspace.delete", id="a2")["state"] == "deleted"
    assert triple(host, "a2") == []


@pytest.mark.parametrize("name", ["..", "w.cred.sh", "w-artifacts", ".trash", "-x"])
def test_A3_names_that_climb_or_take_a_siblings_place(served: HostService, name: str) -> None:
    before = fingerprint(served.base_dir)
    assert served.error("workspace.create", name=name, credential=SECRET).code == "path_refused"
    assert fingerprint(served.base_dir) == before


def test_A3_paths_that_are_not_adopted(served: HostService, tmp_path: Path) -> None:
    host = served
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    before = fingerprint(host.base_dir, tmp_path)
    base = str(host.base_dir)
    refused = ["", ".", "/", "w", base, f"{base}/..", f"{base}/../x", f"{base}/.trash", str(host.state_dir)]
    for path in (*refused, f"{tmp_path}/link/inner", f"{tmp_path}/link", f"{tmp_path}/missing"):
        assert host.error("workspace.create", path=path).code == "path_refused", path
    assert fingerprint(host.base_dir, tmp_path) == before


def test_A3_what_stands_beside_a_folder_is_not_taken(served: HostService) -> None:
    """Somebody has put something where an artifacts folder or a credential would be."""
    host = served
    (host.base_dir / "a3.cred.sh").write_text("of somebody else")
    (host.base_dir / "b3-artifacts").mkdir()
    (host.base_dir / "b3-artifacts" / "x").write_text("of somebody else")
    assert host.error("workspace.create", id="a3", credential=SECRET).code == "path_refused"
    assert host.error("workspace.create", id="b3").code == "path_refused"
    assert triple(host, "a3") + triple(host, "b3") == ["a3.cred.sh", "b3-artifacts"]
    assert (host.base_dir / "a3.cred.sh").read_text() == "of somebody else"
    assert (host.base_dir / "b3-artifacts" / "x").read_text() == "of somebody else"
    (host.base_dir / "a3.cred.sh").unlink()
    assert workspace(host, id="a3", credential=SECRET)["state"] == "active", "the id is free again"


def test_a_worktree_on_a_new_and_on_an_existing_branch(served: HostService, repository: Repository) -> None:
    host = served
    head = git(repository.main, "rev-parse", "HEAD")
    made = workspace(host, id="new", repository=str(repository.main), branch="topic/new", start="main")
    assert (made["branch"], made["repository"]) == ("topic/new", str(repository.main / ".git"))
    assert git(Path(made["path"]), "rev-parse", "HEAD") == head
    git(repository.main, "branch", "there")
    there = workspace(host, id="there", repository=str(repository.main))
    assert there["branch"] == "there", "the branch is called as the folder if nobody says otherwise"
    assert git(Path(there["path"]), "branch", "--show-current") == "there"
    assert triple(host, "there") == ["there", "there-artifacts"]
    bare = workspace(host, id="bare", repository=str(repository.remote), start="main")
    assert bare["repository"] == str(repository.remote)


def test_what_cannot_be_checked_out_leaves_nothing(
    served: HostService, repository: Repository, tmp_path: Path
) -> None:
    host = served
    git(repository.main, "branch", "there")
    repository.worktree(tmp_path / "elsewhere", "taken")
    (repository.main / "inner").mkdir()
    before = fingerprint(host.base_dir, tmp_path)
    for params, code in [
        ({"branch": "main"}, "path_refused"),  # checked out in the repository itself
        ({"branch": "taken"}, "path_refused"),
        ({"branch": "there", "start": "main"}, "invalid_params"),
        ({"branch": "-x"}, "invalid_params"),
        ({"branch": "a..b"}, "invalid_params"),
        ({"branch": "new", "start": "no-such"}, "invalid_params"),
        ({"branch": "new", "start": "--help"}, "invalid_params"),
        ({"branch": "new", "repository": str(tmp_path)}, "path_refused"),
        ({"branch": "new", "repository": str(repository.main / "inner")}, "path_refused"),
        ({"branch": "new", "repository": "relative"}, "path_refused"),
        ({"branch": "new", "path": str(repository.main)}, "invalid_params"),
    ]:
        asked = {"repository": str(repository.main), "id": "refused", **params}
        assert host.error("workspace.create", credential=SECRET, **asked).code == code, params
        assert host.error("workspace.get", id="refused").code == "not_found"
    assert host.error("workspace.create", id="refused", branch="x").code == "invalid_params"
    assert fingerprint(host.base_dir, tmp_path) == before


@pytest.mark.parametrize("is_locked", [False, True])
def test_B25_a_place_that_is_registered_for_a_worktree_elsewhere_is_not_taken(
    served: HostService, repository: Repository, tmp_path: Path, is_locked: bool
) -> None:
    """Its registration is all that leads to its commits: neither a creation nor its failure touches that."""
    host, name = served, f"moved-{is_locked}"
    folder = worktree(host, repository, name)
    git(folder, "checkout", "-q", "--detach")
    lonely = commit(folder, "lonely")
    if is_locked:
        git(folder, "worktree", "lock", str(folder))
    folder.rename(tmp_path / "mine")
    assert host.call("workspace.delete", id=name)["state"] == "deleted"
    before = fingerprint(tmp_path, host.base_dir)
    for branch in ("main", "other"):
        asked = {"id": f"{name}-2", "name": name, "repository": str(repository.main), "branch": branch}
        refused = host.error("workspace.create", **asked)
        assert refused.code == "path_refused"
        assert f"git worktree remove {folder}" in refused.error["message"]
    assert fingerprint(tmp_path, host.base_dir) == before
    git(repository.main, "worktree", "repair", str(tmp_path / "mine"))
    assert git(tmp_path / "mine", "rev-parse", "HEAD") == lonely
    assert workspace(host, **asked)["state"] == "active", "as it says"


def test_B25_a_creation_that_fails_takes_back_nothing_but_its_own(
    host: HostService, repository: Repository, tmp_path: Path
) -> None:
    """Somebody registers a worktree there at the last moment; git refuses then."""
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh
case "$*" in *"worktree add"*)
  cd {repository.main}; /usr/bin/git worktree add -q --detach {tmp_path}/mine
  echo {host.base_dir}/w/.git > .git/worktrees/mine/gitdir
esac
exec /usr/bin/git "$@"
"""
    )
    script.chmod(0o755)
    serve(host, PATH=f"{script.parent}:{os.environ['PATH']}")
    refused = host.error("workspace.create", id="w", repository=str(repository.main))
    assert refused.code == "path_refused"
    assert triple(host, "w") == []
    git(repository.main, "worktree", "repair", str(tmp_path / "mine"))
    assert registered(repository) == [str(repository.main), str(tmp_path / "mine")]


def test_a_worktree_is_recognised_when_it_is_adopted(
    served: HostService, repository: Repository, tmp_path: Path
) -> None:
    host = served
    folder = repository.worktree(tmp_path / "mine")
    (folder / "precious").write_text("x")
    before = fingerprint(folder, repository.main)
    made = workspace(host, id="adopted", path=str(folder))
    assert (made["branch"], made["repository"], made["is_ours"]) == (
        "work",
        str(repository.main / ".git"),
        False,
    )
    assert not host.call("workspace.risk", id="adopted")["safe"]
    assert host.call("workspace.delete", id="adopted")["state"] == "deleted", "it is only forgotten"
    assert fingerprint(folder, repository.main) == before
    assert not Path(f"{folder}-artifacts").exists()


def slow_git(tmp_path: Path) -> tuple[str, Path]:
    """A git that waits in the middle of a checkout, and the file that it makes then."""
    begun = tmp_path / "begun"
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh
case "$*" in *"worktree add"*)
  /usr/bin/git "$@"; echo $$ > {begun}.draft; mv {begun}.draft {begun}; exec sleep 100000
esac
exec /usr/bin/git "$@"
"""
    )
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}", begun


def ask_and_stop(
    host: HostService, repository: Repository, begun: Path, stop: Callable[[], object], **params: Any
) -> None:
    with host.connect() as rpc:
        rpc.send("workspace.create", id="w", repository=str(repository.main), credential=SECRET, **params)
        wait_until(begun.exists, what="git is at work")
        stop()
        wait_until(lambda: _is_gone(host), what="the service has ended")


def _is_gone(host: HostService) -> bool:
    return not processes.alive(host.pid)


def test_A14_a_stop_takes_back_what_was_half_made(
    host: HostService, repository: Repository, tmp_path: Path
) -> None:
    path, begun = slow_git(tmp_path)
    serve(host, PATH=path)
    before = [git(repository.main, "for-each-ref"), registered(repository)]

    def stop() -> None:
        for params in ({}, {"repository": str(repository.main), "branch": "another"}):
            assert host.error("workspace.create", id="w", **params).code == "exists"
        assert reap(host)["acts"] == [], "it is being made, whoever else has asked for it"
        os.kill(host.pid, signal.SIGTERM)

    ask_and_stop(host, repository, begun, stop)
    assert host.wait() == 0
    assert triple(host, "w") == []
    assert [git(repository.main, "for-each-ref"), registered(repository)] == before
    assert os.listdir(host.base_dir / ".trash") == []
    assert peek(host, "SELECT * FROM workspaces") == []
    serve(host)
    assert workspace(host, id="w", repository=str(repository.main))["branch"] == "w"


def test_A14_a_branch_that_was_there_stays(host: HostService, repository: Repository, tmp_path: Path) -> None:
    path, begun = slow_git(tmp_path)
    git(repository.main, "branch", "there")
    before = [git(repository.main, "for-each-ref"), registered(repository)]
    serve(host, PATH=path)
    ask_and_stop(host, repository, begun, lambda: os.kill(host.pid, signal.SIGTERM), branch="there")
    assert host.wait() == 0
    assert triple(host, "w") == []
    assert [git(repository.main, "for-each-ref"), registered(repository)] == before


def test_A11_killed_in_the_middle(host: HostService, repository: Repository, tmp_path: Path) -> None:
    """The next service takes it back: a credential that was promised cannot be made any more."""
    path, begun = slow_git(tmp_path)
    serve(host, PATH=path)
    before = [git(repository.main, "for-each-ref"), registered(repository)]
    ask_and_stop(host, repository, begun, host.kill)
    processes.kill_and_wait(int(begun.read_text()))  # git itself outlives the service
    assert (host.base_dir / "w.cred.sh").read_bytes() == b"", "the secret comes last"
    assert triple(host, "w") == ["w", "w-artifacts", "w.cred.sh"]
    serve(host)
    reap(host)
    assert host.error("workspace.get", id="w").code == "not_found"
    assert triple(host, "w") == []
    assert [git(repository.main, "for-each-ref", "refs/heads"), registered(repository)] == [
        "\n".join(line for line in before[0].splitlines() if "refs/heads" in line), before[1]
    ]  # fmt: skip
    assert workspace(host, id="w", repository=str(repository.main))["state"] == "active"


# --- away ----------------------------------------------------------------------------------------


def test_B1_a_clean_worktree_goes_to_the_trash(served: HostService, repository: Repository) -> None:
    host = served
    folder = worktree(host, repository, "b1")
    branch = git(repository.main, "rev-parse", "b1")
    assert host.call("workspace.risk", id="b1") == {
        "safe": True, "reasons": [], "head": branch, "branch": "refs/heads/b1",
    }  # fmt: skip
    answer = host.call("workspace.delete", id="b1")
    assert answer["state"] == "deleted"
    assert registered(repository) == [str(repository.main)]
    assert git(repository.main, "rev-parse", "b1") == branch, "the branch is kept"
    [entry] = [one for one in host.call("trash.list")["entries"] if one["workspace_id"] == "b1"]
    assert (entry["kind"], entry["head"], entry["path"]) == ("worktree", branch, str(folder))


@pytest.mark.parametrize("is_late", [False, True])
def test_work_at_risk_is_not_deleted_and_named(
    served: HostService, repository: Repository, tmp_path: Path, is_late: bool
) -> None:
    """Before anything was touched; or after its teardown has left something, when nothing runs any more."""
    host = served
    name = f"risky-{is_late}"
    teardown = {"teardown": ["sh", "-c", "echo x > late; echo y >> file"]} if is_late else {}
    folder = worktree(host, repository, name, **teardown)
    Path(f"{folder}-artifacts", "report").touch()
    if not is_late:
        (folder / "late").write_text("x\n")
        (folder / "file").write_text("one\ny\n")
    before = None if is_late else fingerprint(folder, repository.main)
    refused = host.error("workspace.delete", id=name)
    assert refused.code == "at_risk"
    for told in ("untracked: late", "modified: file", "recheck" if is_late else "preflight"):
        assert told in refused.error["message"]
    assert before is None or fingerprint(folder, repository.main) == before
    assert host.call("workspace.get", id=name)["state"] == "active"
    assert (folder / "late").exists()
    assert Path(f"{folder}-artifacts", "report").exists()
    [saga] = peek(host, "SELECT * FROM sagas WHERE workspace_id = ?", name)
    assert saga["state"] == "compensated"
    assert session(host, name)["status"] == "active", "it can be used as before"
    assert host.call("workspace.delete", id=name, force=True)["state"] == "deleted"
    [entry] = [one for one in host.call("trash.list")["entries"] if one["path"] == str(folder)]
    assert (Path(entry["trash_path"]) / "late").exists()


@pytest.mark.parametrize("is_forced", [False, True])
def test_B20_no_workspace_goes_along_with_another(
    served: HostService, repository: Repository, is_forced: bool
) -> None:
    """Nor by its artifacts, which would be removed as they are empty."""
    host = served
    name = f"outer-{is_forced}"
    outer = worktree(host, repository, name)
    (repository.main / ".git" / "info" / "exclude").write_text(".trees/\n")
    inner = repository.worktree(outer / ".trees" / "b", f"b-{is_forced}")
    (inner / "untracked").write_text("x")
    workspace(host, id=f"inner-{is_forced}", path=str(inner))
    workspace(host, id=f"beside-{is_forced}", path=f"{outer}-artifacts")
    before = fingerprint(outer, repository.main)
    assert host.call("workspace.risk", id=name)["safe"], "git says nothing of what is ignored"
    refused = host.error("workspace.delete", id=name, force=is_forced)
    assert refused.code == "path_refused"
    assert f"beside-{is_forced}, inner-{is_forced}" in refused.error["message"]
    assert fingerprint(outer, repository.main) == before
    assert host.call("workspace.get", id=name)["state"] == "active"
    host.call("workspace.delete", id=f"inner-{is_forced}")
    host.call("workspace.delete", id=f"beside-{is_forced}")
    assert host.call("workspace.delete", id=name, force=True)["state"] == "deleted"


def test_B20_nothing_comes_into_what_is_going(
    served: HostService, repository: Repository, tmp_path: Path
) -> None:
    """Its teardown runs for as long as the test wants, and fails then."""
    host = served
    ready, fail = tmp_path / "ready", tmp_path / "fail"
    script = f"mkdir inner; touch {ready}; until test -e {fail}; do sleep 0.02; done; exit 1"
    outer = Path(workspace(host, id="going", teardown=["sh", "-c", script])["path"])
    with host.connect() as deleting:
        deleted = deleting.send("workspace.delete", id="going")
        wait_until(ready.exists, what="its teardown runs")
        for path in (outer / "inner", f"{outer}-artifacts"):
            refused = host.error("workspace.create", id="late", path=str(path))
            assert (refused.code, refused.error["data"]["workspace"]) == ("exists", "going")
        fail.touch()
        with pytest.raises(RpcError):
            deleting.result(deleted)
    assert workspace(host, id="late", path=str(outer / "inner"))["state"] == "active", "it stays after all"


def test_a_clone_in_a_plain_folder_counts(served: HostService, repository: Repository) -> None:
    host = served
    folder = Path(workspace(host, id="clone")["path"])
    git(folder, "clone", "-q", str(repository.remote), ".")
    git(folder, "checkout", "-q", "main")
    assert host.call("workspace.risk", id="clone")["safe"]
    git(folder, "checkout", "-q", "-b", "other")
    commit(folder, content="two\n")
    git(folder, "checkout", "-q", "main")
    assert [one["code"] for one in host.call("workspace.risk", id="clone")["reasons"]] == ["repository"]
    assert host.error("workspace.delete", id="clone").code == "at_risk"
    git(folder, "stash", "-q", check=False)
    assert host.call("workspace.delete", id="clone", force=True)["state"] == "deleted"


def test_A4_a_folder_that_cannot_be_moved(served: HostService, repository: Repository) -> None:
    """Credential and artifacts go all the same; it is told, and tried again."""
    host = served
    folder = worktree(host, repository, "a4", credential=SECRET)
    Path(f"{folder}-artifacts", "report").touch()
    git(repository.main, "update-ref", "refs/hostsvc/trash", "HEAD")  # no ref can be below that one
    answer = host.call("workspace.delete", id="a4")
    assert answer["state"] == "partial"
    assert f"cannot move {folder} to the trash" in answer["warnings"][0]
    assert triple(host, "a4") == ["a4"]
    assert "hunter2" not in host.log + repr(answer) + repr(peek(host, "SELECT * FROM audit"))
    git(repository.main, "update-ref", "-d", "refs/hostsvc/trash")
    assert host.call("saga.resume", id=answer["saga"])["state"] == "done"
    assert triple(host, "a4") == []


@pytest.mark.parametrize("suffix", ["", ".cred.sh", "-artifacts"])
def test_B21_what_is_another_by_now_is_refused_in_time(served: HostService, suffix: str) -> None:
    """Before the point of no return, forced or not; when it is back, all of it goes."""
    host = served
    name = f"b21{suffix.replace('.', '-')}-other"
    ours = Path(workspace(host, id=name, credential=SECRET)["path"] + suffix)
    kept = ours.rename(ours.with_name(f"kept-{name}"))
    if suffix == ".cred.sh":
        ours.write_text("of somebody else")
    else:
        ours.mkdir()
    before = fingerprint(host.base_dir)
    for is_forced in (False, True):
        refused = host.error("workspace.delete", id=name, force=is_forced)
        assert refused.code == "path_refused"
        assert f"{ours.name} is not the " in refused.error["message"]
    assert fingerprint(host.base_dir) == before
    assert host.call("workspace.get", id=name)["state"] == "active"
    ours.rename(ours.with_name(f"theirs-{name}"))
    kept.rename(ours)
    assert host.call("workspace.delete", id=name)["state"] == "deleted"
    assert triple(host, name) == []


def test_a_base_whose_device_has_another_number(host: HostService, repository: Repository) -> None:
    """As after a boot, on some file systems: what is ours is still ours, on its way there and back."""
    serve(host)
    folder = worktree(host, repository, "w", credential=SECRET)
    Path(f"{folder}-artifacts", "report").touch()
    host.stop()

    def boot() -> None:
        with editing(host) as db:
            for table in ("paths", "workspaces", "trash"):
                db.execute(f"UPDATE {table} SET device = device + 1")
        serve(host)

    boot()
    answer = host.call("workspace.delete", id="w")
    assert (answer["state"], answer["warnings"]) == ("deleted", [])
    assert triple(host, "w") == []
    host.stop()
    boot()
    assert host.call("workspace.restore", id="w")["state"] == "active"
    assert triple(host, "w") == ["w", "w-artifacts"]
    saga = host.call("workspace.delete", id="w")["saga"]
    host.stop()
    boot()
    assert not Path(host.call("trash.purge", id=saga)["trash_path"]).exists()


def test_the_plan_shows_the_triple(served: HostService, repository: Repository) -> None:
    host = served
    folder = worktree(host, repository, "planned", credential=SECRET)
    plan = {line["step"]: line for line in host.call("workspace.delete", id="planned", dry_run=True)["plan"]}
    assert plan["credential"]["subjects"] == [f"{folder}.cred.sh"]
    assert plan["artifacts"]["subjects"] == [f"{folder}-artifacts"]
    assert str(repository.main) in plan["folder"]["text"]


def test_a_deletion_waits_for_what_is_being_made(
    host: HostService, repository: Repository, tmp_path: Path
) -> None:
    path, begun = slow_git(tmp_path)
    serve(host, PATH=path)
    with host.connect() as making, host.connect() as deleting:
        made = making.send("workspace.create", id="w", repository=str(repository.main))
        wait_until(begun.exists, what="git is at work")
        deleted = deleting.send("workspace.delete", id="w")
        assert host.call("workspace.get", id="w")["state"] == "provisioning"
        processes.kill_and_wait(int(begun.read_text()))  # git fails, so it is taken back
        with pytest.raises(RpcError):
            making.result(made)
        assert deleting.result(deleted)["state"] == "deleted"
    assert triple(host, "w") == []
    assert host.error("workspace.get", id="w").code in ("not_found", "destroyed")


# --- and back ------------------------------------------------------------------------------------


def test_a_workspace_comes_back(served: HostService, repository: Repository) -> None:
    host = served
    folder = worktree(host, repository, "back", name="named-back", labels={"team": "a"}, credential=SECRET)
    (folder / "staged").write_text("x")
    git(folder, "add", "staged")
    (folder / "loose").write_text("y")
    Path(f"{folder}-artifacts", "report").write_text("z")
    before, status = fingerprint(folder), git(folder, "status", "--porcelain")
    host.call("workspace.delete", id="back", force=True)
    assert not folder.exists()
    made = host.call("workspace.restore", id="named-back")
    assert (made["id"], made["generation"], made["name"], made["labels"]) == (
        "back",
        2,
        "named-back",
        {"team": "a"},
    )
    assert (made["state"], made["branch"]) == ("active", "back")
    assert (fingerprint(folder), git(folder, "status", "--porcelain")) == (before, status)
    assert Path(f"{folder}-artifacts", "report").read_text() == "z"
    assert triple(host, "named-back") == ["named-back", "named-back-artifacts"], "a credential stays gone"
    assert str(folder) in registered(repository)
    assert git(repository.main, "for-each-ref", "refs/hostsvc") == ""
    assert session(host, "back")["status"] == "active"
    assert host.error("workspace.restore", id="back").code == "not_found"
    assert host.error("workspace.delete", id="back", generation=1).code == "destroyed"
    git(folder, "rm", "-q", "--cached", "staged")
    host.call("workspace.delete", id="back", force=True)
    assert host.call("workspace.restore", id="back")["generation"] == 3


def test_restoring_takes_nobodys_place(served: HostService) -> None:
    host = served
    folder = Path(workspace(host, id="old-one", name="place")["path"])
    (folder / "work").write_text("kept")
    saga = host.call("workspace.delete", id="old-one")["saga"]
    workspace(host, id="new-one", name="place")
    assert host.error("workspace.restore", id=saga).code in ("exists", "name_taken")
    assert host.error("workspace.restore", id="old-one").code in ("exists", "name_taken")
    host.call("workspace.delete", id="new-one")
    folder.mkdir()
    (folder / "of-somebody-else").touch()
    assert host.error("workspace.restore", id=saga).code == "path_refused"
    assert os.listdir(folder) == ["of-somebody-else"]
    [entry] = [one for one in host.call("trash.list")["entries"] if one["id"] == saga]
    assert (Path(entry["trash_path"]) / "work").read_text() == "kept"
    (folder / "of-somebody-else").unlink()
    folder.rmdir()
    made = host.call("workspace.restore", id=saga)
    assert (made["id"], made["generation"]) == ("old-one", 2)
    assert (folder / "work").read_text() == "kept"


def test_purging_before_its_time(served: HostService, repository: Repository) -> None:
    host = served
    worktree(host, repository, "purged")
    saga = host.call("workspace.delete", id="purged")["saga"]
    assert git(repository.main, "for-each-ref", "refs/hostsvc") != ""
    purged = host.call("trash.purge", id=saga)
    assert not Path(purged["trash_path"]).exists()
    assert git(repository.main, "for-each-ref", "refs/hostsvc") == ""
    assert host.error("trash.purge", id=saga).code == "not_found"
    assert host.error("workspace.restore", id="purged").code == "not_found"
