"""Where a run is written: JSON, a Markdown table, the plot, and the place in README that shows them.

`python -m tests.bench.saving` draws all of it again from the saved JSON, after a change of how it is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from tests.bench.plot import plot
from tests.bench.report import Figure, as_json, from_json, table

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path(__file__).resolve().parent / "results"
JSON, TABLE, PLOT = FILES = "figures.json", "table.md", "plot.svg"
README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- bench: begin, written by `python -m tests.bench --save` -->\n"
END: Final = "<!-- bench: end -->\n"


@attrs.frozen(kw_only=True)
class Run:
    """What was measured, and all there is to know about how."""

    figures: Sequence[Figure]
    sizes: Mapping[str, Any]
    machine: Mapping[str, Any]
    command: str

    @classmethod
    def load(cls, path: Path) -> Run:
        found = json.loads(path.read_text())
        return cls(**{**found, "figures": from_json(found["figures"])})

    def text(self, name: str) -> str:
        """Return what is to stand in the file JSON, TABLE or PLOT."""
        if name == JSON:
            found = as_json(self.figures, sizes=self.sizes, machine=self.machine, command=self.command)
            return json.dumps(found, indent=1) + "\n"
        return plot(self.figures) if name == PLOT else f"{self._provenance()}\n\n{table(self.figures)}\n"

    def write(self, files: Mapping[str, Path | None]) -> None:
        """Write what has a place to go to; the keys are JSON, TABLE and PLOT."""
        for name, path in files.items():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.text(name))

    def save(self) -> None:
        """Make this the run that README shows."""
        self.write({name: RESULTS / name for name in FILES})
        show_in_readme(README, self.text(TABLE))

    def _provenance(self) -> str:
        where, peers = self.machine, ", ".join(self.machine["peers"].values()) or "no peer"
        return (
            f"Measured {where['date'][:10]} by `{self.command}` on {where['cores']} × {where['cpu']},"
            f" Linux {where['kernel']}, Python {where['python']}; beside {peers}. Medians of the rounds; in"
            " brackets how many times the peer's figure ours is: the median of the rounds' own ratios."
        )


def show_in_readme(readme: Path, text: str) -> None:
    """Replace what README has between the marks."""
    before, after = _around(readme.read_text())
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def shown_in(readme: str) -> str:
    """Return what README has between the marks."""
    before, after = _around(readme)
    return readme[len(before) + len(BEGIN) + 1 : len(readme) - len(after) - len(END) - 1]


def _around(readme: str) -> tuple[str, str]:
    before, _, rest = readme.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, "README has lost the marks around the bench's table"
    return before, after


if __name__ == "__main__":
    Run.load(RESULTS / JSON).save()
