"""Waiting on a session: for its exit, its end, bytes in its output, quiet, or just more output.

Owns what `session.wait` and `session.read` do with time. Looks for literal bytes only: patterns and
screens are the client's work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Coroutine
from typing import Any

import trio

from ptyd.daemon.session import Session
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import OUTPUT_CHUNK_BYTES
from ptyd.protocol.messages import SessionRead, SessionWait
from ptyd.protocol.states import SessionState


class Waker:
    """A follower that wakes one task."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._event = trio.Event()

    def session_changed(self) -> None:
        self._event.set()

    async def change(self) -> None:
        """Wait until something of the session has changed since the last call."""
        await self._event.wait()
        self._event = trio.Event()

    def __enter__(self) -> Waker:
        self._session.follow(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._session.unfollow(self)


def read_now(session: Session, offset: int, most: int) -> dict[str, Any]:
    output = session.output
    if output is None:
        raise session.gone()
    start, data = output.read(offset, most)
    ended = not session.is_living and start + len(data) >= output.head
    return {"offset": start, "data": data, "next": start + len(data), "ended": ended}


def read_output(session: Session, request: SessionRead) -> object:
    """Read at once when there is something or no wish to wait."""
    found = read_now(session, request.offset, request.max_bytes)
    if found["data"] or found["ended"] or not request.wait_ms:
        return found
    return _read_later(session, request)


async def _read_later(session: Session, request: SessionRead) -> dict[str, Any]:
    with trio.move_on_after(request.wait_ms / 1000), Waker(session) as waker:
        while True:
            found = read_now(session, request.offset, request.max_bytes)
            if found["data"] or found["ended"]:
                return found
            await waker.change()
    return read_now(session, request.offset, request.max_bytes)


def wait_for(session: Session, request: SessionWait) -> Coroutine[Any, Any, dict[str, Any]]:
    """Wait for what the request names.

    Where to look from is settled at once: `live` means before whatever the client asks for next.

    Raises:
        PtydError: `timeout`; `ended` or `unsupervised` when it can no longer happen.
    """
    offset = _first_offset(session, request.since) if isinstance(request.for_, bytes) else 0
    return _wait(session, request, offset)


async def _wait(session: Session, request: SessionWait, offset: int) -> dict[str, Any]:
    timeout_s = math.inf if request.timeout_ms is None else request.timeout_ms / 1000
    with trio.move_on_after(timeout_s), Waker(session) as waker:
        match request.for_:
            case "exit" | "end" as which:
                return await _wait_end(session, waker, which)
            case bytes() as literal:
                return await _wait_match(session, waker, literal, offset)
            case int() as idle_ms:
                return await _wait_idle(session, waker, idle_ms)
    raise PtydError(Code.TIMEOUT, f"session {session.id}: it did not happen within {request.timeout_ms} ms")


def _first_offset(session: Session, since: int | str) -> int:
    if session.output is None:
        raise session.gone()
    return session.output.head if since == "live" else 0 if since == "start" else int(since)


async def _wait_end(session: Session, waker: Waker, which: str) -> dict[str, Any]:
    while True:
        if not session.is_living or (which == "exit" and session.exit is not None):
            offset = session.facts.get("exit_offset" if which == "exit" else "end_offset")
            return {"event": which, "exit": session.exit, "offset": offset or 0}
        await waker.change()


async def _wait_match(session: Session, waker: Waker, literal: bytes, offset: int) -> dict[str, Any]:
    """Look through the output as it comes, keeping just enough to find what lies across two chunks."""
    kept = b""
    while True:
        found = read_now(session, offset, OUTPUT_CHUNK_BYTES)
        if found["offset"] != offset:
            kept = b""  # a gap: what is before it does not touch what is after it
        window = kept + found["data"]
        at = window.find(literal)
        if at >= 0:
            end = found["next"] - len(window) + at + len(literal)
            return {"event": "match", "exit": session.exit, "offset": end}
        offset, kept = found["next"], window[-(len(literal) - 1) :] if len(literal) > 1 else b""
        if found["ended"]:
            raise PtydError(Code.ENDED, f"session {session.id} ended without it")
        if found["data"]:
            # 64 MiB of scrollback take a while, and a deadline of 0 is for what has happened already.
            await trio.lowlevel.cancel_shielded_checkpoint()
        elif session.state is SessionState.UNSUPERVISED:
            raise session.gone()  # nobody reads its terminal any more
        else:
            await waker.change()


async def _wait_idle(session: Session, waker: Waker, idle_ms: int) -> dict[str, Any]:
    """Wait for `idle_ms` without output, counted from the last output or from now if there was none."""
    begun = time.monotonic_ns() // 1_000_000
    while True:
        if not session.is_living:
            raise PtydError(Code.ENDED, f"session {session.id} has ended")
        quiet_ms = session.quiet_ms()
        since_begun = time.monotonic_ns() // 1_000_000 - begun
        left_ms = idle_ms - (since_begun if quiet_ms is None else quiet_ms)
        if left_ms <= 0:
            return {
                "event": "idle",
                "exit": session.exit,
                "offset": session.output.head if session.output else 0,
            }
        with trio.move_on_after(left_ms / 1000):
            await waker.change()
