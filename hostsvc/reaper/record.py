"""How a pass is written down: what was done with each candidate, the counts, the word for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hostsvc.model import Basis, Candidate
from hostsvc.reaper.kinds import Findings

Pass = dict[str, Any]


def share_out(due: Sequence[Candidate], acts: int) -> tuple[list[Candidate], list[Candidate]]:
    """Split what is due into this pass's and the next's; what somebody asked for is always this one's."""
    asked = [one for one in due if one.basis is Basis.INTENT]
    others = [one for one in due if one.basis is not Basis.INTENT]
    room = max(0, acts - len(asked))
    return asked + others[:room], others[room:]


def outcome(one: Candidate, word: str, **more: Any) -> Pass:
    """Return what became of a candidate; `word` is one of OUTCOMES."""
    return {
        "kind": one.kind,
        "subject": one.subject,
        "generation": one.generation,
        "action": one.action.value,
        "basis": one.basis.value,
        "reason": one.reason,
        "outcome": word,
        **more,
    }


OUTCOMES: Final = ("done", "failed", "skipped", "refused", "deferred", "planned")


def counts(found: Mapping[str, Findings], outcomes: Sequence[Pass]) -> dict[str, int]:
    """Return how many were seen, left alone and remembered, and how many acts had which outcome."""
    return {
        "seen": sum(findings.inventory for findings in found.values()),
        "kept": sum(findings.kept.total() for findings in found.values()),
        "observed": sum(len(findings.observed) for findings in found.values()),
        **{name: sum(act["outcome"] == name for act in outcomes) for name in OUTCOMES},
    }


def state_of(outcomes: Sequence[Pass], refused: Sequence[str], errors: Mapping[str, str]) -> str:
    """Return the word for a pass: the worst thing that happened in it."""
    if errors:
        return "error"
    if refused:
        return "refused"
    left = any(act["outcome"] in ("failed", "deferred") for act in outcomes)
    return "partial" if left else "ok"
