"""The command line run in this process, quickly, and on a terminal of its own."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import pytest

from hostsvc.cli import run
from tests.attach.user import User
from tests.support.host import HostService


class Done(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """Runs `hostsvc …` here, on the settings of one host service."""

    def __init__(
        self, host: HostService, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.host = host
        self._capture = capture
        wanted = {**host.settings, **{name: host.env[name] for name in ("PTYD_RUNTIME_DIR", "HOME")}}
        for name, value in wanted.items():
            if (
                os.environ.get(name) != value
            ):  # what `runtime` has set is its to take back, before `patch` does
                patch.setenv(name, value)

    def __call__(self, *arguments: str) -> Done:
        self._capture.readouterr()
        status = run(list(arguments))
        out, err = self._capture.readouterr()
        return Done(status, out, err)

    def ok(self, *arguments: str) -> Done:
        """Run one that has to succeed."""
        done = self(*arguments)
        assert done.status == 0, done
        return done

    def new_workspace(self, *arguments: str) -> str:
        """Make a workspace; return its id."""
        return self.ok("-q", "workspace", "create", *arguments).out.strip()

    def new_session(self, workspace: str, *arguments: str) -> str:
        """Start a session, `sleep` unless told otherwise; return its id."""
        return self.ok("-q", "session", "new", "-w", workspace, *(arguments or ("sleep", "1000"))).out.strip()


class HostUser(User):
    """A person who runs `hostsvc …` on a terminal."""

    command_line = "import sys; from hostsvc.cli import main; sys.argv[0] = 'hostsvc'; main()"
