"""What the base directory costs: a sweep of ten thousand entries, the look for risk, and `list` beside it.

Also runs alone: `python -m tests.bench.sweep [--quick]`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from hostsvc.git.command import Git, environment
from hostsvc.git.risk import check_risk
from tests.bench.private import run_part
from tests.bench.report import Figure, host_figure, percentile
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.repos import Repository, git
from tests.support.rpc import Rpc

KINDS: Final = ("worktrees", "triples")
SETTINGS: Final = {"HOSTSVC_WORKTREE_GRACE_S": "1", "HOSTSVC_REAPER_INTERVAL_S": "3600"}
HOUR_MS: Final = 3_600_000
PASS_DEADLINE_S: Final = 300.0
SWEPT: Final = 30
"""Triples of the swept ones; their figure is what an act costs."""
FILES_INSIDE: Final = 3
_WORKSPACE: Final = (
    "INSERT INTO workspaces (id, generation, path, is_ours, state, created_at_ms) VALUES (?, 1, ?, 1, ?, ?)"
)
_PATH: Final = "INSERT INTO paths VALUES (?, ?, ?, 1, ?, ?, ?)"


@attrs.frozen(kw_only=True)
class Sizes:
    """How much is measured."""

    rounds: int = 5
    entries: int = 10_000
    files: int = 50_000
    worktrees: int = 100
    sessions: int = 100
    lists: int = 100


FULL: Final = Sizes()
QUICK: Final = Sizes(rounds=3, entries=1000, files=5000, worktrees=10, sessions=10, lists=20)


def measure(runtime: RuntimeDir, sizes: Sizes) -> list[Figure]:
    """Run every measurement, in a runtime directory where ptyd runs and has no session."""
    host = HostService(runtime, **SETTINGS).start()
    try:
        figures = _measure_sweep(host, sizes)
        figures += _measure_risk(runtime.base, sizes)
        figures += _measure_list(host, sizes)
    finally:
        host.stop()
    return figures


# -- the base directory ----------------------------------------------------------------------------


@attrs.define(kw_only=True)
class _Rows:
    """What the index is to say, written in one go."""

    workspaces: list[tuple[object, ...]] = attrs.Factory(list)
    paths: list[tuple[object, ...]] = attrs.Factory(list)
    at_ms: int = attrs.Factory(lambda: time.time_ns() // 1_000_000 - 24 * HOUR_MS)

    def workspace(self, id_: str, path: Path, state: str) -> None:
        self.workspaces.append((id_, str(path), state, self.at_ms))

    def path(self, path: Path, role: str, workspace_id: str) -> None:
        found = path.lstat()
        self.paths.append((str(path), role, workspace_id, found.st_dev, found.st_ino, self.at_ms))

    def write(self, host: HostService) -> None:
        with _index(host) as index:
            index.executemany(_WORKSPACE, self.workspaces)
            index.executemany(_PATH, self.paths)


@contextlib.contextmanager
def _index(host: HostService) -> Iterator[sqlite3.Connection]:
    """The index of a service that is stopped, in one transaction."""
    with contextlib.closing(sqlite3.connect(host.index_path)) as index, index:
        yield index


def _make_triple(rows: _Rows, base: Path, name: str, state: str, age_ms: int) -> None:
    """Make a folder with something deep inside, artifacts and a credential, all of them of that age."""
    folder, artifacts, credential = base / name, base / f"{name}-artifacts", base / f"{name}.cred.sh"
    for place in (folder, artifacts):
        (place / "inside").mkdir(parents=True)
        for number in range(FILES_INSIDE):
            (place / "inside" / str(number)).write_text("x")
    credential.write_text("x")
    at_ns = time.time_ns() - age_ms * 1_000_000
    for place in (folder, artifacts, credential):
        for one in (*place.rglob("*"), place):
            os.utime(one, ns=(at_ns, at_ns))
        role = {folder: "folder", artifacts: "artifacts", credential: "credential"}[place]
        rows.path(place, role, name)
    # Only a look inside tells that it is not old.
    for place in (folder, artifacts):
        os.utime(place, ns=(at_ns - 48 * HOUR_MS * 1_000_000,) * 2)
    rows.workspace(name, folder, state)


# -- figures ---------------------------------------------------------------------------------------


def _measure_sweep(host: HostService, sizes: Sizes) -> list[Figure]:
    """Measure a pass over a full base: half of it owned, half left behind and changed half an hour ago."""
    host.stop()
    rows = _Rows()
    for number in range(sizes.entries // 3):
        state = "active" if number % 2 else "deleted"
        _make_triple(rows, host.base_dir, f"full-{number}", state, HOUR_MS // 2)
    for number in range(sizes.entries % 3):
        (host.base_dir / f"stranger-{number}").write_text("x")
    rows.write(host)
    host.start()
    with host.connect() as rpc:
        seconds = [_pass_s(rpc) for _ in range(sizes.rounds)]
    host.stop()
    rows = _Rows()
    for number in range(SWEPT):
        _make_triple(rows, host.base_dir, f"swept-{number}", "deleted", 2 * HOUR_MS)
    rows.write(host)
    host.start()
    with host.connect() as rpc:
        spent_s = _pass_s(rpc)
    host.stop()
    shutil.rmtree(host.base_dir)
    host.start()
    return [
        host_figure(name=f"a sweep of {sizes.entries} entries", unit="s", samples=seconds, at_most=2),
        host_figure(name=f"the same with {3 * SWEPT} of them swept", unit="s", samples=[spent_s]),
    ]


def _pass_s(rpc: Rpc, **params: Any) -> float:
    began = time.perf_counter()
    found = rpc.call("reap", kinds=list(KINDS), deadline_s=PASS_DEADLINE_S, **params)
    spent_s = time.perf_counter() - began
    assert found["state"] == "ok", found
    return spent_s


def _measure_risk(root: Path, sizes: Sizes) -> list[Figure]:
    """Measure the look for risk in turns with what `git status` takes there."""
    repository = Repository(root / "large")
    for number in range(sizes.files):
        path = repository.main / f"d{number // 100}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n")
    git(repository.main, "add", ".")
    git(repository.main, "commit", "-q", "-m", "many")
    git(repository.main, "push", "-q")
    folder = repository.worktree(root / "worktree")
    git(folder, "status")  # what a checkout leaves to be refreshed is no part of the look
    status, risk = [], []
    for _ in range(sizes.rounds):
        status.append(_status_s(folder))
        risk.append(_risk_s(folder))
    name = f"the look for risk in {sizes.files} files"
    return [
        host_figure(
            name=name,
            unit="s",
            samples=risk,
            peers={"git status": status},
            against="git status",
            at_most=1.5,
            is_relative=True,
        ),
    ]


def _status_s(folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run(
        ["git", "status", "--porcelain"], cwd=folder, env=environment(), stdout=subprocess.PIPE, check=True
    )
    return time.perf_counter() - began


def _risk_s(folder: Path) -> float:
    began = time.perf_counter()
    risk = trio.run(check_risk, Git(), folder)
    spent_s = time.perf_counter() - began
    assert risk.is_safe, risk
    return spent_s


def _measure_list(host: HostService, sizes: Sizes) -> list[Figure]:
    """Measure `session.list` while many worktrees are looked into, and at rest, in turns."""
    with host.connect() as rpc:
        rpc.call("workspace.create", id="crowd")
        for _ in range(sizes.sessions):
            rpc.call("session.create", workspace="crowd", argv=["sh"])
    host.stop()
    repository = Repository(host.runtime.base / "many")
    rows = _Rows()
    for number in range(sizes.worktrees):
        folder = host.base_dir / f"many-{number}"
        git(repository.main, "worktree", "add", "-q", "-b", folder.name, str(folder))
        rows.path(folder, "folder", folder.name)
    git(repository.main, "push", "-q", "--all")
    rows.write(host)
    host.start()
    idle, beside, passes = [], [], []
    for _ in range(sizes.rounds):
        with host.connect() as rpc:
            idle.append(percentile([_list_ms(rpc) for _ in range(sizes.lists)], 50))
        spent_s, samples = _list_beside_a_pass(host)
        passes.append(spent_s)
        beside.append(percentile(samples, 50))
    delays = [max(0.0, one - other) for one, other in zip(beside, idle, strict=True)]
    name = f"`session.list` of {sizes.sessions} while {sizes.worktrees} worktrees are looked into"
    return [
        host_figure(name=f"the look for risk in {sizes.worktrees} worktrees", unit="s", samples=passes),
        host_figure(name=f"`session.list` of {sizes.sessions} at rest, p50", unit="ms", samples=idle),
        host_figure(name=f"{name}, p50", unit="ms", samples=beside),
        host_figure(name=f"{name}, the delay", unit="ms", samples=delays, at_most=10),
    ]


def _list_beside_a_pass(host: HostService) -> tuple[float, list[float]]:
    """Ask again and again until a rehearsal that looks into every worktree is over."""
    spent: list[float] = []

    def rehearse() -> None:
        with host.connect() as rpc:
            spent.append(_pass_s(rpc, dry_run=True))

    thread = threading.Thread(target=rehearse)
    samples = []
    with host.connect() as rpc:
        thread.start()
        while thread.is_alive():
            samples.append(_list_ms(rpc))
    thread.join()
    assert spent, "the pass has failed"
    return spent[0], samples


def _list_ms(rpc: Rpc) -> float:
    began = time.perf_counter()
    rpc.call("session.list", status="active")
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    sys.exit(run_part(__doc__, measure, full=FULL, quick=QUICK))
