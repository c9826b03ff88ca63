"""The commands on a real daemon: what they write where, and their exit statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptyd.cli.output import tell_error
from ptyd.protocol.errors import Code, PtydError
from tests.support import stream
from tests.support.daemon import RuntimeDir
from tests.support.waiting import wait_until


def new(daemon: RuntimeDir, *arguments: str) -> str:
    done = daemon.run("new", "-d", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_new_takes_all_of_the_caller(daemon: RuntimeDir) -> None:
    done = daemon.run(
        "new", "-d", "--name", "web", "--label", "a=b", "--label", "c=d=e", "--env", "EXTRA=more",
        "--size", "30x90", "--scrollback", "128KiB", "--cwd", "/tmp", "--json",
        "sh", "-c", "stty size; pwd; echo $EXTRA $MINE; echo s=$PTYD_SESSION; sleep 100",
        MINE="own", PTYD_SESSION="outer", PTYD_MARK="outer",
    )  # fmt: skip
    session = json.loads(done.stdout)
    assert session["name"] == "web"
    assert session["labels"] == {"a": "b", "c": "d=e"}
    assert daemon.run("wait", "web", "--match", f"s={session['id']}").returncode == 0
    logs = daemon.run("logs", "web").stdout
    assert logs.split() == ["30", "90", "/tmp", "more", "own", f"s={session['id']}"]


def test_new_without_a_terminal_prints_the_id(daemon: RuntimeDir) -> None:
    done = daemon.run("new", "sleep", "100")
    assert daemon.call("session.get", id=done.stdout.strip())["argv"] == ["sleep", "100"]
    shell = daemon.run("new", SHELL="/bin/sh").stdout.strip()
    assert daemon.call("session.get", id=shell)["argv"] == ["/bin/sh", "-l"]


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["new", "-d", "/no/such/program"], 1, "program_not_found"),
        (["new", "-d", "/etc/passwd"], 1, "program_not_executable"),
        (["new", "-d", "/tmp"], 1, "program_not_executable"),
        (["new", "-d", "--cwd", "/no/such", "true"], 1, "cwd_unavailable"),
        (["new", "-d", "--name", "a b", "true"], 2, "name of 1 to 64 characters"),
        (["new", "-d", "--size", "80", "true"], 2, "ROWSxCOLS"),
        (["new", "-d", "--size", "0x80", "true"], 2, "ROWSxCOLS"),
        (["new", "-d", "--scrollback", "1k", "true"], 2, "64KiB"),
        (["new", "-d", "--label", "x", "true"], 2, "KEY=VALUE"),
        (["new", "-d", "--label", "x=1", "--label", "x=2", "true"], 2, "twice"),
        (["inspect", "nobody"], 3, "see: ptyd ls"),
        (["logs", "nobody"], 3, "not_found"),
        (["logs", "nobody", "--since", "soon"], 2, "start, live or an offset"),
        (["send", "nobody", "x"], 3, "not_found"),
        (["send", "nobody"], 2, "nothing to send"),
        (["send", "nobody", "--key", "C-foo"], 2, "C-foo"),
        (["signal", "nobody", "INT"], 3, "not_found"),
        (["kill", "nobody"], 3, "not_found"),
        (["kill"], 2, "--label"),
        (["kill", "x", "--label", "a=b"], 2, "not both"),
        (["kill", "--label", "a=b"], 3, "not_found"),
        (["kill", "--label", "a=*"], 2, "invalid_params"),
        (["wait", "nobody"], 3, "not_found"),
        (["wait", "x", "--match", "a", "--idle", "1"], 2, "not both"),
        (["forget", "nobody"], 3, "not_found"),
        (["resize", "nobody", "1x1"], 3, "not_found"),
        (["attach", "x", "true"], 2, "--create"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_errors(shared_runtime: RuntimeDir, arguments: list[str], status: int, words: str) -> None:
    done = shared_runtime.run(*arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert done.stdout == ""


def test_ls(daemon: RuntimeDir) -> None:
    living, ended = new(daemon, "--name", "web", "sleep", "100"), new(daemon, "sh", "-c", "exit 3")
    daemon.run("wait", "--end", ended)
    table = daemon.run("ls").stdout.splitlines()
    assert table[0].split() == ["ID", "NAME", "STATE", "PID", "AGE", "SIZE", "ATTACHED", "COMMAND"]
    assert len(table) == 2
    assert table[1].split()[:3] == [living, "web", "running"]
    assert daemon.run("ls", "-q").stdout.split() == [living]
    assert daemon.run("ls", "-aq").stdout.split() == [living, ended]
    assert "exited with 3" in daemon.run("ls", "--all").stdout
    assert daemon.run("ls", "-q", "--state", "exited").stdout.split() == [ended]
    assert daemon.run("ls", "-q", "--label", "a=b").stdout == ""
    detailed = daemon.run("ls", "-l").stdout.splitlines()
    assert detailed[0].split()[7:10] == ["BUSY", "PROCS", "FOREGROUND"]
    assert detailed[1].split()[7:10] == ["yes", "1", "sleep"]
    listing = json.loads(daemon.run("ls", "--json").stdout)
    assert listing["complete"] is True
    assert [session["id"] for session in listing["sessions"]] == [living]


def test_options_of_all_may_stand_before_or_after(daemon: RuntimeDir) -> None:
    session = new(daemon, "sleep", "100")
    for arguments in (
        ["-q", "ls"],
        ["ls", "-q"],
        ["--json", "inspect", session],
        ["inspect", session, "--json"],
    ):
        assert session in daemon.run(*arguments).stdout
    path = str(daemon.path)
    for arguments in (["--runtime-dir", path, "ls", "-q"], ["ls", "-q", "--runtime-dir", path]):
        assert daemon.run(*arguments, PTYD_RUNTIME_DIR="/nowhere").stdout.split() == [session]


def test_inspect(daemon: RuntimeDir) -> None:
    one, two = new(daemon, "sleep", "100"), new(daemon, "sleep", "100")
    told = daemon.run("inspect", one, two)
    assert told.stdout.count("state:") == 2
    lines = daemon.run("inspect", "--json", one, two).stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [one, two]


def test_send_text_keys_and_standard_input(daemon: RuntimeDir) -> None:
    session = new(daemon, "sh", "-c", "stty raw -echo; echo up; cat -v")
    daemon.run("wait", session, "--match", "up")
    daemon.run("send", session, "two", "words", "--key", "C-a", "--key", "Up", "--enter")
    daemon.run("send", session, "--stdin", "end", input="from stdin ")
    assert daemon.run("wait", session, "--match", "from stdin end", "--timeout", "5").returncode == 0
    assert "two words^A^[[A^Mfrom stdin end" in daemon.run("logs", session).stdout


def test_O8_send_a_mebibyte(daemon: RuntimeDir) -> None:
    data = "0123456789abcdef" * 65536
    session = new(daemon, "sh", "-c", "stty raw -echo; echo up; head -c 1048576 | md5sum; sleep 100")
    daemon.run("wait", session, "--match", "up")
    sent = daemon.run("send", session, "--stdin", "--json", input=data)
    assert json.loads(sent.stdout) == {"accepted": 1048576}
    md5sum = subprocess.run(["md5sum"], input=data.encode(), capture_output=True, check=True).stdout.decode()
    assert daemon.run("wait", session, "--match", md5sum.split()[0], "--timeout", "20").returncode == 0


def test_logs(daemon: RuntimeDir) -> None:
    session = new(daemon, *stream.numbered_program(lines=5000))
    daemon.run("wait", "--end", session)
    whole = daemon.run("logs", session).stdout.encode()
    stream.check_numbered(whole, 0)
    assert len(whole) == 80_000
    assert daemon.run("logs", session, "--tail", "32").stdout.encode() == whole[-32:]
    assert daemon.run("logs", session, "--tail", "1k").stdout.encode() == whole[-1024:]
    assert daemon.run("logs", session, "--since", "79990").stdout.encode() == whole[79990:]
    assert daemon.run("logs", session, "--since", "live").stdout == ""
    assert daemon.run("logs", "-f", session).stdout.encode() == whole


def test_logs_tells_what_is_gone(daemon: RuntimeDir) -> None:
    session = new(daemon, "--scrollback", "64KiB", *stream.numbered_program(lines=100_000))
    daemon.run("wait", "--end", session)
    done = daemon.run("logs", session, "--since", "0")
    gone = 1_600_000 - len(done.stdout)
    assert gone > 0
    assert f"{gone} bytes from offset 0 are gone" in done.stderr
    stream.check_numbered(done.stdout.encode(), gone)


def test_S4_logs_follow_outlives_the_daemon(daemon: RuntimeDir, tmp_path: Path) -> None:
    go = tmp_path / "go"
    session = new(daemon, *stream.numbered_program(lines=30_000, pause_ms=20, go=go))
    with (tmp_path / "out").open("wb") as out:
        follower = subprocess.Popen(
            [sys.executable, "-m", "ptyd.cli", "logs", "-f", session], env=daemon.env, stdout=out
        )
    go.touch()
    for size in (100_000, 300_000):
        wait_until(lambda size=size: (tmp_path / "out").stat().st_size > size)
        daemon.wait_for_new_daemon(daemon.kill_daemon())
    assert follower.wait(30) == 0
    data = (tmp_path / "out").read_bytes()
    assert len(data) == 480_000
    stream.check_numbered(data, 0)


def test_reader_that_has_enough_is_no_error(daemon: RuntimeDir) -> None:
    session = new(daemon, *stream.numbered_program(lines=50_000))
    daemon.run("wait", "--end", session)
    command = f"{sys.executable} -m ptyd.cli logs {session} | head -c 16; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=daemon.env, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["000000000000000", "0"]
    assert done.stderr == ""


def test_wait(daemon: RuntimeDir) -> None:
    assert daemon.run("wait", new(daemon, "sh", "-c", "exit 9")).returncode == 9
    killed = new(daemon, "sh", "-c", "kill -KILL $$")
    assert daemon.run("wait", killed).returncode == 137
    answer = json.loads(daemon.run("wait", "--end", "--json", killed).stdout)
    assert answer["exit"] == {"signal": 9}
    quiet = new(daemon, "sleep", "100")
    assert daemon.run("wait", quiet, "--idle", "0.05").returncode == 0
    late = daemon.run("wait", quiet, "--timeout", "0.05")
    assert late.returncode == 1
    assert "timeout" in late.stderr
    never = daemon.run("wait", killed, "--match", "never")
    assert (never.returncode, "ended" in never.stderr) == (4, True)


def test_signal_and_resize(daemon: RuntimeDir) -> None:
    program = "trap 'echo got it' USR1; trap 'stty size' WINCH; echo up; while :; do sleep 0.02; done"
    session = new(daemon, "sh", "-c", program)
    daemon.run("wait", session, "--match", "up")
    assert json.loads(daemon.run("signal", session, "usr1", "--to", "leader", "--json").stdout) == {
        "signalled": 1
    }
    assert daemon.run("wait", session, "--match", "got it", "--timeout", "5").returncode == 0
    assert daemon.run("resize", session, "11x77").returncode == 0
    assert daemon.run("wait", session, "--match", "11 77", "--timeout", "5").returncode == 0
    assert daemon.run("signal", session, "15", "--to", "leader").returncode == 0
    assert daemon.run("wait", session).returncode == 143


def test_kill(daemon: RuntimeDir) -> None:
    polite, rude = (
        new(daemon, "--name", "polite", "sleep", "100"),
        new(daemon, "--label", "a=b", "sleep", "100"),
    )
    done = daemon.run("kill", "polite", "nobody", "--grace", "0.2")
    assert done.returncode == 3
    assert done.stdout.startswith("polite killed (hangup, ")
    assert "proof echild" in done.stdout
    assert "nobody" in done.stderr
    assert json.loads(daemon.run("kill", "--json", polite).stdout)["outcome"] == "already_exited"
    forced = daemon.run("kill", "--label", "a=b", "--force", "--json")
    assert json.loads(forced.stdout)["id"] == rude
    assert json.loads(forced.stdout)["phase"] == "kill"
    assert daemon.run("kill", "-q", rude).stdout == ""


def test_K5_unconfirmed_kill_lists_the_survivors(capsys: pytest.CaptureFixture[str]) -> None:
    survivor = {"pid": 42, "command": "sudo\x1b[2J", "state": "S", "reason": "not_permitted"}
    error = PtydError(Code.KILL_UNCONFIRMED, "session x: 1 known survivor", survivors=[survivor])
    assert error.exit_status == 4
    tell_error(error)
    told = capsys.readouterr()
    assert told.out == ""
    assert "  still there: 42 sudo\\x1b[2J (state S): not_permitted\n" in told.err


def test_forget(daemon: RuntimeDir) -> None:
    ended, living = new(daemon, "true"), new(daemon, "sleep", "100")
    daemon.run("wait", "--end", ended)
    done = daemon.run("forget", living, ended)
    assert done.returncode == 4
    assert f"ptyd kill {living}" in done.stderr
    assert daemon.run("ls", "-aq").stdout.split() == [living]


def test_status_and_stop(runtime: RuntimeDir) -> None:
    none = runtime.run("status")
    assert (none.returncode, none.stdout) == (69, "")
    assert not runtime.socket.exists()
    stopped = runtime.run("stop")
    assert (stopped.returncode, stopped.stderr) == (0, "ptyd: no daemon runs\n")
    session = new(runtime, "sleep", "100")
    status = runtime.run("status")
    assert f"pid {runtime.daemon_pid()}" in status.stdout
    assert "1 running" in status.stdout
    assert json.loads(runtime.run("status", "--json").stdout)["sessions"] == {"running": 1}
    assert "1 sessions live on" in runtime.run("stop").stderr
    assert runtime.run("--no-start", "ls").returncode == 69
    assert runtime.run("ls", "-q").stdout.split() == [session]
    assert json.loads(runtime.run("stop", "--kill", "--json").stdout) == {"sessions": 0}


def test_events(daemon: RuntimeDir, tmp_path: Path) -> None:
    def lines() -> list[str]:
        return (tmp_path / "out").read_text().splitlines()

    with (tmp_path / "out").open("wb") as out:
        follower = subprocess.Popen(
            [sys.executable, "-m", "ptyd.cli", "events", "--json"], env=daemon.env, stdout=out, stderr=out
        )
    wait_until(lambda: daemon.call("daemon.stats")["clients"] > 1)
    deadline = time.monotonic() + 10
    while not lines() and time.monotonic() < deadline:  # until its subscription is there
        session = new(daemon, "true")
        daemon.run("wait", "--end", session)
    first = json.loads(lines()[0])
    assert {"daemon_id", "seq", "type", "at_ms", "id"} <= set(first)
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    wait_until(lambda: any("another daemon" in line for line in lines()))
    session = new(daemon, "sleep", "100")
    wait_until(lambda: any(session in line for line in lines()))
    follower.send_signal(signal.SIGINT)
    assert follower.wait(20) == 130


def test_events_of_a_stopped_daemon_end(daemon: RuntimeDir, tmp_path: Path) -> None:
    """It was asked to stop: whoever watches must not start it again."""
    with (tmp_path / "out").open("wb") as out:
        follower = subprocess.Popen(
            [sys.executable, "-m", "ptyd.cli", "events"], env=daemon.env, stdout=out, stderr=out
        )
    wait_until(lambda: daemon.call("daemon.stats")["clients"] > 1)
    while not (tmp_path / "out").stat().st_size:
        new(daemon, "true")
    daemon.run("stop", "--kill")
    try:
        assert follower.wait(20) == 69
    finally:
        follower.kill()
        follower.wait()
    assert "daemon.stopping" in (tmp_path / "out").read_text()
    assert not daemon.serves()


def test_daemon_in_the_foreground(runtime: RuntimeDir) -> None:
    runtime.was_started = True
    served = subprocess.Popen(
        [sys.executable, "-m", "ptyd.cli", "daemon"], env=runtime.env, stderr=subprocess.PIPE
    )
    wait_until(runtime.serves, 15)
    second = runtime.run("daemon")
    assert second.returncode == 4
    assert str(served.pid) in second.stderr
    assert runtime.stop()
    assert served.wait(15) == 0
    assert served.stderr is not None
    served.stderr.close()


def test_S13_inside_a_session_nothing_is_started(daemon: RuntimeDir) -> None:
    other = daemon.base / "other"
    command = f"env -u PTYD_ALLOW_NESTED PTYD_RUNTIME_DIR={other} {sys.executable} -m ptyd.cli ls; echo =$?"
    session = new(daemon, "sh", "-c", command)
    assert daemon.run("wait", session, "--match", "=4", "--timeout", "15").returncode == 0
    assert "nested: this runs inside a session" in daemon.run("logs", session).stdout
    assert not (other / "ptyd.sock").exists()


def test_inside_a_session_the_running_daemon_is_used(daemon: RuntimeDir) -> None:
    session = new(daemon, "--name", "outer", "sh", "-c", f"{sys.executable} -m ptyd.cli ls -q; sleep 100")
    assert daemon.run("wait", session, "--match", session, "--timeout", "15").returncode == 0


def test_doctor(runtime: RuntimeDir) -> None:
    fresh = runtime.run("doctor")
    assert fresh.returncode == 0
    assert "nothing was started there yet" in fresh.stdout
    new(runtime, "sleep", "100")
    fine = [json.loads(line) for line in runtime.run("doctor", "--json").stdout.splitlines()]
    assert {finding["level"] for finding in fine} == {"ok"}
    (runtime.path / "sessions" / "broken.json").write_text("{")
    broken = runtime.run("doctor")
    assert broken.returncode == 1
    assert "fail  unreadable records: broken" in broken.stdout
    (runtime.path / "sessions" / "broken.json").unlink()
    os.chmod(runtime.path, 0o755)
    try:
        opened = runtime.run("doctor")
    finally:
        os.chmod(runtime.path, 0o700)
    assert (opened.returncode, "open to other users" in opened.stdout) == (1, True)


def test_text_from_elsewhere_cannot_touch_the_terminal(daemon: RuntimeDir) -> None:
    new(daemon, "sh", "-c", "sleep 100 # \x1b[2J")
    assert "\x1b" not in daemon.run("ls").stdout
    assert "\x1b" not in daemon.run("inspect", *daemon.run("ls", "-q").stdout.split()).stdout
