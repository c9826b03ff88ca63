"""Streams: attachments, reading, waiting, and the event log."""

from __future__ import annotations

from ptyd import procs
from ptyd.daemon.attachment import Attachment
from ptyd.daemon.connection import LATER, Client
from ptyd.daemon.handlers.context import Context
from ptyd.daemon.handlers.table import Table
from ptyd.daemon.output import Output
from ptyd.daemon.row import session_row
from ptyd.daemon.session import Session
from ptyd.daemon.sizing import fit
from ptyd.daemon.waiting import read_output, wait_for
from ptyd.peers import peer_credentials
from ptyd.protocol import limits, messages
from ptyd.protocol.errors import Code, PtydError


class Streams:
    """What a client hears of a session, and of all of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._next_attachment = 0

    def _attach(self, client: Client, msgid: int | None, request: messages.SessionAttach) -> object:
        session = self._context.registry.get(request.id)
        output = session.output
        if output is None:
            raise session.gone()
        if len(client.attachments) >= limits.MAX_ATTACHMENTS_PER_CLIENT:
            raise PtydError(
                Code.TOO_MANY_ATTACHMENTS, "this connection has too many attachments; detach some"
            )
        self._refuse_itself(client, session)
        cursor, truncated = _begin(output, request.since)
        self._next_attachment += 1
        attachment = Attachment(
            self._next_attachment, session, cursor, request.flow == "pace", request.mode == "rw"
        )
        if request.rows and request.cols and request.mode == "rw":
            attachment.size = (request.rows, request.cols)
            fit(session, attachment)
        row = {**session_row(session), "attached": session.attached + 1}
        client.reply(
            msgid,
            {
                "attachment": attachment.number,
                "offset": cursor,
                "truncated": truncated,
                "session": row,
            },
        )
        self._context.events.emit("session.attached", session.id, attachment=attachment.number)
        client.attach(attachment)
        return LATER

    def _refuse_itself(self, client: Client, session: Session) -> None:
        """A session that shows its own output to itself never stops."""
        peer, _, _ = peer_credentials(client.peer_sock)
        above = procs.shim_above(peer)
        if above is not None and above == session.fact("shim_pid") and session.is_living:
            message = (
                f"this runs inside session {session.id}; detach from it first, or: ptyd logs {session.id}"
            )
            raise PtydError(Code.SELF_ATTACH, message)

    def _detach(self, client: Client, msgid: int | None, request: messages.SessionDetach) -> object:
        attachment = client.attachments.get(request.attachment)
        if attachment is None:
            raise PtydError(Code.NOT_FOUND, f"this connection has no attachment {request.attachment}")
        client.drop(attachment)
        client.send(
            client.protocol.notify(
                "session.detached", {"attachment": attachment.number, "reason": "requested"}
            )
        )
        return {}

    def _read(self, client: Client, msgid: int | None, request: messages.SessionRead) -> object:
        return read_output(self._context.registry.get(request.id), request)

    def _wait(self, client: Client, msgid: int | None, request: messages.SessionWait) -> object:
        return wait_for(self._context.registry.get(request.id), request)

    def _subscribe(self, client: Client, msgid: int | None, request: messages.EventsSubscribe) -> object:
        since, answer = self._context.events.place(request.since)
        client.reply(msgid, answer)
        client.subscribe(since)
        return LATER

    def table(self) -> Table:
        return {
            messages.SessionAttach: self._attach,
            messages.SessionDetach: self._detach,
            messages.SessionRead: self._read,
            messages.SessionWait: self._wait,
            messages.EventsSubscribe: self._subscribe,
        }


def _begin(output: Output, since: int | str) -> tuple[int, int]:
    """Return the offset to begin at, and how many bytes of what was asked for are gone."""
    if since == "live":
        return output.head, 0
    wanted = 0 if since == "start" else int(since)
    start = output.start
    if wanted > output.head:
        raise PtydError(Code.INVALID_PARAMS, f"since is {wanted}; the output is at {output.head}")
    return max(wanted, start), max(0, start - wanted)
