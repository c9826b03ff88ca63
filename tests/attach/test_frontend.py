"""`ptyd new` and `ptyd attach` on a real terminal, against a real daemon."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.attach.user import User
from tests.support import stream
from tests.support.daemon import RuntimeDir
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured

LEAVE = b"\x1c"


def spawn(daemon: RuntimeDir, *argv: str, **fields: object) -> str:
    session: str = daemon.call("session.spawn", argv=list(argv), env={"PS1": "$ "}, **fields)["id"]
    return session


def test_new_shows_a_shell_and_returns_its_exit_code(daemon: RuntimeDir) -> None:
    with User(daemon, "new", "sh", PS1="$ ") as user:
        user.expect(b"detach with ctrl-\\")
        user.expect(b"$ ")
        assert user.is_raw
        user.type(b"echo he''llo\r")
        user.expect(b"hello\r\n")
        user.type(b"exit 7\r")
        assert user.wait() == 7
        assert user.is_as_before
        assert b"exited with 7]" in user.shown


def test_leaving_keeps_the_session_and_restores_the_terminal(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh", name="web")
    with User(daemon, "attach", "web") as user:
        user.expect(b"$ ")
        user.type(LEAVE)
        assert user.wait() == 0
        assert user.is_as_before
        assert b"[detached from web; ptyd attach web to return]" in user.shown
    assert daemon.call("session.get", id=session)["state"] == "running"


def test_attach_again_shows_what_was_there(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh", "-c", "echo before; exec sleep 100")
    wait_until(lambda: daemon.call("session.get", id=session)["output_offset"])
    with User(daemon, "attach", session) as user:
        user.expect(b"before\r\n")
        user.type(LEAVE)
        assert user.wait() == 0


def test_killed_program_gives_128_and_its_signal(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh", "-c", "echo up; exec sleep 100")
    with User(daemon, "attach", session) as user:
        user.expect(b"up")
        daemon.call("session.signal", id=session, signal="TERM", to="leader")
        assert user.wait() == 128 + 15
        assert b"killed by SIGTERM" in user.shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_restores_the_terminal(daemon: RuntimeDir, number: signal.Signals) -> None:
    session = spawn(daemon, "sh", "-c", "printf '\\033[?1049h\\033[?1000h\\033[?25l'; exec sleep 100")
    with User(daemon, "attach", session) as user:
        user.expect(b"\x1b[?1049h")
        user.expect(b"\x1b[?25l")
        user.process.send_signal(number)
        assert user.wait() == 128 + number
        assert user.is_as_before
        tail = user.shown[user.shown.rindex(b"\x18") :]
        assert b"\x1b[?1000l" in tail
        assert b"\x1b[?25h" in tail
        assert b"\x1b[?1049l" in tail
    assert daemon.call("session.get", id=session)["state"] == "running"


def test_size_follows_the_terminal(daemon: RuntimeDir) -> None:
    """O10 through the frontend."""
    program = "trap 'stty size' WINCH; echo up; while :; do sleep 0.02; done"
    session = spawn(daemon, "sh", "-c", program)
    with User(daemon, "attach", session, rows=30, cols=100) as user:
        user.expect(b"30 100\r\n")
        user.resize(40, 120)
        user.expect(b"40 120\r\n")
        user.type(LEAVE)
        assert user.wait() == 0


def test_equal_size_is_nudged_and_ends_as_it_was(daemon: RuntimeDir) -> None:
    program = "trap 'stty size' WINCH; echo up; while :; do sleep 0.01; done"
    session = spawn(daemon, "sh", "-c", program, rows=24, cols=80)
    with User(daemon, "attach", session, rows=24, cols=80) as user:
        user.expect(b"23 80\r\n")
        user.expect(b"24 80\r\n")
        user.type(LEAVE)
        assert user.wait() == 0
    found = daemon.call("session.get", id=session)
    assert (found["rows"], found["cols"]) == (24, 80)


def test_old_queries_are_not_answered_and_new_ones_are_shown(daemon: RuntimeDir) -> None:
    program = "printf 'old\\033[6n\\033[c:'; read go; printf 'new\\033[6n:'; exec sleep 100"
    session = spawn(daemon, "sh", "-c", program)
    wait_until(lambda: daemon.call("session.get", id=session)["output_offset"] > 10)
    with User(daemon, "attach", session) as user:
        assert b"\x1b[6n" not in user.expect(b"old:")
        user.type(b"\r")
        user.expect(b"new\x1b[6n:")
        user.type(LEAVE)
        user.wait()


def test_read_only_types_nothing_and_leaves(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh", "-c", "echo up; read line; echo got $line; exec sleep 100")
    with User(daemon, "attach", "--read-only", session) as user:
        user.expect(b"attached read-only")
        user.expect(b"up")
        user.type(b"hello\r")
        daemon.call("session.input", id=session, data=b"by other means\n")
        user.expect(b"got by other means")
        user.type(LEAVE)
        assert user.wait() == 0
    assert b"hello" not in user.shown


def test_create_makes_it_once(daemon: RuntimeDir) -> None:
    with User(daemon, "attach", "--create", "work", "--", "sh", "-c", "echo made; exec sleep 100") as user:
        user.expect(b"made")
        user.type(LEAVE)
        assert user.wait() == 0
    with User(daemon, "attach", "--create", "work") as user:
        user.expect(b"made")
        user.type(LEAVE)
        assert user.wait() == 0
    assert len(daemon.call("session.list")["sessions"]) == 1


def test_other_detach_keys_split_over_two_reads(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "cat")
    with User(daemon, "attach", "--detach-keys", "ctrl-a,d", session) as user:
        user.expect(b"detach with ctrl-a,d")
        wait_until(lambda: user.is_raw)
        user.type(b"x\x01y\r")
        user.expect(b"x^Ay\r\n")
        user.type(b"\x01")
        user.read(0.1)
        user.type(b"d")
        assert user.wait() == 0


def test_S1_daemon_killed_while_attached_loses_nothing(daemon: RuntimeDir, tmp_path: Path) -> None:
    """S4 for the terminal frontend: every line once, in order, over three daemons."""
    go = tmp_path / "go"
    argv = stream.numbered_program(lines=20_000, pause_ms=20, go=go)
    session = spawn(daemon, *argv, scrollback_bytes=1 << 20)
    with User(daemon, "attach", "-q", "--since", "start", session) as user:
        wait_until(lambda: daemon.call("session.get", id=session)["attached"] == 1)
        go.touch()
        for wanted in (b"000000000003000\n", b"000000000009000\n"):
            user.expect(wanted)
            daemon.wait_for_new_daemon(daemon.kill_daemon())
        assert user.wait(30) == 0
    shown = user.shown.replace(b"\r\n", b"\n")
    start = shown.index(b"000000000000000\n")
    stream.check_numbered(shown[start : start + 20_000 * stream.LINE_BYTES], 0)


def test_typing_works_after_a_new_daemon(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh")
    with User(daemon, "attach", session) as user:
        user.expect(b"$ ")
        daemon.wait_for_new_daemon(daemon.kill_daemon())
        user.type(b"echo back ag''ain\r")
        user.expect(b"back again\r\n")
        user.type(LEAVE)
        assert user.wait() == 0


def test_paste_of_a_mebibyte_arrives_whole(daemon: RuntimeDir) -> None:
    """O8 through the frontend."""
    program = "stty raw -echo; echo up; head -c 1048576 | sha256sum; exec sleep 100"
    session = spawn(daemon, "sh", "-c", program)
    data = bytes(range(32, 127)) * (1048576 // 95 + 1)
    with User(daemon, "attach", session) as user:
        user.expect(b"up")
        user.type(data[:1048576])
        user.expect(hashlib.sha256(data[:1048576]).hexdigest().encode(), 30)
        user.type(LEAVE)
        assert user.wait() == 0


@pytest.mark.parametrize("via", ["shm", "stream"])
def test_what_is_typed_during_a_nudge_finds_the_right_size(daemon: RuntimeDir, via: str) -> None:
    session = spawn(daemon, "sh")
    for number in range(5):
        with User(daemon, "attach", "--via", via, session) as user:
            user.expect(b"detach with")
            user.type(f"stty size; echo en''d-{number}\r".encode())
            shown = user.expect(f"end-{number}\r\n".encode())
            assert shown.endswith(f"24 80\r\nend-{number}\r\n".encode())
            user.type(LEAVE)
            assert user.wait() == 0


def test_S13_not_a_terminal_is_told_what_else_to_use(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "cat")
    done = daemon.run("attach", session)
    assert done.returncode == 2
    assert f"ptyd logs -f {session}" in done.stderr


def test_O12_attach_to_the_session_one_is_in(daemon: RuntimeDir) -> None:
    command = f"{sys.executable} -m ptyd.cli attach $PTYD_SESSION; echo =$?; sleep 100"
    with User(daemon, "new", "sh", "-c", command) as user:
        user.expect(b"self_attach")
        user.expect(b"=4")
        user.type(LEAVE)
        assert user.wait() == 0


def test_attach_to_another_session_from_inside_one(daemon: RuntimeDir) -> None:
    other = spawn(daemon, "sh", "-c", "echo other; exec sleep 100")
    command = f"{sys.executable} -m ptyd.cli attach --detach-keys ctrl-b {other}; echo =$?; sleep 100"
    with User(daemon, "new", "sh", "-c", command) as user:
        user.expect(b"other")
        user.type(b"\x02")
        user.expect(b"=0")
        user.type(LEAVE)
        assert user.wait() == 0


def test_closed_window_ends_the_frontend_and_not_the_session(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh")
    with User(daemon, "attach", session) as user:
        user.expect(b"$ ")
        user.hang_up()
        assert user.process.wait(10) in (129, -signal.SIGHUP)
    wait_until(lambda: daemon.call("session.get", id=session)["attached"] == 0)
    assert daemon.call("session.get", id=session)["state"] == "running"


@pytest.mark.parametrize("via", ["shm", "stream"])
def test_somebody_else_can_end_it(daemon: RuntimeDir, via: str) -> None:
    session = spawn(daemon, "sh")
    with User(daemon, "attach", "--via", via, session) as user:
        user.expect(b"$ ")
        done = daemon.run("detach", session)
        assert (done.returncode, done.stderr) == (0, "ptyd: 1 attachment ended\n")
        user.expect(b"somebody has detached us from")
        assert user.wait() == 0
        assert user.is_as_before
    assert json.loads(daemon.run("detach", session, "--json").stdout) == {"detached": 0}
    assert daemon.run("detach", "nobody").returncode == 3


def test_S6_zygote_and_daemon_killed_while_attached(daemon: RuntimeDir) -> None:
    """Directly attached, nobody even notices."""
    session = spawn(daemon, "sh")
    with User(daemon, "attach", session) as user:
        user.expect(b"$ ")
        daemon.kill_zygote()
        wait_until(lambda: daemon.find_daemon_pid() is None, what="the daemon steps down")
        user.type(b"echo all the sa''me; stty size\r")
        user.expect(b"all the same\r\n24 80\r\n")
        user.resize(30, 90)
        # The signal of a new size may be later than a key that was typed after it.
        user.type(b'until [ "$(stty size)" = "30 90" ]; do :; done; stty size; exit 7\r')
        user.expect(b"30 90\r\n")
        assert user.wait() == 7


def test_S6_zygote_killed_while_attached_by_stream(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh")
    with User(daemon, "attach", "--via", "stream", session) as user:
        user.expect(b"$ ")
        old = daemon.daemon_pid()
        daemon.kill_zygote()
        daemon.wait_for_new_daemon(old)  # nobody but the attached terminal has asked for one
        user.type(b"echo back ag''ain\r")
        user.expect(b"back again\r\n")
        user.type(LEAVE)
        assert user.wait() == 0


def test_stuck_terminal_can_be_left(daemon: RuntimeDir) -> None:
    """O3, O4: nobody reads what is shown; the keys to leave work, the session goes on."""
    session = spawn(daemon, *stream.numbered_program(), scrollback_bytes=65536)
    with User(daemon, "attach", session) as user:
        user.expect(b"detach with")
        wait_until(lambda: user.is_raw)
        before = daemon.call("session.get", id=session)["output_offset"]
        wait_until(lambda: daemon.call("session.get", id=session)["output_offset"] > before + (1 << 20))
        user.type(LEAVE)
        assert user.process.wait(10) == 0
        assert user.is_as_before
    daemon.call("session.kill", id=session, force=True)


def test_read_only_viewer_that_is_behind_gets_a_gap_and_goes_on(daemon: RuntimeDir) -> None:
    session = spawn(daemon, *stream.numbered_program(), scrollback_bytes=65536)
    with User(daemon, "attach", "--read-only", "-q", session) as user:
        wait_until(lambda: user.is_raw)
        before = daemon.call("session.get", id=session)["output_offset"]
        wait_until(lambda: daemon.call("session.get", id=session)["output_offset"] > before + (8 << 20))
        user.expect(b"\x18", 20)  # what the gap has cut off ends here
        user.type(LEAVE)
        assert user.wait() == 0
    daemon.call("session.kill", id=session, force=True)


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_vim_is_drawn_anew_in_its_own_modes(daemon: RuntimeDir) -> None:
    text = daemon.base / "text"
    text.write_text("the text of the file\n")
    with User(daemon, "new", "--name", "ed", "vim", "-u", "NONE", "-N", str(text)) as user:
        user.expect(b"the text of the file")
        user.type(LEAVE)
        assert user.wait() == 0
        assert b"\x1b[?1049l" in user.shown[user.shown.rindex(b"\x18") :]
    with User(daemon, "attach", "ed") as user:
        user.expect(b"\x1b[?1049h")
        user.expect(b"the text of the file")
        user.type(b":q!\r")
        assert user.wait() == 0
        assert user.is_as_before
    assert b"\x1b[c" not in user.shown  # vim's questions of the first time are not asked again


def test_since_live_replays_nothing(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh", "-c", "printf 'old\\033[?2004h'; read x; echo new; exec sleep 100")
    wait_until(lambda: daemon.call("session.get", id=session)["output_offset"] > 8)
    with User(daemon, "attach", "--since", "live", session) as user:
        user.expect(b"\x1b[?2004h")
        user.type(b"\r")
        user.expect(b"new")
        assert b"old" not in user.shown
        user.type(LEAVE)
        user.wait()
        assert b"\x1b[?2004l" in user.shown


def test_exit_that_leaves_others_says_so(daemon: RuntimeDir) -> None:
    with User(daemon, "new", "sh", "-c", "(trap '' HUP; sleep 100) & sleep 0.1; exit 5") as user:
        assert user.wait() == 5
        assert b"processes of it live on: ptyd kill" in user.shown


def test_unknown_session_and_bad_keys(daemon: RuntimeDir) -> None:
    with User(daemon, "attach", "nobody") as user:
        assert user.wait() == 3
        assert user.is_as_before
    with User(daemon, "attach", "--detach-keys", "foo", "nobody") as user:
        assert user.wait() == 2


def test_quiet_says_nothing_of_its_own(daemon: RuntimeDir) -> None:
    with User(daemon, "new", "-q", "sh", "-c", "printf only") as user:
        assert user.wait() == 0
        assert user.shown.startswith(b"only")
        assert b"[" not in user.shown.replace(b"\x1b[", b"")


def test_stopped_and_continued_is_raw_again(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "sh")
    with User(daemon, "attach", session) as user:
        user.expect(b"$ ")
        user.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, user.process.pid, os.WSTOPPED)
        user.make_cooked()
        user.process.send_signal(signal.SIGCONT)
        wait_until(lambda: user.is_raw)
        user.type(LEAVE)
        assert user.wait() == 0


def test_typing_that_a_dead_daemon_may_have_swallowed_is_counted(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "cat")
    with User(daemon, "attach", "--via", "stream", session) as user:
        wait_until(lambda: user.is_raw)
        user.type(b"1\r")
        user.expect(b"1\r\n1\r\n")
        user.read(0.3)  # until that much is confirmed
        os.kill(daemon.daemon_pid(), signal.SIGSTOP)
        user.type(b"abc")
        user.read(0.3)
        daemon.wait_for_new_daemon(daemon.kill_daemon())
        user.expect(b"[ptyd: 3 typed bytes may or may not have arrived]")
        user.type(b"2\r")
        user.expect(b"2\r\n2\r\n")  # and not "abc2": nothing was sent a second time
        user.type(LEAVE)
        assert user.wait() == 0


def test_long_search_for_a_daemon_is_told_and_ends_well(daemon: RuntimeDir) -> None:
    """S2 for the terminal frontend, which may not start one itself."""
    session = spawn(daemon, "cat")
    with User(daemon, "--no-start", "attach", "--via", "stream", session) as user:
        wait_until(lambda: user.is_raw)
        daemon.kill_zygote()
        wait_until(lambda: daemon.find_daemon_pid() is None, what="the daemon steps down")
        user.type(b"typed meanwhile\r")
        user.expect(b"[ptyd: the daemon is gone; looking for it]")
        daemon.start()
        user.expect(b"typed meanwhile\r\ntyped meanwhile\r\n")
        user.type(LEAVE)
        assert user.wait() == 0


def test_search_for_a_daemon_can_be_left(daemon: RuntimeDir) -> None:
    session = spawn(daemon, "cat")
    with User(daemon, "--no-start", "attach", "--via", "stream", session) as user:
        wait_until(lambda: user.is_raw)
        daemon.kill_zygote()
        wait_until(lambda: daemon.find_daemon_pid() is None, what="the daemon steps down")
        user.type(LEAVE)
        assert user.wait() == 0
        assert user.is_as_before
    daemon.start()
