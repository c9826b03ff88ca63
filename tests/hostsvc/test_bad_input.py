"""Group X on the host service's real socket: whatever comes, everybody else is served as before."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from typing import Any

import attrs
import msgpack
import pytest

from hostsvc.kinds import MAX_CLIENTS
from hostsvc.messages import METHODS
from ptyd.protocol import limits
from ptyd.protocol.errors import PtydError
from ptyd.protocol.messages import METHODS as PTYD_METHODS
from ptyd.protocol.messages import parse_params
from tests.daemon.test_bad_input import (
    BAD_VALUES,
    MIB,
    NEEDS_ROOT,
    as_nobody,
    assert_closed,
    code_of,
    resident_bytes,
)
from tests.protocol.samples import EXT_TYPES, HEADERS_OF_4_GIB, HOST_SMALLEST, NANS, request_with
from tests.support.host import HostService
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.waiting import soak, wait_until

pytestmark = pytest.mark.unmeasured


def open_as_map(host: HostService) -> Rpc:
    rpc = host.connect()
    rpc.call("hello", client="test", protocols=[1], errors="map")
    return rpc


class Neighbour:
    """Somebody with a workspace of their own, who must not notice anything."""

    def __init__(self, host: HostService) -> None:
        self.rpc = open_as_map(host)
        self.pid = host.pid
        self.workspace = self.rpc.call("workspace.create")["id"]
        self.resident = resident_bytes(self.pid)

    def is_served(self) -> None:
        found = self.rpc.call("workspace.list")["workspaces"]
        assert self.workspace in {row["id"] for row in found}
        assert self.rpc.call("health")["pid"] == self.pid

    def grown_bytes(self) -> int:
        return resident_bytes(self.pid) - self.resident

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *_: object) -> None:
        self.rpc.call("workspace.delete", id=self.workspace)
        self.rpc.close()


@pytest.fixture
def neighbour(shared_host: HostService) -> Iterator[Neighbour]:
    with Neighbour(shared_host) as neighbour:
        yield neighbour


@pytest.fixture(params=[False, True], ids=["without hello", "with hello"])
def client(request: pytest.FixtureRequest, shared_host: HostService, neighbour: Neighbour) -> Iterator[Rpc]:
    """A connection to do wrong on, beside a neighbour who is served before and after."""
    with shared_host.connect() as rpc:
        if request.param:
            rpc.call("hello", client="test", protocols=[1], errors="map")
        yield rpc
    neighbour.is_served()
    assert neighbour.grown_bytes() < 48 * MIB


# --- X1: what is no message of ours ----------------------------------------------------------------


def test_X1_random_bytes(shared_host: HostService, neighbour: Neighbour) -> None:
    noise = random.Random(1)
    for n in range(soak(60, 5000)):
        with shared_host.connect() as rpc:
            if n % 2:
                rpc.call("hello", client="test", protocols=[1])
            with contextlib.suppress(OSError):
                for _ in range(noise.randrange(1, 4)):
                    rpc.send_raw(noise.randbytes(noise.randrange(1, 3000)))
    neighbour.is_served()
    assert neighbour.grown_bytes() < 48 * MIB


@pytest.mark.parametrize("name", HEADERS_OF_4_GIB)
def test_X1_four_gigabytes_are_not_waited_for(client: Rpc, name: str) -> None:
    client.send_raw(request_with(HEADERS_OF_4_GIB[name]))
    assert_closed(client)


@pytest.mark.parametrize(
    "payload",
    [b"\xc1", b"\x90", b"\xc0", b"\x94\x01\x01\xc0\xc0", b"\x94\x00\xff\xa1x\x90", b"GET / HTTP/1.1\r\n\r\n"],
    ids=["never used", "empty array", "nil", "a response", "a negative id", "http"],
)
def test_X1_what_is_no_request(client: Rpc, payload: bytes) -> None:
    client.send_raw(payload + bytes(64))
    assert_closed(client)


def test_X1_a_depth_bomb(client: Rpc) -> None:
    client.send_raw(request_with(b"\x91" * 50_000 + b"\xc0"))
    assert_closed(client)


def test_X1_a_message_as_long_as_allowed_and_one_longer(client: Rpc) -> None:
    def padded(size: int) -> bytes:
        empty = len(msgpack.packb([0, 7, "health", [{"x": b""}]])) + 3  # a longer header
        return bytes(msgpack.packb([0, 7, "health", [{"x": bytes(size - empty)}]]))

    client.send_raw(padded(limits.MAX_FRAME_BYTES))
    assert client.result(7)["pid"]
    with contextlib.suppress(OSError):
        client.send_raw(padded(limits.MAX_FRAME_BYTES + 1))
    assert_closed(client)


@pytest.mark.parametrize("kind", ["array", "map"])
def test_X1_huge_containers(client: Rpc, kind: str) -> None:
    many: object = list(range(5000)) if kind == "array" else {str(n): str(n) for n in range(5000)}
    client.send_raw(msgpack.packb([0, 7, "workspace.list", [{"labels": many}]]))
    try:
        client.result(7)
        raise AssertionError("it was accepted")
    except RpcError as err:
        assert err.code == "invalid_params"
        assert client.call("health")
    except (Disconnected, ConnectionResetError):
        assert client.notifications.pop()[0] == "error"


ODD = {
    **EXT_TYPES,
    **NANS,
    "duplicate keys": b"\x82\xa1a\x01\xa1a\x02",
    "a map as a key": b"\x81\x80\x01",
    "numbers as keys": b"\x81\x01\x02",
}


@pytest.mark.parametrize("value", ODD)
def test_X1_values_that_are_none_of_ours(client: Rpc, value: str) -> None:
    client.send_raw(request_with(ODD[value], method="workspace.list"))
    if value in NANS:  # a number is a value like any other where nobody looks
        with contextlib.suppress(RpcError):
            client.result(7)
    else:
        with pytest.raises(RpcError) as caught:
            client.result(7)
        assert caught.value.code == "invalid_params"
    assert client.call("health")


def test_X1_a_request_in_pieces(client: Rpc) -> None:
    """Byte by byte, and another one right behind it."""
    request = msgpack.packb([0, 7, "session.list", [{}]]) + msgpack.packb([0, 8, "health", []])
    for n in range(len(request)):
        client.send_raw(request[n : n + 1])
    assert client.result(7)["sessions"] == []
    assert client.result(8)["pid"]


def test_X1_half_a_request_and_gone(shared_host: HostService, neighbour: Neighbour) -> None:
    request = msgpack.packb([0, 7, "workspace.create", [{"id": "never"}]])
    for end in range(1, len(request)):
        with shared_host.connect() as rpc:
            rpc.send_raw(request[:end])
    neighbour.is_served()
    assert code_of(neighbour.rpc, "workspace.get", id="never") == "not_found"


def bad_requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method with every field wrong in every way that is refused before anything is done."""
    for method, smallest in HOST_SMALLEST.items():
        if method == "hello":
            continue  # of its own: it may only be the first
        for field in attrs.fields(METHODS[method]):
            for value in BAD_VALUES:
                params = {**smallest, field.name.rstrip("_"): value}
                try:
                    parse_params(method, [params], METHODS)
                except PtydError:
                    yield method, params


def test_X1_wrong_types_in_every_field(client: Rpc, neighbour: Neighbour) -> None:
    asked = 0
    pack = msgpack.Packer(unicode_errors="surrogateescape").pack
    for msgid, (method, params) in enumerate(bad_requests(), 1000):
        client.send_raw(pack([0, msgid, method, [params]]))
        with pytest.raises(RpcError) as caught:
            client.result(msgid)
        assert caught.value.code == "invalid_params", (method, params)
        asked += 1
    assert asked > 500
    assert len(client.call("workspace.list")["workspaces"]) == 1


def test_X1_params_that_are_no_map(client: Rpc) -> None:
    no_maps: list[Any] = [None, 5, "x", {}, [1], [{}, {}], [[1]], {"id": "a"}]
    for msgid, params in enumerate(no_maps, 1000):
        client.send_raw(msgpack.packb([0, msgid, "workspace.get", params]))
        with pytest.raises(RpcError) as caught:
            client.result(msgid)
        assert caught.value.code == "invalid_params"


def test_X1_what_no_path_and_no_command_can_be(client: Rpc, neighbour: Neighbour) -> None:
    """Refused at the door: neither the index nor exec ever sees it."""
    pack = msgpack.Packer(unicode_errors="surrogateescape").pack
    asked = [
        *({"path": path} for path in ("/a\0b", "/\udcff", "/" + "a" * 5000)),
        *({"teardown": [word]} for word in ("a\0b", "\udcff", "a" * 5000)),
        {"teardown": []},
        {"teardown": ["true"] * 65},
    ]
    for msgid, params in enumerate(asked, 1000):
        client.send_raw(pack([0, msgid, "workspace.create", [params]]))
        with pytest.raises(RpcError) as caught:
            client.result(msgid)
        assert caught.value.code == "invalid_params", params
    assert len(neighbour.rpc.call("workspace.list")["workspaces"]) == 1


def test_X1_methods_of_ptyd_are_unknown_here(client: Rpc) -> None:
    for method in sorted(PTYD_METHODS.keys() - METHODS.keys()):
        assert code_of(client, method, id="a") == "unknown_method"


def test_X1_notifications_are_ignored(client: Rpc, neighbour: Neighbour) -> None:
    """Whatever they are called: an input belongs to ptyd, and what is to be answered is a request."""
    client.notify("session.input", id="a", data=b"x")
    client.notify("workspace.delete", id=neighbour.workspace)
    assert client.call("health")
    assert not client.notifications


# --- X3: whose it is -------------------------------------------------------------------------------


@NEEDS_ROOT
@pytest.mark.parametrize("is_open", [False, True], ids=["as it is", "opened to everyone"])
def test_X3_another_user_is_refused(shared_host: HostService, neighbour: Neighbour, is_open: bool) -> None:
    runtime = shared_host.runtime
    folders = (runtime.base, runtime.path)

    def is_refused() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            try:
                sock.connect(str(shared_host.socket))
            except PermissionError:
                return not is_open
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.send(msgpack.packb([0, 1, "health", []]))
                return sock.recv(100) == b""
        return True

    try:
        if is_open:
            for path in folders:
                path.chmod(0o755)
            shared_host.socket.chmod(0o777)
        assert as_nobody(is_refused)
    finally:
        for path in folders:
            path.chmod(0o700)
        shared_host.socket.chmod(0o600)
    neighbour.is_served()


# --- X6: crowds ------------------------------------------------------------------------------------


def test_X6_as_many_idle_connections_as_there_may_be(shared_host: HostService, neighbour: Neighbour) -> None:
    """Half of them have never spoken. The one too many is told so; the others are served as ever."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(shared_host.connect()) for _ in range(MAX_CLIENTS - 1)]
        for rpc in idle[::2]:
            rpc.call("hello", client="idle", protocols=[1])
        for _ in range(10):
            with shared_host.connect() as late:
                _, params = late.next_notification("error")
                assert params["code"] == "too_many_clients"
        for _ in range(10):
            neighbour.is_served()
        assert neighbour.grown_bytes() < 48 * MIB
        idle[0].close()
        wait_until(lambda: is_let_in(shared_host), what="there is room for one")
        assert idle[1].call("health")
    wait_until(lambda: is_let_in(shared_host))
    neighbour.is_served()


def is_let_in(host: HostService) -> bool:
    with host.connect() as rpc:
        try:
            return bool(rpc.call("health"))
        except (Disconnected, OSError):
            return False


def test_X6_a_storm_of_connections(shared_host: HostService, neighbour: Neighbour) -> None:
    """Come and gone, some in the middle of a word, some with a request that nobody will read."""
    for n in range(soak(300, 20_000)):
        rpc = shared_host.connect()
        if n % 3 == 1:
            with contextlib.suppress(BrokenPipeError):
                rpc.send("session.list")
        if n % 3 == 2:
            with contextlib.suppress(BrokenPipeError):
                rpc.send_raw(b"\x94\x00")
        rpc.close()
    wait_until(lambda: is_let_in(shared_host))
    neighbour.is_served()
    assert neighbour.grown_bytes() < 48 * MIB
