"""The gate: what may stop a pass. Pure.

Explicit intents and rows that say so pass. What rests on absence alone passes only in small numbers: an index
restored from an old backup, or opened on the wrong host, makes everything look like an orphan at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from hostsvc.model import Action, Basis, Candidate

SHARE_FLOOR: Final = 5
"""A share of very few says nothing: below this many only the count matters."""
DESTRUCTIVE: Final = frozenset(
    {Action.KILL, Action.PURGE, Action.TRASH, Action.QUARANTINE, Action.UNLINK, Action.END}
)


@attrs.frozen(kw_only=True)
class Caps:
    """How much may be inferred in one pass."""

    count: int = 50
    share: float = 0.5


def inferred(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return those that end something which only an absence speaks against, in a fixed order."""
    found = (one for one in candidates if one.basis is Basis.ABSENCE and one.action in DESTRUCTIVE)
    return tuple(sorted(found, key=lambda one: (one.kind, one.subject, one.generation)))


def plan_hash(candidates: Sequence[Candidate]) -> str:
    """Name a plan: the same acts on the same subjects, in whatever order, have the same name."""
    acts = sorted([one.kind, one.subject, one.generation, one.action.value] for one in candidates)
    return hashlib.sha256(json.dumps(acts).encode()).hexdigest()[:16]


def refusals(candidates: Sequence[Candidate], inventory: Mapping[str, int], caps: Caps) -> list[str]:
    """Say why inferred acts must not be done; empty when they may.

    Args:
        candidates: Everything that was decided.
        inventory: How many of each kind there are in all.
        caps: What is allowed.
    """
    reasons = []
    acts = inferred(candidates)
    for kind in sorted({one.kind for one in acts}):
        count = sum(one.kind == kind for one in acts)
        whole = inventory.get(kind, 0)
        if count > caps.count:
            reasons.append(f"{kind}: {count} at once, more than {caps.count}")
        elif count >= SHARE_FLOOR and count > caps.share * whole:
            reasons.append(f"{kind}: {count} of {whole}, more than {caps.share:.0%} of all")
    return reasons
