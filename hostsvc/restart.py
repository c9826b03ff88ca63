"""Whether a session that ended by itself is started again, and when; and what is kept to do so. Pure.

Never one whose end was asked for. A new start is a new generation under the same id and name.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import attrs


class Policy(enum.StrEnum):
    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


FIRST_BACK_OFF_S: Final = 1.0
LONGEST_BACK_OFF_S: Final = 300.0
STEADY_S: Final = 600.0
"""One that ran this long starts the count anew."""


@attrs.frozen(kw_only=True)
class Launch:
    """How to start a session again, byte for byte. Secrets travel in it: it is never shown."""

    policy: Policy
    limit: int
    argv: tuple[bytes, ...] = attrs.field(repr=False)
    cwd: bytes | None = attrs.field(repr=False)
    env: Mapping[bytes, bytes] = attrs.field(repr=False)
    rows: int
    cols: int
    on_leader_exit: str


@attrs.frozen(kw_only=True)
class Ended:
    """How a session ended."""

    policy: Policy
    limit: int
    """Starts in a row that did not last."""
    restarts: int
    """So many there were already."""
    ran_s: float
    exit: Mapping[str, int] | None
    was_unwanted: bool
    """Somebody had asked for its end, or its workspace is going."""


@attrs.frozen
class StartAgain:
    """After `pause_s`, as the `restarts`-th start in a row."""

    pause_s: float
    restarts: int


@attrs.frozen
class LeaveIt:
    """It stays ended."""

    reason: str


@attrs.frozen
class GiveUp:
    """It stays ended, and a person should know."""

    reason: str


def decide_restart(ended: Ended) -> StartAgain | LeaveIt | GiveUp:
    """Return whether to start it again."""
    if ended.was_unwanted:
        return LeaveIt("its end was asked for")
    if ended.policy is Policy.NEVER:
        return LeaveIt("its policy is never")
    if ended.policy is Policy.ON_FAILURE and ended.exit == {"code": 0}:
        return LeaveIt("it ended well")
    restarts = 0 if ended.ran_s >= STEADY_S else ended.restarts
    if restarts >= ended.limit:
        return GiveUp(f"it was started again {restarts} times in a row and did not last")
    return StartAgain(min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2**restarts), restarts + 1)
