"""Kills: the fence on disk first, then whoever can prove the death.

Owns the way of one kill: to the shim, or, when that is gone, to the zygote; and the kills that a daemon
before this one had begun. Signals nobody itself.
"""

from __future__ import annotations

from typing import Any

import trio

from ptyd.daemon.pending import Pending
from ptyd.daemon.registry import BIRTH_DEADLINE_S, Registry
from ptyd.daemon.session import Session
from ptyd.daemon.zygote_link import ZygoteLink
from ptyd.datagrams import Body
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog
from ptyd.protocol.states import SessionState

log = get_logger()

KILL_SLACK_S = 15.0  # beyond both graces: the KILL loop's deadline and a little more


class Killer:
    """Kills sessions. See protocol.md, `session.kill`, for the result."""

    def __init__(self, registry: Registry, zygote: ZygoteLink, events: EventLog) -> None:
        self._registry = registry
        self._zygote = zygote
        self._events = events

    async def kill(
        self, session: Session, grace_ms: int, force: bool, generation: int | None = None
    ) -> dict[str, Any]:
        """Fence a session up to `generation` (its own unless given) and kill it.

        Cancellation: the kill goes on in the shim, and the fence carries it over our death.

        Raises:
            PtydError: `kill_unconfirmed` with the survivors; `not_found` when only a later generation
                lives; `no_space` when the intent could not be written; `busy` when nobody answers.
        """
        wanted = generation or session.generation
        self._registry.fences.raise_to(session.id, wanted, grace_ms, force)
        if wanted < session.generation:
            message = f"session {session.id} is at generation {session.generation}; {wanted} is no more"
            raise PtydError(Code.NOT_FOUND, message, generation=session.generation)
        return await self._kill(session, grace_ms, force)

    def fence(self, session_id: str, generation: int, grace_ms: int, force: bool) -> None:
        """Refuse late spawns of an id that nobody knows."""
        self._registry.fences.raise_to(session_id, generation, grace_ms, force)

    async def resume(self, session: Session) -> None:
        """Go on with a kill that the daemon before us was asked for."""
        fence = self._registry.fences.get(session.id)
        if fence is None or fence.generation < session.generation or not session.is_living:
            return
        log.info("resuming a kill", session=session.id)
        try:
            await self._kill(session, fence.grace_ms, fence.force)
        except PtydError as err:
            log.warning("resumed kill", session=session.id, error=str(err))

    async def _kill(self, session: Session, grace_ms: int, force: bool) -> dict[str, Any]:
        if not session.is_living:
            return _already_exited(session)
        if session.state is SessionState.UNSUPERVISED:
            return await self._kill_orphans(session, grace_ms, force)
        pending: Pending | None = None
        try:
            pending = session.post({"do": "kill", "grace_ms": grace_ms, "force": force})
            body = await pending.answer(2 * grace_ms / 1000 + KILL_SLACK_S)
        except PtydError as err:
            if pending is not None and not pending.is_broken:
                raise  # the shim is there and does not answer
            return await self._follow(session, grace_ms, force, err)
        return self._result(session, body)

    async def _follow(self, session: Session, grace_ms: int, force: bool, err: PtydError) -> dict[str, Any]:
        """The link broke under a kill: what became of the session says what the kill comes to."""
        with trio.move_on_after(BIRTH_DEADLINE_S):
            while not session.is_reachable():
                await self._registry.progress.wait()
            if session.failure is None:
                return await self._kill(session, grace_ms, force)
            return {**_already_exited(session), "proof": "never_ran"}
        raise err

    async def _kill_orphans(self, session: Session, grace_ms: int, force: bool) -> dict[str, Any]:
        ward = {
            "id": session.id,
            "mark": session.record["mark"],
            "leader_pid": session.fact("pid") or 0,
            "leader_start": session.fact("pid_start") or 0,
        }
        body = await self._zygote.kill(ward, grace_ms, force)
        self._registry.notice(session.id)
        return self._result(session, body)

    def _result(self, session: Session, body: Body) -> dict[str, Any]:
        if body["outcome"] == "unconfirmed":
            raise self._unconfirmed(session, body)
        return {
            "outcome": body["outcome"],
            "exit": session.exit,
            "proof": session.fact("proof"),
            "phase": body.get("phase"),
            "stragglers": body.get("stragglers", []),
            "duration_ms": body.get("duration_ms", 0),
        }

    def _unconfirmed(self, session: Session, body: Body) -> PtydError:
        survivors = body["survivors"]
        reason = body.get("reason") or (survivors[0]["reason"] if survivors else "not_dying")
        self._events.emit("session.kill_unconfirmed", session.id, survivors=survivors, reason=reason)
        message = f"session {session.id}: {len(survivors)} known survivors ({reason}); kill it again to retry"
        return PtydError(
            Code.KILL_UNCONFIRMED, message, survivors=survivors, reason=reason, phase=body["phase"]
        )


def _already_exited(session: Session) -> dict[str, Any]:
    return {
        "outcome": "already_exited",
        "exit": session.exit,
        "proof": session.fact("proof"),
        "phase": None,
        "stragglers": session.fact("stragglers") or [],
        "duration_ms": 0,
    }
