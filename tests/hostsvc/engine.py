"""A container engine that records what it is asked: the stand-in command, and the containers that it has."""

from __future__ import annotations

import json
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = Path(__file__).parents[1] / "support" / "programs" / "engine.py"
NAMES: Final = ("docker", "podman")
OLD: Final = "2020-01-02T03:04:05.123456789Z"


class Engine:
    """Puts `docker` or `podman` into a directory for PATH. Without one of them there is none of that name."""

    def __init__(self, base: Path, *programs: str) -> None:
        self.directory = base / "engine"
        self.bin = base / "bin"
        for directory in (self.directory, self.bin):
            directory.mkdir(parents=True)
        for program in programs:
            path = self.bin / program
            path.write_text(
                f'#!/bin/sh\nexec {sys.executable} -I -S {PROGRAM} {self.directory} {program} "$@"\n'
            )
            path.chmod(0o755)
        for name in ("sh", "sleep", "git"):  # the rest of PATH is left out: a real engine may be there
            self._link(name)
        (self.directory / "calls").touch()
        self.fail()

    def _link(self, name: str) -> None:
        for place in [*os.defpath.split(":"), "/usr/local/bin"]:
            if place and os.path.exists(f"{place}/{name}") and not (self.bin / name).exists():
                (self.bin / name).symlink_to(f"{place}/{name}")

    def fail(self, **faults: Any) -> None:
        """Be wrong from now on in these ways, and in no other; see the program."""
        (self.directory / "faults.json").write_text(json.dumps(faults))

    def add(self, created: object = OLD, **labels: str) -> str:
        """Make a container with these labels (`owner` for the index's); return its id."""
        id_ = secrets.token_hex(32)
        told = {"hostsvc.owner" if key == "owner" else key: value for key, value in labels.items()}
        now = datetime.now(UTC).isoformat()
        shown = {
            "Id": id_,
            "Created": created,
            "State": {"Running": True, "StartedAt": now},
            "Config": {"Labels": told or None},
        }
        (self.directory / f"{id_}.json").write_text(json.dumps(shown))
        return id_

    def has(self, id_: str) -> bool:
        return (self.directory / f"{id_}.json").exists()

    def calls(self, *verbs: str) -> list[list[str]]:
        """Return what was called so far, without the program's name; only these verbs, if any are given."""
        found = [json.loads(line)[1:] for line in (self.directory / "calls").read_text().splitlines()]
        return [words for words in found if not verbs or words[0] in verbs]
