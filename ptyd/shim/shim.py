"""The shim: the process that owns one session, for as long as anything of it lives.

Owns the loop over PTY, children and links, and the session's record once it is born. It knows no client
and no registry, and needs no daemon: without one it goes on draining.

Standard library and ptyprocess only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import NamedTuple

from ptyd import procs, records
from ptyd.datagrams import (
    ROOM_MESSAGE,
    VERSION,
    Body,
    Kind,
    Verdict,
    pack_json,
    pack_taken,
    unpack_credit,
    unpack_input,
    unpack_json,
)
from ptyd.ring import RingWriter
from ptyd.shim.direct import DirectEnds
from ptyd.shim.ending import Ending, KillResult, count_processes, describe_foreground
from ptyd.shim.kill import signal_all
from ptyd.shim.link import Link
from ptyd.shim.links import Links
from ptyd.shim.spawn import Program
from ptyd.shim.terminal import PTY_BYTES, Terminal

SOCKET_LOOK_S = 60.0  # how often a shim without a daemon looks whether its socket file is still there
RECORD_RETRY_S = 1.0  # an exit record that could not be written (disk full) is tried again this often
LONGEST_WAIT_S = 3600.0  # epoll takes no more milliseconds than an int holds
LEADER_EXIT_GRACE_S = 1.0  # of the kill that on_leader_exit asks for
TOLD = ("id", "generation", "shim_pid", "shim_start", "boot_id", "pid", "pid_start", "rows", "cols")
"""Of the record, to whoever links to us."""
DAEMON = "daemon"  # who asks for a limit on behalf of all its clients


class Beginning(NamedTuple):
    """What a session begins with."""

    record: Body
    facts: Body
    first_state: bytes
    """The facts, as they are told to who asked for the session."""


def beginning_of(record: Body) -> Beginning:
    """Return what the session of this birth record begins with."""
    facts = {
        "version": VERSION,
        **{key: record[key] for key in TOLD},
        "exit": None,
        "exit_offset": None,
        "killing": False,
        "ended": False,
        "direct": [],
    }
    return Beginning(record, facts, pack_json(Kind.STATE, facts))


class Shim:
    """One session's loop."""

    def __init__(
        self,
        sessions_fd: int,
        beginning: Beginning,
        memory_fd: int,
        ring: RingWriter,
        program: Program,
        link: Link,
    ) -> None:
        self._sessions_fd = sessions_fd
        self._record, self._facts, first_state = beginning
        self._id = self._record["id"]
        self._memory_fd = memory_fd
        self._epoll = select.epoll()
        self._terminal = Terminal(program, ring, self._epoll)
        self._ending = Ending(self._record["pid"])
        self._kill_askers: list[tuple[Link, int]] = []
        self._rest_until: int | None = None
        self._result: KillResult | None = None
        self._record_due_at: float | None = None
        self._leave_at: float | None = None
        self._socket_look_at = time.monotonic() + SOCKET_LOOK_S
        self._links = Links(sessions_fd, self._id, self._epoll, self._obey, self._link_gone)
        self._direct = DirectEnds(
            self._epoll, self._terminal, lambda: self._facts, self._resize_and_tell, self._direct_changed
        )
        self._children_fd = child_wakeups()
        self._epoll.register(self._children_fd, select.EPOLLIN)
        self._links.add(link)
        self._links.send(link, first_state, (memory_fd,))

    # -- the loop --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the session has ended and its ring was readable for long enough."""
        self._children_changed(time.monotonic())  # one may have died before we listened
        while self._leave_at is None or time.monotonic() < self._leave_at:
            for fd, mask in self._epoll.poll(self._timeout()):
                self._serve(fd, mask)
            self._act(time.monotonic())
        self._links.remove_socket()

    def _serve(self, fd: int, mask: int) -> None:
        if fd == self._terminal.fileno():
            self._serve_terminal(mask)
        elif fd == self._children_fd:
            os.read(self._children_fd, 4096)
            self._children_changed(time.monotonic())
        else:
            self._links.serve(fd, mask)
            self._direct.serve(fd, mask)

    def _serve_terminal(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._terminal.write_input()
            if self._terminal.has_room_again():
                self._links.tell(ROOM_MESSAGE)
                self._direct.tell_room()
        if mask & ~select.EPOLLOUT and self._terminal.drain():
            self._wake()
        if self._terminal.is_limited:
            self._terminal.update_interest()

    def _wake(self) -> None:
        """Tell every reader that the head has moved."""
        self._direct.wake()
        self._links.wake()

    def _timeout(self) -> float | None:
        moments = [self._leave_at, self._record_due_at, self._ending.due_at]
        if self._terminal.is_limited:
            moments.append(self._terminal.limit_until)
        if not self._links and self._leave_at is None:
            moments.append(self._socket_look_at)
        known = [moment for moment in moments if moment is not None]
        return min(max(0.0, min(known) - time.monotonic()), LONGEST_WAIT_S) if known else None

    def _act(self, now: float) -> None:
        """Do what has fallen due; almost always nothing."""
        until = self._terminal.limit_until if self._terminal.is_limited else None
        if until is not None and now >= until:
            self._terminal.lift_overdue(now)
        if self._ending.is_killing:
            self._step_kill(now)
        if self._rest_until is not None:
            self._settle(now)
        if self._record_due_at is not None and now >= self._record_due_at:
            self._write_exit(now)
        if not self._links and now >= self._socket_look_at:
            self._socket_look_at = now + SOCKET_LOOK_S
            self._links.ensure_socket()

    # -- ending ----------------------------------------------------------------------------------------

    def _children_changed(self, now: float) -> None:
        self._ending.reap()
        self._ending.nudge(now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Tell an exit and an end, each once the output before it is in the ring."""
        if self._ending.exit is not None and self._facts["exit"] is None and self._has_drained():
            self._leader_exited(now)
        is_over = self._ending.is_proven and not self._ending.is_killing and not self._facts["ended"]
        if is_over and self._has_drained():
            self._end(now)

    def _has_drained(self) -> bool:
        """Read what was written before now, as a paced reader lets us; others may go on writing for ever."""
        before = self._terminal.ring.head
        if self._rest_until is None:
            self._rest_until = before + PTY_BYTES
        is_done = self._terminal.drain_up_to(self._rest_until)
        if self._terminal.ring.head > before:
            self._wake()
        if is_done:
            self._rest_until = None
        return is_done

    def _leader_exited(self, now: float) -> None:
        """Tell the leader's exit."""
        self._facts |= {"exit": self._ending.exit, "exit_offset": self._terminal.ring.head}
        if self._ending.is_proven:
            return  # the end follows at once, and tells this too
        self._update_record({"exit": self._ending.exit})
        self._tell_state()
        if self._record["on_leader_exit"] == "kill":
            self._begin_kill(now, LEADER_EXIT_GRACE_S, False)

    def _begin_kill(self, now: float, grace_s: float, force: bool) -> None:
        self._ending.begin(now, grace_s, force)
        self._terminal.lift_limits()
        if not self._facts["killing"]:
            self._facts["killing"] = True
            self._tell_state()

    def _step_kill(self, now: float) -> None:
        self._ending.reap()
        result = self._ending.step(now)
        if self._ending.wants_hang_up:
            self._terminal.hang_up()
        if result is None:
            return
        self._result = result
        if self._ending.is_proven:
            self._end(now)
        else:
            self._answer_kill("unconfirmed")

    def _end(self, now: float) -> None:
        """Nobody is left: read what is left, and write it all down before anybody is told."""
        self._terminal.lift_limits()
        self._rest_until = None
        self._has_drained()
        self._terminal.ring.end()
        offset = self._terminal.ring.head
        if self._facts["exit_offset"] is None:
            self._facts |= {"exit": self._ending.exit, "exit_offset": offset}
        self._facts |= {"ended": True, "killing": False, "proof": "echild", "end_offset": offset}
        self._facts |= {"ended_at_ms": time.time_ns() // 1_000_000}
        self._facts |= self._result_fields()
        self._record_due_at = now
        self._write_exit(now)

    def _result_fields(self) -> Body:
        result = self._result
        if result is None:
            return {"phase": None, "stragglers": [], "duration_ms": 0}
        return {
            "phase": result.phase,
            "stragglers": result.stragglers,
            "duration_ms": result.duration_ms,
        }

    def _write_exit(self, now: float) -> None:
        keys = (
            "exit",
            "exit_offset",
            "proof",
            "end_offset",
            "ended_at_ms",
            "rows",
            "cols",
            "phase",
            "stragglers",
        )
        fields = {**self._record, **{key: self._facts[key] for key in keys}, "ended": True}
        tail = self._terminal.ring.tail(records.TAIL_BYTES)
        try:
            records.write_exit(self._sessions_fd, self._id, fields, tail)
        except OSError:
            self._record_due_at = now + RECORD_RETRY_S
            return
        self._record_due_at = None
        self._leave_at = now + self._record["ring_linger_s"]
        self._tell_state()
        self._answer_kill("killed" if self._result else "already_exited")
        self._terminal.hang_up()

    def _answer_kill(self, outcome: str) -> None:
        survivors = self._result.survivors if self._result else []
        body = {"outcome": outcome, "survivors": survivors, **self._result_fields()}
        for link, seq in self._kill_askers:
            self._links.send(link, pack_json(Kind.ANSWER, {"seq": seq, **body}))
        self._kill_askers.clear()

    def _update_record(self, fields: Body) -> None:
        self._record = {**self._record, **fields}
        with contextlib.suppress(OSError):  # the birth record stands; the exit record repeats all of it
            records.replace_record(self._sessions_fd, self._id, self._record)

    # -- what is asked ---------------------------------------------------------------------------------

    def _link_gone(self, link: Link) -> None:
        self._kill_askers = [asker for asker in self._kill_askers if asker[0] is not link]
        if not self._links:
            self._terminal.lift_limit(DAEMON)  # nobody is left who could renew it
            self._socket_look_at = time.monotonic() + SOCKET_LOOK_S

    def _send_state(self, link: Link) -> None:
        self._links.send(link, pack_json(Kind.STATE, self._facts), (self._memory_fd,))

    def _tell_state(self) -> None:
        self._links.tell(pack_json(Kind.STATE, self._facts))
        self._direct.tell_state()

    def _direct_changed(self) -> None:
        self._facts["direct"] = self._direct.numbers
        self._links.tell(pack_json(Kind.STATE, self._facts))

    def _resize_and_tell(self, rows: int, cols: int) -> None:
        self._resize(rows, cols)
        self._tell_state()

    def _resize(self, rows: int, cols: int) -> None:
        self._terminal.resize(rows, cols)
        self._facts |= {"rows": rows, "cols": cols}

    def _obey(self, link: Link, message: bytes) -> None:
        match message[0]:
            case Kind.INPUT:
                seq, wants_answer, data = unpack_input(message)
                verdict = Verdict.ENDED if self._facts["ended"] else self._terminal.accept(data)
                if wants_answer or verdict is not Verdict.ACCEPTED:
                    self._links.send(link, pack_taken(seq, verdict))
            case Kind.CREDIT:
                offset, ms = unpack_credit(message)
                if not self._facts["killing"] and not self._facts["ended"]:
                    self._terminal.set_limit(DAEMON, offset, time.monotonic() + ms / 1000)
            case Kind.WATCH:
                link.is_watching = message[1] != 0
                link.wake()  # what came before this message was not told
            case Kind.HELLO:
                self._send_state(link)
            case Kind.BIND:
                self._links.ensure_socket()
            case Kind.ASK:
                self._do(link, unpack_json(message))

    def _do(self, link: Link, ask: Body) -> None:
        seq = int(ask["seq"])
        if ask["do"] == "kill":
            self._kill(link, seq, ask)
            return
        try:
            if ask["do"] == "direct":
                self._open_direct(link, seq, ask)
                return
            answer = self._apply(ask)
        except OSError as err:
            answer = {"error": err.strerror or str(err)}
        self._links.send(link, pack_json(Kind.ANSWER, {"seq": seq, **answer}))

    def _open_direct(self, link: Link, seq: int, ask: Body) -> None:
        """Begin a direct attachment: the answer carries the ring's memory and the client's half of a pair."""
        size = (ask["rows"], ask["cols"]) if ask["rows"] else None
        with self._direct.open(ask["number"], bool(ask["may_write"]), size) as theirs:
            answer = pack_json(Kind.ANSWER, {"seq": seq})
            # Not queued: the descriptor is only ours until here.
            if link.wants_write or not link.send_now(answer, (self._memory_fd, theirs.fileno())):
                self._direct.detach(ask["number"])
                raise OSError("the link to the daemon is full; try again")

    def _kill(self, link: Link, seq: int, ask: Body) -> None:
        self._kill_askers.append((link, seq))
        if not self._facts["ended"]:
            now = time.monotonic()
            self._begin_kill(now, ask["grace_ms"] / 1000, bool(ask["force"]))
            self._step_kill(now)
        elif self._record_due_at is None:
            self._answer_kill("already_exited")

    def _apply(self, ask: Body) -> Body:
        match ask["do"]:
            case "resize":
                self._resize(ask["rows"], ask["cols"])
            case "signal":
                return {"signalled": self._signal(int(ask["signal"]), ask["to"])}
            case "update":
                updated = {**self._record, "name": ask["name"], "labels": ask["labels"]}
                records.replace_record(self._sessions_fd, self._id, updated)
                self._record = updated
            case "look":
                foreground = describe_foreground(self._terminal.foreground_pgid())
                return {"foreground": foreground, "processes": count_processes()}
            case "detach":
                return {"detached": self._direct.detach(ask["number"])}
            case "leave":
                self._leave_at = time.monotonic() if self._facts["ended"] else None
            case other:
                return {"error": f"this shim (link version {VERSION}) cannot {other}"}
        return {}

    def _signal(self, number: int, to: str) -> int:
        foreground = self._terminal.foreground_pgid()
        tree = procs.Tree(os.getpid())

        def belongs(stat: procs.Stat) -> bool:
            if not tree.holds(stat):
                return False
            if to == "leader":
                return stat.pid == int(self._facts["pid"])
            return to == "all" or stat.pgid == foreground

        return len(signal_all(tree.walk(), (number,), belongs))


def child_wakeups() -> int:
    """Return a descriptor that turns readable when a child changes state; SIGCHLD must have a handler."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader
