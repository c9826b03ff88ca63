"""The blocking client: one socket, one call at a time, for commands that ask and leave.

Owns its socket and the connection's state. Never sends a call that changes something a second time,
and imports neither trio nor attrs nor click: `ptyd ls` is to start as fast as Python does.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from ptyd.calls import (
    ANSWER_DEADLINE_S,
    REPEATABLE,
    Params,
    answer_deadline_s,
    hello_params,
    interrupted,
    launch_errors,
    repeated_params,
)
from ptyd.protocol.connection import ClientConnection, NotificationReceived
from ptyd.protocol.errors import Code, PtydError

RECEIVE_BYTES: Final = 256 * 1024
RECONNECT_DEADLINE_S: Final = 10.0
RETRY_S: Final = 0.05
ATTEMPTS: Final = 8
"""How often a repeatable call is sent in a row before the daemon is taken to be broken."""
SETTLED_S: Final = 5.0
"""An attempt that lasted this long starts the count anew: a long wait outlives many restarts."""
MOST_FDS: Final = 4
WINDOW: Final = 32
"""Calls on their way at once in `call_each`: half of what the daemon allows."""

Answer = Any | PtydError


class ConnectionLost(Exception):
    """The socket is gone, with what was not answered on it."""


class Service(NamedTuple):
    """What is particular to the server at the other end."""

    connect: Callable[[str, bool, float], socket.socket]
    """From a runtime directory, whether it may be started, and a deadline in s to a connected socket."""
    repeatable: frozenset[str]
    """The methods that change nothing: sent again after a lost connection."""
    answer_deadline_s: Callable[[str, Params], float | None]


def _connect_ptyd(path: str, start: bool, deadline_s: float) -> socket.socket:
    from ptyd import launch

    return launch.connect(path, start=start, deadline_s=deadline_s)


PTYD: Final = Service(_connect_ptyd, REPEATABLE, answer_deadline_s)


class BlockingClient:
    """A connection to the daemon. Use it in a `with` block; make it with `connect`.

    Not for threads: one thread, one client.
    """

    def __init__(
        self, path: str | None = None, *, start: bool = True, name: str = "ptyd", service: Service = PTYD
    ) -> None:
        self._service = service
        self._path = path
        self._start = start
        self._name = name
        self._was_stopped = False
        self._socket: socket.socket | None = None
        self._protocol = ClientConnection()
        self._answers: dict[int, Answer] = {}
        self._notifications: deque[tuple[str, Params]] = deque()
        self._passed: list[int] | None = None  # descriptors, while some are expected
        self.hello: Params = {}
        self.heed: Callable[[str, Params], None] | None = None
        """Told of each notification as it comes, also while an answer is waited for; else they are kept."""

    @classmethod
    def connect(
        cls,
        path: str | None = None,
        start: bool = True,
        *,
        name: str = "ptyd",
        deadline_s: float = 10.0,
        service: Service = PTYD,
    ) -> Self:
        """Connect to the daemon of the runtime directory `path`, starting one if `start`.

        Raises:
            PtydError: unreachable, nested (inside a session, nothing runs), busy (it does not
            accept).
        """
        self = cls(path, start=start, name=name, service=service)
        self.reconnect(deadline_s)
        return self

    def reconnect(self, deadline_s: float = 10.0) -> None:
        """Connect anew. Subscriptions and attachments of the old connection are gone.

        Raises:
            PtydError: as `connect`.
        """
        from ptyd import paths

        with launch_errors():
            path = paths.runtime_path(self._path)
        start = self._start and not self._was_stopped
        try:
            self._connect_once(path, start, deadline_s)
        except ConnectionLost:  # as of a daemon that is just leaving
            try:
                self._connect_once(path, start, deadline_s)
            except ConnectionLost as lost:
                raise PtydError(Code.UNREACHABLE, f"the daemon hung up at once: {lost}") from lost

    def _connect_once(self, path: str, start: bool, deadline_s: float) -> None:
        self.close()
        with launch_errors():
            self._socket = self._service.connect(path, start, deadline_s)
        self._was_stopped = False
        self._protocol = ClientConnection()
        self._answers.clear()
        self._notifications.clear()
        try:
            self.hello = self._exchange("hello", hello_params(self._name), deadline_s)
        except BaseException:
            self.close()
            raise

    def _reconnect_patiently(self) -> None:
        """Connect anew, allowing for the moment that a crashed daemon needs to come back."""
        give_up_at = time.monotonic() + RECONNECT_DEADLINE_S
        while True:
            try:
                return self.reconnect()
            except PtydError:
                if time.monotonic() > give_up_at:
                    raise
            time.sleep(RETRY_S)

    def call(self, method: str, params: Params | None = None) -> Any:
        """Make one call and return its result.

        Raises:
            PtydError: the daemon's refusal; maybe_applied or unreachable when the connection was
            lost.
        """
        params = params or {}
        began = since = time.monotonic()
        attempts = 0
        while True:
            try:
                spent_s = time.monotonic() - began
                return self._exchange(method, repeated_params(method, params, spent_s))
            except ConnectionLost as lost:
                now = time.monotonic()
                attempts = 1 if now - since > SETTLED_S else attempts + 1
                since = now
                error = self._interrupted(method, str(lost))
                if error.code is Code.MAYBE_APPLIED or attempts >= ATTEMPTS:
                    raise error from lost
            self._reconnect_patiently()

    def call_for_fds(self, method: str, params: Params) -> tuple[Any, list[int]]:
        """Make one call, the only one under way, and return its result with the descriptors beside it.

        Raises:
            PtydError: the daemon's refusal; maybe_applied or unreachable when the connection was lost.
        """
        self._passed = []
        try:
            result = self._exchange(method, params)
            fds, self._passed = self._passed, []
            return result, fds
        except ConnectionLost as lost:
            raise self._interrupted(method, str(lost)) from lost
        finally:
            for fd in self._passed:
                os.close(fd)
            self._passed = None

    def call_each(self, method: str, each: Iterable[Params]) -> Iterator[Answer]:
        """Make many calls at once; yield each result, or the PtydError in its place, in order.

        A lost connection fails those not yet answered; nothing is sent again.
        """
        waiting: deque[tuple[int, Params]] = deque()
        for params in each:
            if len(waiting) >= WINDOW:
                yield self._finish(method, *waiting.popleft())
            try:
                waiting.append((self._send(method, params), params))
            except ConnectionLost as lost:
                waiting.append((-1, params))
                self._fail_unanswered(lost)
        while waiting:
            yield self._finish(method, *waiting.popleft())

    def notify(self, method: str, params: Params) -> None:
        """Send a notification, which has no answer."""
        try:
            self._write(self._protocol.notify(method, params))
        except ConnectionLost as lost:
            raise self._interrupted(method, str(lost)) from lost

    def notifications(self, deadline_s: float | None = None) -> Iterator[tuple[str, Params]]:
        """Yield notifications as (method, params) until the connection is lost or time is up.

        Raises:
            PtydError: unreachable, the connection was lost; `reconnect` and subscribe again.
        """
        deadline = None if deadline_s is None else time.monotonic() + deadline_s
        while True:
            while self._notifications:
                yield self._notifications.popleft()
            try:
                self._receive(deadline)
            except TimeoutError:
                return
            except ConnectionLost as lost:
                raise PtydError(Code.UNREACHABLE, str(lost)) from lost

    def release(self) -> tuple[socket.socket, ClientConnection, list[tuple[str, Params]]]:
        """Give the connection away: its socket, its state, and notifications that came already."""
        released, self._socket = self._socket, None
        if released is None:
            raise PtydError(Code.UNREACHABLE, self._lost_because)
        return released, self._protocol, list(self._notifications)

    @property
    def is_closed(self) -> bool:
        """Whether there is no connection now."""
        return self._socket is None

    def close(self) -> None:
        """Hang up. Harmless when done twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- one exchange ----------------------------------------------------------------------------

    def _exchange(self, method: str, params: Params, allowed_s: float | None = None) -> Any:
        allowed_s = allowed_s or self._service.answer_deadline_s(method, params)
        answer = self._answer(self._send(method, params), method, allowed_s)
        if isinstance(answer, PtydError):
            raise answer
        return answer

    def _send(self, method: str, params: Params) -> int:
        msgid, payload = self._protocol.request(method, params)
        self._write(payload)
        return msgid

    def _finish(self, method: str, msgid: int, params: Params) -> Answer:
        try:
            return self._answer(msgid, method, self._service.answer_deadline_s(method, params))
        except ConnectionLost as lost:
            return self._interrupted(method, str(lost))
        except PtydError as error:
            return error

    def _answer(self, msgid: int, method: str, allowed_s: float | None) -> Answer:
        deadline = None if allowed_s is None else time.monotonic() + allowed_s
        while msgid not in self._answers:
            try:
                self._receive(deadline)
            except TimeoutError:
                raise self._unanswered(method, allowed_s) from None
        return self._answers.pop(msgid)

    def _interrupted(self, method: str, why: str) -> PtydError:
        return interrupted(method, why, self._service.repeatable)

    def _unanswered(self, method: str, allowed_s: float | None) -> PtydError:
        why = f"no answer within {allowed_s:g} s; the daemon lives but is slow (see: ptyd doctor)"
        error = self._interrupted(method, why)
        return error if error.code is Code.MAYBE_APPLIED else PtydError(Code.TIMEOUT, why)

    def _fail_unanswered(self, lost: ConnectionLost) -> None:
        self.close()
        self._lost_because = str(lost)

    _lost_because = "the connection is closed"

    # --- the socket ------------------------------------------------------------------------------

    def _write(self, payload: bytes) -> None:
        if self._socket is None:
            raise ConnectionLost(self._lost_because)
        try:
            self._socket.settimeout(ANSWER_DEADLINE_S)
            self._socket.sendall(payload)
        except OSError as error:
            raise ConnectionLost(_why(error)) from error

    def _receive(self, deadline: float | None) -> None:
        """Take in one read's worth of messages.

        Raises:
            TimeoutError: nothing came in time.
            ConnectionLost: nothing will.
        """
        if self._socket is None:
            raise ConnectionLost(self._lost_because)
        self._socket.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        try:
            data = self._take_in(self._socket)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLost(_why(error)) from error
        if not data:
            raise ConnectionLost("the daemon closed the connection")
        for event in self._protocol.receive(data):
            if isinstance(event, NotificationReceived):
                if event.method == "error" and event.params.get("code") == Code.STOPPING:
                    self._was_stopped = True  # on purpose: not to be started again from here
                if self.heed is not None:
                    self.heed(event.method, event.params)
                else:
                    self._notifications.append((event.method, event.params))
            else:
                self._answers[event.msgid] = event.result if event.error is None else event.error

    def _take_in(self, connected: socket.socket) -> bytes:
        if self._passed is None:
            return connected.recv(RECEIVE_BYTES)
        from ptyd.peers import receive_with_fds

        data, fds = receive_with_fds(connected, RECEIVE_BYTES, MOST_FDS)
        self._passed += fds
        return data


def _why(error: OSError) -> str:
    return f"the connection to the daemon was lost ({error.strerror or error})"
