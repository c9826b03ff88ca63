"""The command `hostsvc` itself: which commands there are, where they live, and how they reach the service."""

from __future__ import annotations

from functools import partial
from typing import Final

import click

from hostsvc import __version__
from hostsvc.cli import EXIT_CONFIG
from hostsvc.client import open_client
from hostsvc.config import ConfigError, find_setting
from ptyd.blocking import BlockingClient
from ptyd.cli import group
from ptyd.cli.output import printable, say
from ptyd.protocol.errors import Code

NEXT_STEPS: Final = {
    Code.NOT_FOUND: "see: hostsvc workspace ls, hostsvc session ls -a",
    Code.EXISTS: "see: hostsvc workspace ls",
    Code.NAME_TAKEN: "see: hostsvc workspace ls, hostsvc session ls",
    Code.DESTROYED: "see: hostsvc workspace ls -a",
    Code.BEING_DELETED: "see: hostsvc saga ls",
    Code.AT_RISK: "see: hostsvc workspace risk; to delete it all the same: hostsvc workspace rm --force",
    Code.KILL_UNCONFIRMED: "the reaper goes on until it is proven dead; see: hostsvc session ls",
    Code.WRONG_INSTANCE: "the reaper goes on until it is proven dead; see: hostsvc doctor",
    Code.NO_PTYD: "see: ptyd doctor",
    Code.INDEX_FAILED: "see: hostsvc db check",
    Code.INTERNAL: "see the service's log, and: hostsvc doctor",
    Code.BUSY: "try again; see: hostsvc doctor",
    Code.UNREACHABLE: "see: hostsvc doctor",
    Code.MAYBE_APPLIED: "it may have been done; see: hostsvc session ls, hostsvc saga ls",
}


class Settings(group.Settings):
    """What the options of all commands say."""

    def place(self) -> str:
        """Return the runtime directory: the flag's, else as settings say.

        Raises:
            Refused: the setting cannot be used.
        """
        try:
            flags = {"runtime_dir": self.runtime_dir} if self.runtime_dir else {}
            return str(find_setting("runtime_dir", flags).value)
        except ConfigError as error:
            raise Refused(str(error), EXIT_CONFIG) from error

    def connect(self, *, start: bool | None = None) -> BlockingClient:
        """Connect to the host service; it is never started from here."""
        return open_client(self.place())


class Refused(click.ClickException):
    """Nothing was done; the message says why, and the status is the program's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # a constant in most of click's own

    def show(self, file: object = None) -> None:
        """Tell it as every other error is told."""
        say(f"hostsvc: {printable(self.message)}")


def _group(name: str, help: str, module: str, *commands: str, **elsewhere: str) -> click.Group:
    """Make a group of commands that live in `module`, and some that do not."""
    modules = {**dict.fromkeys(commands, module), **elsewhere}
    return group.Group(name=name, help=help, package="hostsvc.cli", commands=modules)


COMMANDS: Final[dict[str, str | click.Group]] = {  # in the order of help
    "serve": "serve",
    "workspace": _group(
        "workspace",
        "Folders with sessions: make, look at, change, delete.",
        "workspace",
        "create",
        "ls",
        "show",
        "update",
        "risk",
        "rm",
        "restore",
        reconcile="reconcile",
    ),
    "trash": _group("trash", "What was deleted: list it, remove it for good.", "trash", "ls", "purge"),
    "session": _group(
        "session", "Sessions in workspaces: start, list, end.", "session", "new", "ls", "attach", "dispose"
    ),
    "run": group.Group(
        name="run",
        help="Runs: what belongs together, and ends together.",
        package="hostsvc.cli",
        commands={"start": "runs", "ls": "runs", "end": "runs", "sweep": "runs", "exec": "job"},
    ),
    "reap": "reaper",
    "passes": "reaper",
    "saga": _group("saga", "Deletions: how far they are, and going on.", "saga", "ls", "show", "resume"),
    "health": "health",
    "events": "health",
    "doctor": "doctor",
    "adopt": "adopt",
    "config": _group("config", "Settings, and where each comes from.", "config", "show"),
    "db": _group("db", "The index: is it sound, and a copy of it.", "db", "check", "backup"),
    "completion": "serve",
}

root = group.Group(
    name="hostsvc",
    package="hostsvc.cli",
    commands=COMMANDS,
    params=group.common_options(with_start=False),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Workspaces and their sessions: what is deleted is proven dead.

    Names work wherever ids do. The service runs by `hostsvc serve`; no other command starts it.
    """,
    epilog="Exit statuses: 1 failure, 2 usage, 3 not found, 4 refused, 5 with warnings or in part, "
    "69 unreachable, 75 try again, 78 bad setting.",
)
root = click.version_option(__version__, prog_name="hostsvc", help="Show the version and exit.")(root)

pass_settings = group.pass_settings
command = partial(group.command, with_start=False)
