"""Pace: keeping a session's program from outrunning those of its readers who asked for it.

Owns the credits. A paced session's shim may read the PTY only as far as the slowest paced cursor plus
the ring's capacity; the credit carries a deadline, so that a shim whose daemon died runs free. A reader
that stands still loses its pace, never more: its own session was slowed, and nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from ptyd.daemon.attachment import CREDIT_MS, Attachment
from ptyd.daemon.session import Session

LOOK_S = 0.5  # how often progress is judged, while anybody is paced at all
_RENEW_S = 1.0
_UNLIMITED = 2**64 - 1


class Pacer:
    """The credits of every session that has a paced attachment."""

    def __init__(self) -> None:
        self._paced: dict[Session, set[Attachment]] = {}
        self._posted: dict[Session, tuple[int, float]] = {}
        self._someone = trio.Event()

    def add(self, attachment: Attachment) -> None:
        session = attachment.session
        self._paced.setdefault(session, set()).add(attachment)
        self._post(session, _limit(session, self._paced[session]))  # it may be behind the others
        self._someone.set()

    def remove(self, attachment: Attachment) -> None:
        """Forget a paced attachment, and let its session go when it was the last."""
        session = attachment.session
        others = self._paced.get(session, set())
        others.discard(attachment)
        if not others and self._paced.pop(session, None) is not None:
            self._posted.pop(session, None)
            session.send_credit(_UNLIMITED, CREDIT_MS)

    def progressed(self, attachment: Attachment) -> None:
        """A paced cursor moved: post a new credit when it has moved by enough to matter."""
        session = attachment.session
        if session.output is None or attachment not in self._paced.get(session, ()):
            return
        limit = _limit(session, self._paced[session])
        posted, _ = self._posted.get(session, (0, 0.0))
        if limit - posted >= session.output.capacity // 4:
            self._post(session, limit)

    def _post(self, session: Session, limit: int) -> None:
        self._posted[session] = (limit, trio.current_time())
        session.send_credit(limit, CREDIT_MS)

    async def run(self) -> None:
        """Judge progress and renew credits; sleeps while nobody is paced."""
        while True:
            await self._someone.wait()
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for session, attachments in list(self._paced.items()):
                self._judge(session, list(attachments), now)
            if not self._paced:
                self._someone = trio.Event()

    def _judge(self, session: Session, attachments: list[Attachment], now: float) -> None:
        for attachment in attachments:
            attachment.check_progress(now)
            if not attachment.is_paced:
                self.remove(attachment)
        if session in self._paced and now - self._posted.get(session, (0, 0.0))[1] >= _RENEW_S:
            self._post(session, _limit(session, self._paced[session]))


def _limit(session: Session, attachments: Iterable[Attachment]) -> int:
    capacity = session.output.capacity if session.output else 0
    return min((attachment.cursor for attachment in attachments), default=_UNLIMITED - capacity) + capacity
