"""Health: one word, and every reason why it is not green."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hostsvc.health import MISSED_RED, Signs, counts, decide_health

WELL: dict[str, Any] = {
    "index_trouble": None,
    "ptyd_trouble": None,
    "ptyd_circuit": None,
    "last_pass_state": "ok",
    "blind_kinds": {},
    "missed": 0,
    "stuck_sagas": 0,
    "stuck_sessions": 0,
}
SIGNS: list[tuple[dict[str, Any], str]] = [
    ({"index_trouble": "the disk is full"}, "red"),
    ({"ptyd_trouble": "it did not answer"}, "red"),
    ({"ptyd_circuit": "3 restarts did not help"}, "red"),
    ({"missed": MISSED_RED}, "red"),
    ({"last_pass_state": "error"}, "yellow"),
    ({"last_pass_state": "refused"}, "yellow"),
    ({"stuck_sagas": 1}, "yellow"),
    ({"stuck_sessions": 2}, "yellow"),
]


@pytest.mark.parametrize("last", [None, "ok", "partial", "running", "interrupted"])
def test_green(last: str | None) -> None:
    assert decide_health(Signs(**{**WELL, "last_pass_state": last})) == ("green", [])


@pytest.mark.parametrize("sign, word", SIGNS)
def test_each_sign_has_its_reason(sign: dict[str, Any], word: str) -> None:
    found, reasons = decide_health(Signs(**{**WELL, **sign}))
    assert (found, len(reasons)) == (word, 1)


def test_all_reasons_are_told_and_the_worst_is_the_word() -> None:
    for (first, a), (second, b) in itertools.combinations(SIGNS, 2):
        found, reasons = decide_health(Signs(**{**WELL, **first, **second}))
        assert found == ("red" if "red" in (a, b) else "yellow")
        assert len(reasons) == len(first.keys() | second.keys())


def test_a_kind_that_could_not_see_says_why() -> None:
    blind = {"runs": "docker: busy: docker info ended with 1", "idle": "ptyd_unreachable: gone"}
    _, [reason] = decide_health(Signs(**{**WELL, "last_pass_state": "error", "blind_kinds": blind}))
    assert all(f"{kind}: {error}" in reason for kind, error in blind.items())


@pytest.mark.parametrize("missed, word", [(0, "green"), (2, "green"), (3, "red"), (100, "red")])
def test_C25_a_reaper_that_nobody_runs_is_red(missed: int, word: str) -> None:
    assert decide_health(Signs(**{**WELL, "last_pass_state": None, "missed": missed}))[0] == word


def test_counts() -> None:
    assert counts({"active": 3}, (2, 1)) == {"active": 3, "unwanted": 2, "stuck": 1}
