"""`hostsvc serve`: its settings by flag, its statuses, where it talks and where it logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hostsvc.cli.serve import is_read
from hostsvc.config import SETTINGS
from tests.hostsvc.commands import Cli, HostUser
from tests.support.host import HostService
from tests.support.waiting import wait_until

SERVE = "import sys; from hostsvc.cli import main; main(['serve', *sys.argv[1:]])"
FLAGS = {
    "reaper_interval_s": "77.5",
    "reaper_acts": "78",
    "reaper_deadline_s": "79",
    "age_floor_s": "80",
    "inferred_cap": "81",
    "inferred_share": "0.82",
    "kills_at_once": "3",
    "kill_deadline_s": "84",
    "keep_trash_s": "85",
    "sweep_age_s": "87",
    "worktree_grace_s": "88",
    "quarantine_grace_s": "89",
    "run_age_s": "90",
    "git_deadline_s": "91",
    "idle_ttl_s": "92",
    "sessions_per_workspace": "93",
    "sessions_per_host": "94",
    "probe_interval_s": "95",
    "probe_failures": "96",
    "probe_stale_s": "97",
    "probe_restarts": "98",
    "reconcile_cap": "99",
    "keep_rows_s": "86",
    "log_level": "debug",
}


@pytest.fixture
def cli(host: HostService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(host, monkeypatch, capsys)


def test_serve_takes_every_setting_by_flag(host: HostService) -> None:
    """Read back from the running service where it shows them; the others only have to be accepted."""
    base = host.runtime.base
    paths = {"runtime_dir": host.runtime.path, "state_dir": base / "s 2", "base_dir": base / "b 2"}
    flags = {**FLAGS, **{name: str(path) for name, path in paths.items()}}
    assert set(flags) == {setting.name for setting in SETTINGS}
    arguments = [f"{setting.flag}={flags[setting.name]}" for setting in SETTINGS]
    nonsense = {setting.variable: "nonsense" for setting in SETTINGS if setting.name in FLAGS}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", SERVE, *arguments], env={**host.env, **nonsense}, stderr=subprocess.PIPE
    ) as serving:
        wait_until(lambda: host.serves() or serving.poll() is not None, 20)
        health = host.call("health")
        assert health["index"]["path"] == str(paths["state_dir"])
        assert health["reaper"]["interval_s"] == 77.5
        assert host.call("workspace.create", name="demo")["path"] == str(paths["base_dir"] / "demo")
        serving.send_signal(signal.SIGTERM)
        _, told = serving.communicate(timeout=20)
    assert serving.returncode == 0
    assert told.decode().startswith(f"hostsvc serves {host.runtime.path}\n")
    assert "hostsvc workspace create demo" in told.decode()
    log = (paths["state_dir"] / "hostsvc.log").read_text().splitlines()
    assert {"ready", "stopped"} <= {json.loads(line)["event"] for line in log}, (
        "no terminal: JSON, in the file"
    )


def test_serve_on_a_terminal(host: HostService) -> None:
    with HostUser(host.runtime, "serve", **host.settings) as user:
        user.expect(b"hostsvc serves", 20)
        user.expect(b"hostsvc session new")
        user.expect(b"stop serving")
        health = host.run("health")
        assert health.returncode == 0
        second = host.run("serve")
        assert second.returncode == 75
        assert f"hostsvc {user.process.pid} runs already" in second.stderr
        user.type(b"\x03")
        assert user.wait(20) == 0
    assert b"[info" in user.shown, "the log, readable"
    assert not (host.state_dir / "hostsvc.log").exists()
    assert not host.socket.exists()
    assert host.runtime.serves(), "ptyd lives on"


@pytest.mark.parametrize(
    "arguments, settings, status, words",
    [
        (["--reaper-acts", "0"], {}, 78, "reaper_acts (flag --reaper-acts) is '0'; it may be 1 to 100000"),
        ([], {"HOSTSVC_LOG_LEVEL": "loud"}, 78, "log_level (environment HOSTSVC_LOG_LEVEL) is 'loud'"),
        ([], {"HOSTSVC_CONFIG": "/no/such.toml"}, 78, "/no/such.toml (HOSTSVC_CONFIG) does not exist"),
        (["--state-dir", "relative"], {}, 78, "an absolute path"),
        (["--state-dir", "/proc/nowhere"], {}, 4, "state directory /proc/nowhere"),
        (["--frobnicate"], {}, 2, "No such option"),
        (["surplus"], {}, 2, "unexpected extra argument"),
    ],
)
def test_serve_refuses(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    settings: dict[str, str],
    status: int,
    words: str,
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    done = cli("serve", *arguments)
    assert done.status == status, done.err
    assert words in done.err
    assert done.out == ""
    assert not cli.host.runtime.socket.exists()


def test_serve_refuses_directories_that_are_not_its_own(cli: Cli, host: HostService) -> None:
    host.state_dir.mkdir(mode=0o755)
    done = cli("serve")
    assert done.status == 4
    assert f"chmod 700 {host.state_dir}" in done.err
    host.state_dir.chmod(0o700)
    refused = host.run("serve", "--base-dir", "/proc/nowhere")
    assert refused.returncode == 4
    assert refused.stderr.startswith("hostsvc: base directory /proc/nowhere: ")


def test_who_reads_stderr(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as journal:
        fd = journal.fileno()
        assert not is_read(fd)
        found = os.fstat(fd)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_read(fd)
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        assert not is_read(fd)
