"""Figures: samples with a target, their medians and spread, the tables and the JSON of a run.

Pure. A figure is one sample per round; what a round measures many times (keystrokes, kills) comes in as
that round's percentile. What a peer did in the same rounds stands beside it, and is compared pair by pair:
a round that was slow for both says nothing about either.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

GROUPS: Final = (
    "throughput",
    "echo",
    "flood",
    "latency",
    "many sessions",
    "memory",
    "host service",
)
"""The sections of table and plot, in their order."""
PEERS: Final = ("relay", "dtach", "dtach -a", "abduco", "tmux", "tmux -C", "screen")
"""The columns, in their order; any other that a figure has comes after them."""
ITSELF: Final = "itself"
"""What the name of a peer begins with that is ptyd too, in another state."""


def _each_as_tuple(peers: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(samples) for name, samples in peers.items() if samples}


@attrs.frozen(kw_only=True)
class Figure:
    """One line of a table.

    Attributes:
        name: What was measured.
        unit: Of all samples.
        samples: One per round.
        peers: What each peer did in the same rounds; those without samples took no part.
        against: The peer that a relative target refers to.
        at_most: The target: no more than this, or than this many times what the peer did.
        at_least: The target: no less than this, or than this many times what the peer did.
        is_relative: The target is a multiple of what `against` did.
        note: What a reader has to know to read the figure rightly.
        group: The section it belongs to, one of GROUPS.
        is_plotted: It is in the plot, if it has a peer.
    """

    name: str
    unit: str
    samples: Sequence[float] = attrs.field(converter=tuple)
    peers: Mapping[str, Sequence[float]] = attrs.field(factory=dict, converter=_each_as_tuple)
    against: str = "dtach"
    at_most: float | None = None
    at_least: float | None = None
    is_relative: bool = False
    note: str = ""
    group: str = attrs.field(validator=attrs.validators.in_(GROUPS))
    is_plotted: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def ratio(self) -> float | None:
        """How many times what `against` did this is; None where that took no part."""
        return self.ratio_to(self.against)

    def ratio_to(self, peer: str) -> float | None:
        """Return the median of the rounds' own ratios; None where there is nothing to divide by."""
        if not all(self.peers.get(peer, (0,))):
            return None
        pairs = zip(self.samples, self.peers[peer], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

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
                parts.append(f"{sign} {bound:g} {f'× {self.against}' if self.is_relative else self.unit}")
        return ", ".join(parts)


host_figure: Final = functools.partial(Figure, group="host service")


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that `percent` of them do not exceed."""
    ranked = sorted(samples)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


# -- tables ----------------------------------------------------------------------------------------


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as Markdown: a table for each group, with a column for each peer in it."""
    return "\n\n".join(f"### {group}\n\n{_section(members)}" for group, members in grouped(figures))


def grouped(figures: Sequence[Figure]) -> Iterator[tuple[str, list[Figure]]]:
    """Yield each group that has a figure, in order, with its figures."""
    for group in GROUPS:
        if members := [figure for figure in figures if figure.group == group]:
            yield group, members


def peers_of(figures: Sequence[Figure]) -> list[str]:
    """Return the names of all that took part, in order."""
    found = dict.fromkeys(name for figure in figures for name in figure.peers)
    return sorted(found, key=lambda name: PEERS.index(name) if name in PEERS else len(PEERS))


def _section(figures: Sequence[Figure]) -> str:
    peers = peers_of(figures)
    head = ["figure", "ptyd", "spread", *peers, "target", "met", "note"]
    rows = [head, ["---"] * len(head), *(_row(figure, peers) for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(figure: Figure, peers: Sequence[str]) -> list[str]:
    verdict = {True: "yes", False: "**no**", None: "–"}[figure.is_met]
    if figure.is_relative and figure.ratio is not None:
        verdict += f" ({ratio_text(figure.ratio)})"
    is_alone = figure.is_relative and figure.against not in figure.peers
    return [
        figure.name,
        f"{number(figure.median)} {figure.unit}",
        _spread(figure.samples),
        *(_peer_cell(figure, peer) for peer in peers),
        figure.target,
        verdict,
        "; ".join(filter(None, [figure.note, f"no {figure.against} to compare with" if is_alone else ""])),
    ]


def _peer_cell(figure: Figure, peer: str) -> str:
    """What the peer did, and how many times that ours is."""
    if peer not in figure.peers:
        return ""
    ratio = figure.ratio_to(peer)
    found = number(statistics.median(figure.peers[peer]))
    return found if ratio is None else f"{found} ({ratio_text(ratio)})"


def ratio_text(ratio: float) -> str:
    """A ratio as it is written everywhere: 1.05 ×."""
    return f"{ratio:.2f} ×"


def _spread(samples: Sequence[float]) -> str:
    return f"{number(min(samples))} – {number(max(samples))}" if len(samples) > 1 else ""


def number(value: float) -> str:
    """Three significant digits, and no exponent."""
    digits = 0 if not value else 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, min(digits, 4))}f}"


# -- JSON ------------------------------------------------------------------------------------------


def as_json(figures: Sequence[Figure], **circumstances: Any) -> dict[str, Any]:
    """Return everything that was measured, with where and how much."""
    return {**circumstances, "figures": [_as_row(figure) for figure in figures]}


def _as_row(figure: Figure) -> dict[str, Any]:
    ratios = {peer: figure.ratio_to(peer) for peer in figure.peers}
    found = {"median": figure.median, "ratios": ratios, "target": figure.target, "is_met": figure.is_met}
    return {**attrs.asdict(figure), **found}


def from_json(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return the figures of `as_json` again."""
    names = [field.name for field in attrs.fields(Figure)]
    return [Figure(**{name: row[name] for name in names}) for row in rows]
