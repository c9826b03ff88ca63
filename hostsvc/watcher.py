"""Hearing of changes in worktrees: one watcher for all of them, in a thread of its own.

Owns that thread and how its paths belong to worktrees. Even to begin watching takes long in a large worktree,
which is why nothing of it happens in trio's own thread.

Source: inotify(7)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import trio

from hostsvc.git.command import GitUnknown
from hostsvc.git.places import find_place
from hostsvc.model import Key

STEP_MS: Final = 200
DEBOUNCE_MS: Final = 1000
TURN_MS: Final = 500
"""After this the watcher is known to be ready, with or without a change."""

Targets = Mapping[Key, Path]
"""Worktrees to follow, by their workspace's id and generation."""
Heard = Callable[[set[Key], bool], None]
"""Told which worktrees have changed, and whether one of the folders itself may be gone."""


async def run_watcher(targets: Targets, heard: Heard) -> str:
    """Watch for as long as that works; return why it does not. Tells of each once when it is ready."""
    stop = threading.Event()
    why = "the watcher has ended"

    async def stop_with_us() -> None:
        try:
            await trio.sleep_forever()
        finally:
            stop.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_with_us)
        limiter = trio.CapacityLimiter(1)  # a thread of its own, for as long as it watches
        try:
            await trio.to_thread.run_sync(watch_in_thread, targets, stop, heard, limiter=limiter)
        except (OSError, RuntimeError) as error:  # of watches there are so many in all, for one
            why = str(error)
        nursery.cancel_scope.cancel()
    return why


def watch_in_thread(targets: Targets, stop: threading.Event, heard: Heard) -> None:
    """Wait for changes until `stop`; `heard` is called in trio's thread."""
    from watchfiles import watch  # only where there is a worktree: it costs memory

    owners = _owners(targets)
    unheard = set(targets)  # what changed before the watcher was ready, nobody heard
    for changes in watch(
        *owners,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        rust_timeout=TURN_MS,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
        ignore_permission_denied=True,
    ):
        paths = {path for _, path in changes}
        keys = {key for place, key in owners.items() if any(_is_below(path, place) for path in paths)}
        if keys or unheard:
            trio.from_thread.run_sync(heard, keys | unheard, not paths.isdisjoint(owners))
            unheard = set()


def _owners(targets: Targets) -> dict[str, Key]:
    """Return what has to be watched: each worktree, and where git keeps what it is at."""
    owners = {}
    for key, folder in targets.items():
        owners[str(folder)] = key
        try:
            place = find_place(folder)
        except GitUnknown:
            continue  # it is told when it is looked at
        if place.is_linked:
            owners[str(place.git_dir)] = key
    return {path: key for path, key in owners.items() if os.path.isdir(path)}


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place + os.sep)
