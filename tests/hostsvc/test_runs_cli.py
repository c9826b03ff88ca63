"""`hostsvc run …`: its commands as they are typed, and jobs, which leave nothing behind: A11, A13 and A14."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.hostsvc.commands import Cli
from tests.hostsvc.liar import DeceivedHost, HangUp, Liar, Lie, Refuse
from tests.hostsvc.places import peek, reap, reap_until, serve, session, workspace
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.repos import Repository
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


README: Final = (Path(__file__).parents[2] / "README.md").read_text()
RUNS: Final = {"kinds": ["runs"]}
STUBBORN: Final = "trap '' HUP TERM; setsid sleep 1000 & echo up; sleep 1000 & wait"
MAIN: Final = "import sys; from hostsvc.cli import main; sys.argv[0] = 'hostsvc'; sys.exit(main())"


@pytest.fixture(scope="module")
def served(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    host = serve(HostService(shared_runtime), HOSTSVC_RUN_AGE_S="1")
    workspace(host, id="w")
    yield host
    host.stop()


@pytest.fixture
def cli(served: HostService, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    return Cli(served, monkeypatch, capfd)


# -- the commands ----------------------------------------------------------------------------------


def test_the_page_of_the_readme_works_as_it_is_written(served: HostService, tmp_path: Path) -> None:
    page = README.split("\n## Runs\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    command = tmp_path / "hostsvc"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -c "{MAIN}" "$@"\n')
    command.chmod(0o755)
    env = {**served.env, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", block], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done
    run = done.stdout.split()[0]  # of the workspace; the run's id was taken into a variable
    assert run
    assert "late ones are refused" in done.stdout
    assert re.search(r"^in [0-9a-f]{16}\r?$", done.stdout, re.MULTILINE)
    assert "a job has returned 3" in done.stdout
    assert "nothing to do" in done.stdout
    served.call("workspace.delete", id="lab", force=True)


def test_start_ls_and_end(cli: Cli) -> None:
    holder = str(os.getpid())
    assert cli.ok("run", "start", "typed", "--holder", holder, "--deadline", "60").out == "typed\n"
    made = cli.ok("run", "start", "--json").json
    assert (made["state"], made["holder_pid"], made["deadline_at_ms"]) == ("open", None, None)
    session(cli.host, "w", run="typed")
    assert re.search(rf"typed +open +1 .* {holder} ", cli.ok("run", "ls").out)
    assert {"typed", made["id"]} <= set(cli.ok("run", "ls", "-q").out.split())
    assert cli.ok("run", "ls", "--json", "-n", "1").json["runs"][0]["state"] == "open"
    done = cli.ok("run", "end", "typed", made["id"])
    assert "run typed has ended; 1 of it ended with it" in done.err
    assert cli.ok("run", "end", "typed", "--json").json["state"] == "complete"
    assert cli.ok("run", "end", "typed", "-q") == (0, "", "")


@pytest.mark.parametrize(
    "words, status, told",
    [
        (["end"], 2, "RUNS"),
        (["end", ""], 2, ""),
        (["end", "*"], 2, ""),
        (["end", "never-was"], 3, "hostsvc run ls"),
        (["start", "a b"], 2, ""),
        (["start", "--holder", "4194304"], 3, "4194304"),
        (["start", "--deadline", "0"], 2, ""),
        (["exec"], 2, "ARGV"),
        (["sweep", "--accept", "0123456789abcdef"], 4, "plan"),
    ],
)
def test_D3_what_is_refused(cli: Cli, words: list[str], status: int, told: str) -> None:
    done = cli("run", *words)
    assert done.status == status, done
    assert told in done.err
    assert done.out == ""


def test_late_ones_are_refused_at_the_command_line_too(cli: Cli) -> None:
    cli.ok("run", "start", "over")
    cli.ok("run", "end", "over")
    refused = cli("session", "new", "-w", "w", "--run", "over", "true")
    assert (refused.status, refused.out) == (4, "")
    assert "hostsvc run start" in refused.err
    assert cli("run", "start", "over").status == 4


# -- jobs ------------------------------------------------------------------------------------------


def job(
    host: HostService, *words: str, place: str | None = "w", through: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start `hostsvc run exec …` as a process of its own, by a program that becomes it if one is given."""
    where = ["-w", place] if place else []
    return subprocess.Popen(
        [*through, sys.executable, "-P", "-c", MAIN, "run", "exec", *where, "--", *words],
        env=host.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def stubborn(host: HostService, **place: Any) -> Iterator[tuple[subprocess.Popen[str], list[int], str]]:
    """A job that ignores a hang-up and TERM: its process, the pids of what it runs, and its run's id."""
    with job(host, "sh", "-c", STUBBORN, **place) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "up"
            [row] = peek(
                host,
                "SELECT s.pid, run FROM sessions AS s JOIN runs AS r ON r.id = run WHERE holder_pid = ?",
                process.pid,
            )
            yield process, [row["pid"], *(one.pid for one in processes.descendants(row["pid"]))], row["run"]
        finally:
            process.kill()


@pytest.mark.parametrize(
    "words, status, out",
    [
        (["sh", "-c", "echo one; echo two"], 0, "one\r\ntwo\r\n"),
        (["sh", "-c", "exit 3"], 3, ""),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL, ""),
        (["sh", "-c", "sleep 1000 & exit 4"], 4, ""),
        (["no-such-program"], 1, ""),
    ],
)
def test_a_job_returns_what_its_program_does(
    served: HostService, words: list[str], status: int, out: str
) -> None:
    process = job(served, *words)
    wrote, _ = process.communicate(timeout=60)
    assert (process.returncode, wrote) == (status, out.replace("\r\n", "\n"))
    [run] = peek(served, "SELECT state FROM runs WHERE holder_pid = ?", process.pid)
    assert run["state"] == "ended"


def triples(host: HostService) -> list[str]:
    """Everything below the base directory that is not in the trash."""
    return sorted(
        one.name for one in host.base_dir.iterdir() if one.name not in (".trash", "w", "w-artifacts")
    )


def test_a_job_has_a_workspace_of_its_own(served: HostService, tmp_path: Path) -> None:
    before = triples(served)
    process = job(served, "sh", "-c", "pwd; ls -d ../*-artifacts; touch $HOSTSVC_ARTIFACTS/a", place=None)
    wrote, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert wrote.startswith(str(served.base_dir))
    assert "-artifacts" in wrote
    assert triples(served) == before


def test_a_job_on_a_branch_loses_no_work(served: HostService, tmp_path: Path) -> None:
    """Work at risk keeps its workspace, and says so; with --rm it goes to the trash all the same."""
    repository = str(Repository(tmp_path / "r").main)
    of_repository = ["run", "exec", "--repo", repository, "--branch"]
    before = triples(served)
    clean = served.run(*of_repository, "clean", "git", "status", "--short")
    assert (clean.returncode, clean.stdout) == (0, ""), clean
    assert triples(served) == before
    risky = served.run(*of_repository, "risky", "touch", "work")
    assert risky.returncode == 5, risky
    assert "at_risk" in risky.stderr
    [made] = [one for one in served.call("workspace.list")["workspaces"] if one["branch"] == "risky"]
    assert Path(made["path"], "work").exists()
    assert served.run(*of_repository, "gone", "--rm", "touch", "work").returncode == 0
    served.call("workspace.delete", id=made["id"], force=True)
    assert served.call("run.end", id=made["run"])["state"] == "complete"
    assert triples(served) == before
    assert served.run("run", "exec", "-w", "w", "--rm", "true").returncode == 2


def test_a_job_whose_reader_has_seen_enough(served: HostService) -> None:
    with job(served, "sh", "-c", "while :; do echo more; done") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
    [run] = peek(served, "SELECT state FROM runs WHERE holder_pid = ?", process.pid)
    assert run["state"] == "ended"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_A14_a_signal_ends_the_job_before_the_command(served: HostService, signum: signal.Signals) -> None:
    host = served
    before = triples(host)
    with stubborn(host, place=None) as (process, pids, run):
        assert len(triples(host)) == len(before) + 2, "a folder and its artifacts"
        process.send_signal(signum)
        process.send_signal(signum)  # twice is once: the end is not cut short
        assert process.wait(60) == 128 + signum
        assert not any(map(processes.alive, pids))
        assert host.call("run.get", id=run)["state"] == "ended"
        assert triples(host) == before


IN_BACKGROUND: Final = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]  # so a shell starts `command &`
GOES_ON: Final = 'echo up; until [ -e "$0" ]; do sleep 0.05; done; echo on; sleep 1000'


@pytest.mark.parametrize("through, signum", [(["nohup"], signal.SIGHUP), (IN_BACKGROUND, signal.SIGINT)])
def test_A14_a_signal_that_was_ignored_stays_ignored(
    served: HostService, tmp_path: Path, through: list[str], signum: signal.Signals
) -> None:
    """The job goes on, and ends by another signal as ever."""
    go = tmp_path / "go"
    with job(served, "sh", "-c", GOES_ON, str(go), through=through) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signum)
        go.touch()
        assert process.stdout.readline() == "on\n"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    [run] = peek(served, "SELECT state FROM runs WHERE holder_pid = ?", process.pid)
    assert run["state"] == "ended"


def test_A11_a_job_that_was_killed_is_swept_after_the_age_and_not_before(host: HostService) -> None:
    serve(host, HOSTSVC_RUN_AGE_S="3")
    with stubborn(host, place=None) as (process, pids, run):
        for _ in range(3):
            assert reap(host, **RUNS)["acts"] == []
        process.kill()
        process.wait()
        assert reap(host, **RUNS)["acts"] == []
        assert all(map(processes.alive, pids))
        assert len(triples(host)) == 2
        [row] = peek(host, "SELECT id, created_at_ms FROM sessions WHERE run = ?", run)
        done = reap_until(host, f"sessions/{row['id']}", "end done", **RUNS)
        assert done["started_at_ms"] - row["created_at_ms"] >= 3000
        assert not any(map(processes.alive, pids))
        wait_until(lambda: reap(host, **RUNS) and triples(host) == [], what="its workspace is swept too")
        assert reap(host, **RUNS)["state"] == "ok"
        assert host.call("run.get", id=run)["state"] == "ended"


def test_A13_a_sweep_races_normal_ends(served: HostService) -> None:
    host = served
    stop = threading.Event()
    passes: list[dict[str, Any]] = []

    def sweep() -> None:
        while not stop.is_set():
            passes.append(reap(host, **RUNS))

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    try:
        jobs = [job(host, "sh", "-c", "echo done") for _ in range(6)]
        for one in jobs:
            wrote, err = one.communicate(timeout=60)
            assert (one.returncode, wrote) == (0, "done\n"), err
    finally:
        stop.set()
        sweeping.join()
    assert [one for one in passes if one["state"] != "ok"] == []
    pids = [one.pid for one in jobs]
    states = peek(host, f"SELECT DISTINCT state FROM runs WHERE holder_pid IN ({', '.join(map(str, pids))})")
    assert [one["state"] for one in states] == ["ended"]


def test_a_job_whose_service_dies_is_left_to_the_sweep(host: HostService) -> None:
    serve(host, HOSTSVC_RUN_AGE_S="1")
    workspace(host, id="w")
    with stubborn(host) as (process, pids, run):
        host.kill()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert f"run {run} is left to the reaper" in process.stderr.read()
        assert any(map(processes.alive, pids))
        serve(host, HOSTSVC_RUN_AGE_S="1")
        wait_until(lambda: reap(host, **RUNS) and not any(map(processes.alive, pids)), what="swept")


AWAY: Final = [
    ("session.read", Refuse("busy")),
    ("session.read", Refuse("stopping")),
    ("session.read", Refuse("timeout")),
    ("session.read", HangUp()),
    ("session.wait", Refuse("busy")),
]


@pytest.mark.parametrize("method, lie", AWAY)
def test_a_ptyd_that_is_away_ends_no_job(daemon: RuntimeDir, tmp_path: Path, method: str, lie: Lie) -> None:
    """It is said once, and looked again; what was written meanwhile comes once, and then the exit code."""
    go = tmp_path / "go"
    script = 'echo up; until [ -e "$0" ]; do sleep 0.05; done; echo on; exit 7'
    with Liar(daemon.base / "liar", daemon.socket) as liar, private(liar, daemon) as host:
        with job(host, "sh", "-c", script, str(go)) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "up\n"
            liar.lies[method] = lie
            liar.cut()
            go.touch()
            assert "ptyd is away" in process.stderr.readline()
            asked = liar.seen[method]
            wait_until(lambda: liar.seen[method] > asked, what="it is asked again")
            del liar.lies[method]
            assert process.stdout.read() == "on\n"
            assert process.wait(60) == 7
            assert "ptyd is away" not in process.stderr.read()
        [run] = peek(host, "SELECT state FROM runs WHERE holder_pid = ?", process.pid)
        assert run["state"] == "ended"


def test_a_signal_ends_a_job_whose_ptyd_is_away(daemon: RuntimeDir) -> None:
    with Liar(daemon.base / "liar", daemon.socket) as liar, private(liar, daemon) as host:
        liar.lies["session.read"] = Refuse("busy")
        with job(host, "sleep", "1000") as process:
            assert process.stderr is not None
            assert "ptyd is away" in process.stderr.readline()
            process.terminate()
            assert process.wait(60) == 128 + signal.SIGTERM


def test_what_ptyd_says_of_the_session_ends_the_job(daemon: RuntimeDir) -> None:
    with Liar(daemon.base / "liar", daemon.socket) as liar, private(liar, daemon) as host:
        liar.lies["session.read"] = Refuse("unsupervised")
        with job(host, "sleep", "1000") as process:
            assert process.wait(60) == 4
        assert peek(host, "SELECT status FROM sessions") == [{"status": "disposed"}]


@contextlib.contextmanager
def private(liar: Liar, daemon: RuntimeDir) -> Iterator[HostService]:
    """A service of one test, whose ptyd is the liar, with a workspace."""
    host = serve(DeceivedHost(liar, HostService(daemon)))
    try:
        workspace(host, id="w")
        yield host
    finally:
        host.stop()


def test_without_a_service_a_job_does_not_begin(host: HostService) -> None:
    done = host.run("run", "exec", "true")
    assert done.returncode == 69
    assert "hostsvc serve" in done.stderr
