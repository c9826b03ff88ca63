"""Input on its way to a shim, which takes all of a message or nothing.

Owns what a verdict means to the client, and the retry of an input that may wait for room.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from ptyd.daemon.session import Session
from ptyd.datagrams import Verdict
from ptyd.protocol.errors import Code, PtydError

Answer = Callable[[PtydError | None], None]


def send_input(session: Session, data: bytes, answer: Answer, is_answered: bool = True) -> None:
    """Pass input to the shim without a task switch.

    Args:
        answer: Gets None when all of it was accepted, or why nothing was.
        is_answered: Otherwise it hears of a refusal only.
    """
    session.send_input(data, lambda verdict: answer(_error(session, verdict)), is_answered)


async def send_input_waiting(session: Session, data: bytes, wait_ms: int) -> None:
    """Pass input to the shim, waiting for room up to `wait_ms`.

    Raises:
        PtydError: `input_full` when there was none in time; nothing was taken then.
    """
    deadline = trio.current_time() + wait_ms / 1000
    while True:
        room = session.room  # before the answer: room may be told in the same breath
        error = await _send(session, data)
        if error is None:
            return
        with trio.move_on_at(deadline):
            if error.code is Code.INPUT_FULL:
                await room.wait()
                continue
        raise error


async def _send(session: Session, data: bytes) -> PtydError | None:
    done = trio.Event()
    got: list[PtydError | None] = []

    def answer(error: PtydError | None) -> None:
        got.append(error)
        done.set()

    send_input(session, data, answer)
    await done.wait()
    return got[0]


def _error(session: Session, verdict: Verdict | None) -> PtydError | None:
    match verdict:
        case Verdict.ACCEPTED:
            return None
        case Verdict.FULL:
            message = f"session {session.id} does not read its input; nothing was accepted, try again later"
            return PtydError(Code.INPUT_FULL, message)
        case Verdict.ENDED | Verdict.READ_ONLY:
            return PtydError(Code.ENDED, f"session {session.id} takes no more input")
        case None:
            message = f"the link to session {session.id} broke; the input may have been taken; look first"
            return PtydError(Code.BUSY, message, maybe_taken=True)
