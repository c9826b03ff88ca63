"""What becomes of input: who waits for the shim's verdict on which message.

Most input is not answered when it is accepted: one message less for each keystroke. So that a refusal
still finds whom to tell, and nobody is kept for ever, every so often one is to be answered all the same;
that settles those before it, because a shim tells of a refusal at once and in order.
"""

from __future__ import annotations

from collections.abc import Callable

from ptyd.datagrams import Verdict

UNANSWERED = 256  # then one is to be answered

OnVerdict = Callable[[Verdict | None], None]  # None: not known, the link broke


class Verdicts:
    """The inputs of one link that nothing is known of yet, by their number."""

    def __init__(self) -> None:
        self._answered: dict[int, OnVerdict] = {}
        self._unanswered: dict[int, OnVerdict] = {}

    def expect(self, seq: int, on_verdict: OnVerdict, is_answered: bool) -> bool:
        """Note who is to hear of an input; tell whether the shim has to answer it."""
        (self._answered if is_answered else self._unanswered)[seq] = on_verdict
        return is_answered or len(self._unanswered) > UNANSWERED

    def cancel(self, seq: int) -> None:
        """It was not sent after all."""
        self._answered.pop(seq, None)
        self._unanswered.pop(seq, None)

    def take(self, seq: int, verdict: Verdict) -> None:
        """Pass a verdict of the shim's on to whom it concerns."""
        if settle := self._answered.pop(seq, None) or self._take_unanswered(seq):
            settle(verdict)

    def _take_unanswered(self, seq: int) -> OnVerdict | None:
        if seq not in self._unanswered:
            return None
        while (oldest := next(iter(self._unanswered))) != seq:
            del self._unanswered[oldest]  # it was accepted: a refusal would have come before this
        return self._unanswered.pop(seq)

    def break_off(self) -> None:
        """The link broke: nothing will be known of any."""
        waiting = [*self._answered.values()]
        self._answered.clear()
        self._unanswered.clear()
        for settle in waiting:
            settle(None)
