"""The trio client: every method of the protocol, typed, over connections that come back by
themselves.

    async with open_client() as client:
        session = await client.spawn(["sh"])
        async with client.attach(session.id, since="start") as attachment:
            await client.send_all(session.id, b"echo hello\\n")
            await attachment.wait_for(b"hello\\r\\n")

Owns one connection for calls and one for each attachment and subscription. Never waits with an
answer behind output, and never sends a call that changes something a second time.

Errors. Every failure is a `ptyd.protocol.errors.PtydError` with a code: the daemon's refusals, and
four of the client's own. `unreachable`: no daemon within `reconnect_deadline_s`; nothing was sent.
`maybe_applied`: the connection was lost after a call was sent that is not safe to repeat; look
before sending it again. `nested`: inside a session, and nothing runs. `protocol_violation`: the
other end speaks something else. Calls that change nothing (list, get, read, wait, stats) are sent
again after a lost connection instead.

Cancellation. A cancelled call that was already sent may still be carried out; its answer is
dropped. A cancelled iteration loses nothing: go on with the next `anext`. There are no deadlines
on calls: use trio's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from ptyd import paths
from ptyd.calls import launch_errors
from ptyd.client.attachment import Attachment, AttachmentEvent
from ptyd.client.core import Client
from ptyd.client.events import EventStream
from ptyd.client.link import Link
from ptyd.client.values import (
    Chunk,
    Ended,
    Event,
    Exit,
    Exited,
    Found,
    Gap,
    Happened,
    Killed,
    Line,
    Listing,
    Lost,
    Output,
    Session,
)
from ptyd.client.wire import Dialer
from ptyd.protocol.errors import Code, PtydError

__all__ = [
    "Attachment",
    "AttachmentEvent",
    "Chunk",
    "Client",
    "Code",
    "Ended",
    "Event",
    "EventStream",
    "Exit",
    "Exited",
    "Found",
    "Gap",
    "Happened",
    "Killed",
    "Line",
    "Listing",
    "Lost",
    "Output",
    "PtydError",
    "Session",
    "open_client",
]


@contextlib.asynccontextmanager
async def open_client(
    path: str | None = None,
    *,
    start: bool = True,
    name: str = "ptyd-client",
    reconnect_deadline_s: float = 10.0,
) -> AsyncIterator[Client]:
    """Connect to the daemon of a runtime directory and keep the connection for the block.

    Args:
        path: The runtime directory; PTYD_RUNTIME_DIR and its defaults when not given.
        start: Whether to start a daemon when none runs, now and later.
        name: What the daemon's log calls this client; at most 128 characters.
        reconnect_deadline_s: How long a call or an iteration waits for a lost daemon to come back.

    Raises:
        PtydError: unreachable, nested, busy. Later losses show in the calls they meet.
    """
    with launch_errors():
        runtime = paths.runtime_path(path)
    dialer = Dialer(runtime, start, name)
    wire = await dialer.dial()
    link = Link(dialer, reconnect_deadline_s)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run, wire)
        try:
            yield Client(link, dialer, reconnect_deadline_s)
        except Exception as error:  # noqa: BLE001  # nothing is swallowed: it is raised below
            failure = error  # the caller's own exception, not a group around it
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
