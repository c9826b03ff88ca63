"""The attached session's connection: a line that never blocks, and finding a lost daemon again.

Owns the attach request, at first and after every loss, and the decision when there is no more hope. A line
leads to the shim where that can be had, else to the daemon; whoever has one need not know which.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final, Protocol

from ptyd.attach import Options
from ptyd.blocking import BlockingClient
from ptyd.calls import Params
from ptyd.cursor import Since
from ptyd.direct import NOT_DIRECT, Direct
from ptyd.protocol.connection import (
    ClientConnection,
    ClientEvent,
    NotificationReceived,
)
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import DEFAULT_COLS, DEFAULT_ROWS, MAX_DIMENSION

NAME: Final = "ptyd attach"
RECEIVE_BYTES: Final = 256 * 1024
CONNECT_DEADLINE_S: Final = 1.0
"""Of one attempt: keys are not looked at meanwhile."""
PAUSE_S: Final = 0.05
TELL_AFTER_S: Final = 1.0
GIVE_UP_AFTER_S: Final = 30.0
STOPPED_WAIT_S: Final = 10.0
"""A daemon that was stopped may be an upgrade: so long is its successor waited for."""
_HOPELESS: Final = frozenset([Code.NOT_FOUND, Code.ENDED, Code.UNSUPERVISED, Code.SELF_ATTACH])


class Line(Protocol):
    """An attachment that never blocks, with what could not be sent yet."""

    reply: Params

    @property
    def is_more(self) -> bool:
        """Whether `receive` has something although nothing is readable."""
        ...

    @property
    def is_sending(self) -> bool:
        """Whether something waits until `fileno()` is writable."""
        ...

    def fileno(self) -> int: ...
    def type(self, data: bytes, session: str, is_request: bool) -> int | None:
        """Send input; return the message id of its answer where one was asked for."""
        ...

    def resize(self, rows: int, cols: int, session: str) -> None: ...
    def flush(self) -> None: ...
    def take_early(self) -> list[NotificationReceived]:
        """Return, once, what came together with the answer to the attach."""
        ...

    def receive(self) -> list[ClientEvent] | None:
        """Return messages, None when the other end is lost."""
        ...

    def close(self) -> None: ...


class DirectLine:
    """A line to the shim."""

    def __init__(self, reply: Params, direct: Direct) -> None:
        self.reply = reply
        self._direct = direct
        self.fileno = direct.fileno
        self.flush = direct.flush
        self.receive = direct.receive
        self.close = direct.close

    @property
    def is_more(self) -> bool:
        return self._direct.is_more

    @property
    def is_sending(self) -> bool:
        return self._direct.is_sending

    def type(self, data: bytes, session: str, is_request: bool) -> int | None:
        seq = self._direct.type(data, is_request=is_request)
        return seq if is_request else None

    def resize(self, rows: int, cols: int, session: str) -> None:
        self._direct.resize(rows, cols)

    def take_early(self) -> list[NotificationReceived]:
        return []


class StreamLine:
    """A line to the daemon."""

    is_more = False

    def __init__(
        self,
        connected: socket.socket,
        protocol: ClientConnection,
        early: list[tuple[str, Params]],
        reply: Params,
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self.reply = reply
        self._protocol = protocol
        self._early = [NotificationReceived(method, params) for method, params in early]
        self._outgoing = bytearray()

    @property
    def is_sending(self) -> bool:
        """Whether something waits until the socket is writable."""
        return bool(self._outgoing)

    def fileno(self) -> int:
        return self._socket.fileno()

    def type(self, data: bytes, session: str, is_request: bool) -> int | None:
        call: Params = {"id": session, "data": data}
        if is_request:
            return self._request("session.input", call)
        self._outgoing += self._protocol.notify("session.input", call)
        self.flush()
        return None

    def resize(self, rows: int, cols: int, session: str) -> None:
        self._request("session.resize", {"id": session, "rows": rows, "cols": cols})

    def _request(self, method: str, params: Params) -> int:
        msgid, payload = self._protocol.request(method, params)
        self._outgoing += payload
        self.flush()
        return msgid

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            return
        except OSError:
            self._outgoing.clear()  # the next read says that the connection is lost

    def take_early(self) -> list[NotificationReceived]:
        early, self._early = self._early, []
        return early

    def receive(self) -> list[ClientEvent] | None:
        """Return messages, None when the connection is lost.

        Raises:
            PtydError: protocol_violation.
        """
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._protocol.receive(data) if data else None

    def close(self) -> None:
        """Hang up, once what waits was offered to the socket a last time."""
        self.flush()
        self._socket.close()


class Attacher:
    """Knows the session and how it is attached; makes lines."""

    def __init__(self, session: str, options: Options) -> None:
        self._options = options
        self._wanted = session
        self._generation: int | None = None
        self.name = session
        self.was_stopped = False
        self.was_told = False
        self._lost_at: float | None = None
        self.try_at: float | None = None

    @property
    def id(self) -> str:
        """The session's id, or the name asked for before it is known."""
        return self._wanted

    def look(self) -> Params:
        """Return the session as it is before the attach.

        Raises:
            PtydError: not_found, or no daemon.
        """
        with BlockingClient.connect(self._options.path, self._options.start, name=NAME) as client:
            session: Params = client.call("session.get", {"id": self._wanted})
        self.name = session["name"] or session["id"]
        self._wanted, self._generation = session["id"], session["generation"]
        return session

    def attach(self, since: Since, *, again: bool = False) -> Line:
        """Attach; `again` with the short deadline of somebody who is waiting at a raw terminal.

        Raises:
            PtydError: the daemon's refusal, or no daemon.
        """
        start = self._options.start and not self.was_stopped
        client = BlockingClient(self._options.path, start=start, name=NAME)
        with client:
            client.reconnect(CONNECT_DEADLINE_S if again else 10.0)
            line = self._attach_directly(client, since) or self._attach_by_stream(client, since)
        if line.reply["session"]["generation"] != self._generation:
            line.close()
            raise PtydError(Code.ENDED, f"session {self.name} has ended; another has its id now")
        return line

    def _attach_directly(self, client: BlockingClient, since: Since) -> Line | None:
        if self._options.via == "stream" or "shm" not in client.hello.get("features", ()):
            return None
        params = self._params(since)
        try:
            reply, fds = client.call_for_fds("session.attach", {**params, "via": "shm"})
            return DirectLine(reply, Direct(reply, fds, is_paced=params["flow"] == "pace"))
        except PtydError as error:
            if error.code in NOT_DIRECT:
                return None
            raise

    def _attach_by_stream(self, client: BlockingClient, since: Since) -> Line:
        reply: Params = client.call("session.attach", self._params(since))
        return StreamLine(*client.release(), reply)

    def _params(self, since: Since) -> Params:
        params: Params = {"id": self._wanted, "since": since}
        if self._options.read_only:
            return params | {"mode": "ro", "flow": "skip"}  # who only looks must not slow anything
        rows, cols = terminal_size()
        return params | {"mode": "rw", "flow": "pace", "rows": rows, "cols": cols}

    # --- a lost daemon ----------------------------------------------------------------------------

    def lost(self) -> None:
        """The line is lost; from `try_at` on, call `reattach`."""
        self._lost_at = self.try_at = time.monotonic()
        self.was_told = False

    def reattach(self, since: Since) -> Line | None:
        """Try once to attach again; None when it is to be tried again at `try_at`.

        Raises:
            PtydError: there is no more hope.
        """
        try:
            line = self.attach(since, again=True)
        except PtydError as error:
            self._put_off(error)
            return None
        self._lost_at = self.try_at = None
        self.was_stopped = False
        return line

    @property
    def is_overdue(self) -> bool:
        """Whether the user should be told that the daemon is being looked for."""
        return self._lost_at is not None and time.monotonic() - self._lost_at > TELL_AFTER_S

    def _put_off(self, error: PtydError) -> None:
        assert self._lost_at is not None
        if error.code in _HOPELESS:
            raise error
        waited_s = time.monotonic() - self._lost_at
        if self.was_stopped and waited_s > STOPPED_WAIT_S:
            text = f"the daemon was stopped; {self.name} lives on: ptyd attach {self.name} to return"
            raise PtydError(Code.STOPPING, text) from error
        if waited_s > GIVE_UP_AFTER_S:
            raise error
        self.try_at = time.monotonic() + PAUSE_S


def terminal_size() -> tuple[int, int]:
    """Return the terminal's (rows, cols), within what a session can have."""
    try:
        cols, rows = os.get_terminal_size(1)
    except OSError:
        cols = rows = 0
    return min(rows or DEFAULT_ROWS, MAX_DIMENSION), min(cols or DEFAULT_COLS, MAX_DIMENSION)
