"""`python -m tests.bench`: run all measurements, print the tables, end every process.

Tables go to stdout, progress to stderr. `--save` is the run that README shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from tests.bench import ending, few, host, many, saving, sweep
from tests.bench.machine import absent, machine
from tests.bench.private import cut_off, guarded


@attrs.frozen(kw_only=True)
class Sizes:
    """How much is measured."""

    rounds: int = 5
    few: few.Sizes = few.FULL
    kills: int = 20
    many: many.Sizes = many.FULL
    host: host.Sizes = host.FULL
    sweep: sweep.Sizes = sweep.FULL


QUICK: Final = Sizes(
    rounds=3,
    few=few.QUICK,
    kills=5,
    many=many.QUICK,
    host=host.QUICK,
    sweep=sweep.QUICK,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write what is wanted; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, to see that it works")
    for name, what in (("json", "every sample"), ("markdown", "the tables"), ("plot", "an SVG")):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write {what} to FILE")
    parser.add_argument("--save", action="store_true", help="write all three where README shows them")
    options = parser.parse_args(argv)
    sizes = QUICK if options.quick else Sizes()
    cut_off()
    for peer in absent():
        _say(peer)
    where = machine()
    _say(", ".join(f"{key} {value}" for key, value in where.items()))
    figures = guarded(lambda runtime: few.measure(runtime, sizes.few, _say), many.SETTINGS)
    _say("kill …")
    figures += guarded(lambda runtime: ending.measure_kill(runtime, sizes.rounds, sizes.kills), many.SETTINGS)
    figures += guarded(lambda runtime: many.measure(runtime, sizes.many), many.SETTINGS)
    _say("host service …")
    figures += guarded(lambda runtime: host.measure(runtime, sizes.host), many.SETTINGS)
    _say("base directory …")
    figures += guarded(lambda runtime: sweep.measure(runtime, sizes.sweep), many.SETTINGS)
    command = "python -m tests.bench" + " --quick" * options.quick
    run = saving.Run(figures=figures, sizes=attrs.asdict(sizes), machine=where, command=command)
    run.write({saving.JSON: options.json, saving.TABLE: options.markdown, saving.PLOT: options.plot})
    if options.save:
        run.save()
    print(run.text(saving.TABLE), end="")
    return 0


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
