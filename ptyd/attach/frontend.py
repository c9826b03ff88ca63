"""The loop of an attached terminal, and when it ends.

Owns the order of things: attach first, in the usual blocking way; then make the terminal raw; then
carry bytes until the program exits, the user leaves or there is no more hope; whatever happens,
give the terminal back. While the terminal is behind, the socket is not read: the daemon paces the
session or reports a gap.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Final, NoReturn

from ptyd.attach import Options
from ptyd.attach.connection import Attacher, Line, terminal_size
from ptyd.attach.keyboard import Keyboard
from ptyd.attach.screen import Screen
from ptyd.attach.tty import Hangup, Terminal, caught_signals, say
from ptyd.calls import Params
from ptyd.protocol.connection import NotificationReceived
from ptyd.protocol.errors import Code, PtydError

NUDGE_S: Final = 0.06
"""Between the two sizes of a nudge: a program that compares sizes must have looked at the first."""
NUDGES: Final = 3
NUDGE_AGAIN_S: Final = 0.3
"""After a nudge that nothing was drawn for: on a busy machine a program may see only the second size."""
REDRAW_AFTER_GAP_S: Final = 0.3
END_WAIT_S: Final = 0.1
"""After the leader's exit: to tell a session that has ended from one that others of it keep."""


class Left(Exception):
    """The end of being attached."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, words)
        self.status = status
        self.words = words


def run(session: str, options: Options) -> int:
    """Attach and stay; see `ptyd.attach.attach`."""
    if not (os.isatty(0) and os.isatty(1)):
        hint = f"see: ptyd logs -f {session}, ptyd send {session}"
        raise PtydError(Code.INVALID_PARAMS, f"stdin and stdout are no terminal; {hint}")
    frontend = Frontend(session, options)
    frontend.attach()
    try:
        status, words = _stay(frontend)
    except Hangup:
        return 128 + signal.SIGHUP
    if words and not options.is_quiet:
        say(f"\n[{words}]\n")
    return status


def _stay(frontend: Frontend) -> tuple[int, str]:
    """Make the terminal raw, stay, and give it back whatever happens."""
    with caught_signals() as signals_fd, Terminal() as terminal:
        try:
            frontend.stay(terminal, signals_fd)
        except Left as left:
            return left.status, left.words
        finally:
            terminal.leave(frontend.screen.modes.reset())
            frontend.close()


class Frontend:
    """One attached terminal."""

    def __init__(self, session: str, options: Options) -> None:
        self._options = options
        self._keyboard = Keyboard(options.detach_keys, options.read_only)
        self._attacher = Attacher(session, options)
        self._line: Line | None = None
        self.screen = Screen(options)
        # Moments due, on the monotonic clock.
        self._nudge_at: float | None = None
        self._nudges_left = NUDGES
        self._resize_at: float | None = None
        self._leave_at: float | None = None
        # What is known of the end.
        self._exit: Params | None = None
        self._ended = False

    def attach(self) -> None:
        """Attach for the first time and say so; nothing is raw yet."""
        session = self._attacher.look()
        self._line = self._attacher.attach(self.screen.begin(session))
        self.screen.attached(self._line.reply)
        if (session["rows"], session["cols"]) == terminal_size() and not self._options.read_only:
            self._nudge_at = time.monotonic()  # with another size, the attach itself was the nudge
        if not self._options.is_quiet:
            how = " read-only" if self._options.read_only else ""
            keys = self._options.detach_keys
            say(f"[attached{how} to {self._attacher.name}; detach with {keys}]\n")

    def close(self) -> None:
        """Hang up, never leaving a session at the size of half a nudge."""
        if self._line is not None:
            if self._resize_at is not None:
                self._send_size()
            self._line.close()

    # --- the loop ---------------------------------------------------------------------------------

    def stay(self, terminal: Terminal, signals_fd: int) -> NoReturn:
        """Carry bytes.

        Raises:
            Left: always, sooner or later.
            Hangup: the terminal is gone.
        """
        self.screen.use(terminal)
        self._take_early()
        while True:
            ready = self._poll(terminal, signals_fd)
            if signals_fd in ready:
                self._heed(os.read(signals_fd, 64), terminal)
            if terminal.in_fd in ready and self._keyboard.type(terminal.read()):
                self._leave()
            terminal.flush()
            if self._line is not None and self._line.fileno() in ready:
                self._serve(self._line)
            self._act(time.monotonic(), terminal)

    def _poll(self, terminal: Terminal, signals_fd: int) -> set[int]:
        poll = select.poll()
        poll.register(signals_fd, select.POLLIN)
        if not self._keyboard.is_full:
            poll.register(terminal.in_fd, select.POLLIN)
        if terminal.pending_bytes:
            poll.register(terminal.out_fd, select.POLLOUT)
        if self._line is not None:
            mask = 0 if self.screen.is_behind else select.POLLIN
            poll.register(self._line, mask | (select.POLLOUT if self._line.is_sending else 0))
            if mask and self._line.is_more:
                return {self._line.fileno(), *(fd for fd, _ in poll.poll(0))}
        return {fd for fd, _ in poll.poll(self._wait_ms(terminal))}

    def _wait_ms(self, terminal: Terminal) -> int | None:
        moments = [self._nudge_at, self._resize_at, self._attacher.try_at]
        if not terminal.pending_bytes:  # what waits for the terminal is shown before anybody leaves
            moments.append(self._leave_at)
        if self._line is not None:
            moments.append(self._keyboard.due_at)
        due = [moment for moment in moments if moment is not None]
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1) if due else None

    def _act(self, now: float, terminal: Terminal) -> None:
        """Do what is due."""
        if self._nudge_at is not None and now >= self._nudge_at:
            self._nudge(now)
        if self._resize_at is not None and now >= self._resize_at:
            self._send_size()
            self._nudge_again(now)
        if self._line is not None and (piece := self._keyboard.next_piece(now)) is not None:
            if self._resize_at is not None:
                self._send_size()  # what is typed finds the right size, whatever a nudge is at
            msgid = self._line.type(piece.data, self._attacher.id, piece.is_request)
            self._keyboard.sent(piece, msgid, now)
        if self._attacher.try_at is not None and now >= self._attacher.try_at:
            self._reattach()
        is_over = self._leave_at is not None and (self._ended or now >= self._leave_at)
        if is_over and not terminal.pending_bytes:
            raise self._exited()

    def _heed(self, numbers: bytes, terminal: Terminal) -> None:
        for number in numbers:
            match number:
                case signal.SIGWINCH:
                    self._send_size()
                case signal.SIGCONT:  # a shell had the terminal meanwhile
                    terminal.make_raw()
                    self._nudge_at = time.monotonic()
                case _:
                    words = f"detached from {self._attacher.name} by {signal_name(number)}"
                    raise Left(128 + number, words)

    # --- the session ------------------------------------------------------------------------------

    def _serve(self, line: Line) -> None:
        line.flush()
        messages = line.receive()
        if messages is None:
            self._lose()
            return
        for message in messages:
            if isinstance(message, NotificationReceived):
                self._take(message.method, message.params)
            elif not self._keyboard.answered(message.msgid, message.error, time.monotonic()):
                self.screen.ring()

    def _take_early(self) -> None:
        if self._line is not None:
            for message in self._line.take_early():
                self._take(message.method, message.params)

    def _take(self, method: str, params: Params) -> None:
        if method == "error" and params.get("code") == Code.STOPPING:
            self._attacher.was_stopped = True
        if method == "session.input_refused":
            self.screen.ring()
        if self._line is None or params.get("attachment") != self._line.reply["attachment"]:
            return
        match method:
            case "session.output":
                self._calm()
                self._redraw_if(self.screen.output(params["offset"], params["data"]))
            case "session.gap":
                self._redraw_if(self.screen.gap(params["to"]))
            case "session.exit":
                self._exit = params["exit"]
                self._leave_at = time.monotonic() + END_WAIT_S
            case "session.end":
                self._exit = params["exit"] or self._exit
                self._ended = True
                self._leave_at = time.monotonic()
            case "session.detached" if params["reason"] == "stopping":
                self._attacher.was_stopped = True
            case "session.detached" if params["reason"] == "requested":
                name = self._attacher.name
                raise Left(0, f"somebody has detached us from {name}; ptyd attach {name} to return")

    def _leave(self) -> NoReturn:
        name = self._attacher.name
        raise Left(0, f"detached from {name}; ptyd attach {name} to return")

    def _exited(self) -> Left:
        name = self._attacher.name
        match self._exit:
            case {"code": int(code)}:
                status, words = code, f"{name} exited with {code}"
            case {"signal": int(number)}:
                status, words = 128 + number, f"{name} was killed by {signal_name(number)}"
            case _:
                status, words = 1, f"{name} ended; how is not known"
        left = "" if self._ended else f"; processes of it live on: ptyd kill {name}"
        return Left(status, words + left)

    # --- size -------------------------------------------------------------------------------------

    def _send_size(self) -> None:
        self._resize_at = None
        self._resize(*terminal_size())

    def _nudge(self, now: float) -> None:
        """Make the program draw itself: nothing but a change of size is sure to.

        Source: signal(7), SIGWINCH; full-screen programs compare the size with the one they know.
        """
        self._nudge_at = None
        self._nudges_left -= 1
        rows, cols = terminal_size()
        self._resize(rows - 1 if rows > 1 else rows + 1, cols)
        self._resize_at = now + NUDGE_S

    def _nudge_again(self, now: float) -> None:
        """Unless something is drawn by then; a program that draws nothing is left in peace.

        Only one with a screen of its own has to draw: what a shell has written is shown already.
        """
        if self._nudges_left and self.screen.modes.alternate_screen:
            self._nudge_at = now + NUDGE_AGAIN_S
        else:
            self._nudges_left = NUDGES

    def _resize(self, rows: int, cols: int) -> None:
        if self._line is not None and not self._options.read_only:
            self._line.resize(rows, cols, self._attacher.id)

    def _calm(self) -> None:
        """Something is drawn: if that was for a nudge, there is no need of another."""
        if self._nudges_left < NUDGES:
            self._nudge_at = None
            self._nudges_left = NUDGES

    def _redraw_if(self, lapped: bool) -> None:
        if lapped and not self._options.read_only:
            self._nudge_at = time.monotonic() + REDRAW_AFTER_GAP_S

    # --- a lost daemon ----------------------------------------------------------------------------

    def _lose(self) -> None:
        assert self._line is not None
        self._line.close()
        self._line = None
        self._resize_at = None
        if self._exit is None:
            self._attacher.lost()

    def _reattach(self) -> None:
        try:
            line = self._attacher.reattach(self.screen.since)
        except PtydError as error:
            raise Left(error.exit_status, str(error)) from error
        if line is not None:
            self._resume(line)
        elif self._attacher.is_overdue and not self._attacher.was_told:
            self._attacher.was_told = True
            self._note("the daemon is gone; looking for it")

    def _resume(self, line: Line) -> None:
        self._line = line
        self._redraw_if(self.screen.attached_again(line.reply))
        if count := self._keyboard.lost():
            self._note(f"{count} typed bytes may or may not have arrived")
        if self._attacher.was_told and not self._options.read_only:
            self._nudge_at = time.monotonic()  # the note is in the picture
        self._take_early()

    def _note(self, words: str) -> None:
        if not self._options.is_quiet:
            say(f"\r\n[ptyd: {words}]\r\n")


def signal_name(number: int) -> str:
    """Return a signal's name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
