"""The plot: an SVG of horizontal bars, ours beside the peers', each measurement on a scale of its own.

Pure, and by hand: a picture of rectangles and words needs no library. It brings its own background, and
colours for a light and for a dark page, so that it reads well wherever it is shown.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

import attrs

from tests.bench.report import Figure, grouped, number, peers_of, ratio_text

PLOTTED: Final = ("throughput", "echo", "flood", "latency")
"""Only what has a peer beside it: a bar alone says nothing."""

COLUMN, MARGIN, COLUMNS = 510, 16, 2
LABEL, BAR = 160, 130
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
    for group, members in grouped([figure for figure in figures if figure.peers]):
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
    unit = f'<tspan class="unit"> {escape(chart.unit)}, {_better(chart.unit)} is better</tspan>'
    yield _text(left, top + 13, chart.title, "title", more=unit)
    longest = max(bar.value for bar in chart.bars) or 1
    for row, bar in enumerate(chart.bars):
        y = top + TITLE + LINE * row
        width = max(1, round(BAR * bar.value / longest))
        yield _text(left + LABEL - 6, y + 12, bar.label, anchor="end")
        yield f'<rect class="{bar.kind}" x="{left + LABEL}" y="{y + 2}" width="{width}" height="{LINE - 4}"/>'
        yield _text(left + LABEL + width + 5, y + 12, bar.words, "missed" if bar.is_missed else "")


def _bound(figure: Figure) -> str:
    return figure.target.removesuffix(f" × {figure.against}")


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
    return figure.name.partition(",")[0], figure.unit, figure.peers


def _chart(figures: Sequence[Figure]) -> _Chart:
    names = [figure.name.replace("`", "") for figure in figures]
    title, labels = _split(names)
    ours = [_our_bar(figure, label) for figure, label in zip(figures, labels, strict=True)]
    first = figures[0]
    peers = [
        _Bar(label=peer, kind="peer", value=median, words=number(median))
        for peer in peers_of(figures)
        for median in [statistics.median(first.peers[peer])]
    ]
    return _Chart(title=title, unit=first.unit, bars=[*ours, *peers])


def _split(names: Sequence[str]) -> tuple[str, list[str]]:
    """Return what the names begin with alike, up to a comma, and what is left of each."""
    if len(names) == 1:
        return names[0], ["ptyd"]
    parted = [name.split(", ") for name in names]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*parted, strict=False))
    shared = [parts[0] for parts in alike]
    rests = [", ".join(parts[len(shared) :]) for parts in parted]
    return ", ".join(shared), [rest or "ptyd" for rest in rests]


def _our_bar(figure: Figure, label: str) -> _Bar:
    words = number(figure.median)
    if figure.ratio is not None:
        words += f" = {ratio_text(figure.ratio)} {figure.against}"
    is_missed = figure.is_met is False
    if is_missed:
        words += f", not {figure.target}" if figure.ratio is None else f", not {_bound(figure)}"
    return _Bar(label=label, kind="ours", value=figure.median, words=words, is_missed=is_missed)
