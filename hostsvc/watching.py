"""What each workspace's worktree is at, followed as it changes, for `workspace ls`.

Owns the one watcher of all worktrees and what it has seen. A convenience and no more: it only looks, nothing
is decided on it, and it makes nothing. What cannot be followed is tried again ever more slowly, reported
once, and says so wherever it is shown; a folder that is gone is not looked for, and a workspace that is
destroyed is forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from hostsvc.clock import NowMs
from hostsvc.git.command import Git, GitUnknown
from hostsvc.git.state import GitState, read_state
from hostsvc.index import Index
from hostsvc.model import Key, Workspace
from hostsvc.retries import Retries
from hostsvc.states import WorkspaceState
from hostsvc.store import workspaces
from hostsvc.watcher import Targets, run_watcher
from ptyd.log import get_logger
from ptyd.protocol.errors import PtydError
from ptyd.protocol.eventlog import EventLog

log = get_logger()

AGAIN_S: Final = 3600.0
"""Until everything is looked at again, whatever the watcher has missed."""
PAUSE_S: Final = 1.0
"""Between two looks at which worktrees there are."""
LOOK_S: Final = 10.0
"""For one look of git's: whoever lists workspaces does not wait for it, but others' looks do."""

REST: Final = 9.0
"""So many times as long as a look took is the pause after it: at most a tenth of the time goes there."""


@attrs.frozen(kw_only=True)
class Seen:
    """What is known of one worktree. `unknown`: why it is not known better."""

    state: GitState | None = None
    as_of_ms: int | None = None
    unknown: str | None = None

    @property
    def view(self) -> dict[str, Any]:
        shown = attrs.asdict(self.state) if self.state else {"branch": None, "head": None, "changed": None}
        return {**shown, "as_of_ms": self.as_of_ms, "unknown": self.unknown}


@attrs.frozen
class Places:
    """The worktrees of workspaces in use: those to follow, and why each of the others cannot be."""

    targets: Targets = attrs.field(factory=dict)
    lost: Mapping[Key, str] = attrs.field(factory=dict)


class Watching:
    """Follows them. Run `run` in a nursery."""

    def __init__(self, index: Index, git: Git, events: EventLog, now_ms: NowMs) -> None:
        self._index = index
        self._git = git
        self._events = events
        self._now_ms = now_ms
        self._news = trio.Event()
        self._seen: dict[Key, Seen] = {}
        self._retries: dict[Key, Retries] = {}
        self._watch_retries = Retries()
        self._pausing: set[Key] = set()
        self._changed: set[Key] = set()
        self._heard = trio.Event()

    def view(self, workspace: Workspace) -> dict[str, Any] | None:
        """Return what is known of a workspace's worktree; None when it has none, or is not in use."""
        seen = self._seen.get(_key(workspace))
        return None if seen is None or workspace.state is not WorkspaceState.ACTIVE else seen.view

    async def run(self) -> None:
        """Follow whatever worktrees there are, for ever."""
        self._events.listen(self._wake)
        try:
            places = Places()
            while True:
                self._news = trio.Event()
                found = await self._find()
                if found is not None:
                    places = found
                    self._keep_to(places)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._follow, places.targets)
                    await self._until_others(places)
                    nursery.cancel_scope.cancel()
        finally:
            self._events.unlisten(self._wake)

    def _wake(self) -> None:
        self._news.set()

    async def _until_others(self, places: Places) -> None:
        """Wait until there are other worktrees than these, or it is time to look at all of them again."""
        with trio.move_on_after(AGAIN_S):
            while True:
                await self._news.wait()
                await trio.sleep(PAUSE_S)
                self._news = trio.Event()
                if await self._find() not in (None, places):
                    return

    # -- which -------------------------------------------------------------------------------------

    async def _find(self) -> Places | None:
        """Return the worktrees of workspaces that are in use; None when the index cannot tell."""
        try:
            found = await self._index.read(workspaces.find_all)
        except PtydError as error:
            log.warning("which worktrees there are is not known", error=str(error))
            return None
        active = [one for one in found if one.state is WorkspaceState.ACTIVE]
        looks = await trio.to_thread.run_sync(
            lambda: [(one, _gone(one), _is_worktree(one)) for one in active]
        )
        targets, lost = {}, {}
        for one, trouble, is_worktree in looks:
            key = _key(one)
            if trouble is not None and (key in self._seen or one.common_dir is not None):
                lost[key] = trouble
            elif trouble is None and is_worktree:
                targets[key] = Path(one.path)
        return Places(targets, lost)

    def _keep_to(self, places: Places) -> None:
        """Forget all others. Nothing is followed meanwhile, so no look comes after what is said here."""
        for key in self._seen.keys() - places.targets.keys() - places.lost.keys():
            del self._seen[key]
            self._retries.pop(key, None)
        for key, why in places.lost.items():
            self._lose(key, why)

    def _lose(self, key: Key, why: str) -> None:
        """Its folder is gone: shown, and told once; nobody looks for it before there is other news."""
        before = self._seen.get(key, Seen())
        if before.unknown != why:
            self._report(key, why)
        self._seen[key] = attrs.evolve(before, unknown=why)

    def _report(self, key: Key, why: str) -> None:
        log.error("what a workspace's worktree is at is not followed", workspace=key[0], reason=why)
        self._events.emit("workspace.unfollowed", key[0], generation=key[1], reason=why)

    # -- following ---------------------------------------------------------------------------------

    async def _follow(self, targets: Targets) -> None:
        """Look at each worktree, and again whenever something of it has changed."""
        if not targets:
            return
        self._changed = set(targets)
        self._pausing.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, targets)
            while True:
                self._heard = trio.Event()
                due = self._changed - self._pausing
                self._changed -= due
                async with trio.open_nursery() as looks:
                    for key in sorted(due):
                        looks.start_soon(self._look, nursery, key, targets[key])
                await self._heard.wait()

    async def _look(self, nursery: trio.Nursery, key: Key, folder: Path) -> None:
        retries = self._retries.get(key, Retries())
        began_s = trio.current_time()
        try:
            state = await read_state(self._git, folder)
        except GitUnknown as error:
            why = str(error)
        except Exception as error:  # whatever is in one of them, the others are looked at
            log.exception("a workspace's worktree cannot be looked at", workspace=key[0])
            why = type(error).__name__
        else:
            self._retries[key] = retries.succeeded()
            self._seen[key] = Seen(state=state, as_of_ms=self._now_ms())
            self._pausing.add(key)
            nursery.start_soon(self._rest, key, REST * (trio.current_time() - began_s))
            return
        self._retries[key], pause_s, is_news = retries.failed()
        self._seen[key] = attrs.evolve(self._seen.get(key, Seen()), unknown=why)
        if is_news:
            self._report(key, why)
        self._wake()  # its folder may be gone
        self._pausing.add(key)
        nursery.start_soon(self._look_later, key, pause_s)

    async def _rest(self, key: Key, pause_s: float) -> None:
        """A build changes files all the time: what changes meanwhile is looked at afterwards, once."""
        await trio.sleep(pause_s)
        self._pausing.discard(key)
        self._heard.set()

    async def _look_later(self, key: Key, pause_s: float) -> None:
        await trio.sleep(pause_s)
        self._pausing.discard(key)
        self._hear({key})

    def _hear(self, keys: set[Key]) -> None:
        self._changed |= keys
        self._heard.set()

    # -- the watcher -------------------------------------------------------------------------------

    async def _watch(self, targets: Targets) -> None:
        """Hear of changes, and try again when the watcher fails: meanwhile all are looked at now and then."""
        while True:
            why = await run_watcher(targets, self._watcher_heard)
            self._watch_retries, pause_s, is_news = self._watch_retries.failed()
            if is_news:
                log.error("worktrees are not followed, only looked at now and then", error=why)
            await trio.sleep(pause_s)
            self._hear(set(targets))

    def _watcher_heard(self, keys: set[Key], is_place_changed: bool) -> None:
        self._watch_retries = self._watch_retries.succeeded()
        self._hear(keys)
        if is_place_changed:  # one of the folders itself: it may be gone, or another may be in its place
            self._wake()


def _key(workspace: Workspace) -> Key:
    return workspace.id, workspace.generation


def _is_worktree(workspace: Workspace) -> bool:
    return os.path.lexists(os.path.join(workspace.path, ".git"))


def _gone(workspace: Workspace) -> str | None:
    """Return why a workspace's folder is not the one that it was made with."""
    try:
        found = os.lstat(workspace.path)
    except OSError as error:
        return f"its folder cannot be seen: {error.strerror}"
    if found.st_ino != workspace.inode:  # its device may have another number after a boot
        return "another folder is in its place"
    return None
