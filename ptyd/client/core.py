"""The trio client's methods: one for each of the protocol's, and what is the client's own work.

Owns nothing but how calls are written and their answers read; connections are `link`'s and
`attachment`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import trio

from ptyd.calls import INPUT_WAIT_MS, Params, input_pieces
from ptyd.client.attachment import Attachment
from ptyd.client.events import EventStream
from ptyd.client.link import Link
from ptyd.client.values import (
    Chunk,
    Happened,
    Killed,
    Listing,
    Session,
    State,
    parse_chunk,
    parse_happened,
    parse_killed,
    parse_listing,
    parse_session,
    parse_stats,
)
from ptyd.client.wire import Dialer
from ptyd.cursor import Since
from ptyd.protocol.errors import Code, PtydError

Text = str | bytes

WAIT_SLICE_S: Final = 30.0
"""The daemon cannot be told that nobody waits any more: long waits are asked for in slices of
this."""


class Client:
    """Made by `open_client`. For any number of tasks; every `id` may also be a name.

    Errors and cancellation: see `ptyd.client`.
    """

    def __init__(self, link: Link, dialer: Dialer, reconnect_deadline_s: float) -> None:
        self._link = link
        self._dialer = dialer
        self._reconnect_deadline_s = reconnect_deadline_s

    @property
    def hello(self) -> Mapping[str, Any]:
        """The latest daemon's answer to hello: instance_id, daemon_id, pid, version, limits, …."""
        return self._link.hello

    @property
    def was_stopped(self) -> bool:
        """Whether the daemon has said that it was told to stop, and none was reached since."""
        return self._dialer.was_stopped

    # --- sessions ---------------------------------------------------------------------------------

    async def spawn(
        self,
        argv: Sequence[Text],
        *,
        id: str | None = None,
        generation: int | None = None,
        cwd: Text | None = None,
        env: Mapping[str, Text] | None = None,
        rows: int | None = None,
        cols: int | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        scrollback_bytes: int | None = None,
        on_leader_exit: Literal["keep", "kill"] | None = None,
        expect_instance: str | None = None,
    ) -> Session:
        """Start a program in a session of its own. `env` is laid over a minimal login environment.

        Give an `id` to be able to ask afterwards whether a spawn that ended in maybe_applied
        happened.

        Raises:
            PtydError: exists, name_taken, fenced, wrong_instance; program_not_found and its like;
                too_many_sessions; maybe_applied.
        """
        asked = _given(
            id=id,
            generation=generation,
            cwd=cwd,
            env=None if env is None else dict(env),
            rows=rows,
            cols=cols,
            name=name,
            labels=None if labels is None else dict(labels),
            scrollback_bytes=scrollback_bytes,
            on_leader_exit=on_leader_exit,
            expect_instance=expect_instance,
        )
        return parse_session(await self._link.call("session.spawn", {"argv": list(argv), **asked}))

    async def list(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        state: State | None = None,
        detail: bool = False,
    ) -> Listing:
        """List sessions, ended ones included while their records are kept."""
        asked = _given(labels=None if labels is None else dict(labels), state=state)
        return parse_listing(await self._link.call("session.list", {"detail": detail, **asked}))

    async def get(self, id: str) -> Session:
        """Return one session with its detail."""
        return parse_session(await self._link.call("session.get", {"id": id}))

    async def update(
        self, id: str, *, name: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Session:
        """Rename ("" takes the name away), or replace all labels."""
        asked = _given(name=name, labels=None if labels is None else dict(labels))
        return parse_session(await self._link.call("session.update", {"id": id, **asked}))

    async def resize(self, id: str, *, rows: int, cols: int) -> None:
        """Set the window size; the foreground program gets SIGWINCH when it changes."""
        await self._link.call("session.resize", {"id": id, "rows": rows, "cols": cols})

    async def signal(
        self,
        id: str,
        signal: int | str,
        *,
        to: Literal["foreground", "leader", "all"] = "foreground",
    ) -> int:
        """Send a signal; return how many processes or groups it went to."""
        asked = {"id": id, "signal": signal, "to": to}
        return int((await self._link.call("session.signal", asked))["signalled"])

    async def forget(self, id: str) -> None:
        """Drop the record of an ended session."""
        await self._link.call("session.forget", {"id": id})

    # --- input and output -------------------------------------------------------------------------

    async def input(self, id: str, data: bytes, *, wait_ms: int = 0) -> int:
        """Queue at most 64 KiB of input, all or nothing; return how many bytes were accepted.

        Raises:
            PtydError: input_full, no room within `wait_ms`; read_only; ended; maybe_applied.
        """
        asked = {"id": id, "data": data, "wait_ms": wait_ms}
        return int((await self._link.call("session.input", asked))["accepted"])

    async def send_all(self, id: str, data: bytes, *, wait_ms: int = INPUT_WAIT_MS) -> None:
        """Queue input of any size, in order, waiting for room as long as there comes some.

        Two of these at once to one session mix in pieces of 64 KiB.

        Raises:
            PtydError: as `input`; `data["sent"]` tells how many bytes had been accepted before it.

        Cancellation: a part may have been sent, and the piece under way may still be accepted.
        """
        sent = 0
        for piece in input_pieces(data):
            try:
                sent += await self.input(id, piece, wait_ms=wait_ms)
            except PtydError as error:
                error.data["sent"] = sent
                raise

    async def read(self, id: str, offset: int, *, max_bytes: int | None = None, wait_ms: int = 0) -> Chunk:
        """Read output at an offset, without an attachment."""
        asked = _given(max_bytes=max_bytes)
        call = {"id": id, "offset": offset, "wait_ms": wait_ms, **asked}
        return parse_chunk(await self._link.call("session.read", call))

    def attach(
        self,
        id: str,
        *,
        since: Since = "live",
        mode: Literal["rw", "ro"] = "rw",
        flow: Literal["skip", "pace"] = "skip",
        rows: int | None = None,
        cols: int | None = None,
        via: Literal["shm", "stream"] = "shm",
    ) -> Attachment:
        """Return an attachment to use as `async with … as attachment: async for event in
        attachment`.

        Args:
            id: The session; a name is resolved once, at the first attach.
            since: An offset, "start" (of what the scrollback holds) or "live".
            mode: "ro" when this client must not type.
            flow: What happens when this reader is slow: "skip" loses old output and says exactly
                what, "pace" slows the session for as long as the reader makes progress.
            rows: With `cols`, the window size of whoever looks at it.
            cols: See rows.
            via: "shm" reads the session's memory in place where that can be had, and is streamed
                where it cannot; "stream" comes through the daemon in any case.
        """
        asked = _given(rows=rows, cols=cols)
        params = {"id": id, "since": since, "mode": mode, "flow": flow, "via": via, **asked}
        return Attachment(self._dialer, params, self._reconnect_deadline_s)

    # --- the end ----------------------------------------------------------------------------------

    async def kill(
        self,
        id: str,
        *,
        grace_ms: int | None = None,
        force: bool = False,
        generation: int | None = None,
        expect_instance: str | None = None,
    ) -> Killed:
        """End every process of a session and return the proof.

        Raises:
            PtydError: kill_unconfirmed, with `data["survivors"]`; not_found; wrong_instance;
                maybe_applied: the kill goes on without us, ask again for its result.
        """
        asked = _given(grace_ms=grace_ms, generation=generation, expect_instance=expect_instance)
        answer = await self._link.call("session.kill", {"id": id, "force": force, **asked})
        return parse_killed(id, answer)

    async def kill_labelled(
        self, labels: Mapping[str, str], *, grace_ms: int | None = None, force: bool = False
    ) -> tuple[Killed | PtydError, ...]:
        """End every session that has all these labels; one result, or one error, for each."""
        asked = {"labels": dict(labels), "force": force, **_given(grace_ms=grace_ms)}
        answer = await self._link.call("session.kill", asked)
        return tuple(_killed_or_error(result) for result in answer["results"])

    async def wait(
        self,
        id: str,
        for_: Literal["exit", "end"] | bytes | int = "end",
        *,
        since: Since = "start",
        timeout_s: float = math.inf,
    ) -> Happened:
        """Wait for the leader's exit, for the end of all, for literal bytes of output, or for
        quiet.

        Args:
            id: The session.
            for_: "exit"; "end"; bytes to look for in the output after `since`; or how many
                milliseconds without output.
            since: Where to look for bytes from.
            timeout_s: After this long, give up.

        Raises:
            PtydError: timeout; not_found; ended, before what was waited for.
        """
        give_up_at = trio.current_time() + timeout_s
        if isinstance(for_, bytes) and since == "live":
            since = (await self.get(id)).output_offset  # the same place in every slice
        slice_s = WAIT_SLICE_S + (for_ / 1000 if isinstance(for_, int) else 0)
        while True:
            allowed_s = max(0.0, min(slice_s, give_up_at - trio.current_time()))
            asked: Params = {"id": id, "for": for_, "timeout_ms": math.ceil(allowed_s * 1000)}
            try:
                return parse_happened(await self._link.call("session.wait", {**asked, "since": since}))
            except PtydError as error:
                if error.code is not Code.TIMEOUT or trio.current_time() >= give_up_at:
                    raise

    # --- the daemon -------------------------------------------------------------------------------

    def subscribe(self, since: tuple[str, int] | None = None) -> EventStream:
        """Return the daemon's events, to use as `async with … as events: async for event in
        events`.

        Args:
            since: (daemon_id, number) of the last event that is known already; None for from now
            on.
        """
        return EventStream(self._dialer, since, self._reconnect_deadline_s)

    async def stats(self) -> Mapping[str, Any]:
        """Return the daemon's counters and limits."""
        return parse_stats(await self._link.call("daemon.stats", {}))

    async def stop(self, *, kill: bool = False) -> int:
        """Stop the daemon, which keeps sessions unless `kill`; return how many it leaves.

        This client starts no other daemon afterwards, but finds one that somebody else starts.
        """
        self._dialer.told_stopping()
        return int((await self._link.call("daemon.stop", {"kill": kill}))["sessions"])


def _given(**fields: Any) -> Params:
    return {key: value for key, value in fields.items() if value is not None}


def _killed_or_error(result: Mapping[str, Any]) -> Killed | PtydError:
    if (error := result.get("error")) is None:
        return parse_killed(result["id"], result)
    failure = PtydError.from_wire(error)
    failure.data.setdefault("id", result["id"])
    return failure
