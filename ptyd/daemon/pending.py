"""A question on its way to a shim, and the wait for its answer."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ptyd.datagrams import Body
from ptyd.protocol.errors import Code, PtydError

ASK_DEADLINE_S = 5.0


class Pending:
    """A question that was sent to the shim."""

    def __init__(self, session_id: str, why_not: Callable[[], PtydError]) -> None:
        self._session_id = session_id
        self._why_not = why_not
        self._done = trio.Event()
        self._body: Body | None = None

    @property
    def is_broken(self) -> bool:
        """Tell whether the link broke before the answer came."""
        return self._done.is_set() and self._body is None

    def settle(self, body: Body | None) -> None:
        self._body = body
        self._done.set()

    async def answer(self, deadline_s: float = ASK_DEADLINE_S) -> Body:
        """Wait for the answer.

        Raises:
            PtydError: `unsupervised` or `ended` when the shim is gone, `busy` when it does not answer in
                time, `spawn_failed` and its like when the program never ran, `no_space` when it could not.
        """
        with trio.move_on_after(deadline_s):
            await self._done.wait()
        if not self._done.is_set():
            raise PtydError(Code.BUSY, f"the shim of session {self._session_id} does not answer; try again")
        if self._body is None:
            raise self._why_not()
        if error := self._body.get("error"):
            raise PtydError(Code.NO_SPACE, f"session {self._session_id}: {error}")
        return self._body
