"""Which idle sessions go: those beyond their time, and the longest idle ones beyond a cap. Never a busy one.

Pure and order-independent. Not knowing whether a session is busy counts as busy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import attrs

from hostsvc.model import Key


@attrs.frozen(kw_only=True)
class Idleness:
    """What is known of one living, wanted session of ours."""

    key: Key
    workspace_id: str
    is_busy: bool | None
    """None: nobody could tell."""
    idle_ms: int | None
    """Since its last sign of use; None when that is not known."""

    @property
    def may_go(self) -> bool:
        return self.is_busy is False and self.idle_ms is not None


@attrs.frozen(kw_only=True)
class Room:
    """How many sessions there may be, and how long they may idle. None: no limit."""

    ttl_ms: int | None = None
    per_workspace: int | None = None
    per_host: int | None = None

    @property
    def is_limited(self) -> bool:
        return (self.ttl_ms, self.per_workspace, self.per_host) != (None, None, None)


def plan_evictions(sessions: Iterable[Idleness], room: Room) -> dict[Key, str]:
    """Return which sessions are to be ended, and why, in a fixed order."""
    alive = sorted(sessions, key=_longest_idle_first)
    evicted: dict[Key, str] = {}
    for one in alive:
        if room.ttl_ms is not None and one.may_go and (one.idle_ms or 0) >= room.ttl_ms:
            evicted[one.key] = f"idle for {(one.idle_ms or 0) // 1000} s"
    for group in _by_workspace(alive).values():
        _evict_to(room.per_workspace, group, evicted, "its workspace")
    _evict_to(room.per_host, alive, evicted, "this host")
    return evicted


def admission(
    sessions: Iterable[Idleness], workspace_id: str, room: Room
) -> tuple[dict[Key, str], str | None]:
    """Make room for one more session in a workspace.

    Returns:
        What has to be ended first, and None; or nothing, and why it cannot be admitted: all are busy.
    """
    alive = list(sessions)
    newcomer = Idleness(key=("", 0), workspace_id=workspace_id, is_busy=True, idle_ms=0)
    caps = attrs.evolve(room, ttl_ms=None)
    evicted = plan_evictions([*alive, newcomer], caps)
    left = [one for one in [*alive, newcomer] if one.key not in evicted]
    here = sum(one.workspace_id == workspace_id for one in left)
    if room.per_workspace is not None and here > room.per_workspace:
        return (
            {},
            f"the workspace has {here - 1} sessions, all of them busy; {room.per_workspace} are allowed",
        )
    if room.per_host is not None and len(left) > room.per_host:
        return {}, f"this host has {len(left) - 1} sessions, all of them busy; {room.per_host} are allowed"
    return evicted, None


def _longest_idle_first(one: Idleness) -> tuple[int, Key]:
    return -(one.idle_ms or 0), one.key


def _by_workspace(sessions: Iterable[Idleness]) -> Mapping[str, list[Idleness]]:
    groups: dict[str, list[Idleness]] = defaultdict(list)
    for one in sessions:
        groups[one.workspace_id].append(one)
    return groups


def _evict_to(cap: int | None, group: list[Idleness], evicted: dict[Key, str], where: str) -> None:
    """Evict the longest idle ones until the rest is within the cap, or only busy ones are left."""
    if cap is None:
        return
    left = sum(one.key not in evicted for one in group)
    for one in group:
        if left <= cap:
            return
        if one.may_go and one.key not in evicted:
            evicted[one.key] = f"{where} has more than {cap}; it was idle the longest"
            left -= 1
