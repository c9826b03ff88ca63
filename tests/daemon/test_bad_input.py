"""Group X over real sockets and real limits: whatever comes, everybody else is served as before."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import msgpack
import pytest

from ptyd.daemon.descriptors import RESERVED
from ptyd.protocol import limits
from ptyd.protocol.errors import PtydError
from ptyd.protocol.messages import METHODS, parse_params
from tests.protocol.samples import EXT_TYPES, HEADERS_OF_4_GIB, NANS, SMALLEST, request_with
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.rpc import Disconnected, Rpc, RpcError
from tests.support.sessions import (
    View,
    read_all,
    shell,
    spawn,
    spawn_ready,
    wait_for_end,
    wait_for_output,
)
from tests.support.waiting import soak, wait_until

pytestmark = pytest.mark.unmeasured


MIB = 1 << 20
NEEDS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: another uid, a small disk")


def resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * resource.getpagesize()  # without what is shared: rings


def open_as_map(runtime: RuntimeDir) -> Rpc:
    rpc = runtime.connect()
    rpc.call("hello", client="test", protocols=[1], errors="map")
    return rpc


def code_of(rpc: Rpc, method: str, **params: Any) -> str:
    with pytest.raises(RpcError) as caught:
        rpc.call(method, **params)
    return caught.value.code


class Neighbour:
    """Somebody with a session of their own, who must not notice anything."""

    def __init__(self, runtime: RuntimeDir) -> None:
        self.runtime = runtime
        self.rpc, self._watcher = open_as_map(runtime), open_as_map(runtime)
        self.session = spawn_ready(self.rpc, "exec cat")
        self.view = View(self._watcher, self.session)
        self.daemon_pid, self.zygote_pid = runtime.daemon_pid(), runtime.zygote_pid()
        self.resident = resident_bytes(self.daemon_pid)

    def is_served(self) -> None:
        word = os.urandom(4).hex().encode()
        self.rpc.call("session.input", id=self.session, data=word)
        self.view.until_output(word)
        assert self.session in {row["id"] for row in self.rpc.call("session.list")["sessions"]}
        assert self.runtime.find_daemon_pid() == self.daemon_pid, "the daemon died"
        assert self.runtime.find_zygote_pid() == self.zygote_pid, "the zygote died"

    def grown_bytes(self) -> int:
        return resident_bytes(self.daemon_pid) - self.resident

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *_: object) -> None:
        self.rpc.close()
        self._watcher.close()


@pytest.fixture
def neighbour(daemon: RuntimeDir) -> Iterator[Neighbour]:
    with Neighbour(daemon) as neighbour:
        yield neighbour


@pytest.fixture
def shared_neighbour(shared_runtime: RuntimeDir) -> Iterator[Neighbour]:
    """The same in the module's daemon, which has to live through all of these cases."""
    with Neighbour(shared_runtime) as neighbour:
        yield neighbour
        neighbour.rpc.call("session.kill", id=neighbour.session, force=True)


@pytest.fixture(params=[False, True], ids=["without hello", "with hello"])
def client(
    request: pytest.FixtureRequest, shared_runtime: RuntimeDir, shared_neighbour: Neighbour
) -> Iterator[Rpc]:
    """A connection to do wrong on, beside a neighbour who is served before and after."""
    with shared_runtime.connect() as rpc:
        if request.param:
            rpc.call("hello", client="test", protocols=[1], errors="map")
        yield rpc
    shared_neighbour.is_served()
    assert shared_neighbour.grown_bytes() < 48 * MIB


def assert_closed(rpc: Rpc) -> None:
    """It is told why, and then closed."""
    _, params = rpc.next_notification("error")
    assert params["code"] == "bad_request"
    assert params["message"]
    with pytest.raises((Disconnected, ConnectionResetError)):
        rpc.next_notification()


# --- X1: what is no message of ours ----------------------------------------------------------------


def test_X1_random_bytes(shared_runtime: RuntimeDir, shared_neighbour: Neighbour) -> None:
    noise = random.Random(1)
    for n in range(soak(60, 5000)):
        with shared_runtime.connect() as rpc:
            if n % 2:
                rpc.call("hello", client="test", protocols=[1])
            with contextlib.suppress(OSError):
                for _ in range(noise.randrange(1, 4)):
                    rpc.send_raw(noise.randbytes(noise.randrange(1, 3000)))
    shared_neighbour.is_served()
    assert shared_neighbour.grown_bytes() < 48 * MIB


@pytest.mark.parametrize("name", HEADERS_OF_4_GIB)
def test_X1_four_gigabytes_are_not_waited_for(client: Rpc, name: str) -> None:
    client.send_raw(request_with(HEADERS_OF_4_GIB[name]))
    assert_closed(client)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x93\x02\xa1x\xc4",
        b"\x90",
        b"\xc0",
        b"\x94\x01\x01\xc0\xc0",
        b"\x94\x00\xff\xa1x\x90",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["never used", "bin", "empty array", "nil", "a response", "a negative id", "http"],
)  # fmt: skip
def test_X1_what_is_no_request(client: Rpc, payload: bytes) -> None:
    client.send_raw(payload + bytes(64))
    assert_closed(client)


def test_X1_a_depth_bomb(client: Rpc) -> None:
    client.send_raw(request_with(b"\x91" * 50_000 + b"\xc0"))
    assert_closed(client)


def test_X1_a_message_as_long_as_allowed_and_one_longer(client: Rpc) -> None:
    def padded(size: int) -> bytes:
        empty = len(msgpack.packb([0, 7, "daemon.stats", [{"x": b""}]])) + 3  # a longer header
        return bytes(msgpack.packb([0, 7, "daemon.stats", [{"x": bytes(size - empty)}]]))

    longest = padded(limits.MAX_FRAME_BYTES)
    assert len(longest) == limits.MAX_FRAME_BYTES
    client.send_raw(longest)
    assert client.result(7)["pid"]
    with contextlib.suppress(OSError):
        client.send_raw(padded(limits.MAX_FRAME_BYTES + 1))
    assert_closed(client)


@pytest.mark.parametrize("kind", ["array", "map"])
def test_X1_huge_containers(client: Rpc, kind: str) -> None:
    many: object = list(range(5000)) if kind == "array" else {str(n): n for n in range(5000)}
    client.send_raw(msgpack.packb([0, 7, "session.list", [{"labels": many}]]))
    try:
        client.result(7)
        raise AssertionError("it was accepted")
    except RpcError as err:
        assert err.code == "invalid_params"
        assert client.call("daemon.stats")
    except (Disconnected, ConnectionResetError):
        assert client.notifications.pop()[0] == "error"


@pytest.mark.parametrize("value", [*EXT_TYPES, *NANS, "duplicate keys", "a map as a key", "numbers as keys"])
def test_X1_values_that_are_none_of_ours(client: Rpc, value: str) -> None:
    odd = {
        **EXT_TYPES,
        **NANS,
        "duplicate keys": b"\x82\xa1a\x01\xa1a\x02",
        "a map as a key": b"\x81\x80\x01",
        "numbers as keys": b"\x81\x01\x02",
    }
    bare = {name: odd[name] for name in NANS}  # a number is a value like any other where nobody looks
    client.send_raw(request_with(odd[value]))
    if value in bare:
        with contextlib.suppress(RpcError):
            client.result(7)
    else:
        with pytest.raises(RpcError) as caught:
            client.result(7)
        assert caught.value.code == "invalid_params"
    assert client.call("daemon.stats")


def test_X1_a_request_in_pieces(client: Rpc) -> None:
    """Byte by byte, and another one right behind it."""
    request = msgpack.packb([0, 7, "session.list", [{}]]) + msgpack.packb([0, 8, "daemon.stats", []])
    for n in range(len(request)):
        client.send_raw(request[n : n + 1])
    assert client.result(7)["complete"]
    assert client.result(8)["pid"]


def test_X1_half_a_request_and_gone(shared_runtime: RuntimeDir, shared_neighbour: Neighbour) -> None:
    request = msgpack.packb([0, 7, "session.spawn", [{"argv": ["true"], "id": "never"}]])
    for end in range(1, len(request)):
        with shared_runtime.connect() as rpc:
            rpc.send_raw(request[:end])
    shared_neighbour.is_served()
    assert code_of(shared_neighbour.rpc, "session.get", id="never") == "not_found"


BAD_VALUES: tuple[Any, ...] = (
    True, 0, -1, 1, 2**63, 2**64 - 1, 1.5, "", "x", "\0", "a\nb", "\udcff", b"", b"\xff", b"\0", "x" * 70_000,
    [], [[]], [None], ["a", 1], {}, {"a": {}}, {"": ""}, {"a=b": "c"}, {"\0": "x"},
)  # fmt: skip


def bad_requests() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every method with every field wrong in every way, and the code that is to come of it."""
    for method, smallest in SMALLEST.items():
        if method == "hello":
            continue  # of its own: it may only be the first
        for field in attrs.fields(METHODS[method]):
            for value in BAD_VALUES:
                params = {**smallest, field.name.rstrip("_"): value}
                try:
                    parse_params(method, [params])
                except PtydError as err:
                    yield method, params, err.code.value


def test_X1_wrong_types_in_every_field(client: Rpc) -> None:
    asked, sessions = 0, client.call("session.list")["sessions"]
    pack = msgpack.Packer(unicode_errors="surrogateescape").pack
    for msgid, (method, params, code) in enumerate(bad_requests(), 1000):
        client.send_raw(pack([0, msgid, method, [params]]))
        try:
            raise AssertionError(f"{method} {params!r:.200} was accepted: {client.result(msgid)}")
        except RpcError as err:
            assert err.code == code == "invalid_params", (method, params)
        asked += 1
    assert asked > 500
    # Not even an input that is not to be answered kills anything.
    client.send_raw(pack([2, "session.input", [{"id": 5, "data": {}}]]))
    assert client.next_notification()[0] == "session.input_refused"
    assert len(client.call("session.list")["sessions"]) == len(sessions)


def test_X1_a_wrong_hello_may_be_said_again(shared_runtime: RuntimeDir) -> None:
    good = SMALLEST["hello"]
    with shared_runtime.connect() as rpc:
        assert code_of(rpc, "hello", **{**good, "protocols": 1}) == "invalid_params"
        assert code_of(rpc, "hello", **{**good, "client": b"\xff"}) in ("invalid_params", "bad_request")
        assert rpc.call("daemon.stats")


def test_X1_params_that_are_no_map(client: Rpc) -> None:
    no_maps: list[Any] = [None, 5, "x", {}, [1], [{}, {}], [[1]], {"id": "a"}]
    for msgid, params in enumerate(no_maps, 1000):
        client.send_raw(msgpack.packb([0, msgid, "session.get", params]))
        with pytest.raises(RpcError) as caught:
            client.result(msgid)
        assert caught.value.code == "invalid_params"


def test_X1_an_id_in_use_is_refused(client: Rpc, shared_neighbour: Neighbour) -> None:
    wait = msgpack.packb([0, 7, "session.wait", [{"id": shared_neighbour.session}]])
    client.send_raw(wait + wait)
    with pytest.raises(RpcError) as caught:
        client.result(7)
    assert caught.value.code == "bad_request"


def test_X1_a_glutton_that_reads_nothing_is_not_listened_to(
    shared_runtime: RuntimeDir, shared_neighbour: Neighbour
) -> None:
    """Half a megabyte for every list it asks for, and it asks for as many as anybody lets it."""
    words = ["x" * 1000] * 400
    fat = spawn(shared_neighbour.rpc, ["sh", "-c", "exec sleep 1000", *words])
    request = msgpack.packb([0, 7, "session.list", []])
    with shared_runtime.connect() as glutton:
        glutton.socket.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 64 * MIB:
                sent += glutton.socket.send(request * 100)
        assert sent < 64 * MIB
        for _ in range(20):
            shared_neighbour.is_served()
        assert shared_neighbour.grown_bytes() < 48 * MIB
    shared_neighbour.rpc.call("session.kill", id=fat, force=True)


def test_X1_the_link_of_a_shim(shared_runtime: RuntimeDir, shared_neighbour: Neighbour) -> None:
    """A session's own socket is for daemons; what is no message of theirs ends that link and nothing else."""
    path = shared_runtime.path / "sessions" / f"{shared_neighbour.session}.sock"
    noise = random.Random(2)
    messages = [b"", b"?", b"?{", b"?[]", b"?{}", b"i", b"c", b"h", b"o", b"\xff" * 5, b"c" + b"\xff" * 12]
    messages += [b'?{"seq": 1}', b'?{"seq": 1, "do": "x"}', b'?{"seq": [], "do": "look"}']
    messages += [b'?{"seq": 1, "do": "kill"}', b'?{"seq": 1, "do": "resize"}']
    messages += [b'?{"seq": 1, "do": "resize", "rows": -1, "cols": "x"}']
    messages += [b'?{"seq": 1, "do": "signal", "signal": 999, "to": "all"}']
    messages += [noise.randbytes(noise.randrange(1, 50)) for _ in range(50)]
    for message in messages:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.connect(str(path))
            link.send(message)
            with contextlib.suppress(OSError):
                link.send(message)
    shared_neighbour.is_served()
    assert processes.alive(shared_runtime.shim_pid(shared_neighbour.session))


# --- X2: programs that cannot be -------------------------------------------------------------------


def files_of(runtime: RuntimeDir) -> dict[str, int]:
    """Every file of the runtime directory, with its inode."""
    return {
        str(path): path.lstat().st_ino
        for path in runtime.path.rglob("*")
        if not path.name.startswith(("daemon.log",))
    }


def hopeless(folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """What is asked for, and the error that has to come of it."""
    for name, content, mode in (
        ("text", "no program at all\n", 0o755),
        ("not-executable", "#!/bin/sh\n", 0o644),
        ("lost-interpreter", "#!/nonexistent/interpreter\n", 0o755),
    ):
        (folder / name).write_text(content)
        (folder / name).chmod(mode)
    (folder / "binary").write_bytes(b"\x7fELF" + bytes(100))
    (folder / "binary").chmod(0o755)
    (folder / "dangling").symlink_to("/nonexistent")
    (folder / "loop").symlink_to("loop")
    here = str(folder)
    return {
        "NUL in argv": ({"argv": ["sh", "a\0b"]}, "invalid_params"),
        "NUL in the program": ({"argv": [b"s\0h"]}, "invalid_params"),
        "NUL in a value": ({"argv": ["true"], "env": {"A": "b\0c"}}, "invalid_params"),
        "NUL in a name": ({"argv": ["true"], "env": {"A\0": "b"}}, "invalid_params"),
        "= in a name": ({"argv": ["true"], "env": {"A=B": "c"}}, "invalid_params"),
        "no name": ({"argv": ["true"], "env": {"": "c"}}, "invalid_params"),
        "NUL in cwd": ({"argv": ["true"], "cwd": "/\0"}, "invalid_params"),
        "nothing to run": ({"argv": []}, "invalid_params"),
        "no program": ({"argv": [""]}, "invalid_params"),
        "10 000 arguments": ({"argv": ["true", *["x"] * 10_000]}, "bad_request"),
        "one more than allowed": ({"argv": ["true", *["x"] * 4096]}, "bad_request"),
        "too long in all": ({"argv": ["true", *["x" * 100_000] * 6]}, "invalid_params"),
        "an argument too long for the kernel": ({"argv": ["true", "x" * 200_000]}, "spawn_failed"),
        "an environment too long for it": ({"argv": ["true"], "env": {"A": "x" * 200_000}}, "spawn_failed"),
        "relative cwd": ({"argv": ["true"], "cwd": "tmp"}, "invalid_params"),
        "missing cwd": ({"argv": ["true"], "cwd": "/nonexistent/folder"}, "cwd_unavailable"),
        "cwd is a file": ({"argv": ["true"], "cwd": "/etc/passwd"}, "cwd_unavailable"),
        "cwd is a loop": ({"argv": ["true"], "cwd": f"{here}/loop"}, "cwd_unavailable"),
        "missing program": ({"argv": ["no-such-program"]}, "program_not_found"),
        "missing path": ({"argv": ["/no/such/program"]}, "program_not_found"),
        "below a file": ({"argv": ["/etc/passwd/program"]}, "program_not_found"),
        "nowhere to look": ({"argv": ["true"], "env": {"PATH": "/nonexistent"}}, "program_not_found"),
        "dangling link": ({"argv": [f"{here}/dangling"]}, "program_not_found"),
        "directory": ({"argv": ["/etc"]}, "program_not_executable"),
        "directory on the PATH": ({"argv": ["etc"], "env": {"PATH": "/"}}, "program_not_executable"),
        "a loop": ({"argv": [f"{here}/loop"]}, "program_not_executable"),
        "not executable": ({"argv": [f"{here}/not-executable"]}, "program_not_executable"),
        "a text": ({"argv": [f"{here}/text"]}, "program_not_executable"),
        "half a binary": ({"argv": [f"{here}/binary"]}, "program_not_executable"),
        "interpreter missing": ({"argv": [f"{here}/lost-interpreter"]}, "program_not_found"),
    }


def test_X2_programs_that_cannot_be(daemon: RuntimeDir, neighbour: Neighbour, tmp_path: Path) -> None:
    """A typed error instead of a session, no child left, and the daemon's own files untouched."""
    children = set(processes.children(neighbour.zygote_pid))
    files = files_of(daemon)
    for what, (params, code) in hopeless(tmp_path).items():
        with open_as_map(daemon) as rpc:
            try:
                raise AssertionError(f"{what}: {rpc.call('session.spawn', id='hopeless', **params)}")
            except RpcError as err:
                assert err.code == code, f"{what}: {err}"
                assert "\0" not in err.error["message"]
            except (Disconnected, ConnectionResetError):  # too many values for one message
                assert rpc.notifications.pop()[1]["code"] == code, what
        assert code_of(neighbour.rpc, "session.get", id="hopeless") == "not_found"
    assert files_of(daemon) == files
    wait_until(lambda: set(processes.children(neighbour.zygote_pid)) == children, what="no child is left")
    neighbour.is_served()
    # And after all of that its id is free: there never was a session.
    assert spawn(neighbour.rpc, ["true"], id="hopeless") == "hopeless"
    wait_for_end(neighbour.rpc, "hopeless")


def test_X2_as_much_as_is_allowed(daemon: RuntimeDir) -> None:
    argv = ["sh", "-c", 'echo "$# ${#A}"', "sh", *["x" * 100] * 4092]
    assert len(argv) == limits.MAX_ARGV
    env = {"A": "y" * 100_000, **{f"V{n}": str(n) for n in range(4095)}}
    with daemon.connect() as rpc:
        session = spawn(rpc, argv, env=env)
        assert wait_for_end(rpc, session)["exit"] == {"code": 0}
        assert read_all(rpc, session) == b"4092 100000\r\n"


# --- X3 and X4: whose it is ------------------------------------------------------------------------


def as_nobody(work: Callable[[], bool]) -> bool:
    """Do `work` as another user in a child process; tell what it said."""
    pid = os.fork()
    if pid == 0:
        status = 3
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            status = 0 if work() else 1
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1), "the other user's work failed"
    return status == 0


@NEEDS_ROOT
def test_X3_another_user_cannot_even_come_near(daemon: RuntimeDir) -> None:
    def connect() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(daemon.socket))
            except PermissionError:
                return True
        return False

    assert as_nobody(connect)


@NEEDS_ROOT
@pytest.mark.parametrize("name", ["ptyd.sock", "zygote.sock", "session"])
def test_X3_another_user_is_refused_at_every_socket(
    daemon: RuntimeDir, neighbour: Neighbour, name: str
) -> None:
    """Also when somebody has opened the directory and the socket to everyone."""
    path = daemon.path / (f"sessions/{neighbour.session}.sock" if name == "session" else name)
    kind = socket.SOCK_STREAM if name == "ptyd.sock" else socket.SOCK_SEQPACKET
    opened = [daemon.base, daemon.path, daemon.path / "sessions"]
    for folder in opened:
        folder.chmod(0o755)
    path.chmod(0o777)

    def is_refused() -> bool:
        with socket.socket(socket.AF_UNIX, kind) as sock:
            sock.settimeout(10)
            sock.connect(str(path))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.send(msgpack.packb([0, 1, "daemon.stats", []]))
                return sock.recv(100) == b""
        return True

    try:
        assert as_nobody(is_refused)
    finally:
        for folder in opened:
            folder.chmod(0o700)
    neighbour.is_served()


def start_in(runtime: RuntimeDir, path: Path) -> subprocess.CompletedProcess[str]:
    """Try to run a zygote for `path`; it is expected to refuse at once."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "ptyd.shim", "--runtime", str(path), "--foreground"],
        env=runtime.env,
        capture_output=True,
        text=True,
        timeout=20,
    )


def wrong_directories(runtime: RuntimeDir) -> dict[str, tuple[Callable[[], None], str]]:
    """What is done to the runtime directory before the start, and a word of the complaint."""
    path, base = runtime.path, runtime.base
    sessions, elsewhere = path / "sessions", base / "elsewhere"
    elsewhere.mkdir(mode=0o700)

    def replace_by_link(what: Path) -> None:
        if what.exists():
            what.rmdir()
        what.symlink_to(elsewhere)

    def replace_by_file(what: Path) -> None:
        what.rmdir()
        what.write_text("")

    def make_sessions(mode: int, owner: int) -> None:
        sessions.mkdir()
        sessions.chmod(mode)
        os.chown(sessions, owner, owner)

    ours, theirs = os.getuid(), 65534
    found: dict[str, tuple[Callable[[], None], str]] = {
        "a symlink": (lambda: replace_by_link(path), ""),
        "group-writable": (lambda: path.chmod(0o770), "chmod 700"),
        "world-readable": (lambda: path.chmod(0o704), "chmod 700"),
        "a file": (lambda: replace_by_file(path), ""),
        "sessions is a symlink": (lambda: replace_by_link(sessions), ""),
        "sessions is open": (lambda: make_sessions(0o755, ours), "chmod 700"),
        "somebody else's": (lambda: os.chown(path, theirs, theirs), "65534"),
        "sessions is somebody else's": (lambda: make_sessions(0o700, theirs), "65534"),
    }
    return found


@pytest.mark.parametrize(
    "what",
    [
        "a symlink",
        "group-writable",
        "world-readable",
        "a file",
        "sessions is a symlink",
        "sessions is open",
        pytest.param("somebody else's", marks=NEEDS_ROOT),
        pytest.param("sessions is somebody else's", marks=NEEDS_ROOT),
    ],
)
def test_X4_a_directory_that_cannot_be_trusted(runtime: RuntimeDir, what: str) -> None:
    spoil, word = wrong_directories(runtime)[what]
    spoil()
    before = sorted(map(str, runtime.base.rglob("*")))
    done = start_in(runtime, runtime.path)
    assert done.returncode == 4
    assert done.stderr.startswith("ptyd: runtime directory")
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    after = sorted(str(found) for found in runtime.base.rglob("*") if found != runtime.path / "sessions")
    assert after == [found for found in before if found != str(runtime.path / "sessions")]


# --- X5: limits of the machine ---------------------------------------------------------------------


@contextlib.contextmanager
def limited(pid: int, which: int, value: int) -> Iterator[None]:
    """Lower a limit of a running process, for as long as the block lasts."""
    before = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (value, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, which, before)


def open_files(pid: int) -> int:
    return max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd")) + 1


def test_X5_no_descriptors_left_in_the_daemon(daemon: RuntimeDir, neighbour: Neighbour) -> None:
    """Some are kept back for what has to be possible at any time, such as a kill."""
    other, limit = spawn(neighbour.rpc, ["sleep", "1000"]), open_files(neighbour.daemon_pid)
    with limited(neighbour.daemon_pid, resource.RLIMIT_NOFILE, limit + RESERVED):
        assert code_of(neighbour.rpc, "session.spawn", argv=["true"], id="too-many") == "spawn_failed"
        with contextlib.ExitStack() as stack:  # a hole or two may be left to fill
            assert any(is_turned_away(stack.enter_context(daemon.connect())) for _ in range(10))
        assert neighbour.rpc.call("session.kill", id=other, force=True)["outcome"] == "killed"
        neighbour.is_served()
    assert spawn(neighbour.rpc, ["true"], id="too-many") == "too-many"
    wait_for_end(neighbour.rpc, "too-many")
    assert daemon.serves()


def test_X5_not_even_the_reserved_descriptors_are_left(daemon: RuntimeDir, neighbour: Neighbour) -> None:
    other, limit = spawn(neighbour.rpc, ["sleep", "1000"]), open_files(neighbour.daemon_pid)
    with limited(neighbour.daemon_pid, resource.RLIMIT_NOFILE, limit):
        assert code_of(neighbour.rpc, "session.spawn", argv=["true"]) == "spawn_failed"
        ticks, begun = cpu_ticks(neighbour.daemon_pid), time.monotonic()
        with contextlib.ExitStack() as stack:
            late = [stack.enter_context(daemon.connect()) for _ in range(20)]
            turned_away = [is_turned_away(rpc) for rpc in late]  # all of them: nobody is left waiting
            assert any(turned_away)
        neighbour.is_served()
        spent = (cpu_ticks(neighbour.daemon_pid) - ticks) / os.sysconf("SC_CLK_TCK")
        assert spent < 1 + (time.monotonic() - begun) / 2, "it spins"
    assert neighbour.rpc.call("session.kill", id=other, force=True)["outcome"] == "killed"
    assert daemon.serves()
    neighbour.is_served()


def is_turned_away(rpc: Rpc) -> bool:
    """Ask something; tell whether the answer is a typed refusal of the whole connection."""
    with contextlib.suppress(BrokenPipeError):  # it has been told already
        rpc.send("daemon.stats")
    try:
        rpc.result(1)
    except (Disconnected, ConnectionResetError):
        assert rpc.notifications.pop()[1]["code"] == "too_many_clients"
        return True
    return False


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_X5_no_descriptors_left_in_the_zygote(daemon: RuntimeDir, neighbour: Neighbour) -> None:
    with limited(neighbour.zygote_pid, resource.RLIMIT_NOFILE, open_files(neighbour.zygote_pid)):
        for _ in range(3):
            assert code_of(neighbour.rpc, "session.spawn", argv=["true"], id="too-many") == "spawn_failed"
        neighbour.is_served()
    assert spawn(neighbour.rpc, ["true"], id="too-many") == "too-many"
    wait_for_end(neighbour.rpc, "too-many")
    assert sorted(path.name for path in (daemon.path / "sessions").glob("*.birth")) == []


def virtual_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def test_X5_no_memory_for_the_ring(neighbour: Neighbour) -> None:
    """The shim inherits a zygote's limit and cannot map what the session would need."""
    room = virtual_bytes(neighbour.zygote_pid) + 32 * MIB
    with limited(neighbour.zygote_pid, resource.RLIMIT_AS, room):
        assert code_of(neighbour.rpc, "session.spawn", argv=["true"], scrollback_bytes=64 * MIB) == "no_space"
        neighbour.is_served()
        session = spawn(neighbour.rpc, ["true"])
        wait_for_end(neighbour.rpc, session)
    session = spawn(neighbour.rpc, ["true"], scrollback_bytes=64 * MIB)
    wait_for_end(neighbour.rpc, session)


def test_X5_no_memory_in_the_daemon(neighbour: Neighbour) -> None:
    """It cannot map the ring of a session that runs: said so, and right again when there is memory."""
    room = virtual_bytes(neighbour.daemon_pid) + 16 * MIB
    with limited(neighbour.daemon_pid, resource.RLIMIT_AS, room):
        session = None
        try:
            session = spawn(neighbour.rpc, ["cat"], id="large", scrollback_bytes=64 * MIB)
        except RpcError as err:
            assert err.code in ("spawn_failed", "no_space", "busy")
        for method, params in (("session.attach", {}), ("session.read", {"offset": 0})):
            if session is not None:
                assert code_of(neighbour.rpc, method, id=session, **params) in ("busy", "no_space")
        neighbour.is_served()
    if session is None:
        session = "large"
        wait_until(lambda: state_of(neighbour.rpc, session) in (None, "running"), what="it is settled")
        if state_of(neighbour.rpc, session) is None:
            return
    wait_until(lambda: can_attach(neighbour.rpc, session), what="it can be attached to")
    neighbour.rpc.call("session.input", id=session, data=b"hello\n")
    wait_for_output(neighbour.rpc, session, b"hello")
    neighbour.rpc.call("session.kill", id=session, force=True)


def state_of(rpc: Rpc, session: str) -> str | None:
    return next((row["state"] for row in rpc.call("session.list")["sessions"] if row["id"] == session), None)


def can_attach(rpc: Rpc, session: str) -> bool:
    try:
        rpc.call("session.attach", id=session)
    except RpcError:
        return False
    return True


@pytest.fixture
def small_disk() -> Iterator[RuntimeDir]:
    """A ptyd whose runtime directory is a small file system of its own."""
    if os.getuid() != 0:
        pytest.skip("needs root: only root can mount a small file system to fill it up")
    guard, runtime = processes.Guard(), RuntimeDir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "ptyd-test", str(runtime.path)]
    if (done := subprocess.run(mount, capture_output=True, text=True)).returncode:
        runtime.remove()
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    try:
        yield runtime.start()
    finally:
        fill(runtime, full=False)
        runtime.stop()
        guard.end_all()
        subprocess.run(["umount", "-l", str(runtime.path)], check=True)
        runtime.remove()


def fill(runtime: RuntimeDir, full: bool = True) -> None:
    """Leave no space, or all of it."""
    filler = runtime.path / "filler"
    filler.unlink(missing_ok=True)
    if full:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass


def test_X5_a_full_disk(small_disk: RuntimeDir) -> None:
    with Neighbour(small_disk) as neighbour:
        live_through_a_full_disk(small_disk, neighbour)


def live_through_a_full_disk(small_disk: RuntimeDir, neighbour: Neighbour) -> None:
    rpc = neighbour.rpc
    session = spawn_ready(rpc, "printf 'the words'; read x; exit 5")
    victim = spawn(rpc, ["sleep", "1000"])
    fill(small_disk)
    files = files_of(small_disk)
    assert code_of(rpc, "session.spawn", argv=["true"], id="no-room") == "no_space"
    assert code_of(rpc, "session.kill", id=victim, force=True) == "no_space"
    assert rpc.call("session.get", id=victim)["state"] == "running"  # nothing was signalled
    assert code_of(rpc, "session.update", id=victim, name="other") == "no_space"
    assert rpc.call("session.get", id=victim)["name"] is None
    neighbour.is_served()
    assert files_of(small_disk) == files
    # One that ends now is not said to have ended before that is written down.
    rpc.call("session.input", id=session, data=b"\n")
    assert code_of(rpc, "session.wait", id=session, timeout_ms=300) == "timeout"
    assert rpc.call("session.list")["complete"]
    fill(small_disk, full=False)
    assert wait_for_end(rpc, session)["exit"] == {"code": 5}
    assert small_disk.record(session)["exit"] == {"code": 5}
    assert read_all(rpc, session).endswith(b"the words")
    assert rpc.call("session.kill", id=victim, force=True)["outcome"] == "killed"
    assert spawn(rpc, ["true"], id="no-room") == "no-room"
    wait_for_end(rpc, "no-room")


def test_X5_the_log_of_a_full_disk_stops_nobody(small_disk: RuntimeDir) -> None:
    with Neighbour(small_disk) as neighbour:
        fill(small_disk)
        for _ in range(20):
            with small_disk.connect() as rpc:
                rpc.send_raw(b"\xc1")
                assert_closed(rpc)
        neighbour.is_served()
    old = neighbour.daemon_pid
    fill(small_disk, full=False)
    small_disk.wait_for_new_daemon(small_disk.kill_daemon())
    assert small_disk.find_daemon_pid() != old
    with small_disk.connect() as rpc:
        assert rpc.call("session.get", id=neighbour.session)["state"] == "running"


# --- X6: crowds ------------------------------------------------------------------------------------


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"needs 4096 descriptors, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_X6_a_thousand_idle_connections(runtime: RuntimeDir, many_files: None) -> None:
    """Half of them have never spoken. The one too many is told so; the others are served as ever."""
    runtime.start(PTYD_MAX_CLIENTS="1003")
    with contextlib.ExitStack() as stack:
        neighbour = stack.enter_context(Neighbour(runtime))  # two of them
        idle = [stack.enter_context(runtime.connect()) for _ in range(1000)]
        for rpc in idle[::2]:
            rpc.send("hello", client="idle", protocols=[1])
        wait_until(lambda: neighbour.rpc.call("daemon.stats")["clients"] == 1002, what="all are there")
        begun = time.monotonic()
        for _ in range(20):
            neighbour.is_served()
        assert time.monotonic() - begun < 10
        assert neighbour.grown_bytes() < 96 * MIB
        session = shell(neighbour.rpc, "exit 3")
        assert wait_for_end(neighbour.rpc, session)["exit"] == {"code": 3}
        stack.enter_context(runtime.connect()).call("daemon.stats")
        with runtime.connect() as late:
            _, params = late.next_notification("error")
            assert params["code"] == "too_many_clients"
        idle[0].close()
        wait_until(lambda: neighbour.rpc.call("daemon.stats")["clients"] == 1002)
        assert runtime.hello()
        for rpc in idle:
            rpc.close()
        wait_until(lambda: neighbour.rpc.call("daemon.stats")["clients"] == 3, what="all have left")
        neighbour.is_served()


def test_X6_a_storm_of_connections(daemon: RuntimeDir, neighbour: Neighbour) -> None:
    """Come and gone, some in the middle of a word, some with a reset."""
    for n in range(soak(500, 20_000)):
        rpc = daemon.connect()
        if n % 3 == 1:
            rpc.send("session.list")
        if n % 3 == 2:
            rpc.send_raw(b"\x94\x00")
        rpc.close()
    neighbour.is_served()
    wait_until(lambda: neighbour.rpc.call("daemon.stats")["clients"] == 2, what="nobody is left")
    assert open_files(neighbour.daemon_pid) < 64


def test_X6_many_who_flood_with_requests(daemon: RuntimeDir, neighbour: Neighbour) -> None:
    """Twenty clients ask as fast as they can and read as fast; a neighbour's echo comes in between."""
    code = (
        "import msgpack, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX); sock.connect(sys.argv[1])\n"
        "requests = b''.join(msgpack.packb([0, n, 'session.list', []]) for n in range(60))\n"
        "while True:\n"
        "    sock.sendall(requests); left = 60; unpacker = msgpack.Unpacker()\n"
        "    while left:\n"
        "        unpacker.feed(sock.recv(1 << 20)); left -= sum(1 for _ in unpacker)\n"
    )
    crowd = [
        subprocess.Popen([sys.executable, "-c", code, str(daemon.socket)], stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    try:
        wait_until(lambda: neighbour.rpc.call("daemon.stats")["clients"] == 2 + len(crowd))
        begun = time.monotonic()
        for _ in range(soak(30, 500)):
            neighbour.is_served()
        assert time.monotonic() - begun < 30
        assert all(process.poll() is None for process in crowd)
    finally:
        for process in crowd:
            process.send_signal(signal.SIGKILL)
            process.wait()
