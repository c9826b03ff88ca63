"""Where a run was made: the machine, and which peers are installed in which version.

Installs nothing: of a peer that is absent it names the Debian package.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

PROGRAMS: Final = {
    "dtach": ["dtach", "--version"],
    "abduco": ["abduco", "-v"],
    "tmux": ["tmux", "-V"],
    "screen": ["screen", "--version"],
    "cc": ["cc", "--version"],
}
"""Each peer's program, and how it tells its version."""
PACKAGES: Final = {"cc": "gcc"}
"""The Debian package, where it is not named as the program is."""


def machine() -> dict[str, Any]:
    """Describe where this ran."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "peers": {name: _version(command) for name, command in PROGRAMS.items() if shutil.which(name)},
    }


def absent() -> list[str]:
    """Return what each peer that is not here would need, in words."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    return [f"no {name} here (Debian package {PACKAGES.get(name, name)}): left out" for name in missing]


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(command: list[str]) -> str:
    """The first line that it says, to wherever; screen's status is 1 when it told its version."""
    said = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return said.stdout.decode(errors="replace").strip().partition("\n")[0]
