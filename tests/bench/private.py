"""A private runtime directory to measure in: nothing of whoever runs this is touched, and nothing is left."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from tests.bench.report import Figure, table
from tests.support import processes
from tests.support.daemon import RuntimeDir

PTYD: Final = [
    *(sys.executable, "-P", "-c"),
    "import sys; from ptyd.cli import main; sys.argv[0] = 'ptyd'; sys.exit(main())",
]
"""The command line, also where it is not installed."""
T = TypeVar("T")
STRANGERS: Final = ("PTYD_", "HOSTSVC_", "XDG_RUNTIME_DIR")


def cut_off() -> None:
    """Leave any ptyd of whoever runs this alone, and nothing behind when this run is itself ended."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda signum, _: sys.exit(128 + signum))
    for name in [name for name in os.environ if name.startswith(STRANGERS)]:
        del os.environ[name]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process would compile all of ours anew
    os.environ.update(PTYD_TEST="1", PTYD_ALLOW_NESTED="1")


def guarded(measure: Callable[[RuntimeDir], list[Figure]], settings: Mapping[str, str]) -> list[Figure]:
    """Measure with a ptyd of its own; whatever happens, every process and file of it is gone afterwards."""
    processes.become_subreaper()
    guard = processes.Guard()
    runtime = RuntimeDir(settings)
    try:
        figures = measure(runtime.start())
        runtime.stop()
        return figures
    finally:
        guard.end_all()
        runtime.remove()


def run_part(
    what: str | None,
    measure: Callable[[RuntimeDir, T], list[Figure]],
    *,
    full: T,
    quick: T,
    settings: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Measure one part only, by its own command, and print the table.

    Args:
        what: The docstring of its module.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, to see that it works")
    options = parser.parse_args(argv)
    cut_off()
    sizes = quick if options.quick else full
    print(table(guarded(lambda runtime: measure(runtime, sizes), settings or {})))
    return 0
