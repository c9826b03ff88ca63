"""M: whatever a worktree has been through, a deletion without force loses nothing that is nowhere else.

Random histories on real repositories, through the real service. What it refuses has not changed by a byte;
what it accepts was elsewhere, as an oracle says that knows nothing of the service's own check, and comes back
from the trash as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.hostsvc.places import serve, workspace
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.repos import Repository, commit, fingerprint, git
from tests.support.waiting import soak


class World:
    """A repository with a remote and another branch, and a worktree of it that is a workspace's folder."""

    def __init__(self, host: HostService, root: Path, name: str, *, is_shallow: bool) -> None:
        self.host, self.root, self.name = host, root, name
        self.repository = Repository(root / "r")
        self.main, self.remote = self.repository.main, self.repository.remote
        (self.main / "dir").mkdir()
        commit(self.main, "dir/inner")
        (self.main / "link").symlink_to("file")
        (self.main / ".gitignore").write_text("*.o\n")
        git(self.main, "add", "link", ".gitignore")
        commit(self.main, "second", message="base")
        git(self.main, "push", "-q", "origin", "main")
        git(self.main, "checkout", "-q", "-b", "other")
        commit(self.main, "file", "theirs\n")
        git(self.main, "push", "-q", "origin", "other")
        if is_shallow:
            shutil.rmtree(self.main)
            whence = f"file://{self.remote}"
            git(root, "clone", "-q", "--depth=1", "--no-single-branch", whence, str(self.main))
            git(self.main, "checkout", "-q", "other")
        made = workspace(host, id=name, repository=str(self.main), branch="work", start="origin/main")
        self.folder = Path(made["path"])
        self.admin = Path((self.folder / ".git").read_text().split(" ", 1)[1].strip())

    def git(self, *arguments: str) -> None:
        """Run it in the worktree; in some states it must fail, and that is fine."""
        with contextlib.suppress(OSError):
            git(self.folder, *arguments, check=False)

    def write(self, name: str, content: str) -> None:
        with contextlib.suppress(OSError):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(content)


def modify(world: World) -> None:
    world.write("file", "changed\n")


def modify_unseen(world: World) -> None:
    """The same size and time as before: only the content tells."""
    path = world.folder / "second"
    with contextlib.suppress(OSError):
        before = path.stat()
        path.write_text("two\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def assume_unchanged(world: World) -> None:
    world.git("update-index", "--assume-unchanged", "file")


def skip_worktree(world: World) -> None:
    world.git("update-index", "--skip-worktree", "dir/inner")
    world.write("dir/inner", "hidden change\n")


def commit_it(world: World) -> None:
    world.write("dir/inner", "committed\n")
    world.git("commit", "-q", "-am", "fresh")


def conflict(command: str) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.write("file", "ours\n")
        world.git("commit", "-q", "-am", "ours")
        world.git(*command.split())

    act.__name__ = command.split()[0]
    return act


def submodule(world: World) -> None:
    world.git("submodule", "add", "-q", str(world.remote), "sub")


def dirty_submodule(world: World) -> None:
    world.write("sub/file", "dirty\n")


def commit_in_submodule(world: World) -> None:
    if (world.folder / "sub" / ".git").exists():
        with contextlib.suppress(AssertionError, OSError):
            commit(world.folder / "sub", "deep")


def nested(world: World) -> None:
    with contextlib.suppress(AssertionError, OSError):
        git(world.folder, "init", "-q", "nested")
        commit(world.folder / "nested", "precious")


def break_link(world: World) -> None:
    (world.folder / ".git").write_text("gitdir: /nowhere\n")


def lose_link(world: World) -> None:
    (world.folder / ".git").unlink(missing_ok=True)


def lose_registration(world: World) -> None:
    if world.admin.exists():
        world.admin.rename(world.root / "lost-registration")


def cut_index(world: World) -> None:
    with contextlib.suppress(OSError):
        os.truncate(world.admin / "index", 20)


def cut_head(world: World) -> None:
    with contextlib.suppress(OSError):
        (world.admin / "HEAD").write_text("ref: refs/heads/..\n")


def leave_lock(world: World) -> None:
    with contextlib.suppress(OSError):
        (world.admin / "index.lock").touch()


def lose_objects(world: World) -> None:
    for path in (world.main / ".git" / "objects").glob("[0-9a-f][0-9a-f]"):
        path.rename(world.root / f"lost-{path.name}")
        return


def unreadable(world: World) -> None:
    with contextlib.suppress(OSError):
        (world.folder / "dir").chmod(0)


def run(*commands: str) -> Callable[[World], None]:
    def act(world: World) -> None:
        for command in commands:
            world.git(*command.split())

    act.__name__ = commands[0].split()[0]
    return act


ACTS: Final[tuple[Callable[[World], None], ...]] = (
    modify,
    modify_unseen,
    assume_unchanged,
    skip_worktree,
    commit_it,
    conflict("merge other"),
    conflict("rebase other"),
    conflict("cherry-pick other"),
    conflict("revert --no-edit HEAD~1"),
    submodule,
    dirty_submodule,
    commit_in_submodule,
    nested,
    break_link,
    lose_link,
    lose_registration,
    cut_index,
    cut_head,
    leave_lock,
    lose_objects,
    unreadable,
    lambda world: world.write("new", "untracked\n"),
    lambda world: world.write("deep/er/new", "untracked\n"),
    lambda world: world.write("made.o", "ignored\n"),
    run("add -A"),
    run("add --intent-to-add new"),
    run("rm -q --cached second"),
    run("rm -q -f second"),
    run("mv second third"),
    run("update-index --chmod=+x file"),
    run("commit -q -am change"),
    run("push -q origin HEAD:refs/heads/work", "fetch -q"),
    run("push -q origin HEAD:refs/heads/work", "fetch -q"),
    run("checkout -q --detach"),
    run("checkout -q --orphan fresh"),
    run("stash -q"),
    run("bisect start", "bisect bad", "bisect good HEAD~1"),
    run("merge --abort"),
    run("rebase --abort"),
    run("reset -q --hard"),
    run("clean -q -fd"),
    run("worktree lock ."),
    run("config status.showUntrackedFiles no"),
    run("config core.fileMode false"),
    run("config core.trustctime false"),
    run("remote remove origin"),
    run("branch -f kept HEAD"),
    run("tag -f kept HEAD"),
    run("replace HEAD HEAD~1"),
)


def is_elsewhere(world: World) -> bool:
    """Tell whether everything in the worktree is elsewhere too, from the bytes alone.

    Its files are those of some commit that the remote has; or, if there is no remote, that a branch or tag of
    the repository has besides the branch that is checked out. But for what .gitignore leaves out.
    """
    head = git(world.folder, "symbolic-ref", "--quiet", "HEAD", check=False)
    if "origin" in git(world.main, "remote"):
        commits = git(world.remote, "rev-list", "--branches", "--tags").split()
    else:
        mine = [f"--exclude={head.removeprefix('refs/heads/')}"] if head else []
        commits = git(world.main, "rev-list", *mine, "--branches", "--tags").split()
    files = files_of(world.folder, world.main)
    return any(files == tree_of(world.main, one) for one in commits)


def files_of(folder: Path, where: Path) -> dict[str, str]:
    """What is in a folder: of each file its content as a blob, of each link where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and name != ".git" and path.suffix != ".o":
            mode = "x" if path.stat().st_mode & 0o100 else "-"
            found[name] = mode + git(where, "hash-object", "--no-filters", str(path))
    return found


def tree_of(where: Path, commit: str) -> dict[str, str]:
    """The same of a commit."""
    found = {}
    for line in filter(None, git(where, "ls-tree", "-r", "-z", commit, check=False).split("\0")):
        meta, name = line.split("\t", 1)
        mode, _, blob = meta.split()
        is_link = mode == "120000"  # of a submodule: its commit, which no file is equal to
        content = git(where, "cat-file", "blob", blob, check=False) if is_link else blob
        found[name] = {"100755": "x", "100644": "-"}.get(mode, "") + content
    return found


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    host = serve(HostService(shared_runtime))
    yield host
    host.stop()


numbers = iter(range(1_000_000))


@given(acts=st.lists(st.sampled_from(ACTS), max_size=5), is_shallow=st.booleans())
@settings(
    max_examples=soak(25, 2000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_M_nothing_at_risk_is_ever_changed_by_a_byte(
    served: HostService, acts: list[Callable[[World], None]], is_shallow: bool
) -> None:
    root = Path(tempfile.mkdtemp(prefix="risk-"))
    try:
        world = World(served, root, f"w{next(numbers)}", is_shallow=is_shallow)
        for act in acts:
            act(world)
        check(world)
    finally:
        for path in root.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)
        shutil.rmtree(root)


def check(world: World) -> None:
    host = world.host
    before, folder = fingerprint(world.folder, world.root), fingerprint(world.folder)
    risk = host.call("workspace.risk", id=world.name)
    assert fingerprint(world.folder, world.root) == before, "looking changes nothing"
    if not risk["safe"]:
        event("refused")
        assert host.error("workspace.delete", id=world.name).code == "at_risk"
        assert fingerprint(world.folder, world.root) == before
        return
    event("deleted")
    assert is_elsewhere(world), risk
    assert host.call("workspace.delete", id=world.name)["state"] == "deleted"
    host.call("workspace.restore", id=world.name)
    assert fingerprint(world.folder) == folder
