"""What every kind has in common: the look at the world it decides on, its findings, and its interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs

from hostsvc.model import Act, Basis, Candidate, Decision, Fact, Known, LiveView, Observe, Unknown
from ptyd.protocol.errors import Code, PtydError


class Skipped(Exception):
    """Seen again just before the act, it is not what it was; the message says how. Nothing was done."""


@attrs.frozen(kw_only=True)
class Look:
    """What one pass saw, before anybody decided: ptyd's list first, ownership is looked up after it."""

    at_ms: int
    view: Fact[LiveView]


@attrs.define(kw_only=True)
class Findings:
    """What a kind has found and decided in one pass."""

    kind: str
    candidates: list[Candidate] = attrs.Factory(list)
    observed: list[str] = attrs.Factory(list)
    """Subjects to be remembered as seen: what rests on absence is believed only the second time."""
    kept: Counter[str] = attrs.Factory(Counter)
    inventory: int = 0
    """How many there are in all that could be candidates."""
    trouble: str | None = None
    """What of it could not be seen, and why: the pass is an error, and the rest goes on."""

    def take(self, subject: str, generation: int, decision: Decision) -> None:
        """Enter a decision."""
        match decision:
            case Act(action, basis, reason):
                if basis is Basis.ABSENCE:  # should the act fail or be refused, it has been seen all the same
                    self.observed.append(subject_key(subject, generation))
                self.candidates.append(
                    Candidate(
                        kind=self.kind,
                        subject=subject,
                        generation=generation,
                        action=action,
                        basis=basis,
                        reason=reason,
                    )
                )
            case Observe():
                self.observed.append(subject_key(subject, generation))
                self.kept[decision.reason] += 1
            case _:
                self.kept[decision.reason] += 1


class Kind(Protocol):
    """Something that is left behind, and what to do about it."""

    name: str

    async def find(self, look: Look) -> Findings:
        """Look and decide; touch nothing.

        Raises:
            PtydError: it cannot be seen now.
        """
        ...

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        """Look once more, act, confirm; return the evidence.

        Raises:
            Skipped: it is not what it was.
            PtydError: it was tried and is not proven.
        """
        ...


@runtime_checkable
class Telling(Protocol):
    """A kind that has something of its own to tell when a pass is over."""

    async def tell(self, findings: Findings, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Tell what is new; not called for a rehearsal, nor after a look that failed."""
        ...


def subject_key(subject: str, generation: int) -> str:
    """Return what observations are kept under: another generation is something else."""
    return f"{subject}:{generation}"


def seen_view(look: Look) -> LiveView:
    """Return the list, if there is one.

    Raises:
        PtydError: ptyd_unreachable; without a whole list there is nothing to decide.
    """
    match look.view:
        case Known(view):
            return view
        case Unknown(why):
            raise PtydError(Code.NO_PTYD, why)
    raise PtydError(Code.NO_PTYD, "ptyd has no list")
