"""The commands on a real service: what they write where, and their exit statuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from hostsvc import shapes
from hostsvc.cli import run
from hostsvc.cli.group import Settings
from hostsvc.cli.health import STATUSES
from ptyd.protocol.errors import Code, PtydError
from tests.hostsvc.commands import Cli, HostUser
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.repos import Repository, git
from tests.support.waiting import wait_until

ROW_KEYS = {"id", "generation", "status", "workspace_id", "live", "kill_evidence", "attempts", "exit"}


@pytest.fixture(scope="module")
def shared_host(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One running service for all tests here that leave it as they found it."""
    service = HostService(shared_runtime, HOSTSVC_AGE_FLOOR_S="1")
    service.start()
    yield service
    service.stop()


@pytest.fixture
def cli(
    shared_host: HostService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """The command line on the shared service; what a test has made goes when it ends."""
    monkeypatch.chdir("/")
    cli = Cli(shared_host, monkeypatch, capsys)
    yield cli
    for one in shared_host.call("workspace.list")["workspaces"]:
        shared_host.call("workspace.update", id=one["id"], is_protected=False)
        shared_host.call("workspace.delete", id=one["id"], skip_teardown=True)
    assert not [row for row in shared_host.call("session.list")["sessions"] if row["ended_at_ms"] is None]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["frobnicate"], 2, "No such command"),
        (["workspace", "frobnicate"], 2, "No such command"),
        (["workspace", "create", "a/b"], 2, "name"),
        (["workspace", "create", ".."], 4, "path_refused"),
        (["workspace", "create", "x" * 4096], 2, "name"),
        (["workspace", "create", "a\x1bb"], 2, "name"),
        (["workspace", "create", "--path", "/no/such"], 4, "path_refused"),
        (["workspace", "create", "--path", "/"], 4, "path_refused"),
        (["workspace", "create", "--label", "x"], 2, "KEY=VALUE"),
        (["workspace", "create", "--label", "hostsvc.owner=me"], 2, "hostsvc."),
        (["workspace", "create", "--teardown", "'"], 2, "no command"),
        (["workspace", "create", "--teardown", " "], 2, "empty"),
        (["workspace", "create", "--id", "a b"], 2, "id"),
        (["workspace", "create", "--generation", "0"], 2, "generation"),
        (["workspace", "show", "nobody"], 3, "see: hostsvc workspace ls"),
        (["workspace", "show"], 2, "WORKSPACES"),
        (["workspace", "update", "nobody", "--protect"], 3, "not_found"),
        (["workspace", "update", "nobody"], 2, "nothing to change"),
        (["session", "new", "-w", "nobody", "true"], 3, "not_found"),
        (["session", "new", "true"], 2, "give -w WORKSPACE"),
        (["session", "new", "-w", "x", "--size", "80", "true"], 2, "ROWSxCOLS"),
        (["session", "new", "-w", "x", "--env", "x", "true"], 2, "KEY=VALUE"),
        (["session", "new", "-w", "x", "--attach", "true"], 2, "needs a terminal"),
        (["session", "ls", "-w", "nobody"], 3, "not_found"),
        (["session", "ls", "--status", "fine"], 2, "spawning"),
        (["session", "attach", "nobody"], 3, "see: hostsvc session ls"),
        (["session", "dispose", "nobody"], 3, "see: hostsvc session ls"),
        (["session", "dispose"], 2, "SESSIONS"),
        (["reap", "--kind", "rats"], 2, "sagas"),
        (["reap", "--accept", "0123456789abcdef"], 4, "hostsvc reap --dry-run"),
        (["passes", "-n", "0"], 2, "1<=x<=1000"),
        (["saga", "show", "nothing"], 3, "see: hostsvc saga ls"),
        (["saga", "resume", "nothing"], 3, "see: hostsvc saga ls"),
        (["adopt", "--owner", "nobody"], 2, "--workspace"),
        (["adopt", "--owner", "nobody", "-w", "nothing"], 3, "not_found"),
        (["db", "backup"], 2, "FILE"),
        (["completion", "csh"], 2, "bash"),
    ],
)
def test_errors(cli: Cli, arguments: list[str], status: int, words: str) -> None:
    done = cli(*arguments)
    assert done.status == status, done
    assert words in done.err
    assert done.out == ""
    assert "\x1b" not in done.err


def complete(host: HostService, words: str, cword: int) -> set[str]:
    done = host.run(_HOSTSVC_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(cword))
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def test_completion_of_workspaces_and_sessions(cli: Cli) -> None:
    place = cli.new_workspace("demo")
    session = cli.new_session("demo", "--name", "web", "sleep", "1000")
    assert complete(cli.host, "hostsvc workspace show de", 3) >= {"plain,demo"}
    assert complete(cli.host, "hostsvc session new -w ", 4) == {"plain,demo", f"plain,{place}"}
    assert complete(cli.host, "hostsvc session attach ", 3) == {"plain,web", f"plain,{session}"}
    assert complete(cli.host, "hostsvc session d", 2) == {"plain,dispose"}


def test_completion_starts_nothing(host: HostService) -> None:
    assert complete(host, "hostsvc workspace show ", 3) == set()
    assert not host.socket.exists()


def test_without_a_service(
    host: HostService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(host, monkeypatch, capsys)
    for arguments in (
        ["workspace", "ls"], ["workspace", "rm", "x"], ["session", "ls"], ["session", "new", "-w", "x"],
        ["session", "dispose", "x"], ["reap"], ["passes"], ["saga", "ls"], ["health"], ["events"],
        ["adopt", "--owner", "x", "-w", "y"],
    ):  # fmt: skip
        done = cli(*arguments)
        assert done.status == 69, arguments
        assert "hostsvc serve" in done.err
        assert done.out == ""
    assert not host.runtime.socket.exists(), "nothing was started"
    monkeypatch.setenv("HOSTSVC_CONFIG", "/no/such.toml")
    done = cli("health")
    assert (done.status, "HOSTSVC_CONFIG" in done.err) == (78, True)


def test_json_is_what_the_protocol_says(cli: Cli) -> None:
    def fields(shape: type) -> set[str]:
        return {field.name for field in attrs.fields(shape)}

    place = cli.ok("workspace", "create", "demo", "--json").json
    session = cli.ok("session", "new", "-w", "demo", "--json", "sleep", "1000").json
    assert (set(place), set(session)) == (fields(shapes.Workspace), fields(shapes.SessionRow))
    assert set(cli.ok("workspace", "rm", "demo", "--json").json) <= fields(shapes.WorkspaceDeleteResult)
    sagas = cli.ok("saga", "ls", "--json").json["sagas"]
    assert [set(saga) for saga in sagas[:1]] == [fields(shapes.Saga)]
    assert set(cli.ok("saga", "show", sagas[0]["id"], "--json").json) == fields(shapes.SagaGetResult)
    assert set(cli.ok("reap", "--json").json) == fields(shapes.Pass)
    assert set(cli.ok("health", "--json").json) == fields(shapes.HealthResult)


# --- workspaces -----------------------------------------------------------------------------------


def test_workspace_create_ls_show_update(cli: Cli, tmp_path: Path) -> None:
    made = cli.ok(
        "workspace", "create", "demo", "--label", "a=b", "--teardown", "sh -c 'exit 0'", "--protect", "--json"
    ).json
    assert made["labels"] == {"a": "b"}
    assert made["teardown"] == ["sh", "-c", "exit 0"]
    assert made["is_protected"] is True
    assert Path(made["path"]).is_dir()
    plain = cli.ok("workspace", "create", "--path", str(tmp_path), "--id", "w-2", "--generation", "3")
    assert plain.out == "w-2\n"
    assert plain.err == f"hostsvc: workspace w-2 is {tmp_path}\n"

    table = cli.ok("workspace", "ls").out.splitlines()
    assert table[0].split() == ["ID", "NAME", "STATE", "SESSIONS", "AGE", "GIT", "PATH"]
    assert table[1].split()[:3] == [made["id"], "demo", "active"]
    assert table[1].endswith("(protected)")
    assert table[2].endswith("(adopted)")
    assert cli.ok("workspace", "ls", "-q").out.split() == [made["id"], "w-2"]
    assert cli.ok("workspace", "ls", "-q", "--label", "a=b").out.split() == [made["id"]]
    assert [one["id"] for one in cli.ok("--json", "workspace", "ls").json["workspaces"]] == [
        made["id"],
        "w-2",
    ]

    shown = cli.ok("workspace", "show", "demo", "w-2").out
    assert shown.count("generation:") == 2
    lines = cli.ok("workspace", "show", "demo", "w-2", "--json").out.splitlines()
    assert [json.loads(line)["generation"] for line in lines] == [1, 3]

    updated = cli.ok("workspace", "update", "demo", "--name", "other", "--label", "c=d", "--json").json
    assert (updated["name"], updated["labels"]) == ("other", {"c": "d"})
    protected = cli("workspace", "rm", "other")
    assert (protected.status, protected.out) == (4, "")
    assert "update --no-protect" in protected.err
    assert cli.ok("workspace", "update", "other", "--no-protect", "--name", "", "-q").out == ""
    assert cli.ok("--json", "workspace", "show", made["id"]).json["name"] is None


def test_workspace_rm(cli: Cli) -> None:
    place = cli.new_workspace("demo", "--teardown", "true")
    session = cli.new_session("demo")
    plan = cli.ok("workspace", "rm", "demo", "--dry-run")
    assert [line.split()[0] for line in plan.out.splitlines()] == [
        "preflight", "seal", "teardown", "dispose", "recheck", "commit", "artifacts", "folder", "finish",
    ]  # fmt: skip
    assert session in plan.out
    assert plan.err == ""
    as_json = cli.ok("workspace", "rm", "demo", "--dry-run", "--skip-teardown", "--json").json
    assert as_json["state"] == "planned"
    assert "teardown" not in [step["step"] for step in as_json["plan"]]
    assert cli.ok("workspace", "ls", "-q").out.split() == [place], "a plan touches nothing"

    done = cli.ok("workspace", "rm", "demo")
    assert done.out == ""
    assert done.err.endswith("hostsvc: demo is deleted\n")
    again = cli.ok("workspace", "rm", "demo", "--json")
    assert again.json["state"] == "deleted"
    assert "not there" in again.err
    assert cli.ok("workspace", "rm", "never-was", "-q") == (0, "", "")
    assert cli.ok("workspace", "ls", "-q").out == ""
    assert place in cli.ok("workspace", "ls", "-aq").out.split()
    destroyed = cli("workspace", "show", place)
    assert destroyed.status == 4
    assert "destroyed" in destroyed.err
    assert cli("workspace", "create", "--id", place).status == 4
    assert cli.ok("-q", "workspace", "create", "--id", place, "--generation", "2").out == f"{place}\n"


def test_workspace_rm_tells_each_step_while_it_waits(cli: Cli) -> None:
    cli.new_workspace("demo", "--teardown", "sleep 0.2")
    done = cli.ok("workspace", "rm", "demo")
    assert "  preflight: look for work at risk\n" in done.err
    assert "  teardown: run its teardown command\n" in done.err
    assert done.err.index("teardown:") < done.err.index("demo is deleted")


def test_workspace_rm_when_the_teardown_fails(cli: Cli) -> None:
    cli.new_workspace("demo", "--teardown", "sh -c 'echo no way; exit 3'")
    done = cli("workspace", "rm", "demo", "--force")
    assert done.status == 1
    assert "no way" in done.err
    assert "--skip-teardown" in done.err
    assert cli.ok("--json", "workspace", "show", "demo").json["state"] == "active"
    cli.ok("workspace", "rm", "demo", "--skip-teardown")


# --- worktrees and the trash ----------------------------------------------------------------------


def test_a_worktree_its_risk_and_the_way_back(cli: Cli, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    (tmp_path / "cred").write_text("#!/bin/sh\necho hunter2\n")
    made = cli.ok(
        "workspace", "create", "web", "--repo", str(repository.main), "--branch", "topic/web",
        "--start", "main", "--credential", str(tmp_path / "cred"), "--ephemeral",
    )  # fmt: skip
    shown = cli.ok("--json", "workspace", "show", "web").json
    folder = Path(shown["path"])
    assert (shown["branch"], shown["is_ephemeral"]) == ("topic/web", True)
    assert Path(f"{folder}.cred.sh").read_text().endswith("echo hunter2\n")
    assert "on topic/web" in cli.ok("workspace", "ls").out
    assert "hunter2" not in made.out + made.err + repr(shown)
    git(folder, "push", "-q", "-u", "origin", "topic/web")
    safe = cli.ok("workspace", "risk", "web")
    assert (safe.out, "nothing of web" in safe.err) == ("", True)

    (folder / "notes").write_text("x")
    risk = cli("workspace", "risk", "web")
    assert (risk.status, risk.out.split()) == (5, ["untracked", "untracked:", "notes"])
    assert cli("--json", "workspace", "risk", "web").json["reasons"][0]["code"] == "untracked"
    refused = cli("workspace", "rm", "web")
    assert refused.status == 4
    assert "untracked: notes" in refused.err
    assert "--force" in refused.err
    assert (folder / "notes").exists()

    cli.ok("workspace", "rm", "web", "--force")
    assert not folder.exists()
    assert "topic/web" in cli.ok("trash", "ls").out
    entry = cli.ok("-q", "trash", "ls").out.split()[-1]
    assert cli.ok("--json", "trash", "ls").json["entries"][-1]["id"] == entry
    back = cli.ok("workspace", "restore", "web")
    assert back.out.strip() == shown["id"]
    assert "on topic/web" in back.err
    assert (folder / "notes").read_text() == "x"
    assert cli("workspace", "restore", entry).status == 3

    cli.ok("workspace", "rm", "web", "--force")
    entry = cli.ok("-q", "trash", "ls").out.split()[-1]
    cli.ok("trash", "purge", entry)
    assert entry not in cli.ok("-q", "trash", "ls").out
    gone = cli("trash", "purge", entry)
    assert gone.status == 3
    assert "hostsvc trash ls" in gone.err


def test_what_cannot_be_a_worktree(cli: Cli, tmp_path: Path) -> None:
    none = cli("workspace", "create", "web", "--repo", str(tmp_path))
    assert none.status == 4
    assert "no git repository" in none.err
    assert cli("workspace", "create", "web", "--branch", "x").status == 2
    assert cli("workspace", "create", "web", "--credential", str(tmp_path / "missing")).status == 2
    (tmp_path / "much").write_bytes(b"x" * 70_000)
    assert cli("workspace", "create", "web", "--credential", str(tmp_path / "much")).status == 2
    assert cli.ok("workspace", "ls", "-q").out == ""


# --- sessions -------------------------------------------------------------------------------------


def test_session_new_takes_all_of_the_caller(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINE", "own")
    monkeypatch.setenv("PTYD_MARK", "outer")
    cli.new_workspace("demo")
    made = cli.ok(
        "session", "new", "-w", "demo", "--name", "web", "--label", "a=b", "--cwd", str(tmp_path), "--size",
        "30x90", "--env", "EXTRA=more", "--on-leader-exit", "kill", "--json",
        "sh", "-c", "stty size; pwd; echo $EXTRA $MINE; [ $PTYD_MARK = outer ] || echo own; sleep 100",
    ).json  # fmt: skip
    assert set(made) >= ROW_KEYS
    assert (made["name"], made["labels"], made["status"]) == ("web", {"a": "b"}, "active")
    ptyd = cli.host.runtime
    ptyd.call("session.wait", **{"id": made["id"], "for": b"own\r\nown", "since": "start"})
    wrote = ptyd.call("session.read", id=made["id"], offset=0)["data"].decode()
    assert wrote.split() == ["30", "90", str(tmp_path), "more", "own", "own"]


def test_session_new_defaults(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    cli.new_workspace("demo")
    folder = Path(cli.ok("--json", "workspace", "show", "demo").json["path"])
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")  # in a workspace, so it need not be named
    made = cli.ok("session", "new", "--json").json
    assert made["argv"] == ["/bin/sh", "-l"]
    assert made["live"]["cwd"] == str(folder)
    plain = cli.ok("session", "new", "sleep", "--", "1000")
    assert f"hostsvc session attach {plain.out.strip()}" in plain.err
    refused = cli("session", "new", "/no/such/program")
    assert (refused.status, "program_not_found" in refused.err) == (1, True)


def test_session_ls(cli: Cli) -> None:
    cli.new_workspace("demo"), cli.new_workspace("other")
    living, ended = cli.new_session("demo", "--name", "web", "sleep", "1000"), cli.new_session("other")
    cli.ok("session", "dispose", ended)
    table = cli.ok("session", "ls").out.splitlines()
    columns = "ID NAME WORKSPACE STATUS LIVE PID AGE ATTACHED COMMAND"
    assert table[0].split() == columns.split()
    assert len(table) == 2
    assert table[1].split()[:5] == [living, "web", "demo", "active", "running"]
    assert cli.ok("session", "ls", "-q").out.split() == [living]
    assert cli.ok("session", "ls", "-aq", "-w", "other").out.split() == [ended]
    assert cli.ok("session", "ls", "-q", "-w", "other").out == ""
    assert ended in cli.ok("session", "ls", "--status", "disposed", "-q").out.split()
    assert "proof echild" in cli.ok("session", "ls", "-a").out
    listing = cli.ok("session", "ls", "--json").json
    assert [row["id"] for row in listing["sessions"]] == [living]
    assert set(listing) == {"sessions", "foreign"}


def test_C21_session_ls_shows_foreign_ones_apart(cli: Cli) -> None:
    stranger = cli.host.runtime.call("session.spawn", argv=["sleep", "1000"], name="stranger")["id"]
    try:
        own, foreign = cli.ok("session", "ls").out.split("\nalive in ptyd, without a row here:\n")
        assert stranger not in own
        assert foreign.splitlines()[1].split() == [stranger, "running", "-"]
        assert cli.ok("session", "ls", "-q").out == ""
        assert [one["id"] for one in cli.ok("session", "ls", "--json").json["foreign"]] == [stranger]
        assert cli("session", "dispose", stranger).status == 3
        cli.ok("reap")
        assert cli.host.runtime.call("session.get", id=stranger)["state"] == "running"
    finally:
        cli.host.runtime.call("session.kill", id=stranger, force=True)


def test_session_dispose(cli: Cli) -> None:
    cli.new_workspace("demo")
    one, two = cli.new_session("demo"), cli.new_session("demo", "--name", "web", "sleep", "1000")
    done = cli("session", "dispose", "nobody", "web", "--force")
    assert done.status == 3
    assert done.out == "web disposed (killed by signal 9; proof echild)\n"
    assert "nobody" in done.err
    row = cli.ok("session", "dispose", one, "--json").json
    assert set(row) >= ROW_KEYS
    assert (row["status"], row["kill_evidence"]["proof"]) == ("disposed", "echild")
    assert cli.ok("session", "dispose", "-q", two, one) == (0, "", ""), "twice is once"


def test_K5_dispose_that_is_not_proven(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    survivor = {"pid": 42, "command": "sudo\x1b[2J", "state": "S", "reason": "not_permitted"}
    error = PtydError(Code.KILL_UNCONFIRMED, "session x: 1 known survivor", survivors=[survivor])
    monkeypatch.setattr(Settings, "connect", lambda _: Scripted({"session.dispose": error}))
    done = cli("session", "dispose", "x")
    assert (done.status, done.out) == (4, "")
    assert "  still there: 42 sudo\\x1b[2J (state S): not_permitted\n" in done.err
    assert "the reaper goes on" in done.err


class Scripted:
    """A client of a service that answers as it is told."""

    def __init__(self, answers: dict[str, object]) -> None:
        self._answers = answers

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, method: str, params: object = None) -> object:
        answer = self._answers[method]
        if isinstance(answer, PtydError):
            raise answer
        return answer

    def call_each(self, method: str, each: object) -> list[object]:
        return [self._answers[method] for _ in each]  # type: ignore[attr-defined]


def test_attach_on_a_terminal(cli: Cli) -> None:
    cli.new_workspace("demo")
    host = cli.host
    settings = {**host.settings, "SHELL": "/bin/sh"}
    new = ("session", "new", "-w", "demo", "--name", "web", "--attach", "sh", "-c", "echo up; cat")
    with HostUser(host.runtime, *new, **settings) as user:
        user.expect(b"up")
        user.type(b"x\r\x1c")
        assert user.wait() == 0
    with HostUser(host.runtime, "session", "attach", "web", **settings) as user:
        user.expect(b"up")
        user.type(b"\x04")
        assert user.wait() == 0, "the program's own status"
    session = cli.ok("--json", "session", "ls", "-a").json["sessions"][-1]["id"]
    without = host.run("session", "attach", session)
    assert without.returncode != 0


def test_attach_becomes_ptyds(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, argv: became.append(argv))
    cli.new_workspace("demo")
    session = cli.new_session("demo", "--name", "web", "sleep", "1000")
    for name in ("web", session):
        cli.ok("-q", "session", "attach", name)
    place = str(cli.host.runtime.path)
    command = [sys.executable, "-P", "-m", "ptyd.cli", "attach", "--runtime-dir", place, "--quiet", session]
    assert became == [command, command]
    gone = PtydError(Code.UNREACHABLE, "nobody")
    monkeypatch.setattr(Settings, "connect", lambda _: Scripted({"session.list": gone}))
    cli.ok("session", "attach", "web")
    assert became[-1][-1] == "web", "ptyd may know it; the index is not needed to look at a session"


# --- the reaper -----------------------------------------------------------------------------------


def test_reap_and_passes(cli: Cli) -> None:
    done = cli.ok("reap")
    assert ": ok; " in done.out
    assert cli.ok("reap", "-q") == (0, "", "")
    found = cli.ok("reap", "--dry-run", "--kind", "sessions", "--kind", "rows", "--json").json
    assert (found["state"], found["dry_run"], sorted(found["kinds"])) == ("ok", True, ["rows", "sessions"])
    table = cli.ok("passes", "-n", "2").out.splitlines()
    assert table[0].split()[:4] == ["PASS", "STATE", "ORIGIN", "AGE"]
    assert len(table) == 3
    assert table[1].split()[:4] == [str(found["id"]), "ok", "manual", "(dry)"]
    assert [one["id"] for one in cli.ok("passes", "-n", "1", "--json").json["passes"]] == [found["id"]]


def test_C22_a_refused_pass_names_the_command_that_accepts_it(cli: Cli) -> None:
    """Six sessions of ours that the index does not know: too many to be believed."""
    runtime, owner = cli.host.runtime, cli.ok("--json", "health").json["index"]["id"]
    orphans = [
        runtime.call("session.spawn", argv=["sleep", "1000"], labels={"hostsvc.owner": owner})["id"]
        for _ in range(6)
    ]
    refused = wait_until(lambda: done if (done := cli("reap", "--kind", "sessions")).status == 4 else None)
    assert all(one in refused.out for one in orphans)
    assert "sessions: 6 of 6" in refused.err
    assert runtime.call("session.get", id=orphans[0])["state"] == "running"
    assert (cli("health").status, cli("health").out.splitlines()[0]) == (5, "yellow")
    assert "more than 50%" in cli.ok("passes", "-n", "1").out
    planned = cli("reap", "--dry-run", "--kind", "sessions")
    assert planned.status == 4
    (command,) = (line.split() for line in planned.err.splitlines() if line.startswith("  hostsvc reap"))
    assert command[1:] == cli_words(refused.err), "the same plan has the same name"
    accepted = cli.ok(*command[1:])
    assert "6 done" in accepted.out
    assert runtime.call("session.get", id=orphans[0])["state"] == "exited"
    cli.ok("reap")
    assert cli.ok("health", "-q") == (0, "", "")


def cli_words(told: str) -> list[str]:
    (line,) = (line for line in told.splitlines() if line.startswith("  hostsvc reap"))
    return line.split()[1:]


def test_C7_C10_what_does_not_die_is_told_by_every_command(
    host: HostService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(host.start(HOSTSVC_KILL_DEADLINE_S="1"), monkeypatch, capsys)
    cli.new_workspace("demo")
    session = cli.new_session("demo")
    shim = cli.host.runtime.shim_pid(session)
    processes.kill(shim, signal.SIGSTOP)  # who would end it does not answer
    try:
        done = cli("session", "dispose", session)
        assert done.status == 69
        assert "ptyd_unreachable" in done.err
        row = next(line for line in cli.ok("session", "ls").out.splitlines() if session in line)
        assert "active" in row
        assert "to be ended; 1 attempts" in row
        gone = cli("workspace", "rm", "demo")
        assert gone.status == 5, gone
        assert f"warning: session {session} is not proven dead" in gone.err
        assert "demo is deleted" in gone.err
        saga = cli.ok("saga", "ls", "-q", "-n", "1").out.strip()
        assert cli("saga", "resume", saga).status == 5, "finished, with its warning"
        assert session in cli.ok("session", "ls", "-q").out, "still the reaper's"
        failed = cli("reap", "--kind", "sessions", "--kind", "rows")
        assert failed.status in (0, 5), failed  # 0 when its next attempt is not due yet
    finally:
        processes.kill(shim, signal.SIGCONT)
    wait_until(lambda: cli.host.runtime.call("session.get", id=session)["state"] == "exited")
    cli.ok("reap")
    assert session not in cli.ok("session", "ls", "-q").out


# --- sagas ----------------------------------------------------------------------------------------


def test_a_deletion_that_has_to_be_tried_again(cli: Cli) -> None:
    """Somebody has put a file in the place of the trash: the folder is not touched, and the saga waits."""
    place = cli.new_workspace("demo")
    folder = Path(cli.ok("--json", "workspace", "show", "demo").json["path"])
    trash = folder.with_name(".trash")
    trash.rename(folder.with_name("elsewhere"))
    trash.touch()
    done = cli("workspace", "rm", "demo")
    assert done.status == 75
    saga = cli.ok("saga", "ls", "-q", "-n", "1").out.strip()
    assert f"see: hostsvc saga show {saga}" in done.err
    table = cli.ok("saga", "ls").out.splitlines()
    assert table[1].split()[:4] == [saga, place, "open", "1"]
    shown = cli.ok("saga", "show", saga).out
    assert f"workspace_id:       {place}" in shown
    assert re.search(r"^folder +begun ", shown, re.MULTILINE)
    steps = cli.ok("--json", "saga", "show", saga).json["steps"]
    assert [step["step"] for step in steps][-1] == "folder"
    assert cli.ok("--json", "saga", "ls").json["sagas"][0]["id"] == saga
    again = cli("saga", "resume", saga)
    assert again.status == 75
    assert "is open: folder" in again.err
    left_out = cli("saga", "resume", saga, "--leave-out", "--json")
    assert left_out.status == 5
    assert left_out.json["state"] == "done"
    assert "warning: folder was left out by hand" in left_out.err
    assert folder.is_dir()
    assert cli("saga", "resume", saga, "--leave-out").status == 5, "finished; nothing is done again"
    trash.unlink()
    trash.with_name("elsewhere").rename(trash)


# --- looking --------------------------------------------------------------------------------------


def test_health(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = cli.ok("health").out
    assert shown.startswith("green\nservice:")
    assert f"pid {cli.host.pid}" in shown
    found = cli.ok("health", "--json").json
    assert found["status"] == "green"
    assert STATUSES == {"green": 0, "yellow": 5}
    monkeypatch.setattr(Settings, "connect", lambda _: Scripted({"health": {**found, "status": "red"}}))
    assert cli("health").status == 1


def test_events(
    host: HostService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Followed as they happen; a service that was told to stop is not waited for long."""
    cli = Cli(host.start(), monkeypatch, capsys)
    lines, as_json = (follow(host, tmp_path / name, *given) for name, given in TOLD.items())

    def told(name: str) -> str:
        return (tmp_path / name).read_text()

    try:
        wait_until(lambda: _touch(cli) and "workspace.updated" in told("lines") and told("json"))
        first = json.loads(told("json").splitlines()[0])
        assert set(first) >= {"daemon_id", "seq", "type", "at_ms", "id"}
        as_json.send_signal(signal.SIGINT)
        assert as_json.wait(20) == 130
        assert host.stop() == 0
        assert lines.wait(20) == 69
        assert "service.stopping" in told("lines")
    finally:
        for follower in (lines, as_json):
            follower.kill()
            follower.wait()


TOLD = {"lines": (), "json": ("--json",)}


def follow(host: HostService, path: Path, *options: str) -> subprocess.Popen[bytes]:
    code = "import ptyd.cli.stream as s; s.SUCCESSOR_WAIT_S = 0.1; from hostsvc.cli import main; main()"
    with path.open("wb") as out:
        command = [sys.executable, "-P", "-c", code, "events", *options]
        return subprocess.Popen(command, env=host.env, stdout=out, stderr=out)


def _touch(cli: Cli) -> bool:
    """Make something happen; the followers may not have subscribed yet."""
    cli("-q", "workspace", "create", "demo")
    return cli("-q", "workspace", "update", "demo", "--label", f"at={os.urandom(4).hex()}").status == 0


def test_a_reader_that_has_enough_is_no_error(cli: Cli) -> None:
    command = f"{sys.executable} -P -m hostsvc workspace ls | head -c 2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=cli.host.env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("ID0\n", "")


def test_a_fault_of_ours_is_told_with_an_id(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Settings) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Settings, "connect", fail)
    assert run(["health"]) == 1
    assert "hostsvc: internal: ZeroDivisionError: by zero (fault " in capsys.readouterr().err


def test_every_error_has_a_next_step_that_exists() -> None:
    from hostsvc.cli.group import NEXT_STEPS
    from tests.hostsvc.test_cli_help import ALL

    for text in NEXT_STEPS.values():
        for name in re.findall(r"hostsvc ((?:[a-z]+ ?)+)", text):
            assert any(name.strip().startswith(command) for command in ALL), name
