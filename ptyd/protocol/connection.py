"""Both ends of a connection, sans-I/O: bytes in, events out; and messages in, bytes out.

`ServerConnection` is what a daemon has for each client, `ClientConnection` what a client has for its
daemon. They own the order of a conversation: hello first or never, message ids in flight, the form
of errors. What a method does is no business of theirs.

Whose fault it is: a `Refused` request is the other end's, and it can go on; after `Violated` the
stream cannot be read any further. An exception out of this module is ours, but for a client's
`PtydError(protocol_violation)`, which is the daemon's.

This module must import fast: quick commands use its client half. Therefore the server's half gets at
`messages` (and so attrs) only when one is made.
"""

from typing import Any, Final, NamedTuple

from ptyd.protocol.codec import (
    Decoder,
    FramingError,
    Notification,
    Request,
    Response,
    pack_error,
    pack_notification,
    pack_request,
    pack_response,
    valid_utf8,
)
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import (
    MAX_FRAME_BYTES,
    MAX_MSGID,
    MAX_REQUESTS_IN_FLIGHT,
    TO_DAEMON,
)
from ptyd.protocol.replies import ReplyDecoder
from ptyd.protocol.states import ConnectionEvent, ConnectionState, next_connection_state

_INPUT: Final = "session.input"

# --- events --------------------------------------------------------------------------------------


class RequestReceived(NamedTuple):
    """A request to serve. Its message id is taken until `respond` or `respond_error`."""

    msgid: int
    method: str
    params: Any
    """An instance of `messages.METHODS[method]`."""


class NotificationReceived(NamedTuple):
    """Something that wants no answer: for the server an input, for a client what the daemon tells."""

    method: str
    params: Any
    """For the server an instance of `messages.METHODS[method]`, for a client a plain dict."""


class ResponseReceived(NamedTuple):
    """The answer to a request; `error` is None if it was done."""

    msgid: int
    result: Any
    error: PtydError | None


class Refused(NamedTuple):
    """A bad request was turned down: send `payload`, go on."""

    payload: bytes


class Violated(NamedTuple):
    """The client cannot be understood any more: send `payload`, close. Always the last event."""

    payload: bytes


ServerEvent = RequestReceived | NotificationReceived | Refused | Violated
ClientEvent = ResponseReceived | NotificationReceived


# --- the daemon's end ----------------------------------------------------------------------------


class ServerConnection:
    """The daemon's end of one connection.

    Args:
        methods: What a server of its own has in place of `messages.METHODS`.
    """

    def __init__(self, methods: dict[str, type] | None = None) -> None:
        from ptyd.protocol.keystroke import Keystrokes  # see the module's docstring
        from ptyd.protocol.messages import METHODS, parse_params

        self._methods = METHODS if methods is None else methods
        self._parse_params = parse_params
        self._keystrokes = Keystrokes()
        self._decoder = Decoder(TO_DAEMON)
        self._in_flight: set[int] = set()
        self.state = ConnectionState.FRESH
        self.as_map = False
        """The client's hello has asked for errors as maps."""

    @property
    def in_flight(self) -> int:
        """Requests not answered yet."""
        return len(self._in_flight)

    def receive(self, data: bytes) -> list[ServerEvent]:
        """What `data` completes, in the order it was sent; empty data is the end of the stream.

        After the end or a violation nothing is ever received again.
        """
        if self.state is ConnectionState.CLOSED:
            return []
        if not data:
            self._move(ConnectionEvent.EOF)
            return []
        if not self._decoder.pending_bytes and (typed := self._keystrokes.again(data)):
            return [NotificationReceived(_INPUT, typed)]
        self._decoder.feed(data)
        events: list[ServerEvent] = []
        try:
            for message in self._decoder:
                event = self._take(message)
                if event is not None:
                    events.append(event)
        except FramingError as error:
            events.append(self._violated(str(error)))
        return events

    def respond(self, msgid: int, result: object) -> bytes:
        """The bytes of a result.

        Raises:
            KeyError: `msgid` is not in flight: it was answered before, or never asked.
        """
        self._in_flight.remove(msgid)
        return pack_response(msgid, result)

    def respond_error(self, msgid: int, error: PtydError) -> bytes:
        """The bytes of an error; otherwise as `respond`."""
        self._in_flight.remove(msgid)
        return pack_error(msgid, error, self.as_map)

    def notify(self, method: str, params: dict[str, Any]) -> bytes:
        """The bytes of a notification."""
        return pack_notification(method, params)

    def _move(self, event: ConnectionEvent) -> None:
        self.state = next_connection_state(self.state, event)

    def _violated(self, reason: str) -> Violated:
        self._move(ConnectionEvent.VIOLATION)
        told = {"code": Code.BAD_REQUEST.value, "message": f"{reason}; the connection is closed"}
        return Violated(self.notify("error", told))

    def _take(self, message: Request | Response | Notification) -> ServerEvent | None:
        match message:
            case Request():
                return self._take_request(message)
            case Notification():
                return self._take_notification(message)
            case Response():
                raise FramingError("a response came to the daemon, which asks nothing")

    def _take_request(self, request: Request) -> RequestReceived | Refused:
        is_first = self.state is ConnectionState.FRESH
        is_hello = request.method == "hello"
        self._move(ConnectionEvent.HELLO if is_hello and is_first else ConnectionEvent.MESSAGE)
        try:
            self._admit(request, is_hello and not is_first)
            params = self._parse_params(request.method, request.params, self._methods)
        except PtydError as error:
            return Refused(pack_error(request.msgid, error, self.as_map))
        if is_hello:
            self.as_map = params.errors == "map"
        self._in_flight.add(request.msgid)
        return RequestReceived(request.msgid, request.method, params)

    def _admit(self, request: Request, is_late_hello: bool) -> None:
        if request.msgid in self._in_flight:
            message = f"message id {request.msgid} is taken by a request not answered yet"
            raise PtydError(Code.BAD_REQUEST, message)
        if is_late_hello:
            raise PtydError(Code.BAD_REQUEST, "hello is the first message of a connection or none")
        if len(self._in_flight) >= MAX_REQUESTS_IN_FLIGHT:
            message = f"{MAX_REQUESTS_IN_FLIGHT} requests wait for their answers; wait for some"
            raise PtydError(Code.TOO_MANY_REQUESTS, message)

    def _take_notification(self, note: Notification) -> NotificationReceived | Refused | None:
        self._move(ConnectionEvent.MESSAGE)
        if note.method != _INPUT or _INPUT not in self._methods:
            return None  # protocol.md, "Messages": unknown notifications are ignored
        try:
            params = self._parse_params(note.method, note.params, self._methods)
        except PtydError as error:
            return Refused(self.notify("session.input_refused", _refused_input(note.params, error)))
        self._keystrokes.note(params)
        return NotificationReceived(note.method, params)


def _refused_input(params: object, error: PtydError) -> dict[str, Any]:
    """What is told about an input that could not even be read: as much of it as was found."""
    match params:
        case [{**given}]:
            session_id, data = given.get("id"), given.get("data")
        case _:
            session_id = data = None
    return {
        "id": valid_utf8(session_id) if isinstance(session_id, str) else "",
        "bytes": len(data) if isinstance(data, bytes) else 0,
        "code": error.code.value,
        "message": error.message,
    }


# --- a client's end ------------------------------------------------------------------------------


class ClientConnection:
    """A client's end of its connection to the daemon."""

    def __init__(self) -> None:
        self._decoder = ReplyDecoder()
        self._last_msgid = 0
        self.in_flight: dict[int, str] = {}
        """The method of every request not answered yet: what a lost connection leaves unknown."""

    def request(self, method: str, params: dict[str, Any]) -> tuple[int, bytes]:
        """A new message id and the bytes to send.

        Raises:
            PtydError: invalid_params, when the message is longer than the daemon would read.
        """
        msgid = self._next_msgid()
        payload = _sendable(pack_request(msgid, method, params), method)
        self.in_flight[msgid] = method
        return msgid, payload

    def notify(self, method: str, params: dict[str, Any]) -> bytes:
        """The bytes of a notification; raises as `request`."""
        return _sendable(pack_notification(method, params), method)

    def receive(self, data: bytes) -> list[ClientEvent]:
        """What `data` completes, in the order it was sent.

        Raises:
            PtydError: protocol_violation; the connection is of no use any more.
        """
        self._decoder.feed(data)
        try:
            return [self._take(message) for message in self._decoder]
        except FramingError as error:
            raise PtydError(Code.PROTOCOL_VIOLATION, f"the daemon sent nonsense: {error}") from error

    def _next_msgid(self) -> int:
        msgid = self._last_msgid + 1
        while msgid in self.in_flight or msgid > MAX_MSGID:
            msgid = 1 if msgid > MAX_MSGID else msgid + 1
        self._last_msgid = msgid
        return msgid

    def _take(self, message: Request | Response | Notification) -> ClientEvent:
        match message:
            case Response(msgid, error, result) if msgid in self.in_flight:
                del self.in_flight[msgid]
                failed = None if error is None else PtydError.from_wire(error)
                return ResponseReceived(msgid, result, failed)
            case Response(msgid):
                raise FramingError(f"an answer to {msgid}, which was not asked")
            case Notification(method, [dict(params)]):
                return NotificationReceived(method, params)
            case Notification(method):
                raise FramingError(f"{method[:64]!a} without its one map")
            case Request(_, method):
                raise FramingError(f"a request, {method[:64]!a}")


def _sendable(payload: bytes, method: str) -> bytes:
    if len(payload) > MAX_FRAME_BYTES:
        message = f"{method}: {len(payload)} bytes in one message; at most {MAX_FRAME_BYTES} are read"
        raise PtydError(Code.INVALID_PARAMS, message)
    return payload
