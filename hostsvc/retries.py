"""Retries of anything that watches: a budget, one report when it is spent, then a slow probe. Pure."""

from __future__ import annotations

from typing import Final

import attrs

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


@attrs.frozen(kw_only=True)
class Retries:
    """How often something has failed in a row."""

    budget: int = 8
    probe_s: float = 3600.0
    failures: int = 0

    @property
    def is_spent(self) -> bool:
        return self.failures >= self.budget

    def failed(self) -> tuple[Retries, float, bool]:
        """Count a failure.

        Returns:
            What to remember, the pause in s before the next try, and whether to report: only as the budget is
            spent, not before and not again.
        """
        after = attrs.evolve(self, failures=self.failures + 1)
        if after.is_spent:
            return after, self.probe_s, after.failures == self.budget
        return after, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self.failures), False

    def succeeded(self) -> Retries:
        """Forget all failures."""
        return attrs.evolve(self, failures=0)
