"""`python -m hostsvc.demo`: the story without a terminal, the service on one."""

from __future__ import annotations

import os
import signal
import sys

from hostsvc.demo import deletion, disk
from hostsvc.demo.stage import PYTHON, Stage, Untrue, say


def main() -> int:
    if sys.stdin.isatty() and sys.stdout.isatty():
        os.execv(sys.executable, [*PYTHON, "-m", "hostsvc", "serve"])
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    stage = Stage()
    try:
        deletion.tell(stage)
        disk.tell(stage)
    finally:
        stage.clear()
    say(f"{stage.path} is removed, and all that was started has ended")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Untrue as untrue:
        sys.exit(f"this should have been so, and was not seen: {untrue}")
