"""`doctor`, `db` and `config show`: what they say of files and directories, with and without a service."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from hostsvc.cli import doctor
from hostsvc.cli.group import Settings
from hostsvc.config import SETTINGS
from hostsvc.store.database import close_database, open_database
from ptyd import paths
from tests.hostsvc.commands import Cli
from tests.support.host import HostService


@pytest.fixture
def cli(host: HostService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(host, monkeypatch, capsys)


def levels(cli: Cli) -> dict[str, str]:
    """Return each finding's first words, by level; the last of a level wins."""
    import json

    found = [json.loads(line) for line in cli("doctor", "--json").out.splitlines()]
    return {one["what"]: one["level"] for one in found}


# --- doctor ---------------------------------------------------------------------------------------


def test_doctor_before_the_first_start_and_with_a_service(cli: Cli, host: HostService) -> None:
    fresh = cli.ok("doctor")
    assert "warn  no host service runs\n      start it: hostsvc serve\n" in fresh.out
    assert "made at the first start" in fresh.out
    assert not host.state_dir.exists(), "it changes nothing"
    assert not host.runtime.socket.exists()
    host.start()
    assert set(levels(cli).values()) == {"ok"}
    assert cli.ok("doctor", "-q").out == ""
    assert f"hostsvc {host.pid} answers" in cli.ok("doctor").out
    host.stop()
    assert "no host service runs" in cli.ok("doctor").out


def test_doctor_finds_what_would_be_refused(
    cli: Cli, host: HostService, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.state_dir.mkdir(mode=0o750)
    host.base_dir.mkdir()
    host.base_dir.chmod(0o777)
    (host.state_dir / "index.db").write_bytes(b"no database at all, but long enough to look at" * 10)
    found = cli("doctor")
    assert found.status == 1
    assert f"fail  state directory {host.state_dir} is open to others\n      chmod 700" in found.out
    assert f"fail  base directory {host.base_dir} is open to others" in found.out
    assert "not a database" in found.out
    os.chmod(host.runtime.path, 0o755)
    (host.runtime.path / "sessions").mkdir(mode=0o700)
    assert "fail  runtime directory" in cli("doctor").out
    os.chmod(host.runtime.path, 0o700)
    monkeypatch.setenv("HOSTSVC_BASE_DIR", "/etc/passwd")
    assert "fail  base directory /etc/passwd is no directory" in cli("doctor").out
    monkeypatch.setenv("HOSTSVC_BASE_DIR", "/etc/passwd/x")
    assert "Not a directory" in cli("doctor").out
    monkeypatch.setenv("HOSTSVC_REAPER_ACTS", "0")
    bad = cli("doctor")
    assert (bad.status, "fail  reaper_acts (environment" in bad.out) == (1, True)


def test_doctor_finds_a_service_of_the_same_index_elsewhere(cli: Cli, host: HostService) -> None:
    host.state_dir.mkdir(mode=0o700)
    fd = os.open(host.state_dir, os.O_RDONLY)
    with paths.Runtime(str(host.state_dir), fd, os.dup(fd)) as state:
        lock = paths.take_lock(state, doctor.LOCK)
    assert lock is not None
    found = cli("doctor")
    os.close(lock)
    assert found.status == 1
    assert f"hostsvc {os.getpid()} has this index open for another runtime directory" in found.out
    cli.ok("doctor")


def test_doctor_finds_services_that_do_not_answer_or_are_others(
    cli: Cli, host: HostService, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.start()
    monkeypatch.setattr(doctor, "ANSWER_S", 0.3)
    monkeypatch.setattr(doctor, "__version__", "0.0.0")
    monkeypatch.setattr(doctor, "LITTLE_SPACE_BYTES", 1 << 62)
    found = levels(cli)
    assert found["hostsvc is 0.1.0, this command 0.0.0"] == "warn"
    assert sum("MiB are free" in what for what in found) == 2
    daemon = host.runtime.daemon_pid()
    monkeypatch.setenv("HOSTSVC_STATE_DIR", "/tmp")
    with_another = cli("doctor").out
    assert f"it keeps its index in {host.state_dir}, your settings say /tmp" in with_another
    for pid in (host.pid, daemon):
        os.kill(pid, signal.SIGSTOP)
    try:
        silent = list(doctor.examine(Settings()))
    finally:
        for pid in (host.pid, daemon):
            os.kill(pid, signal.SIGCONT)
    failed = [finding for finding in silent if finding.level == "fail"]
    assert f"hostsvc {host.pid} does not answer" in failed[-2].what
    assert "sessions live on" in failed[-2].todo
    assert failed[-1].what.startswith("ptyd: ")


# --- db -------------------------------------------------------------------------------------------


def test_db_check_and_backup_with_and_without_a_service(cli: Cli, host: HostService) -> None:
    copies = [host.runtime.base / name for name in ("with.db", "without #1? 50%.db")]
    missing = cli("db", "check")
    assert (missing.status, "does not exist" in missing.out) == (1, True)
    none = cli("db", "backup", str(copies[0]))
    assert (none.status, "there is no index" in none.err) == (3, True)
    assert not copies[0].exists()
    host.start()
    place = host.call("workspace.create", name="demo")["id"]
    for copy in copies:
        assert cli.ok("db", "check").out == f"{host.index_path}: sound\n"
        assert str(copy) in cli.ok("db", "backup", str(copy)).err
        assert copy.stat().st_mode & 0o777 == 0o600
        assert cli.ok("db", "check", str(copy), "--json").json == {"path": str(copy), "faults": []}
        refused = cli("db", "backup", str(copy))
        assert (refused.status, "exists already" in refused.err) == (4, True)
        host.stop()
    host.index_path.unlink()
    copies[0].rename(host.index_path)  # how README has one restored
    host.start()
    assert cli.ok("workspace", "ls", "-q").out.split() == [place]


def test_db_check_finds_what_is_wrong(cli: Cli, host: HostService) -> None:
    host.state_dir.mkdir(mode=0o700)
    close_database(open_database(host.state_dir), host.state_dir)
    assert cli("db", "check").status == 0
    sound = host.index_path.read_bytes()
    connection = sqlite3.connect(host.index_path)
    connection.execute("DROP TRIGGER " + connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchone()[0])  # fmt: skip
    connection.close()
    lacking = cli("db", "check")
    assert lacking.status == 1
    assert "cannot be trusted; restore a backup" in lacking.err
    assert cli("db", "check", "--json").json["faults"]
    host.index_path.write_bytes(sound[:4096] + b"\xff" * (len(sound) - 4096))
    assert cli("db", "check").status == 1
    host.index_path.write_bytes(b"x" * 5000)
    assert cli("db", "check").status == 1
    target = host.runtime.base / "copy.db"
    failed = cli("db", "backup", str(target))
    assert failed.status == 1
    assert not target.exists(), "no half of a copy"
    nowhere = cli("db", "backup", "/no/such/place/copy.db")
    assert (nowhere.status, "could not be written" in nowhere.err) == (1, True)


# --- config show ----------------------------------------------------------------------------------


def test_config_show(cli: Cli, host: HostService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("reaper_acts = 9\n")
    monkeypatch.setenv("HOSTSVC_CONFIG", str(file))
    values = cli.ok("config", "show", "--json").json
    assert list(values) == [setting.name for setting in SETTINGS]
    assert values["reaper_acts"] == 9
    assert values["state_dir"] == str(host.state_dir)
    origins = cli.ok("config", "show", "--origin", "--json", "--runtime-dir", "/tmp/elsewhere").json
    assert origins["reaper_acts"] == {"value": 9, "origin": f"file {file}"}
    assert origins["runtime_dir"] == {"value": "/tmp/elsewhere", "origin": "flag --runtime-dir"}
    assert origins["keep_rows_s"]["origin"] == "default"
    lines = cli.ok("config", "show").out.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE"]
    assert ["keep_rows_s", "2592000"] in [line.split() for line in lines]
    table = cli.ok("config", "show", "--origin").out
    assert "environment HOSTSVC_STATE_DIR" in table
    assert "1 to 100000" in table
    file.write_text("reaper_acts = 'many'\n")
    bad = cli("config", "show")
    assert (bad.status, bad.out) == (78, "")
    assert f"reaper_acts (file {file}) is 'many'" in bad.err
