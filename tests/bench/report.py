"""Figures: samples with a target, their medians and spread, the table and the JSON of a run.

Pure but for the look at the machine. A figure is one sample per round; what a round measures many times
(keystrokes, kills) comes in as that round's percentile.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any, Final

import attrs

WITHOUT_DTACH: Final = "no dtach here (Debian package dtach): not compared"


@attrs.frozen(kw_only=True)
class Figure:
    """One line of the table.

    Attributes:
        name: What was measured.
        unit: Of samples and reference.
        samples: One per round.
        reference: What dtach did in the same rounds; empty when there is none.
        at_most: The target: no more than this, or than this many times the reference.
        at_least: The target: no less than this, or than this many times the reference.
        is_relative: The target is a multiple of the reference.
        note: What a reader has to know to read the figure rightly.
    """

    name: str
    unit: str
    samples: Sequence[float]
    reference: Sequence[float] = ()
    at_most: float | None = None
    at_least: float | None = None
    is_relative: bool = False
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def ratio(self) -> float | None:
        """The median as a multiple of the reference's; None without one."""
        return self.median / statistics.median(self.reference) if self.reference else None

    @property
    def is_met(self) -> bool | None:
        """Tell whether the target is met; None when there is none, or nothing to compare with."""
        value = self.ratio if self.is_relative else self.median
        if value is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or value <= self.at_most) and (
            self.at_least is None or value >= self.at_least
        )

    @property
    def target(self) -> str:
        """The target in words; empty when there is none."""
        parts = []
        for sign, bound in (("≤", self.at_most), ("≥", self.at_least)):
            if bound is not None:
                parts.append(f"{sign} {bound:g} {'× dtach' if self.is_relative else self.unit}")
        return ", ".join(parts)


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that `percent` of them do not exceed."""
    ranked = sorted(samples)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    head = ["figure", "here", "spread", "dtach", "target", "met", "note"]
    rows = [head, ["---"] * len(head), *map(_row, figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(figure: Figure) -> list[str]:
    verdict = {True: "yes", False: "**no**", None: "–"}[figure.is_met]
    if figure.is_relative and figure.ratio is not None:
        verdict += f" ({figure.ratio:.2f} ×)"
    return [
        figure.name,
        f"{_number(figure.median)} {figure.unit}",
        _spread(figure.samples),
        f"{_number(statistics.median(figure.reference))} ({_spread(figure.reference)})"
        if figure.reference
        else "",
        figure.target,
        verdict,
        figure.note or (WITHOUT_DTACH if figure.is_relative and not figure.reference else ""),
    ]


def _spread(samples: Sequence[float]) -> str:
    return f"{_number(min(samples))} – {_number(max(samples))}" if len(samples) > 1 else ""


def _number(value: float) -> str:
    """Three significant digits, and no exponent."""
    digits = 0 if not value else 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, min(digits, 4))}f}"


def as_json(figures: Sequence[Figure], sizes: dict[str, Any]) -> dict[str, Any]:
    """Return everything that was measured, with where and how much."""
    rows = [
        {**attrs.asdict(figure), "median": figure.median, "ratio": figure.ratio, "is_met": figure.is_met}
        for figure in figures
    ]
    return {"machine": machine(), "sizes": sizes, "figures": rows}


def machine() -> dict[str, Any]:
    """Describe where this ran."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
