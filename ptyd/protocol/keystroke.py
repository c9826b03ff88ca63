"""The quick way of a keystroke: one more input into the session that the last one went to.

Owns nothing but what the last input looked like. Taking a message apart value by value is half of what
the daemon spends on a keystroke, and nearly every keystroke begins with the same bytes as the one before.
Equal bytes mean what they meant when they were parsed; what is left to check is the length of the rest.
Whatever looks different in any way goes the long way and is judged there.
"""

from ptyd.protocol.codec import pack_notification
from ptyd.protocol.messages import SessionInput

_METHOD = "session.input"


class Keystrokes:
    """The inputs of one connection. Only for bytes that begin a message."""

    def __init__(self) -> None:
        self._id = ""
        self._head = b""

    def note(self, request: SessionInput) -> None:
        """An input notification was parsed: others for this session begin like this."""
        if request.id != self._id:
            self._id = request.id
            # All but the last byte: the length (bin 8) of the data, which come last.
            self._head = pack_notification(_METHOD, {"id": request.id, "data": b""})[:-1]

    def again(self, received: bytes) -> SessionInput | None:
        """The input that `received` is, if it is one whole input for the session that was noted."""
        at = len(self._head)
        is_known = at and received.startswith(self._head) and len(received) > at
        if not is_known or received[at] != len(received) - at - 1:
            return None
        return SessionInput(id=self._id, data=received[at + 1 :])
