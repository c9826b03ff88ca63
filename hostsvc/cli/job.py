"""`run exec`: a job. A run that this process holds, a workspace, a program in it; all gone when it exits.

Whatever ends it, its program, an error or a signal, the run is ended before this process exits. After a
SIGKILL its holder is gone, and the reaper ends it when it is old enough. A ptyd that is away ends nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator
from typing import Any, Final

import click

from hostsvc.cli import EXIT_PARTIAL
from hostsvc.cli.group import NEXT_STEPS, Settings, command
from hostsvc.cli.params import complete_workspace
from hostsvc.cli.runs import tell_end
from ptyd.blocking import BlockingClient
from ptyd.cli.enter import caller_env, terminal_size
from ptyd.cli.output import exit_status, printable, put_bytes, say, tell_error
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_READ_BYTES

READ_WAIT_MS: Final = 30_000
AGAIN_S: Final = 1.0
"""Between two looks for a ptyd that is away."""
PASSING: Final = frozenset(
    [Code.UNREACHABLE, Code.TIMEOUT, Code.BUSY, Code.STOPPING, Code.TOO_MANY_CLIENTS, Code.NO_SPACE]
)
"""What ptyd's errors say of ptyd itself, and not of the session."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the job to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.status = 128 + signum


@command(with_json=False, context_settings={"allow_interspersed_args": False})
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "-w",
    "--workspace",
    metavar="WORKSPACE",
    shell_complete=complete_workspace,
    help="Where [default: a workspace of its own, which goes with it].",
)
@click.option("--repo", metavar="DIR", help="Make that one a worktree of this repository.")
@click.option("--branch", metavar="BRANCH", help="To check out in it; made if it is not there.")
@click.option("--rm", "is_expendable", is_flag=True, help="It goes also when work in it is at risk.")
def exec(
    settings: Settings,
    argv: tuple[str, ...],
    workspace: str | None,
    repo: str | None,
    branch: str | None,
    is_expendable: bool,
) -> int:
    """Run a program as a job, and leave nothing behind.

    Writes what it writes, and returns its exit code, 128 + N for signal N; 5 when it succeeded and
    something of it is not proven to be gone. It gets your environment, no input, and its processes
    end with it. SIGINT, SIGTERM and SIGHUP end the job first, and then this command; one that was
    ignored when it began stays ignored, as under nohup.
    """
    if workspace is not None and (repo or branch or is_expendable):
        raise click.UsageError("--repo, --branch and --rm are of a workspace of its own, without -w")
    make = {
        "repository": os.path.realpath(repo) if repo else None,
        "branch": branch,
        "is_expendable": is_expendable,
    }
    run = secrets.token_hex(8)
    status = left = 0
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    try:
        with _heeding_signals():
            status = _work(settings, run, argv, workspace, make)
    except Stopped as stopped:
        status = stopped.status
    finally:
        left = _end(settings, run)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    return status or left


@contextlib.contextmanager
def _heeding_signals() -> Iterator[None]:
    """Raise Stopped at the first signal; from the end of the block on they are ignored: it is ending.

    One that is ignored already stays so: that is what nohup is for, and how a shell starts `command &`.
    """

    def stop(signum: int, _frame: object) -> None:
        _ignore_signals()
        raise Stopped(signum)

    try:
        for signum in SIGNALS:
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, stop)
        yield
    finally:
        _ignore_signals()


def _ignore_signals() -> None:
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _work(
    settings: Settings, run: str, argv: tuple[str, ...], place: str | None, make: dict[str, Any]
) -> int:
    """Do the job in `place`, or in a workspace that is made as `make` says."""
    with settings.connect() as client:
        client.call("run.start", {"id": run, "holder_pid": os.getpid()})
        if place is None:
            place = client.call("workspace.create", {"run": run, "is_ephemeral": True, **make})["id"]
        asked: dict[str, Any] = {
            "workspace": place,
            "argv": list(argv),
            "env": caller_env(),
            "run": run,
            "on_leader_exit": "kill",
        }
        if size := terminal_size():
            asked["rows"], asked["cols"] = size
        session = client.call("session.create", asked)["id"]
    return _Follower(settings.place(), session).run()


class _Follower:
    """Writes a session's output until all of it has ended, however often ptyd goes away meanwhile.

    A ptyd that is away or slow says nothing about the session, which lives on without it: whoever took
    that for the job's end would kill it. So it is asked again, from the same offset on, until it gives a
    definite answer or a signal comes.
    """

    def __init__(self, place: str, session: str) -> None:
        self._place = place
        self._session = session
        self._offset = 0
        self._is_away = False

    def run(self) -> int:
        """Return the exit status of the session's program.

        Raises:
            PtydError: it is not known, and will not be by asking again.
        """
        while True:
            try:
                with BlockingClient.connect(self._place, False, name="hostsvc-cli") as ptyd:
                    while not self._copy(ptyd):
                        pass
                    ended = ptyd.call("session.wait", {"id": self._session, "for": "end"})
                    return exit_status(ended["exit"])
            except PtydError as error:
                if error.code not in PASSING:
                    raise
                self._tell_once(error)
            time.sleep(AGAIN_S)

    def _copy(self, ptyd: BlockingClient) -> bool:
        """Write what there is by now; return whether that was all."""
        asked = {"id": self._session, "offset": self._offset, "max_bytes": MAX_READ_BYTES}
        answer = ptyd.call("session.read", {**asked, "wait_ms": READ_WAIT_MS})
        if answer["offset"] > self._offset:
            say(f"[hostsvc: {answer['offset'] - self._offset} bytes from offset {self._offset} are gone]")
        if answer["data"]:
            self._is_away = False
            put_bytes(answer["data"])
        self._offset = answer["next"]
        return bool(answer["ended"])

    def _tell_once(self, error: PtydError) -> None:
        if not self._is_away:
            say(f"hostsvc: ptyd is away ({printable(str(error))}); the job goes on, and is looked for again")
        self._is_away = True


def _end(settings: Settings, run: str) -> int:
    """End the run, on a connection that no signal has interrupted; return the status for what is left."""
    try:
        with settings.connect() as client:
            answer = client.call("run.end", {"id": run})
    except PtydError as error:
        if error.code is Code.NOT_FOUND:  # it never began
            return 0
        tell_error(error, "hostsvc", NEXT_STEPS)
        say(f"hostsvc: run {run} is left to the reaper, as nobody holds it")
        return error.exit_status
    if answer["state"] == "complete":
        return 0
    tell_end(settings, answer)
    return EXIT_PARTIAL
