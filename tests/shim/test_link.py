"""The link's messages and its socket: whole messages, never a block, a bounded queue."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyd.datagrams import (
    MAX_DATAGRAM_BYTES,
    MAX_INPUT_BYTES,
    Kind,
    Verdict,
    pack_credit,
    pack_input,
    pack_json,
    pack_taken,
    unpack_credit,
    unpack_input,
    unpack_json,
    unpack_taken,
)
from ptyd.peers import peer_credentials, peer_uid
from ptyd.shim.link import Link, LinkClosed

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


@given(seq=U32, wants_answer=st.booleans(), data=st.binary(max_size=300))
def test_input_there_and_back(seq: int, wants_answer: bool, data: bytes) -> None:
    message = pack_input(seq, wants_answer, data)
    assert message[0] == Kind.INPUT
    assert unpack_input(message) == (seq, wants_answer, data)


@given(seq=U32, verdict=st.sampled_from(Verdict))
def test_taken_there_and_back(seq: int, verdict: Verdict) -> None:
    message = pack_taken(seq, verdict)
    assert message[0] == Kind.TAKEN
    assert unpack_taken(message) == (seq, verdict)


@given(offset=U64, ms=U32)
def test_credit_there_and_back(offset: int, ms: int) -> None:
    message = pack_credit(offset, ms)
    assert message[0] == Kind.CREDIT
    assert unpack_credit(message) == (offset, ms)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(body=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_json_there_and_back(body: dict[str, object]) -> None:
    message = pack_json(Kind.STATE, body)
    assert message[0] == Kind.STATE
    assert unpack_json(message) == body


def test_json_carries_names_that_are_no_text() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert unpack_json(pack_json(Kind.ASK, {"name": name})) == {"name": name}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"null", b"\xff"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json's or ours: any of them
        unpack_json(bytes([Kind.ASK]) + body)


def test_kinds_are_told_apart_by_their_first_byte() -> None:
    assert len({int(kind) for kind in Kind}) == len(Kind)
    assert all(0 < kind < 128 for kind in Kind)


def test_the_longest_bodies_fit_a_datagram() -> None:
    """32 labels of 256 characters that JSON has to escape twice over; and the longest input."""
    labels = {f"{n:064}": "\U0001f600" * 256 for n in range(32)}
    message = pack_json(Kind.ASK, {"seq": 1, "do": "update", "name": "n" * 64, "labels": labels})
    assert len(message) <= MAX_DATAGRAM_BYTES
    assert len(pack_input(0, True, b"x" * MAX_INPUT_BYTES)) <= MAX_DATAGRAM_BYTES
    ours, theirs = pair()
    with ours.sock, theirs.sock:
        assert ours.send_now(message)
        assert theirs.receive() == message


# --- the socket ------------------------------------------------------------------------------------


def pair(queue_bytes: int = 20_000) -> tuple[Link, Link]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Link(ours, queue_bytes), Link(theirs, queue_bytes)


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    ours, theirs = pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def fill(link: Link) -> int:
    """Send numbered messages until even the queue is full; return how many were taken."""
    count = 0
    while link.send(pack_input(count, False, b"x" * 4096)):
        count += 1
    return count


def test_messages_come_whole_and_in_order(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    assert theirs.receive() is None
    assert ours.send(b"one")
    assert ours.send(b"t" * 70_000)
    assert (theirs.receive(), theirs.receive(), theirs.receive()) == (b"one", b"t" * 70_000, None)


def test_a_full_queue_takes_nothing_and_loses_nothing(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    count = fill(ours)
    assert 20_000 < ours.backlog_bytes < 30_000
    got: list[int] = []
    while len(got) < count:
        message = theirs.receive()
        assert message is not None
        got.append(unpack_input(message)[0])
        ours.flush()
    assert got == list(range(count))
    assert not ours.wants_write
    assert ours.backlog_bytes == 0
    assert ours.send(b"again")
    assert theirs.receive() == b"again"


def test_a_wake_that_does_not_fit_is_dropped(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    count = fill(ours)
    for _ in range(100):
        ours.wake()
    for _ in range(count):
        ours.flush()
        assert (theirs.receive() or b"")[:1] == bytes([Kind.INPUT])


def test_what_was_sent_before_the_end_still_comes(links: tuple[Link, Link]) -> None:
    """Also when the other end left messages of ours unread: the kernel tells of that first."""
    ours, theirs = links
    theirs.send(b"unread")
    ours.send(b"last words")
    ours.close()
    assert theirs.receive() == b"last words"
    with pytest.raises(LinkClosed):
        theirs.receive()
    with pytest.raises(LinkClosed):
        theirs.send_now(b"x")
    theirs.wake()  # whoever wakes nobody is told so when it reads


def test_descriptors_travel_with_their_message(links: tuple[Link, Link]) -> None:
    ours, theirs = links
    with tempfile.TemporaryFile() as file:
        file.write(b"hello")
        file.flush()
        assert ours.send(b"take this", (file.fileno(),))
    got = theirs.receive_with_fds()
    assert got is not None
    message, [fd] = got
    assert message == b"take this"
    assert os.pread(fd, 10, 0) == b"hello"
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert theirs.receive_with_fds() is None
    ours.close()
    with pytest.raises(LinkClosed):
        theirs.receive_with_fds()


def test_who_is_at_the_other_end(links: tuple[Link, Link]) -> None:
    ours, _ = links
    assert peer_uid(ours.sock) == os.getuid()
    assert peer_credentials(ours.sock) == (os.getpid(), os.getuid(), os.getgid())
