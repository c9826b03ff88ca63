"""Fences: which ids were killed, up to which generation, on disk before any kill is passed on.

Owns `ID.fence`. A fence refuses late spawns and carries a kill's intent over a crash of the daemon. Its
generation only rises. Fences without a session are kept for a day, and at most so many.
"""

from __future__ import annotations

from collections.abc import Callable

from ptyd import records
from ptyd.protocol.errors import Code, PtydError

KEEP_MS = 86_400_000
KEEP_MOST = 10_000


class Fences:
    """Every fence of one runtime directory, in memory and on disk."""

    def __init__(self, sessions_fd: int, now_ms: Callable[[], int]) -> None:
        self._dir_fd = sessions_fd
        self._now_ms = now_ms
        self._fences: dict[str, records.Fence] = {}

    def load(self, ids: list[str]) -> list[str]:
        """Read the fences found at start; return complaints about those that cannot be read."""
        complaints: list[str] = []
        for session_id in ids:
            try:
                fence = records.read_fence(self._dir_fd, session_id)
            except records.RecordError as err:
                complaints.append(str(err))
                fence = records.Fence(2**31 - 1, 1000, False, self._now_ms())  # unreadable refuses all
            if fence is not None:
                self._fences[session_id] = fence
        return complaints

    def raise_to(self, session_id: str, generation: int, grace_ms: int, force: bool) -> None:
        """Write down that this id is to be dead up to `generation`, before anything else is done.

        Raises:
            PtydError: `no_space`: it could not be written, and so the kill must not be passed on either.
        """
        before = self._fences.get(session_id)
        if before is not None:
            generation, force = max(generation, before.generation), force or before.force
        fence = records.Fence(generation, grace_ms, force, self._now_ms())
        try:
            records.write_fence(self._dir_fd, session_id, fence)
        except OSError as err:
            raise PtydError(
                Code.NO_SPACE, f"cannot write down the kill: {err.strerror}; nothing was signalled"
            ) from err
        self._fences.pop(session_id, None)
        self._fences[session_id] = fence

    def get(self, session_id: str) -> records.Fence | None:
        return self._fences.get(session_id)

    def check(self, session_id: str, generation: int) -> None:
        """Refuse a spawn that a kill has overtaken.

        Raises:
            PtydError: `fenced`.
        """
        fence = self._fences.get(session_id)
        if fence is not None and fence.generation >= generation:
            again = fence.generation + 1
            message = f"session {session_id} was killed; ask for generation {again} to use its id again"
            raise PtydError(Code.FENCED, message, generation=fence.generation)

    def expire(self, is_kept: Callable[[str], bool]) -> None:
        """Drop old fences of sessions that nothing else is known of."""
        limit = self._now_ms() - KEEP_MS
        for session_id, fence in list(self._fences.items()):
            if fence.at_ms >= limit and len(self._fences) <= KEEP_MOST:
                break  # the rest is younger
            if not is_kept(session_id):
                del self._fences[session_id]
                records.remove(self._dir_fd, session_id + records.FENCE_SUFFIX)
