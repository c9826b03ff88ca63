"""What the daemon says unasked: the shape of every notification, as declared fields.

The daemon packs plain dicts; these classes are what tests, protocol.md and typed clients use.
"""

from typing import Final

import attrs

from ptyd.protocol import limits
from ptyd.protocol.errors import Code
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import ANY_STRING, COUNT, OFFSET, SESSION_ID, choice, data, integer
from ptyd.protocol.results import EXIT, PROOF, Exit

EVENT_TYPES: Final[dict[str, str]] = {
    "session.spawned": "its program runs",
    "session.updated": "its name or labels have changed",
    "session.exited": "its leader has exited; others of its processes may live on",
    "session.killing": "a kill has begun",
    "session.kill_unconfirmed": "a kill has answered with survivors",
    "session.ended": "all of its processes are proven dead",
    "session.unsupervised": "its shim is gone",
    "session.attached": "an attachment was made",
    "session.detached": "an attachment has ended",
    "session.forgotten": "its record was dropped",
    "daemon.ready": "every session that was found has been taken over",
    "daemon.stopping": "the daemon will close every connection",
}

_WHICH: Final = "which attachment"
_SEQ: Final = integer(1, limits.MAX_OFFSET, "1 or more")


@attrs.frozen(kw_only=True)
class SessionOutput:
    """Output, as the program wrote it: bytes, cut anywhere."""

    attachment: int = attrs.field(metadata=spec(COUNT, _WHICH))
    offset: int = attrs.field(metadata=spec(OFFSET, "of the first byte of data"))
    data: bytes = attrs.field(
        metadata=spec(data(1, limits.OUTPUT_CHUNK_BYTES), "contiguous with what came before")
    )


@attrs.frozen(kw_only=True)
class SessionGap:
    """This range is gone: the ring had overwritten it before it could be sent."""

    attachment: int = attrs.field(metadata=spec(COUNT, _WHICH))
    from_: int = attrs.field(metadata=spec(OFFSET, "first offset that is missing"))
    to: int = attrs.field(metadata=spec(OFFSET, "first offset that will come again"))


@attrs.frozen(kw_only=True)
class SessionExit:
    """The leader has exited; all it wrote has been sent. Others may still write."""

    attachment: int = attrs.field(metadata=spec(COUNT, _WHICH))
    exit: Exit | None = attrs.field(default=None, metadata=spec(EXIT, "nil if it is not known"))
    offset: int = attrs.field(metadata=spec(OFFSET, "end of the output at that moment"))


@attrs.frozen(kw_only=True)
class SessionEnd:
    """Every process of the session is proven dead; all of its output has been sent."""

    attachment: int = attrs.field(metadata=spec(COUNT, _WHICH))
    exit: Exit | None = attrs.field(default=None, metadata=spec(EXIT, "the leader's"))
    proof: str | None = attrs.field(default=None, metadata=spec(PROOF, "how it is known"))
    offset: int = attrs.field(metadata=spec(OFFSET, "end of the output, for good"))


@attrs.frozen(kw_only=True)
class SessionDetached:
    """Nothing more comes for this attachment."""

    attachment: int = attrs.field(metadata=spec(COUNT, _WHICH))
    reason: str = attrs.field(metadata=spec(choice("requested", "ended", "stopping"), "why"))


@attrs.frozen(kw_only=True)
class SessionInputRefused:
    """An input that was sent as a notification was not taken."""

    id: str = attrs.field(metadata=spec(ANY_STRING, "as it was sent; empty if it was no string"))
    bytes: int = attrs.field(metadata=spec(COUNT, "how many; none of them was accepted"))
    code: str = attrs.field(metadata=spec(choice(*Code), "see Errors"))
    message: str = attrs.field(metadata=spec(ANY_STRING, "for people"))


@attrs.frozen(kw_only=True)
class Event:
    """Something happened. More keys may follow, by type; `session.get` tells the state of things."""

    daemon_id: str = attrs.field(metadata=spec(ANY_STRING, "whose number it is"))
    seq: int = attrs.field(metadata=spec(_SEQ, "one more than that of the event before"))
    type: str = attrs.field(metadata=spec(ANY_STRING, "see below; ignore unknown ones"))
    at_ms: int = attrs.field(metadata=spec(COUNT, "when, since the epoch"))
    id: str | None = attrs.field(
        default=None, metadata=spec(SESSION_ID, "the session; absent for the daemon's own")
    )


@attrs.frozen(kw_only=True)
class EventGap:
    """These events were dropped from the log before they could be sent."""

    from_: int = attrs.field(metadata=spec(_SEQ, "first number that is missing"))
    to: int = attrs.field(metadata=spec(_SEQ, "last number that is missing"))


@attrs.frozen(kw_only=True)
class ErrorNotification:
    """Why the daemon closes the connection, which it does next."""

    code: str = attrs.field(metadata=spec(choice(*Code), "see Errors"))
    message: str = attrs.field(metadata=spec(ANY_STRING, "for people"))


NOTIFICATIONS: Final[dict[str, type]] = {
    "session.output": SessionOutput,
    "session.gap": SessionGap,
    "session.exit": SessionExit,
    "session.end": SessionEnd,
    "session.detached": SessionDetached,
    "session.input_refused": SessionInputRefused,
    "event": Event,
    "event_gap": EventGap,
    "error": ErrorNotification,
}
