"""`make run`: the story without a terminal, and the service on one. Nothing is left, whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hostsvc.demo import __main__ as demo
from hostsvc.demo import stage
from tests.support import processes
from tests.support.host import HostService

COMMAND = [sys.executable, "-P", "-m", "hostsvc.demo"]


def start(host: HostService, tmp_path: Path, **settings: str) -> subprocess.Popen[str]:
    """Start the story, with a real service's settings about that it must not touch."""
    return subprocess.Popen(
        COMMAND,
        env={**host.env, "TMPDIR": str(tmp_path), **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_story_is_told_to_its_end(host: HostService, tmp_path: Path) -> None:
    told, _ = start(host, tmp_path, HOSTSVC_REAPER_ACTS="0").communicate(timeout=60)
    lines = told.splitlines()
    assert all(line.startswith("==> ") for line in lines), told
    story = [
        r"hostsvc \d+ serves \S+; ptyd's daemon is \d+",
        r"workspace demo \(\w+\) is \S+/work/demo",
        r"session \w+ runs `sleep`, which is polite",
        r"session \w+ ignores HUP and TERM, and has a child that left it by setsid",
        r"4 processes live in the workspace: ",
        r"hostsvc workspace rm demo",
        r"the deletion is under way: .*seal done.*dispose begun$",
        r"hostsvc \d+ and ptyd's daemon \d+: SIGKILL",
        r"the command exits with 69",
        r"of the workspace's processes [34] of 4 live; nobody serves",
        r"hostsvc \d+ serves",
        r"it has resumed the deletion: .*dispose done.*commit done.*finish done$",
        r"its first pass, the drain of what was left: ok; ",
        r"the workspace: destroyed: ",
        r"session \w+: disposed, evidence .*'proof': 'echild'",
        r"session \w+: disposed, evidence .*'proof': 'echild'",
        r"rows in the index: none; sessions in ptyd that nobody knows: none",
        r"health: green",
        r"alive of the 4 processes: 0 ",
        r"audit: session \w+ disposed",
        r"audit: workspace \w+ deleted",
        r"its folder waits in the trash: \S+/work/\.trash/\w+",
        r"workspace web is a worktree of \S+/site, on the branch topic: \S+/work/web",
        r"hostsvc workspace rm web: at_risk: .*untracked: notes.txt",
        r"nothing of it was touched, and the workspace is active as before",
        r"hostsvc workspace rm --force web: in the trash, with branch refs/heads/topic",
        r"hostsvc workspace restore web: generation 2, and git says: ## topic, \?\? notes.txt",
        r"hostsvc run exec is at work, in session \w+ of run \w+",
        r"hostsvc run exec \d+: SIGKILL; its session lives on, and nobody holds the run",
        r"swept by pass \d+, once it was old enough and seen twice: its session is disposed,",
        r"evidence .*'proof': 'echild'",
        r"its workspace is gone too",
        r"\S+ is removed, and all that was started has ended$",
    ]
    at = 0
    for sentence in story:
        found = [number for number, line in enumerate(lines[at:], at) if re.match(f"==> {sentence}", line)]
        assert found, f"{sentence!r} is not told after line {at}:\n{told}"
        at = found[0] + 1
    assert at == len(lines)
    assert list(tmp_path.iterdir()) == []
    assert not host.runtime.socket.exists()


def test_a_story_that_is_broken_off_leaves_nothing(host: HostService, tmp_path: Path) -> None:
    told = start(host, tmp_path)
    assert told.stdout is not None
    with told:
        for line in told.stdout:
            if "serves" in line:
                break
        below = processes.descendants(told.pid)
        assert len(below) >= 3  # the service, and ptyd's two
        told.send_signal(signal.SIGTERM)
        told.stdout.read()
        assert told.wait(30) == 128 + signal.SIGTERM
    assert [str(one) for one in below if processes.started(one.pid) == one.started] == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_seen_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "DEADLINE_S", 0.05)
    with pytest.raises(stage.Untrue, match="pigs fly"):
        stage.until(lambda: False, "pigs fly")
    with pytest.raises(stage.Untrue, match="pigs fly"):
        stage.ensure(False, "pigs fly")


def test_on_a_terminal_it_is_the_service_on_the_users_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `hostsvc serve` is on a terminal, test_cli_serve tells."""

    def become(path: str, argv: list[str]) -> None:
        raise SystemExit(argv)

    monkeypatch.setattr(os, "execv", become)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    before = dict(os.environ)
    with pytest.raises(SystemExit) as became:
        demo.main()
    assert became.value.code == [sys.executable, "-P", "-m", "hostsvc", "serve"]
    assert dict(os.environ) == before
