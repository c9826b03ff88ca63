"""Adoption: finding the shims of sessions that this daemon did not start.

Owns the way from a record on disk to a linked session, at start and when a record appears later. A shim
that does not answer delays nobody: its session stays unresolved, and lists say so. Only a shim that is
proven gone makes its session `unsupervised`, and only another boot proves a whole session dead.
"""

from __future__ import annotations

import errno
import socket

import trio

from ptyd import paths, procs, records
from ptyd.daemon.session import Session
from ptyd.datagrams import VERSION, Body, Kind, pack_json
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.states import SessionEvent
from ptyd.shim.link import Link, LinkClosed

log = get_logger()

RETRY_S = 0.05  # a shim being born has written its record and is about to bind its socket
RETRY_MOST_S = 5.0
RING_DEADLINE_S = (
    2.0  # for the shim of an ended session to hand over its ring; then the record's tail must do
)
SETTLE_S = 0.2  # at start: no longer than this without progress before serving what is known


def end_by_reboot(record: Body, boot_id: str) -> Body | None:
    """Return the exit record of a session of an earlier boot, of which nothing can be alive."""
    if record.get("ended") or record["boot_id"] == boot_id:
        return None
    return {**record, "ended": True, "proof": "other_boot", "ended_at_ms": record["created_at_ms"]}


def shim_is_gone(record: Body) -> bool:
    """Tell whether exactly the shim that wrote the record is proven gone."""
    return not procs.is_alive(record["shim_pid"], record["shim_start"])


def connect_to_shim(runtime: paths.Runtime, session_id: str) -> Link | None:
    """Connect to a shim's socket and greet it; None when nobody listens there just now."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        sock.connect(runtime.session_address(session_id + records.SOCKET_SUFFIX))
    except OSError as err:
        sock.close()
        if err.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
            log.warning("shim socket", session=session_id, error=err.strerror)
        return None
    link = Link(sock)
    try:
        link.send(pack_json(Kind.HELLO, {"version": VERSION}))
    except LinkClosed:
        link.close()
        return None
    return link


async def adopt(runtime: paths.Runtime, session: Session) -> None:
    """Link a session to its shim, or find out that it has none; one that never ran gets a `failure`."""
    pause_s = RETRY_S
    while session.is_living and not session.is_linked:
        gone = shim_is_gone(session.record)  # asked before connecting: it cannot listen after its death
        link = connect_to_shim(runtime, session.id)
        if link is not None:
            session.connect(link)
            return
        if gone:
            settle_gone(runtime, session)
            return
        await trio.sleep(pause_s)
        pause_s = min(pause_s * 2, RETRY_MOST_S)


def settle_gone(runtime: paths.Runtime, session: Session) -> None:
    """The shim is gone: it left an exit record, or none because nothing ran, or its session is on its own."""
    try:
        record = records.read_record(runtime.sessions_fd, session.id)
    except records.RecordError as err:
        log.warning("record", error=str(err))
        return
    if record is None and not session.has_run:
        session.failure = PtydError(Code.SPAWN_FAILED, "the program was never started; nothing runs")
    elif record is not None and record.get("ended"):
        session.take_end(record)
    else:
        session.record = record or session.record
        session.is_resolved = True
        session.move(SessionEvent.SUPERVISOR_LOST)
        session.born.set()
        session.tell_followers()
