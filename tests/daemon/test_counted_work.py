"""The guard over the fast paths: what a keystroke and a MiB of output cost, counted and not timed.

Real processes under strace. Every number is made of steps that can be named, and whoever adds one sees it
here; what a busy machine changes (how much a PTY gives at a time, how often the daemon goes to sleep between
two events) is bounded by what came, never by a moment. The steps:

A key, streamed: the daemon receives it from its client (1 recvfrom) and sends it on (1 sendto); the shim
receives it (1 recvfrom), writes it to the PTY (1 write), reads the echo into the ring (1 readv) and wakes the
daemon (1 sendto); the daemon takes the wake-up (1 recvfrom) and sends the echo from the ring (1 sendmsg).
Each of the two is woken twice. Nobody answers a key, and nothing is asked twice.

A key, direct: the same in the shim, with the client in the daemon's place; nothing at all in the daemon.

Output: the shim moves every byte once, from the PTY into the ring (readv), some 4 KiB at a time as the kernel
gives them, and ends a turn of at most 64 KiB with one wake-up for each reader. The daemon takes the wake-ups,
one byte each, and moves every byte once, from the ring to its client (sendmsg), at most once for each wake-up
and each whole chunk. A paced reader costs a credit for each quarter of the ring that was read.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator
from typing import Final, Protocol

import pytest

from ptyd.blocking import BlockingClient
from ptyd.direct import Direct
from ptyd.protocol.connection import NotificationReceived
from tests.attach.user import User
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc
from tests.support.sessions import View, spawn_ready
from tests.support.strace import Trace, traced
from tests.support.waiting import wait_until

KIB: Final = 1024
MIB: Final = 1024 * KIB
KEYS: Final = 100
EDGE_CALLS: Final = 4  # that may or may not be seen as strace comes and goes
OUTPUT_BYTES: Final = 4 * MIB
CHUNK_BYTES: Final = 64 * KIB  # of one session.output, and of one turn of the shim's
MESSAGE_BYTES: Final = 128  # of a session.output without its data
SMALLEST_GIFT_BYTES: Final = 2 * KIB  # of a PTY under a flood, on average: it is 4 KiB nearly always
ARROW: Final = b"\x1b[A"
DEADLINE_S: Final = 30.0
IDLE_WINDOW_S: Final = 1.5  # what is done more seldom than this, when nothing happens, is not found
WAYS: Final = ["stream", "shm"]


class Client(Protocol):
    """Somebody attached to a session."""

    next_offset: int
    messages: int
    """Of output that came to it."""

    def type(self, data: bytes) -> None: ...
    def step(self) -> None:
        """Wait for what comes next, and take it in."""
        ...


class Streamed:
    """A bare client of the daemon's."""

    def __init__(self, rpc: Rpc, session: str, flow: str) -> None:
        self.messages = 0
        self._rpc = rpc
        self._session = session
        self._view = View(rpc, session, flow=flow)

    @property
    def next_offset(self) -> int:
        return self._view.next_offset

    def type(self, data: bytes) -> None:
        self._rpc.notify("session.input", id=self._session, data=data)

    def step(self) -> None:
        self._view.step(DEADLINE_S)
        self._view.data.clear()
        self.messages += 1


class Alone:
    """A client that reads the ring and speaks to the shim."""

    def __init__(self, client: BlockingClient, session: str, flow: str) -> None:
        asked = {"id": session, "since": "live", "via": "shm"}
        self._direct = Direct(*client.call_for_fds("session.attach", asked), is_paced=flow == "pace")
        self.next_offset = self._direct._reading.offset
        self.messages = 0
        self.close = self._direct.close
        self._poll = select.poll()
        self._poll.register(self._direct, select.POLLIN)

    def type(self, data: bytes) -> None:
        self._direct.type(data)

    def step(self) -> None:
        if not self._direct.is_more:
            assert self._poll.poll(DEADLINE_S * 1000), "nothing came"
        for message in self._direct.receive() or []:
            assert isinstance(message, NotificationReceived)
            assert message.method == "session.output", message
            self.next_offset = message.params["offset"] + len(message.params["data"])
            self.messages += 1


@contextlib.contextmanager
def attached(runtime: RuntimeDir, session: str, via: str, flow: str = "skip") -> Iterator[Client]:
    """Attach in one of the two ways, with nobody of ours between the client and the wire."""
    if via == "stream":
        with runtime.connect() as rpc:
            yield Streamed(rpc, session, flow)
    else:
        with BlockingClient.connect(str(runtime.path), start=False) as client:
            alone = Alone(client, session, flow)
            with contextlib.closing(alone):
                yield alone


def read_to(client: Client, offset: int) -> None:
    while client.next_offset < offset:
        client.step()


def type_keys(client: Client, count: int) -> None:
    """Type one key after the other, each once the one before it has come back."""
    for _ in range(count):
        offset = client.next_offset + 1
        client.type(b"k")
        read_to(client, offset)


def about(count: int, wanted: int) -> bool:
    return abs(count - wanted) <= EDGE_CALLS


# --- keys ---------------------------------------------------------------------------------------------


def check_key_in_shim(trace: Trace, keys: int) -> None:
    counts = trace.counts
    steps = {"recvfrom", "write", "readv", "sendto", "epoll_wait"}
    assert set(counts) == steps, counts
    for step in steps - {"epoll_wait"}:
        assert about(counts[step], keys), (step, counts)
    assert about(counts["epoll_wait"], 2 * keys), counts
    assert trace.moved_bytes("write") == keys
    assert trace.moved_bytes("readv") == keys
    assert about(trace.moved_bytes("sendto"), keys), "a wake-up is one byte"


@pytest.mark.parametrize("via", WAYS)
def test_a_key(shared_runtime: RuntimeDir, rpc: Rpc, via: str) -> None:
    """See the module's docstring; sessions beside it cost nothing."""
    session, *idle = [spawn_ready(rpc, "exec cat") for _ in range(4)]
    pids = {"daemon": shared_runtime.daemon_pid(), "shim": shared_runtime.shim_pid(session)}
    pids["idle"] = shared_runtime.shim_pid(idle[0])
    with attached(shared_runtime, session, via) as client:
        type_keys(client, 5)  # the first key of a client goes a longer way
        with traced(**pids) as traces:
            type_keys(client, KEYS)
    check_key_in_shim(traces["shim"], KEYS)
    assert traces["idle"].calls == []
    if via == "shm":
        assert traces["daemon"].work == []
    else:
        check_key_in_daemon(traces["daemon"], KEYS)


def check_key_in_daemon(trace: Trace, keys: int) -> None:
    counts = trace.counts
    assert set(counts) <= {"recvfrom", "sendto", "sendmsg", "epoll_wait", "epoll_ctl"}, counts
    assert about(counts["recvfrom"], 2 * keys), counts
    assert about(counts["sendto"], keys), counts
    assert about(counts["sendmsg"], keys), counts
    # Two events for a key. Each is found at once where the daemon still lingers; at worst it had gone to
    # sleep (one wait in vain, one of trio's and its registration), and looks again when it is woken.
    events = 2 * keys + EDGE_CALLS
    assert counts["epoll_wait"] <= 4 * events, counts
    assert counts["epoll_ctl"] <= events, counts
    assert trace.woken() <= 2 * events, counts


@pytest.mark.parametrize("via", WAYS)
def test_a_key_in_the_attach_command(shared_runtime: RuntimeDir, rpc: Rpc, via: str) -> None:
    """One read of the terminal, one message out, one in, one write to the terminal.

    A tenth of a second after the last key an empty input asks whether all arrived: on a slow machine that may
    be after every key. Those are known by their length.
    """
    session = spawn_ready(rpc, "exec cat")
    # Of another size than the session, so that attaching changes it once, and that is all.
    with User(shared_runtime, "attach", "--via", via, session, rows=30) as user:
        wait_until(lambda: user.is_raw, what="attached")
        press(user)
        with traced(client=user.process.pid) as traces:
            for _ in range(KEYS):
                press(user)
    trace = traces["client"]
    counts = trace.counts
    assert set(counts) <= {"read", "write", "sendto", "recvfrom", "poll"}, counts
    assert trace.moved_bytes("read") == trace.moved_bytes("write") == KEYS * len(ARROW)
    assert len(trace.named("read")) == len(trace.named("write")) == KEYS
    longest = max(call.result for call in trace.named("sendto"))
    keys = [call for call in trace.named("sendto") if call.result == longest]
    asked = len(trace.named("sendto")) - len(keys)
    assert about(len(keys), KEYS), counts
    # In: the echo, the answer to each question, and a look that finds nothing more.
    assert counts["recvfrom"] <= 2 * (KEYS + asked) + EDGE_CALLS, counts
    assert trace.woken() <= 2 * KEYS + asked + EDGE_CALLS, counts


def press(user: User) -> None:
    user.type(ARROW)
    user.expect(ARROW)


# --- output -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["skip", "pace"])
@pytest.mark.parametrize("via", WAYS)
def test_output(shared_runtime: RuntimeDir, rpc: Rpc, via: str, flow: str) -> None:
    """See the module's docstring. The ring holds all of it, or for a paced reader a quarter."""
    capacity = OUTPUT_BYTES * 2 if flow == "skip" else OUTPUT_BYTES // 4
    session = flood(shared_runtime, rpc, capacity)
    pids = {"daemon": shared_runtime.daemon_pid(), "shim": shared_runtime.shim_pid(session)}
    with attached(shared_runtime, session, via, flow) as client, contextlib.ExitStack() as stack:
        traces = stack.enter_context(traced(**pids))
        began = time.monotonic()
        end = client.next_offset + OUTPUT_BYTES
        client.type(b"\n")
        read_to(client, end)
        seconds = int(time.monotonic() - began) + 1
        stack.close()
        messages = client.messages
    # A credit is renewed each second, too.
    credits_ = 0 if flow == "skip" else OUTPUT_BYTES // (capacity // 4) + seconds + 2
    turns = check_output_in_shim(traces["shim"], credits_)
    if via == "shm":
        assert traces["daemon"].work == []
    else:
        check_output_in_daemon(traces["daemon"], turns, credits_, messages)


def flood(runtime: RuntimeDir, rpc: Rpc, capacity: int) -> str:
    """Start a session that writes OUTPUT_BYTES after a newline, and nothing before; return its id."""
    text = runtime.base / "text"
    text.write_bytes(b"x" * OUTPUT_BYTES)
    return spawn_ready(rpc, f"read go; exec cat {text} -", scrollback_bytes=capacity)


def check_output_in_shim(trace: Trace, credits_: int) -> int:
    """Check what the shim did; return how many turns it took."""
    counts = trace.counts
    assert set(counts) <= {"recvfrom", "write", "readv", "sendto", "epoll_wait", "epoll_ctl"}, counts
    assert trace.moved_bytes("readv") == OUTPUT_BYTES
    turns = counts["sendto"]
    assert turns <= trace.woken() + EDGE_CALLS, "one wake-up a turn"
    assert counts["readv"] <= OUTPUT_BYTES // SMALLEST_GIFT_BYTES + turns, counts
    assert counts["recvfrom"] <= credits_ + 2, counts
    assert counts["epoll_wait"] <= turns + counts["recvfrom"] + EDGE_CALLS, counts
    assert counts["epoll_ctl"] <= 2 * counts["recvfrom"], counts
    return turns


def check_output_in_daemon(trace: Trace, turns: int, credits_: int, messages: int) -> None:
    counts = trace.counts
    assert set(counts) <= {"recvfrom", "sendto", "sendmsg", "epoll_wait", "epoll_ctl"}, counts
    assert trace.moved_bytes("recvfrom") <= turns + MESSAGE_BYTES, "wake-ups and a key, no output"
    assert messages <= turns + OUTPUT_BYTES // CHUNK_BYTES + EDGE_CALLS
    assert OUTPUT_BYTES <= trace.moved_bytes("sendmsg") <= OUTPUT_BYTES + messages * MESSAGE_BYTES


# --- nothing ------------------------------------------------------------------------------------------


def test_nothing_is_done_while_nothing_happens(daemon: RuntimeDir) -> None:
    """Attached in both ways, and nobody types: neither daemon nor shims so much as wake up."""
    with contextlib.ExitStack() as stack:
        rpc = stack.enter_context(daemon.connect())
        sessions = [spawn_ready(rpc, "exec cat") for _ in WAYS]
        for session, via in zip(sessions, WAYS, strict=True):
            type_keys(stack.enter_context(attached(daemon, session, via)), 1)
        pids = {f"shim {session}": daemon.shim_pid(session) for session in sessions}
        with traced(daemon=daemon.daemon_pid(), zygote=daemon.zygote_pid(), **pids) as traces:
            time.sleep(IDLE_WINDOW_S)  # no limit: on a slow machine, too, nothing is all there is to see
    assert {name: trace.calls for name, trace in traces.items()} == {name: [] for name in traces}
