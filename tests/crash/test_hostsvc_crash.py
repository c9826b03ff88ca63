"""C23: hostsvc killed at every write of its index, ptyd killed in between; what follows is as if nobody had.

The real service with one thing changed: at its N-th write from some moment on it ends itself with SIGKILL,
just before the transaction or just after it. The next one is a plain service again, and has to find its way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import pytest

from tests.crash.forks import ForkedHost, Forks
from tests.hostsvc.places import QUIET, RUDE, last_pass, peek, reap, serve, session, shell, workspace
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import _SERVE, HostService
from tests.support.repos import Repository, fingerprint, git
from tests.support.rpc import Disconnected
from tests.support.waiting import wait_until

WORKERS: Final = 4  # they mostly wait: for graces, for deaths
FOLLOWED: Final = 2 * (1 + 2)
_DYING: Final = """
import os, signal
from pathlib import Path
from hostsvc.index import Index

plan, names, write, count = Path(os.environ["CRASH_PLAN"]), Path(os.environ["CRASH_NAMES"]), Index.write, 0

def wish():
    try:
        return plan.read_text().split()
    except FileNotFoundError:
        return None

def die_at(number, side):
    if wish() == [str(number), side]:
        os.kill(os.getpid(), signal.SIGKILL)

async def dying(self, work, *arguments, **fields):
    global count
    if wish() is None:
        return await write(self, work, *arguments, **fields)
    number = count = count + 1
    with names.open("a") as file:
        file.write(work.__name__ + chr(10))
    die_at(number, "before")
    done = await write(self, work, *arguments, **fields)
    die_at(number, "after")
    return done

Index.write = dying
"""
_SHORT_GRACES: Final = """
import functools
from ptyd.client import Client
Client.kill = functools.partialmethod(Client.kill, grace_ms=150)
"""


class Place:
    """One runtime directory with its ptyd, and the service that dies in it, again and again."""

    def __init__(self, forks: Forks) -> None:
        self.runtime = RuntimeDir()
        self.plan = self.runtime.base / "plan"
        self.names = self.runtime.base / "names"
        self.host = ForkedHost(
            forks,
            self.runtime,
            code=_DYING + _SHORT_GRACES + _SERVE,
            CRASH_PLAN=str(self.plan),
            CRASH_NAMES=str(self.names),
            **QUIET,
        )
        self.repository = Repository(self.runtime.base / "r")
        self.count = 0
        self.lived = 0  # how often it was not killed: the operation had fewer writes than when counted
        self.start()

    def start(self) -> None:
        self.host.start()
        wait_until(lambda: last_pass(self.host), what="the first pass is over")

    def new_name(self) -> str:
        self.count += 1
        return f"w{self.count}"

    def run(self, point: Point, method: str, **params: Any) -> None:
        """Make a call during which the service dies; start the next one and let it find its way."""
        draft = self.plan.with_suffix(".draft")
        draft.write_text(f"{point.number} {point.side}")
        draft.rename(self.plan)
        with contextlib.suppress(Disconnected, ConnectionError):
            self.host.call(method, **params)
            self.lived += point != NEVER
        self.plan.unlink()
        self.host.kill()
        self.start()
        wait_until(lambda: not reap(self.host)["acts"], what="a pass has nothing to do")

    def alive(self) -> set[str]:
        """Return the sessions that live, by what ptyd says and by their leaders."""
        listed = self.runtime.call("session.list")["sessions"]
        return {one["id"] for one in listed if one["state"] != "exited" or processes.alive(one["pid"])}

    def rows(self, workspace_id: str) -> dict[str, str]:
        rows = peek(self.host, "SELECT * FROM sessions WHERE origin_workspace_id = ?", workspace_id)
        return {row["id"]: row["status"] for row in rows}

    def left(self, name: str) -> list[str]:
        """Return what there is of a workspace: its row, its paths, its registration, its branch."""
        base, found = self.host.base_dir, []
        rows = peek(self.host, "SELECT * FROM workspaces WHERE id = ? AND state <> 'deleted'", name)
        found += ["workspace"] * (bool(rows) and rows[0]["state"] == "active")
        found += [
            suffix for suffix in ("", "-artifacts", ".cred.sh") if os.path.lexists(base / (name + suffix))
        ]
        listed = git(self.repository.main, "worktree", "list", "--porcelain").splitlines()
        found += ["registered"] * (f"worktree {base / name}" in listed)
        return found + ["branch"] * bool(git(self.repository.main, "branch", "--list", name))

    def remove(self) -> None:
        self.host.stop()
        self.runtime.stop()
        self.runtime.remove()


class Point(NamedTuple):
    """Before or after which write of the operation the service dies; 0 is never."""

    number: int
    side: str


NEVER: Final = Point(0, "never")


def crash_spawn(place: Place, point: Point) -> None:
    """What is alive has a row that says so, and the other way round."""
    name = place.new_name()
    workspace(place.host, id=name)
    place.run(point, "session.create", workspace=name, argv=["sleep", "100000"])
    rows = place.rows(name)
    living = {one for one, status in rows.items() if status == "active"}
    assert place.alive() & set(rows) == living, (point, rows)
    assert set(rows.values()) <= {"active", "failed"}, (point, rows)
    assert place.alive() == living, (point, "nothing lives without a row")
    place.host.call("workspace.delete", id=name)
    assert not place.alive()


def crash_dispose(place: Place, point: Point) -> None:
    """An intent that was written is carried out; one that was not is not."""
    name = place.new_name()
    workspace(place.host, id=name)
    row = session(place.host, name)
    place.run(point, "session.dispose", id=row["id"])
    [status] = place.rows(name).values()
    assert status == ("active" if point == Point(1, "before") else "disposed"), point
    assert processes.alive(row["live"]["pid"]) == (status == "active"), point
    place.host.call("workspace.delete", id=name)


def crash_delete(place: Place, point: Point) -> None:
    """Once it was asked for, it is deleted: sessions, folder and rows, each exactly once."""
    name = place.new_name()
    made = workspace(place.host, id=name)
    Path(made["path"], "work").write_text("kept")
    rows = [
        session(place.host, name),
        shell(place.host, name, RUDE, place.runtime.base / f"ready-{name}"),
    ]
    place.run(point, "workspace.delete", id=name)
    if point == Point(1, "before"):
        assert set(place.rows(name).values()) == {"active"}
        assert place.host.call("workspace.get", id=name)["state"] == "active"
        place.host.call("workspace.delete", id=name)
    assert place.host.error("workspace.get", id=name).code == "destroyed", point
    assert not any(processes.alive(row["live"]["pid"]) for row in rows), point
    assert place.rows(name) == {}, point
    stones = peek(place.host, "SELECT * FROM tombstones WHERE kind = 'session'")
    assert {row["id"] for row in rows} <= {stone["id"] for stone in stones}, point
    assert all('"proof":"' in stone["detail"] for stone in stones), point
    [trash] = peek(place.host, "SELECT * FROM trash WHERE workspace_id = ?", name)
    assert Path(trash["trash_path"], "work").read_text() == "kept", point
    assert trash["purged_at_ms"] is None, point
    assert not os.path.exists(made["path"]), point
    [saga] = peek(place.host, "SELECT * FROM sagas WHERE workspace_id = ?", name)
    assert (saga["state"], saga["warnings"]) == ("done", "[]"), point


def crash_create(place: Place, point: Point) -> None:
    """A worktree with a credential is there whole, or nothing of it is."""
    name = place.new_name()
    folder = place.host.base_dir / name
    repository = place.repository
    asked = {"repository": str(repository.main), "credential": b"secret", "id": name}
    place.run(point, "workspace.create", **asked)
    if "workspace" in place.left(name):
        assert place.left(name) == ["workspace", "", "-artifacts", ".cred.sh", "registered", "branch"], point
        assert folder.with_name(f"{name}.cred.sh").read_bytes() == b"secret", point
    else:
        assert place.left(name) == [], point
        workspace(place.host, **asked)
    assert git(folder, "branch", "--show-current") == name
    assert place.host.call("workspace.delete", id=name, force=True)["warnings"] == [], point


def crash_restore(place: Place, point: Point) -> None:
    """What was in the trash is there again, as it was; or it still can be."""
    name = place.new_name()
    made = workspace(place.host, id=name, repository=str(place.repository.main))
    folder = Path(made["path"])
    (folder / "staged").write_text("x")
    git(folder, "add", "staged")
    Path(f"{folder}-artifacts", "report").touch()
    before = fingerprint(folder, Path(f"{folder}-artifacts"))
    place.host.call("workspace.delete", id=name, force=True)
    place.run(point, "workspace.restore", id=name)
    if "workspace" not in place.left(name):
        assert place.left(name) == ["branch"], point
        place.host.call("workspace.restore", id=name)
    assert place.left(name) == ["workspace", "", "-artifacts", "registered", "branch"], point
    assert fingerprint(folder, Path(f"{folder}-artifacts")) == before, point
    assert git(place.repository.main, "for-each-ref", f"refs/hostsvc/trash/{name}") == ""
    assert place.host.call("workspace.delete", id=name, force=True)["warnings"] == [], point


Crash = Callable[[Place, Point], None]


@contextlib.contextmanager
def places(count: int) -> Iterator[SimpleQueue[Place]]:
    """Make some, at the same time; each is used by one thread at a time."""
    free: SimpleQueue[Place] = SimpleQueue()
    made: list[Place] = []

    def make(forks: Forks) -> None:
        place = Place(forks)
        made.append(place)
        free.put(place)

    with Forks() as forks, ThreadPoolExecutor(count) as pool:
        try:
            list(pool.map(make, [forks] * count))
            yield free
        finally:
            list(pool.map(Place.remove, made))


def count_writes(place: Place, crash: Crash) -> int:
    crash(place, NEVER)
    names = place.names.read_text().splitlines()
    place.names.unlink()
    print(crash.__name__, len(names), *names)
    return len(names)


def test_C23_a_crash_at_every_write(guard: processes.Guard) -> None:
    with places(WORKERS) as free, ThreadPoolExecutor(WORKERS) as pool:

        def run(crash: Crash, point: Point) -> None:
            place = free.get()
            try:
                crash(place, point)
            finally:
                free.put(place)

        place = free.get()
        crashes = (crash_spawn, crash_dispose, crash_delete, crash_create, crash_restore)
        counts = {crash: count_writes(place, crash) for crash in crashes}
        free.put(place)
        least = dict(zip(crashes, (2, 2, 15, 3, 2), strict=True))
        assert all(counts[one] >= least[one] for one in crashes), "the wrapped write is the one that is used"
        points = [
            pool.submit(run, crash, Point(number, side))
            for crash, count in counts.items()
            for number in range(count, 0, -1)
            for side in ("before", "after")
        ]
        for point in points:
            point.result()
        # Each session's end may be entered a second time, by whoever follows ptyd's events, or not.
        assert sum(free.get().lived for _ in range(WORKERS)) <= FOLLOWED


@pytest.mark.parametrize("who", ["ptyd", "both", "both-and-the-zygote"])
def test_C23_ptyd_killed_in_the_middle_of_a_delete(host: HostService, tmp_path: Path, who: str) -> None:
    """Kills are under way, a rude one in its graces: whoever comes back goes on, and all of it is gone."""
    serve(host)
    workspace(host, id="w")
    rows = [session(host, "w"), shell(host, "w", RUDE, tmp_path / "ready")]
    with host.connect() as events, host.connect() as asking:
        events.call("events.subscribe")
        asked = asking.send("workspace.delete", id="w")
        while events.next_notification("event")[1].get("step") != "dispose":
            pass
        if who != "ptyd":
            host.kill()
        host.runtime.kill_daemon()
        if who == "both-and-the-zygote":
            host.runtime.kill_zygote()
        if who == "ptyd":
            assert asking.result(asked, deadline_s=60)["state"] == "deleted"
    if who != "ptyd":
        serve(host)
    wait_until(lambda: not reap(host)["acts"], what="a pass has nothing to do")
    assert not any(processes.alive(row["live"]["pid"]) for row in rows)
    assert host.error("workspace.get", id="w").code == "destroyed"
    left = peek(host, "SELECT * FROM sessions WHERE status <> 'disposed'")
    assert left == []
    assert len(peek(host, "SELECT * FROM trash")) == 1
