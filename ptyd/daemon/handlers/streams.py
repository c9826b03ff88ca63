"""Streams: attachments, reading, waiting, and the event log."""

from __future__ import annotations

import secrets
from typing import Any

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
from ptyd.shim.link import Passed


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
        if request.via == "shm":
            return self._attach_direct(client, msgid, session, request)
        cursor, truncated = _begin(output, request.since)
        self._next_attachment += 1
        attachment = Attachment(
            self._next_attachment, session, cursor, request.flow == "pace", request.mode == "rw"
        )
        if request.rows and request.cols and request.mode == "rw":
            attachment.size = (request.rows, request.cols)
            fit(session, attachment)
        client.reply(msgid, _attached(attachment.number, session, cursor, truncated))
        self._context.events.emit("session.attached", session.id, attachment=attachment.number)
        client.attach(attachment)
        return LATER

    async def _attach_direct(
        self, client: Client, msgid: int | None, session: Session, request: messages.SessionAttach
    ) -> object:
        """Let the client read the ring and type to the shim by itself; from here on we only count it."""
        if not session.is_linked or "direct" not in session.facts:
            text = f"the ring of session {session.id} cannot be had; attach to it without via"
            raise PtydError(Code.NO_SHM, text)
        # Beyond what any daemon counts up to: it lives longer than we may, and is ended by this number.
        number = secrets.randbits(31) | 1 << 31
        answer = await session.ask_for_fds(
            {
                "do": "direct",
                "number": number,
                "may_write": request.mode == "rw",
                "rows": request.rows,
                "cols": request.cols,
            }
        )
        output = session.output
        if output is None:
            raise session.gone()
        cursor, truncated = _begin(output, request.since)
        passed: Passed = answer["fds"]
        client.reply_with_fds(msgid, _attached(number, session, cursor, truncated), passed.fds)
        passed.close()
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
        if request.id is not None:
            return self._detach_all(self._context.registry.get(request.id), request.attachment)
        attachment = client.attachments.get(request.attachment or 0)
        if attachment is None:
            raise PtydError(Code.NOT_FOUND, f"this connection has no attachment {request.attachment}")
        client.detach(attachment)
        return {"detached": 1}

    async def _detach_all(self, session: Session, number: int | None) -> object:
        """End a session's attachments, whoever has them."""
        found = [view for view in session.streams if number in (None, view.number)]
        for view in found:
            view.detach()
        count = len(found)
        if any(number in (None, direct) for direct in session.direct):
            count += (await session.ask({"do": "detach", "number": number}))["detached"]
        if number is not None and not count:
            raise PtydError(Code.NOT_FOUND, f"session {session.id} has no attachment {number}")
        return {"detached": count}

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


def _attached(number: int, session: Session, cursor: int, truncated: int) -> dict[str, Any]:
    row = session_row(session)
    if number not in session.direct:  # neither the streams nor the shim's last word count it yet
        row["attached"] += 1
    return {"attachment": number, "offset": cursor, "truncated": truncated, "session": row}


def _begin(output: Output, since: int | str) -> tuple[int, int]:
    """Return the offset to begin at, and how many bytes of what was asked for are gone."""
    if since == "live":
        return output.head, 0
    wanted = 0 if since == "start" else int(since)
    start = output.start
    if wanted > output.head:
        raise PtydError(Code.INVALID_PARAMS, f"since is {wanted}; the output is at {output.head}")
    return max(wanted, start), max(0, start - wanted)
