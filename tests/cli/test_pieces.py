"""Parts of the command line by themselves: what is hard to bring about from outside."""

from __future__ import annotations

import os
import signal
from typing import Any

import click
import pytest

from ptyd.cli import doctor, output, params, run
from ptyd.cli.group import Settings
from ptyd.cli.stream import _line
from ptyd.protocol.errors import Code, PtydError
from tests.support.daemon import RuntimeDir


@pytest.mark.parametrize(
    "ms, text",
    [(0, "0s"), (59_999, "59s"), (119_000, "119s"), (120_000, "2m"), (7_199_000, "119m"), (7_200_000, "2h"),
     (86_400_000, "1d"), (1e10, "115d")],
)  # fmt: skip
def test_age(ms: float, text: str) -> None:
    assert output.age(ms) == text


@pytest.mark.parametrize(
    "text, count",
    [
        ("0", 0),
        ("65536", 65536),
        ("64KiB", 65536),
        ("64k", 65536),
        ("64 KB", 65536),
        ("1MiB", 1 << 20),
        ("2g", 2 << 30),
    ],
)
def test_bytes(text: str, count: int) -> None:
    assert params.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5k", "1TiB", "0x10"])
def test_no_bytes(text: str) -> None:
    with pytest.raises(click.BadParameter):
        params.parse_bytes(text)


@pytest.mark.parametrize(
    "exit, status, words",
    [({"code": 7}, 7, "exited with 7"), ({"signal": 9}, 137, "killed by signal 9"), (None, 1, "end unknown")],
)
def test_exit(exit: dict[str, int] | None, status: int, words: str) -> None:
    assert output.exit_status(exit) == status
    assert output.describe_exit(exit) == words


def test_table_is_cut_to_the_terminal_and_coloured(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(output, "_width", lambda: 30)
    monkeypatch.setattr(output, "_is_colored", lambda: True)
    output.put_table(["ID", "STATE", "COMMAND"], [["a", "exited", "x" * 100]], states=1)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "ID  STATE   COMMAND"
    assert shown[1] == "a   \x1b[2mexited\x1b[0m  " + "x" * 18


@pytest.mark.parametrize(
    "setting, colored", [({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({}, True)]
)
def test_NO_COLOR(monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], colored: bool) -> None:
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **setting}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True, raising=False)
    assert output._is_colored() is colored


def test_event_line() -> None:
    event = {"daemon_id": "d", "seq": 1, "at_ms": 0, "type": "session.exited", "id": "a", "exit": {"code": 1}}
    assert _line(event).endswith("session.exited a exit={'code': 1}")
    assert _line({"at_ms": 0, "type": "daemon.ready"}).endswith("daemon.ready -")


def test_fault_of_ours_is_told_with_an_id(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(self: Settings, **_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Settings, "connect", fail)
    assert run(["ls"]) == 1
    assert "ptyd: internal: ZeroDivisionError: by zero (fault " in capsys.readouterr().err
    monkeypatch.setenv("PTYD_DEBUG", "1")
    assert run(["ls"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Settings, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Settings, "connect", interrupt)
    assert run(["ls"]) == 130


def test_error_brings_the_next_command_unless_it_names_one(capsys: Any) -> None:
    output.tell_error(PtydError(Code.NOT_FOUND, "no session x"))
    output.tell_error(PtydError(Code.NOT_FOUND, "no session y; see: ptyd ls --all"))
    assert capsys.readouterr().err == (
        "ptyd: not_found: no session x\n"
        "  see: ptyd ls -a\n"
        "ptyd: not_found: no session y; see: ptyd ls --all\n"
    )


# --- doctor --------------------------------------------------------------------------------------


def settings(runtime: RuntimeDir) -> Settings:
    made = Settings()
    made.runtime_dir = str(runtime.path)
    return made


def test_doctor_finds_a_daemon_that_does_not_answer(
    daemon: RuntimeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ANSWER_S", 0.2)
    pid = daemon.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        found = list(doctor.examine(settings(daemon)))
    finally:
        os.kill(pid, signal.SIGCONT)
    (failed,) = [finding for finding in found if finding.level == "fail"]
    assert f"daemon {pid} does not answer" in failed.what
    assert "sessions live on" in failed.todo


def test_doctor_finds_another_version_and_little_room(
    daemon: RuntimeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "__version__", "0.0.0")
    monkeypatch.setattr(doctor, "LITTLE_SPACE_BYTES", 1 << 62)
    monkeypatch.setattr(doctor, "FEW_FILES", 1 << 62)
    expected = ["this command 0.0.0", "space", "open files", "drafts"]
    (daemon.path / "sessions" / ".draft.999999999").touch()
    warned = [finding.what for finding in doctor.examine(settings(daemon)) if finding.level == "warn"]
    assert [word for word in expected if any(word in what for what in warned)] == expected


def test_doctor_tells_which_sessions_need_a_person() -> None:
    sessions = [
        {"id": "a", "name": None, "state": "unsupervised"},
        {"id": "b", "name": "web", "state": "killing"},
        {"id": "c", "name": None, "state": "running"},
    ]
    found = list(doctor._sessions(sessions))
    assert [finding.what for finding in found] == ["session a lost its shim", "session web is being killed"]
    assert all("ptyd kill" in finding.todo for finding in found)


def test_doctor_without_a_directory_under_test() -> None:
    """PTYD_TEST is set and none was named."""
    assert next(f for f in doctor.examine(Settings()) if f.level == "fail").what.startswith("PTYD_TEST")
