"""Comparing what this host has with what a control plane says is live. Pure.

Only a list that is there, well formed, complete and plausible leads to anything; whoever sends less than that
(an older peer, a failed query, a page of many) changes nothing. What is busy is kept and reported, whatever
the list says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import attrs

from hostsvc.model import Absent, Fact, Known, Unknown


@attrs.frozen(kw_only=True)
class LiveList:
    """What a control plane sent."""

    ids: frozenset[str]
    is_complete: bool


@attrs.frozen(kw_only=True)
class Entry:
    """A workspace of this host."""

    id: str
    is_busy: bool | None
    """None: nobody could tell, which counts as busy."""
    is_deleting: bool = False
    """A deletion of it is under way, or was left half way."""
    is_young: bool = False
    """Made so lately that a list from before may not have it yet."""


@attrs.frozen(kw_only=True)
class Plan:
    """What follows from a comparison; each in a fixed order."""

    drop: tuple[str, ...] = ()
    """Not live there and idle here."""
    keep_busy: tuple[str, ...] = ()
    """Not live there, and busy here: kept, and reported."""
    keep_young: tuple[str, ...] = ()
    """Not live there, and only just made here."""
    heal: tuple[str, ...] = ()
    """Live there, and half deleted here with nobody at it: usable again."""
    gone: tuple[str, ...] = ()
    """Live there, and destroyed here for good: reported, never revived."""
    refusal: str | None = None
    """Why nothing is done at all."""


def plan_reconcile(
    live: Fact[LiveList],
    entries: Iterable[Entry],
    destroyed: Collection[str],
    *,
    cap: int,
) -> Plan:
    """Return what to do about each workspace.

    Args:
        live: The control plane's list; Absent when the peer has none (an older one), Unknown when it failed.
        entries: This host's workspaces.
        destroyed: The ids with a confirmed tombstone.
        cap: How many may be dropped at once.
    """
    match live:
        case Absent():
            return Plan(refusal="the peer sends no list")
        case Unknown(why):
            return Plan(refusal=f"the list is unknown: {why}")
        case Known(known) if not known.is_complete:
            return Plan(refusal="the list is not complete")
        case Known(known):
            return _compare(known.ids, sorted(entries, key=lambda entry: entry.id), destroyed, cap)


def _compare(live: frozenset[str], entries: list[Entry], destroyed: Collection[str], cap: int) -> Plan:
    missing = [entry for entry in entries if entry.id not in live and not entry.is_deleting]
    drop = tuple(entry.id for entry in missing if entry.is_busy is False and not entry.is_young)
    if len(drop) > cap:
        return Plan(refusal=f"{len(drop)} of {len(entries)} would be dropped at once, more than {cap}")
    return Plan(
        drop=drop,
        keep_busy=tuple(entry.id for entry in missing if entry.is_busy is not False),
        keep_young=tuple(entry.id for entry in missing if entry.is_busy is False and entry.is_young),
        heal=tuple(entry.id for entry in entries if entry.id in live and entry.is_deleting),
        gone=tuple(sorted(live & set(destroyed) - {entry.id for entry in entries})),
    )


def parse_live_list(raw: object) -> Fact[LiveList]:
    """Read a control plane's message: Absent without the field, Unknown when it is malformed."""
    if not isinstance(raw, dict):
        return Unknown("it is no map")
    if raw.get("live") is None:
        return Absent()
    ids, is_complete = raw["live"], raw.get("complete")
    if not isinstance(ids, list) or not all(isinstance(id_, str) and id_ for id_ in ids):
        return Unknown("its ids are no array of strings")
    if not isinstance(is_complete, bool):
        return Unknown("it does not say whether it is complete")
    return Known(LiveList(ids=frozenset(ids), is_complete=is_complete))
