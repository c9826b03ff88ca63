"""A stand-in for `docker` and `podman`: containers are files, and every call is recorded.

Called as `engine.py DIRECTORY PROGRAM WORDS…`. In the directory are `ID.json` for each container, `calls`,
and `faults.json`, which says what is wrong: a verb fails or hangs, ids are not removed, another host.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main(directory: Path, program: str, words: list[str]) -> int:
    with (directory / "calls").open("a") as calls:
        calls.write(json.dumps([program, *words]) + "\n")
    faults: dict[str, Any] = json.loads((directory / "faults.json").read_text())
    verb = words[0]
    if faults.get(verb) == "fail":
        return 1
    if faults.get(verb) == "hang":
        time.sleep(1000)
    if verb == "--version":
        print(f"{program} version 1")
    elif words[:2] == ["context", "inspect"]:
        print(faults.get("endpoint", f"unix://{directory / 'calls'}"))
    elif verb == "info":
        host = faults.get("host", os.uname().nodename)
        remote = {"hostname": host, "serviceIsRemote": faults.get("remote", False)}
        print(json.dumps({"Name": host} if program == "docker" else {"host": remote}))
    elif verb == "ps":
        listed(directory, words)
    elif verb == "inspect":
        found = [read(directory / f"{id_}.json") for id_ in words[3:]]
        print(json.dumps([one for one in found if one is not None]))
        return 1 if None in found else 0
    elif verb == "rm":
        if words[-1] in faults.get("stuck", []):
            return int(faults.get("rm_status", 0))
        try:
            (directory / f"{words[-1]}.json").unlink()
        except FileNotFoundError:
            return 1
    return 0


def listed(directory: Path, words: list[str]) -> None:
    filters = [words[at + 1] for at, word in enumerate(words) if word == "--filter"]
    for path in sorted(directory.glob("?" * 64 + ".json")):
        shown = read(path)
        if shown is None:
            continue
        labels = shown["Config"]["Labels"] or {}
        pairs = {f"label={key}={value}" for key, value in labels.items()}
        if set(filters) <= pairs | {f"label={key}" for key in labels} | {f"id={shown['Id']}"}:
            print(shown["Id"])


def read(path: Path) -> dict[str, Any] | None:
    """Return what a container is; None for one that another call has removed by now."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
