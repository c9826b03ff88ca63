"""`hostsvc adopt`: C22, the sessions of an index that was lost."""

from __future__ import annotations

import io
import sys

import pytest

from tests.hostsvc.commands import Cli
from tests.support.host import HostService, remove_index


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def test_C22_adopt(
    host: HostService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(host.start(), monkeypatch, capsys)
    cli.new_workspace("lost")
    sessions = {cli.new_session("lost"), cli.new_session("lost")}
    host.stop()
    remove_index(host)
    host.start()
    cli.new_workspace("found")
    foreign = cli.ok("session", "ls", "--json").json["foreign"]
    assert {one["id"] for one in foreign} == sessions
    (owner,) = {one["owner"] for one in foreign}
    adopt = ("adopt", "--owner", owner, "-w", "found")

    shown = cli.ok(*adopt, "--dry-run")
    assert all(session in shown.out for session in sessions)
    assert cli.ok(*adopt, "--dry-run", "--json").json["adopted"] is False
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    unasked = cli(*adopt)
    assert (unasked.status, "--yes" in unasked.err) == (2, True)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert cli(*adopt).status == 130
    assert cli.ok("session", "ls", "-q").out == "", "nothing was taken"
    none = cli("adopt", "--owner", "nobody", "-w", "found")
    assert (none.status, "no living session" in none.err) == (3, True)
    own = cli.ok("--json", "health").json["index"]["id"]
    assert cli("adopt", "--owner", own, "-w", "found").status == 3, "all of its own have rows"

    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    taken = cli.ok(*adopt)
    assert all(session in taken.out for session in sessions), "it shows them first"
    assert "2 sessions belong to workspace found now" in taken.err
    assert set(cli.ok("session", "ls", "-q", "-w", "found").out.split()) == sessions
    assert cli.ok("session", "ls", "--json").json["foreign"] == []
    assert cli(*adopt, "--yes").status == 3, "they are not that owner's any more"
    cli.ok("workspace", "rm", "found")
    assert cli.ok("session", "ls", "-q").out == ""
