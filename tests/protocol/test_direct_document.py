"""The chapter on direct attachments in protocol.md, held to the code; and a client written from it alone."""

from __future__ import annotations

import mmap
import re
import select
import socket
import struct

from ptyd import datagrams, ring
from ptyd.datagrams import Kind, Verdict
from ptyd.protocol.limits import PACE_DEADLINE_MS, PACE_PROGRESS_BYTES
from ptyd.shim import direct, terminal
from tests.protocol.document import code, section, tables
from tests.support.daemon import RuntimeDir

_UNANSWERED = {Kind.WAKE, Kind.STATE, Kind.TAKEN, Kind.ROOM, Kind.DETACHED}
_HEARD = {Kind.INPUT, Kind.SIZE, Kind.CREDIT}


def test_the_ring() -> None:
    (words,) = tables(section("The ring"), "at", "word")
    names = ["MAGIC", "VERSION", "CAPACITY", "RESERVED", "HEAD", "END", "LAST_OUTPUT"]
    assert [(int(row[0]), row[1].upper().replace(" ", "_")) for row in words] == [
        (8 * getattr(ring, f"_{name}"), name) for name in names
    ]
    assert words[0][2] == f"the bytes `{ring.MAGIC.to_bytes(8, 'little').decode()}`"
    assert words[1][2] == str(ring.VERSION)
    assert f"`{ring.HEADER_BYTES} + o mod capacity`" in section("The ring")


def test_the_channel() -> None:
    text = section("The channel")
    (messages,) = tables(text, "kind", "from")
    told = {(code(row[0]), row[1]) for row in messages}
    assert told == {(chr(kind), "shim") for kind in _UNANSWERED} | {(chr(kind), "client") for kind in _HEARD}
    rows = {code(row[0]): " ".join(row[2:]) for row in messages}
    assert re.findall(r"(\d) (?:accepted|because)", rows["t"]) == [str(int(verdict)) for verdict in Verdict]
    assert re.findall(r"`(\w+)`", rows["S"]) == list(direct.TOLD)
    assert f"at most {datagrams.MAX_INPUT_BYTES} bytes" in rows["i"]
    assert f"{terminal.PATIENCE_S:.0f} s at most" in rows["c"]
    assert f"{direct.PACE_PROGRESS_BYTES >> 10} KiB further" in rows["c"]
    assert f"{direct.TELLINGS_BYTES >> 20} MiB of anything else" in text
    assert f"{direct.MOST} direct attachments" in section("Direct attach")


def test_pace_means_the_same_as_for_a_streamed_one() -> None:
    assert terminal.PATIENCE_S * 1000 == PACE_DEADLINE_MS
    assert direct.PACE_PROGRESS_BYTES == PACE_PROGRESS_BYTES


def test_a_client_written_from_the_chapter_alone(daemon: RuntimeDir) -> None:
    argv = ["sh", "-c", "stty -echo; printf ready; read x; echo got $x; exit 3"]
    session = daemon.call("session.spawn", argv=argv)["id"]
    with daemon.connect() as rpc:
        msgid = rpc.send("session.attach", id=session, via="shm", since="start", rows=7, cols=70)
        data, fds, _, _ = socket.recv_fds(rpc.socket, 1 << 16, 2)
        rpc.feed(data)
        offset = rpc.result(msgid)["offset"]
    output = b""
    with mmap.mmap(fds[0], 0, prot=mmap.PROT_READ) as memory, socket.socket(fileno=fds[1]) as channel:
        capacity = struct.unpack_from("<Q", memory, 16)[0]
        assert memory[:8] == b"ptydring"
        facts = b""
        while not facts or b'"ended": true' not in facts:
            assert select.select([channel], [], [], 20)[0]
            message = channel.recv(1 << 18)
            facts = message[1:] if message[:1] == b"S" else facts
            head = struct.unpack_from("<Q", memory, 32)[0]
            while offset < head:
                at = 4096 + offset % capacity
                piece = memory[at : min(at + head - offset, 4096 + capacity)]
                assert struct.unpack_from("<Q", memory, 24)[0] - offset <= capacity
                offset, output = offset + len(piece), output + piece
            if output.endswith(b"ready"):
                channel.send(struct.pack("<cIB", b"i", 1, 0) + b"hello\n")
                output += b"|"
    assert output == b"ready|got hello\r\n"
    assert b'"rows": 7' in facts
    assert b'"exit": {"code": 3}' in facts
