"""A private runtime directory to measure in: nothing of whoever runs this is touched, and nothing is left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Final

from tests.bench.report import Figure
from tests.support import processes
from tests.support.daemon import RuntimeDir

PTYD: Final = [
    *(sys.executable, "-P", "-c"),
    "import sys; from ptyd.cli import main; sys.argv[0] = 'ptyd'; sys.exit(main())",
]
"""The command line, also where it is not installed."""
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
