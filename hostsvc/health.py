"""Health: one word, and every reason why it is not green. Pure over what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

MISSED_RED: Final = 3
"""A reaper that nobody started ran no pass for a month in a shipped product: three missed ones are red."""


@attrs.frozen(kw_only=True)
class Signs:
    """What health is decided on."""

    index_trouble: str | None
    ptyd_trouble: str | None
    ptyd_circuit: str | None
    """Why ptyd is not restarted any more."""
    last_pass_state: str | None
    blind_kinds: Mapping[str, str] | None
    """What the last pass could not see, and why."""
    missed: int
    stuck_sagas: int
    stuck_sessions: int


def decide_health(signs: Signs) -> tuple[str, list[str]]:
    """Return "green", "yellow" or "red", and why."""
    red, yellow = [], []
    if signs.index_trouble is not None:
        red.append(f"the index: {signs.index_trouble}")
    if signs.ptyd_trouble is not None:
        red.append(f"ptyd: {signs.ptyd_trouble}")
    if signs.ptyd_circuit is not None:
        todo = "see: ptyd doctor, then: hostsvc health --reset"
        red.append(f"ptyd is not restarted any more: {signs.ptyd_circuit}; {todo}")
    if signs.missed >= MISSED_RED:
        red.append(f"the reaper has missed {signs.missed} passes; see: hostsvc passes")
    match signs.last_pass_state:
        case "error":
            blind = "; ".join(f"{kind}: {error}" for kind, error in sorted((signs.blind_kinds or {}).items()))
            yellow.append(
                f"the last pass of the reaper could not see everything ({blind}); see: hostsvc passes"
            )
        case "refused":
            yellow.append("the reaper refused what looked wrong; see: hostsvc reap --dry-run")
    if signs.stuck_sagas:
        yellow.append(f"{signs.stuck_sagas} deletions are stuck; see: hostsvc saga ls")
    if signs.stuck_sessions:
        yellow.append(f"{signs.stuck_sessions} sessions do not die; see: hostsvc session ls")
    return ("red" if red else "yellow" if yellow else "green"), red + yellow


def counts(by_status: Mapping[str, int], unwanted: tuple[int, int]) -> dict[str, int]:
    """Return how many rows there are of each status, and of those to be ended."""
    return {**by_status, "unwanted": unwanted[0], "stuck": unwanted[1]}
