"""The plot: an SVG of horizontal bars, ours beside the peers', each measurement on a scale of its own.

Pure, and by hand: a picture of rectangles and words needs no library. It brings its own background, and
colours for a light and for a dark page, so that it reads well wherever it is shown.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

import attrs

from tests.bench.report import ITSELF, Figure, grouped, number, peers_of, ratio_text

PLOTTED: Final = ("throughput", "echo", "flood", "latency", "many sessions")
"""Only what has a peer beside it: a bar alone says nothing."""

COLUMN, MARGIN, COLUMNS = 550, 16, 2
LABEL, BAR = 160, 110
"""Of a column: what the words before a bar take, and the longest bar."""
LINE, TITLE, HEADING, GAP = 17, 20, 34, 10
_STYLE: Final = """
  text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328 }
  .heading { font-size: 16px; font-weight: 600 }
  .title { font-weight: 600 }
  .unit { fill: #59636e; font-weight: 400 }
  .missed { fill: #b35900 }
  .page { fill: #ffffff; stroke: #d1d9e0 }
  .ours { fill: #0969da }
  .peer { fill: #afb8c1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .unit { fill: #9198a1 }
    .missed { fill: #f0883e }
    .page { fill: #0d1117; stroke: #3d444d }
    .ours { fill: #4493f8 }
    .peer { fill: #656c76 }
  }
"""


@attrs.frozen(kw_only=True)
class _Bar:
    label: str
    kind: str
    value: float
    words: str
    is_missed: bool = False


@attrs.frozen(kw_only=True)
class _Chart:
    """Figures that were measured beside the same peers: ours first."""

    title: str
    unit: str
    bars: Sequence[_Bar]

    @property
    def height(self) -> int:
        return TITLE + LINE * len(self.bars) + GAP


def plot(figures: Sequence[Figure]) -> str:
    """Return the plot of all figures that have a peer to stand beside."""
    body: list[str] = []
    top = MARGIN
    for group, members in grouped([one for one in figures if one.peers and one.is_plotted]):
        if group in PLOTTED:
            body.append(_text(MARGIN, top + 20, group, "heading"))
            top = _place([_chart(together) for together in _gathered(members)], top + HEADING, body)
    width, height = MARGIN * 2 + COLUMN * COLUMNS, top + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" role="img">',
            "<title>ptyd beside its peers</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"/>',
            *body,
            "</svg>\n",
        ]
    )


def _place(charts: Sequence[_Chart], top: int, body: list[str]) -> int:
    """Put each chart where there is most room; return where the lowest ends."""
    ends = [top] * COLUMNS
    for chart in charts:
        column = ends.index(min(ends))
        body.extend(_drawn(chart, MARGIN + column * COLUMN, ends[column]))
        ends[column] += chart.height
    return max(ends)


def _drawn(chart: _Chart, left: int, top: int) -> Iterator[str]:
    unit = f'<tspan class="unit" dx="4"> {escape(chart.unit)}, {_better(chart.unit)} is better</tspan>'
    yield _text(left, top + 13, chart.title, "title", more=unit)
    longest = max(bar.value for bar in chart.bars) or 1
    for row, bar in enumerate(chart.bars):
        y = top + TITLE + LINE * row
        width = max(1, round(BAR * bar.value / longest))
        yield _text(left + LABEL - 6, y + 12, bar.label, anchor="end")
        yield f'<rect class="{bar.kind}" x="{left + LABEL}" y="{y + 2}" width="{width}" height="{LINE - 4}"/>'
        yield _text(left + LABEL + width + 5, y + 12, bar.words, "missed" if bar.is_missed else "")


def _text(x: int, y: int, words: str, kind: str = "", *, anchor: str = "", more: str = "") -> str:
    kind = kind and f' class="{kind}"'
    anchor = anchor and f' text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}"{kind}{anchor}>{escape(words)}{more}</text>'


def _better(unit: str) -> str:
    return "longer" if unit.endswith("/s") else "shorter"


# -- from figures to charts ------------------------------------------------------------------------


def _gathered(figures: Sequence[Figure]) -> Iterator[list[Figure]]:
    """Yield figures of one name, up to a comma, beside the very same samples of the same peers together."""
    found: list[list[Figure]] = []
    for figure in figures:
        for together in found:
            if _measurement(together[0]) == _measurement(figure):
                together.append(figure)
                break
        else:
            found.append([figure])
    yield from found


def _measurement(figure: Figure) -> tuple[object, ...]:
    return _parts(figure)[0], figure.unit, _others(figure)


def _others(figure: Figure) -> dict[str, Sequence[float]]:
    """The peers, without our own in another state."""
    return {name: samples for name, samples in figure.peers.items() if not name.startswith(ITSELF)}


def _parts(figure: Figure) -> list[str]:
    """A measurement and its variants, after commas or a colon; what it is held against is left out."""
    return re.split("[,:] ", re.sub(r" \(against .*\)|`", "", figure.name))


def _chart(figures: Sequence[Figure]) -> _Chart:
    first = figures[0]
    rows = [list(same) for _, same in itertools.groupby(figures, key=lambda one: (_parts(one), one.samples))]
    title, labels = _split([_parts(same[0]) for same in rows])
    bars: list[_Bar] = []
    for same, label in zip(rows, labels, strict=True):
        bars.append(_our_bar(same, label))
        bars += [] if _others(first) else _peer_bars(same[0], list(same[0].peers))
    bars += _peer_bars(first, peers_of([attrs.evolve(first, peers=_others(first))]))
    return _Chart(title=title, unit=first.unit, bars=bars)


def _peer_bars(figure: Figure, names: Sequence[str]) -> list[_Bar]:
    medians = {name: statistics.median(figure.peers[name]) for name in names}
    return [_Bar(label=name, kind="peer", value=one, words=number(one)) for name, one in medians.items()]


def _split(names: Sequence[list[str]]) -> tuple[str, list[str]]:
    """Return what the names begin with alike, and what is left of each."""
    if len(names) == 1:
        return ", ".join(names[0]), ["ptyd"]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))
    shared = [parts[0] for parts in alike]
    return ", ".join(shared), [", ".join(parts[len(shared) :]) or "ptyd" for parts in names]


def _our_bar(same: Sequence[Figure], label: str) -> _Bar:
    """One bar for what was measured once and may have several targets."""
    shown = next((one for one in same if one.against in _others(one)), same[0])
    words = number(shown.median)
    if shown.ratio is not None:
        words += f" = {ratio_text(shown.ratio)} {shown.against}"
    missed = [one.target.removesuffix(f" × {shown.against}") for one in same if one.is_met is False]
    if missed:
        words += f", not {missed[0]}" if len(missed) == 1 else f", {len(missed)} targets missed"
    return _Bar(label=label, kind="ours", value=shown.median, words=words, is_missed=bool(missed))
