"""The measurements measure, and the table says what they found: at sizes that take a second or two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.bench import ending, host, lifecycle, many, saving, sweep
from tests.bench.machine import machine
from tests.bench.plot import plot
from tests.bench.report import Figure, as_json, from_json, grouped, percentile, table
from tests.bench.tmux_server import has_tmux
from tests.support.daemon import RuntimeDir

pytestmark = pytest.mark.unmeasured


TINY_CROWD = many.Sizes(
    levels=(1, 2),
    idle=1,
    idle_s=0.1,
    idle_rounds=1,
    rounds=1,
    lists=1,
    commands=1,
    attaches=1,
    keys=5,
    restarts=1,
    lifecycle=lifecycle.Sizes(rounds=1, births=1, commands=1, burst=2, kills=1),
)


def test_the_target_of_a_kill_is_measured(daemon: RuntimeDir) -> None:
    figures = ending.measure_kill(daemon, rounds=1, kills=1)
    assert [figure.target for figure in figures if figure.target] == ["≤ 20 ms"]
    assert all(sample >= 0 for figure in figures for sample in figure.samples)
    sections = len(list(grouped(figures)))
    assert len(table(figures).splitlines()) == len(figures) + 5 * sections - 1
    assert from_json(json.loads(json.dumps(as_json(figures, machine=machine())))["figures"]) == figures


def test_every_target_of_many_sessions_is_measured(runtime: RuntimeDir) -> None:
    runtime.start(**many.SETTINGS)
    figures = many.measure(runtime, TINY_CROWD)
    targets = [figure.target for figure in figures if figure.target]
    births = ["≤ 1.5 × tmux", "≤ 15 ms", "≤ 1 × tmux -C"]
    attach = ["≤ 2 ms"] * 4
    assert targets == [
        "≤ 43945 KiB",
        "≤ 0.5 % of a core",
        *births,
        "≤ 4 × python",
        *attach,
        "≤ 20 KiB",
        "≤ 585 KiB",
        *births,
        "≤ 0.3 × tmux -C",
        "≤ 15 ms",
        "≤ 4 × python",
        *attach,
        *["≤ 1.1 × itself, alone"] * 4,
        "≤ 1.25 × itself, alone",
        "≤ 1.5 s",
        "≤ 5 s",
        "≤ 3 s",
    ]
    relative = [figure for figure in figures if figure.is_relative and figure.against.startswith("tmux")]
    assert all(bool(figure.peers) == has_tmux() for figure in relative)
    assert len({figure.name for figure in figures}) == len(figures)


def test_every_target_of_the_host_service_is_measured(daemon: RuntimeDir) -> None:
    tiny = host.Sizes(rounds=1, lists=1, rows=10, sessions=4, orphans=2, doomed=2)
    figures = host.measure(daemon, tiny)
    targets = [figure.target for figure in figures if figure.target]
    assert targets == ["≤ 3 s", "≤ 20 ms", "≤ 1 s", "≤ 5 % of a core", "≤ 1 s", "≤ 1 s", "≤ 60 s"]
    assert all(sample > 0 for figure in figures for sample in figure.samples)


def test_every_target_of_the_base_directory_is_measured(daemon: RuntimeDir) -> None:
    tiny = sweep.Sizes(rounds=1, entries=100, files=20, worktrees=2, sessions=2, lists=2)
    figures = sweep.measure(daemon, tiny)
    targets = [figure.target for figure in figures if figure.target]
    assert targets == ["≤ 2 s", "≤ 1.5 × git status", "≤ 10 ms"]
    assert all(sample >= 0 for figure in figures for sample in figure.samples)


@pytest.mark.parametrize(
    "bounds, is_met",
    [
        ({}, None),
        ({"at_most": 2.0}, True),
        ({"at_most": 1.9}, False),
        ({"at_least": 2.0}, True),
        ({"at_least": 2.1}, False),
        ({"at_most": 0.5, "is_relative": True}, True),
        ({"at_least": 0.6, "is_relative": True}, False),
        ({"at_most": 0.5, "is_relative": True, "against": "tmux"}, None),
    ],
)
def test_a_target_is_met_by_the_median(bounds: dict[str, float], is_met: bool | None) -> None:
    peers = {"dtach": (9.0, 4.0, 3.0), "tmux": ()}
    figure = Figure(name="n", unit="ms", samples=[1.0, 2.0, 9.0], peers=peers, group="echo", **bounds)  # type: ignore[arg-type]
    assert figure.is_met is is_met


def test_a_round_is_compared_with_the_same_round() -> None:
    figure = Figure(name="n", unit="ms", samples=[1, 20, 300], peers={"dtach": [2, 10, 100]}, group="echo")
    assert figure.ratio == 2.0
    assert figure.ratio_to("tmux") is None


def test_a_table_for_each_group_shows_who_took_part() -> None:
    both = Figure(
        name="a", unit="ms", samples=[0.123456, 4, 1234.5], peers={"tmux": [8, 8, 8]}, at_most=3, group="echo"
    )
    alone = Figure(name="b", unit="s", samples=[1], at_most=2, is_relative=True, group="echo", note="so")
    other = Figure(name="c", unit="s", samples=[1], group="memory")
    assert table([other, alone, both]).splitlines() == [
        "### echo",
        "",
        "| figure | ptyd | spread | tmux | target | met | note |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| b | 1.00 s |  |  | ≤ 2 × dtach | – | so; no dtach to compare with |",
        "| a | 4.00 ms | 0.123 – 1234 | 8.00 (0.50 ×) | ≤ 3 ms | **no** |  |",
        "",
        "### memory",
        "",
        "| figure | ptyd | spread | target | met | note |",
        "| --- | --- | --- | --- | --- | --- |",
        "| c | 1.00 s |  |  | – |  |",
    ]


@pytest.mark.parametrize("percent, value", [(1, 1), (50, 5), (51, 6), (99, 10), (100, 10)])
def test_percentile_is_a_sample(percent: float, value: int) -> None:
    assert percentile([3, 1, 2, 10, 9, 8, 4, 5, 6, 7], percent) == value


def test_the_plot_shows_ours_beside_the_peers() -> None:
    peers = {"tmux": [10.0], "dtach": [2.0]}
    given: dict[str, Any] = {"unit": "ms", "samples": [4.0], "is_relative": True, "group": "echo"}
    figures = [
        Figure(name="echo p50, <fast>", peers=peers, at_most=1.5, **given),
        Figure(name="echo p50, slow", peers=peers, **given),
        Figure(name="echo p50, slow (against tmux)", peers=peers, against="tmux", at_most=0.1, **given),
        Figure(name="alone", unit="ms", samples=[1], group="echo"),
        Figure(name="of no interest", peers=peers, is_plotted=False, **given),
    ]
    drawing = ElementTree.fromstring(plot(figures))
    words = ["".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert words == [
        "echo",
        "echo p50 ms, shorter is better",
        "<fast>",
        "4.00 = 2.00 × dtach, not ≤ 1.5",
        "slow",
        "4.00 = 2.00 × dtach, not ≤ 0.1 × tmux",
        "dtach",
        "2.00",
        "tmux",
        "10.0",
    ]
    bars = [int(bar.get("width", "")) for bar in drawing.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert bars == [44, 44, 22, 110]


def test_what_readme_shows_is_what_was_saved() -> None:
    """`python -m tests.bench.saving` draws it again after a change of how it is shown."""
    run = saving.Run.load(saving.RESULTS / saving.JSON)
    assert {name: (saving.RESULTS / name).read_text() for name in saving.FILES} == {
        name: run.text(name) for name in saving.FILES
    }
    readme = saving.README.read_text()
    assert saving.shown_in(readme) == run.text(saving.TABLE)
    assert f"]({(saving.RESULTS / saving.PLOT).relative_to(saving.ROOT)})" in readme


def test_readme_takes_new_tables(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{saving.BEGIN}\nold\n\n{saving.END}after\n")
    saving.show_in_readme(readme, "new\n")
    assert readme.read_text() == f"before\n{saving.BEGIN}\nnew\n\n{saving.END}after\n"
    assert saving.shown_in(readme.read_text()) == "new\n"
