"""What worktrees are at, followed as it changes, on real repositories; E10 on the real thing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from hostsvc import retries, watcher, watching
from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.state import GitState, parse_state, read_state
from hostsvc.index import Index
from hostsvc.model import Key, Workspace
from hostsvc.owned import PathRole
from hostsvc.store import workspaces
from hostsvc.watcher import run_watcher
from hostsvc.watching import Places, Watching
from ptyd.protocol.eventlog import EventLog
from tests.hostsvc.places import serve, workspace
from tests.hostsvc.store import inline_index
from tests.support.host import HostService
from tests.support.repos import Repository, commit, fingerprint, git
from tests.support.waiting import trio_wait_until, wait_until


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repos")


def test_what_git_status_tells() -> None:
    oid = b"8ab686eafeb1f44702738c8b0f24f2567c36da6d"
    told = b"# branch.oid %s\0# branch.head %s\0# branch.upstream origin/main\0" % (oid, b"main")
    entries = b"1 .M N... 100644 a\x000? x\0? y\0! z\0u UU N... b\0"
    assert parse_state(told + entries) == GitState(branch="main", head=oid.decode(), changed=3)
    assert parse_state(b"# branch.oid (initial)\0# branch.head (detached)\0") == GitState(
        branch=None, head=None, changed=0
    )
    for nothing in (b"", b"# branch.oid x\0", b"? file\0"):
        with pytest.raises(GitUnknown):
            parse_state(nothing)


async def test_looking_touches_nothing(repository: Repository, tmp_path: Path) -> None:
    place = repository.worktree(tmp_path / "w")
    (place / "new").write_text("x")
    (place / "file").touch()  # its index is out of date, and git would like to refresh it
    before = fingerprint(place, repository.main)
    assert (await read_state(Git(), place)).changed == 1
    assert fingerprint(place, repository.main) == before


async def test_no_answer_is_taken_from_an_outer_repository(repository: Repository) -> None:
    inner = repository.main / "inner"
    inner.mkdir()
    with pytest.raises(GitUnknown):
        await read_state(Git(), inner)


# --- the whole service ---------------------------------------------------------------------------


def state(host: HostService, id_: str = "w") -> dict[str, Any]:
    found: dict[str, Any] = host.call("workspace.get", id=id_)["git"] or {}
    return found


def becomes(host: HostService, **wanted: Any) -> None:
    wait_until(lambda: wanted.items() <= state(host).items(), what=f"its worktree is at {wanted}")


def test_it_is_followed_as_it_changes(host: HostService, repository: Repository) -> None:
    place = repository.worktree(host.runtime.base / "tree")
    serve(host)
    workspace(host, id="plain")
    workspace(host, id="w", path=str(place))
    head = git(place, "rev-parse", "HEAD")
    becomes(host, branch="work", head=head, changed=0, unknown=None)
    assert host.call("workspace.get", id="plain")["git"] is None
    (place / "deep").mkdir()
    (place / "deep" / "new").write_text("x")
    becomes(host, changed=1)
    head = commit(place, content="two\n")
    becomes(host, head=head)
    git(place, "checkout", "-q", "--detach")
    becomes(host, branch=None, head=head)
    shown = host.run("workspace", "ls").stdout.splitlines()
    assert [line.split()[5] for line in shown] == ["GIT", "-", f"{head[:12]}*1"]


def test_a_link_that_can_be_no_path_is_shown_and_costs_nobody_anything(
    host: HostService, repository: Repository
) -> None:
    """Any program in a workspace may write one."""
    place = repository.worktree(host.runtime.base / "tree")
    serve(host)
    workspace(host, id="w", path=str(place))
    becomes(host, branch="work", unknown=None)
    (place / ".git").write_bytes(b"gitdir: /a\0b\n")
    becomes(host, branch="work", unknown=".git has no path in it")
    host.stop()
    serve(host)
    becomes(host, branch=None, unknown=".git has no path in it")


def test_E10_a_folder_that_is_gone_is_given_up_visibly_and_made_by_nobody(
    host: HostService, repository: Repository
) -> None:
    place = repository.worktree(host.runtime.base / "tree")
    serve(host)
    with host.connect() as rpc:
        rpc.call("events.subscribe")
        workspace(host, id="w", path=str(place))
        becomes(host, branch="work", unknown=None)
        shutil.rmtree(place)
        told = rpc.next_notification("event")[1]
        while told["type"] != "workspace.unfollowed":
            told = rpc.next_notification("event")[1]
    assert (told["id"], told["reason"]) == ("w", "its folder cannot be seen: No such file or directory")
    assert state(host)["unknown"] == told["reason"]
    assert state(host)["branch"] == "work", "as last seen"
    assert not place.exists()
    assert host.log.count("is not followed") == 1
    host.call("workspace.delete", id="w")
    assert [one["git"] for one in host.call("workspace.list", deleted=True)["workspaces"]] == [None]


# --- by itself -----------------------------------------------------------------------------------


async def adopted(tmp_path: Path, place: Path, *, device: int | None = None) -> tuple[Index, Workspace]:
    """An index with one workspace, whose folder this is; of its own device, or of one with another number."""
    index = inline_index(tmp_path / "state")
    found = place.stat()
    made = await index.write(
        workspaces.insert,
        id_="w",
        generation=None,
        name=None,
        path=str(place),
        is_ours=False,
        labels={},
        teardown=None,
        is_protected=False,
        now_ms=1,
    )
    await index.write(workspaces.activate, made, {PathRole.FOLDER: (device or found.st_dev, found.st_ino)})
    [row] = await index.read(workspaces.find_all)
    return index, row


async def test_E10_a_budget_one_report_then_slowly_and_success_resets(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git cannot tell; then it can, and then again not: each budget is reported once."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_S", 0.001)
    place = repository.worktree(tmp_path / "w")
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\necho x >> {tmp_path}/calls\nexit 1\n")
    program.chmod(0o700)
    index, row = await adopted(tmp_path, place)
    events = EventLog("tests", lambda: 0)
    one = Watching(index, Git(str(program)), events, lambda: 1)

    def reports() -> int:
        return sum(event["type"] == "workspace.unfollowed" for event in events.after(0, 99))

    def calls() -> int:
        return len((tmp_path / "calls").read_text())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio_wait_until(lambda: reports() == 1, what="the budget is spent")
        spent = calls() // 2
        assert spent == retries.Retries().budget
        assert (one.view(row) or {})["unknown"] == "git status ended with 1"
        (place / "new").write_text("x")  # while it waits for its slow probe nothing is tried
        await trio_wait_until(lambda: bool(one._pausing), what="it waits")
        assert (reports(), calls() // 2) == (1, spent)
        program.write_text('#!/bin/sh\nexec git "$@"\n')
        one._pausing.clear()
        one._hear({("w", 1)})  # the probe's time has come
        await trio_wait_until(lambda: (one.view(row) or {})["unknown"] is None, what="git tells")
        assert one._retries["w", 1].failures == 0
        nursery.cancel_scope.cancel()
    index.close()


async def test_what_nobody_expects_of_one_worktree_keeps_no_other_from_being_looked_at(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(git: Git, folder: Path) -> GitState:
        if folder.name == "odd":
            raise ValueError("nobody thought of that")
        return await read_state(git, folder)

    monkeypatch.setattr(watching, "read_state", look)
    index = inline_index(tmp_path / "state")
    one = Watching(index, Git(), EventLog("tests", lambda: 0), lambda: 1)
    targets = {(name, 1): repository.worktree(tmp_path / name, name) for name in ("odd", "sound")}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one._follow, targets)
        await trio_wait_until(lambda: one._seen.keys() == targets.keys(), what="both are looked at")
        nursery.cancel_scope.cancel()
    assert one._seen["odd", 1].unknown == "ValueError"
    assert one._seen["sound", 1].state is not None
    index.close()


async def test_a_watcher_that_fails_is_told_once_and_tried_again(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_S", 0.001)
    tries = []

    def fail(*_: Any) -> None:
        tries.append(1)
        raise OSError(28, "no watches are left")

    monkeypatch.setattr(watcher, "watch_in_thread", fail)
    place = repository.worktree(tmp_path / "w")
    index = inline_index(tmp_path / "state")
    one = Watching(index, Git(), EventLog("tests", lambda: 0), lambda: 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one._follow, {("w", 1): place})
        await trio_wait_until(lambda: one._watch_retries.is_spent, what="its budget is spent")
        await trio_wait_until(lambda: ("w", 1) in one._seen, what="it is looked at all the same")
        assert len(tries) == retries.Retries().budget
        nursery.cancel_scope.cancel()
    index.close()


async def test_what_changed_before_the_watcher_was_ready_is_looked_at(
    tmp_path: Path, repository: Repository
) -> None:
    """Nothing changes any more, and each is heard of once."""
    place = repository.worktree(tmp_path / "w")
    heard: list[set[Key]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_watcher, {("w", 1): place}, lambda keys, _: heard.append(keys))
        await trio_wait_until(lambda: heard == [{("w", 1)}], what="it is heard of")
        nursery.cancel_scope.cancel()


async def test_a_folder_that_went_before_the_watcher_was_ready_is_given_up(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody hears of that: the look that fails is what tells."""
    monkeypatch.setattr(watching, "PAUSE_S", 0.01)
    monkeypatch.setattr(watcher, "watch_in_thread", lambda targets, stop, heard: stop.wait())
    place = repository.worktree(tmp_path / "w")
    index, row = await adopted(tmp_path, place)
    one = Watching(index, Git(), EventLog("tests", lambda: 0), lambda: 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio_wait_until(lambda: one.view(row) is not None, what="it is seen")
        shutil.rmtree(place)
        one._hear({("w", 1)})
        await trio_wait_until(lambda: "cannot be seen" in str(one.view(row)), what="it is given up")
        nursery.cancel_scope.cancel()
    index.close()


async def test_it_is_followed_when_its_device_has_another_number(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a boot; another folder in its place is told from it all the same."""
    monkeypatch.setattr(watching, "PAUSE_S", 0.01)
    place = repository.worktree(tmp_path / "w")
    index, row = await adopted(tmp_path, place, device=place.stat().st_dev + 1)
    one = Watching(index, Git(), EventLog("tests", lambda: 0), lambda: 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio_wait_until(lambda: (one.view(row) or {}).get("branch") == "work", what="it is seen")
        place.rename(tmp_path / "elsewhere")
        place.mkdir()
        one._wake()
        await trio_wait_until(lambda: "in its place" in str(one.view(row)), what="it is given up")
        nursery.cancel_scope.cancel()
    index.close()


async def test_a_look_that_fails_last_does_not_hide_that_the_folder_is_gone(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look in a thread cannot be given up: it fails after those that it was for have changed."""
    looks: list[Path] = []

    async def look(git: Git, folder: Path) -> GitState:
        looks.append(folder)
        try:
            await trio.sleep_forever()
        finally:
            raise GitUnknown("its .git leads nowhere")

    monkeypatch.setattr(watching, "PAUSE_S", 0.01)
    monkeypatch.setattr(watching, "read_state", look)
    place = repository.worktree(tmp_path / "w")
    index, row = await adopted(tmp_path, place)
    events = EventLog("tests", lambda: 0)
    one = Watching(index, Git(), events, lambda: 1)
    one._seen["w", 1] = watching.Seen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await trio_wait_until(lambda: bool(looks), what="it is looked at")
        shutil.rmtree(place)
        one._wake()
        await trio_wait_until(lambda: bool(events.after(0, 99)), what="it is given up")
        await trio.testing.wait_all_tasks_blocked()
        assert "cannot be seen" in str(one.view(row))
        nursery.cancel_scope.cancel()
    index.close()


async def test_a_worktree_that_changes_all_the_time_is_looked_at_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """At most a tenth of the time goes there, and the last change is seen."""
    looks: list[float] = []

    async def look(git: Git, folder: Path) -> GitState:
        looks.append(trio.current_time())
        await trio.sleep(1)
        return GitState(branch="main", head=None, changed=len(looks))

    monkeypatch.setattr(watching, "read_state", look)

    async def watch(self: Watching, targets: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Watching, "_watch", watch)
    index = inline_index(tmp_path / "state")
    one = Watching(index, Git(), EventLog("tests", lambda: 0), lambda: 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one._follow, {("w", 1): tmp_path})
        for _ in range(1000):
            await trio.sleep(0.1)
            one._hear({("w", 1)})
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert looks == pytest.approx([10 * at for at in range(len(looks))], abs=1)
    assert len(looks) == 11
    index.close()


async def test_when_the_last_worktree_goes_there_is_nothing_to_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """And not what was there before, again and again."""
    index = inline_index(tmp_path / "state")
    one = Watching(index, Git(), EventLog("tests", lambda: 0), lambda: 1)
    followed: list[int] = []

    async def find() -> Places:
        await trio.lowlevel.checkpoint()
        return Places() if followed else Places({("w", 1): tmp_path})

    async def follow(targets: dict[Key, Path]) -> None:
        followed.append(len(targets))
        one._wake()
        await trio.sleep_forever()

    monkeypatch.setattr(one, "_find", find)
    monkeypatch.setattr(one, "_follow", follow)
    with trio.move_on_after(watching.AGAIN_S / 2):
        await one.run()
    assert followed == [1, 0]
