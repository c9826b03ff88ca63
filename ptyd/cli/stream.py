"""`logs`, `wait` and `events`: what comes out of a session, and what happens."""

from __future__ import annotations

import time
from typing import Any, Final, NoReturn

import click

from ptyd.blocking import BlockingClient
from ptyd.cli.group import Settings, command
from ptyd.cli.output import exit_status, printable, put, put_bytes, put_json, say
from ptyd.cli.params import parse_bytes, session_argument, since_option
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_READ_BYTES

FOLLOW_WAIT_MS: Final = 30_000
SUCCESSOR_WAIT_S: Final = 10.0
"""How long `events` waits for the successor of a daemon that was stopped."""
RETRY_S: Final = 0.1


@command(with_json=False)
@session_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the session has ended.")
@since_option("start", "Where to begin.")
@click.option(
    "--tail", type=parse_bytes, metavar="BYTES", help="Begin at most this many bytes before the end."
)
def logs(settings: Settings, session: str, follow: bool, since: int | str, tail: int | None) -> int:
    """Write a session's output.

    Byte for byte as it was, as far as it is kept. Bytes that are gone are counted on stderr.
    """
    with settings.connect() as client:
        found = client.call("session.get", {"id": session})
        offset = _first_offset(found, since, tail)
        until = None if follow else found["output_offset"]
        _copy(client, settings, found["id"], offset, until)
    return 0


def _first_offset(session: dict[str, Any], since: int | str, tail: int | None) -> int:
    start, end = int(session["scrollback_start"]), int(session["output_offset"])
    if tail is not None:
        return max(start, end - tail)
    return {"start": start, "live": end}[since] if isinstance(since, str) else since


def _copy(client: BlockingClient, settings: Settings, session: str, offset: int, until: int | None) -> None:
    """Copy output from `offset`; to `until`, or to the end of the session."""
    while until is None or offset < until:
        most = MAX_READ_BYTES if until is None else min(MAX_READ_BYTES, until - offset)
        wait_ms = FOLLOW_WAIT_MS if until is None else 0
        asked = {"id": session, "offset": offset, "max_bytes": most, "wait_ms": wait_ms}
        answer = client.call("session.read", asked)
        if answer["offset"] > offset and not settings.quiet:
            say(f"[ptyd: {answer['offset'] - offset} bytes from offset {offset} are gone]")
        put_bytes(answer["data"])
        offset = answer["next"]
        if answer["ended"] or (until is not None and not answer["data"]):
            return


@command()
@session_argument
@click.option(
    "--exit", "what", flag_value="exit", default=True, help="Until the program has exited (default)."
)
@click.option("--end", "what", flag_value="end", help="Until every process of the session has ended.")
@click.option("--match", metavar="TEXT", help="Until the output contains this text.")
@click.option(
    "--idle",
    "idle_s",
    metavar="SECONDS",
    type=click.FloatRange(0, 86400),
    help="Until there was no output for so long.",
)
@since_option("start", "Where --match begins to look.")
@click.option(
    "--timeout", "timeout_s", metavar="SECONDS", type=click.FloatRange(0, 86400), help="Give up after this."
)
def wait(
    settings: Settings,
    session: str,
    what: str,
    match: str | None,
    idle_s: float | None,
    since: int | str,
    timeout_s: float | None,
) -> int:
    """Wait for a session to exit, end, write or be quiet.

    Returns the program's exit code, or 128 + N for signal N.     With --match and --idle, return 0
    when it happened, 4 when the session ended first.
    """
    if match is not None and idle_s is not None:
        raise click.UsageError("give --match or --idle, and not both")
    asked: dict[str, Any] = {"id": session, "for": what}
    if match is not None:
        asked |= {"for": match.encode(errors="surrogateescape"), "since": since}
    elif idle_s is not None:
        asked["for"] = round(idle_s * 1000)
    if timeout_s is not None:
        asked["timeout_ms"] = round(timeout_s * 1000)
    with settings.connect() as client:
        answer = client.call("session.wait", asked)
    if settings.json:
        put_json(answer)
    return exit_status(answer["exit"]) if answer["event"] in ("exit", "end") else 0


@command()
def events(settings: Settings) -> int:
    """Write what happens to sessions, as it happens."""
    Follower(settings).run()


class Follower:
    """One reader of events over any number of daemons.

    Args:
        settings: How to connect, and what to write.
        program: Who says that events are missing.
        farewell: The event after which a daemon was stopped on purpose.
    """

    def __init__(self, settings: Settings, program: str = "ptyd", farewell: str = "daemon.stopping") -> None:
        self._settings = settings
        self._program = program
        self._farewell = farewell
        self._client = settings.connect()
        self._place: dict[str, Any] | None = None
        self.was_stopped = False

    def run(self) -> NoReturn:
        """Write events until nobody serves any more.

        Raises:
            PtydError: unreachable; it was stopped, and nobody came after it.
        """
        while True:
            try:
                self.follow()
            except PtydError as error:
                if error.code is not Code.UNREACHABLE:
                    raise
            if self.was_stopped:
                self.await_successor()

    def follow(self) -> None:
        """Write events until the connection is lost."""
        if self._client.is_closed:
            self._client = self._settings.connect()
        answer = self._client.call("events.subscribe", {"since": self._place})
        if self._place is not None and self._place["daemon_id"] != answer["daemon_id"]:
            say(f"[{self._program}: another daemon serves now; events in between are not known]")
        elif answer["truncated"]:
            say(f"[{self._program}: {answer['truncated']} events are missing]")
        self._place = {"daemon_id": answer["daemon_id"], "seq": answer["seq"]}
        try:
            for method, params in self._client.notifications():
                self._take(method, params)
        finally:
            self._client.close()

    def await_successor(self) -> None:
        """The daemon was stopped: start none, but find the one that an upgrade brings.

        Raises:
            PtydError: unreachable; nobody came.
        """
        give_up_at = time.monotonic() + SUCCESSOR_WAIT_S
        while True:
            try:
                self._client = self._settings.connect(start=False)
            except PtydError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(RETRY_S)
            else:
                self.was_stopped = False
                return

    def _take(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "event":
                self._place = {"daemon_id": params["daemon_id"], "seq": params["seq"]}
                self.was_stopped = params["type"] == self._farewell
                self._put(params)
            case "event_gap":
                say(f"[{self._program}: {params['to'] - params['from'] + 1} events are missing]")

    def _put(self, event: dict[str, Any]) -> None:
        if self._settings.json:
            put_json(event)
        else:
            put(_line(event))
        put_bytes(b"")  # flushed: somebody watches


def _line(event: dict[str, Any]) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at_ms"] / 1000))
    common = ("daemon_id", "seq", "at_ms", "type", "id")
    rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in common)
    return printable(f"{moment} {event['type']} {event.get('id', '-')} {rest}").rstrip()
