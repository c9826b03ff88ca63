"""What is due next to somebody who reads a session's output: bytes and gaps, the leader's exit, the end.

Owns the cursor and the order: the exit where it lies in the output, the end after all of it. Holds no bytes:
a slow reader costs a number, and what the ring has lost by the time it reads is one exact gap. The daemon
serves streamed attachments by this, and a client its direct ones, so that both tell the same story.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Due = tuple[str, dict[str, Any]]
"""A notification of protocol.md's, without the number of its attachment."""


class Output(Protocol):
    """Where output can be read: the living ring, or the tail that a record keeps."""

    @property
    def head(self) -> int: ...
    def read(self, offset: int, limit: int) -> tuple[int, bytes]: ...


class Reading:
    """A reader's place."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.is_over = False
        self.is_behind = False
        """The last chunk was a whole one: there may be more that was already told of."""
        self._exit_told = False

    def next(self, output: Output, facts: Mapping[str, Any], most: int) -> list[Due]:
        """Take the next chunk of output, or what is due after it; empty when nothing is.

        Args:
            output: Where to read.
            facts: The session's: `exit`, `exit_offset`, `ended`, `proof`, `end_offset`.
            most: Of bytes.
        """
        self.is_behind = False
        if self.is_over:
            return []
        exit_offset = self._exit_due(facts)
        if exit_offset is not None:
            if self.offset >= exit_offset:
                self._exit_told = True
                return [("session.exit", {"exit": facts.get("exit"), "offset": exit_offset})]
            most = min(most, exit_offset - self.offset)
        offset, data = output.read(self.offset, most)
        self.is_behind = len(data) == most
        if exit_offset is not None and offset >= exit_offset:
            data = b""  # the gap reaches beyond the exit, which is told first
        due: list[Due] = []
        if offset > self.offset:
            due.append(("session.gap", {"from": self.offset, "to": offset}))
        if data:
            due.append(("session.output", {"offset": offset, "data": data}))
        self.offset = offset + len(data)
        return due or self._end(facts)

    def has_more(self, output: Output, facts: Mapping[str, Any]) -> bool:
        """Tell whether something would be due right now."""
        return not self.is_over and (output.head > self.offset or self.has_word(facts))

    def has_word(self, facts: Mapping[str, Any]) -> bool:
        """Tell whether an exit or an end is due, or will be once the output before it is out."""
        exit_offset = self._exit_due(facts)
        is_exit_due = exit_offset is not None and self.offset >= exit_offset
        return not self.is_over and (is_exit_due or bool(facts.get("ended")))

    def _exit_due(self, facts: Mapping[str, Any]) -> int | None:
        """Where the leader's exit is still to be told; not at the head: others may go on writing for ever."""
        return None if self._exit_told else facts.get("exit_offset")

    def _end(self, facts: Mapping[str, Any]) -> list[Due]:
        """All output is out: tell the end, once there is one."""
        if not facts.get("ended"):
            return []
        self.is_over = True
        end = {"exit": facts.get("exit"), "proof": facts.get("proof"), "offset": facts["end_offset"]}
        return [("session.end", end), ("session.detached", {"reason": "ended"})]
