"""The birth of a session: from a fresh fork of the zygote to a running program, or to nothing at all.

Owns the order that makes a half-born session impossible:

    the shim forks the program-to-be, in its new PTY
        which reads the spec, sizes the ring's memory, drafts the records, and waits for a word
    the shim publishes the birth record, which fails when there is one, and gives the word
        the program-to-be looks at the fence once more, and execs
    the shim replaces the record by the one that names the leader

So no program runs before its record is there, and whoever dies on the way leaves nobody behind. All that
is done only once is left to the process that execs: of every page that it writes to, a reference count in it
is enough, a shim has its own copy for the life of its session.
Standard library and ptyprocess only.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import mmap
import os
import socket
from typing import NoReturn

from ptyd import procs, records
from ptyd.datagrams import Body, Kind, pack_json
from ptyd.ring import RingWriter, ring_bytes, round_capacity
from ptyd.shim.link import Link
from ptyd.shim.shim import Beginning, Shim, beginning_of
from ptyd.shim.spawn import Program, SpawnFailed, SpawnSpec, become, close_all_but, fork_in_pty, read_spec

_F_SEAL_FUTURE_WRITE = 0x10  # fcntl(2): maps made from now on are read-only, ours stays writable
MAX_WORD_BYTES = 64 << 10
READY, GO = b"ready", b"go"


def run_shim(
    sessions_fd: int,
    session_id: str,
    spec_fd: int,
    daemon: socket.socket,
    birth_fds: list[int],
    soft_files: int,
) -> NoReturn:
    """Be a shim. Called in a fresh fork that holds only these descriptors; leaves by `os._exit`.

    Args:
        sessions_fd: Where the records are.
        session_id: Of the session to be.
        spec_fd: What to run.
        daemon: The link to whoever asked.
        birth_fds: Locked for as long as our record may still come; see `records`.
        soft_files: The RLIMIT_NOFILE to give the program.
    """
    status = 1
    try:
        link = Link(daemon)
        procs.set_name(procs.SHIM_NAME)
        procs.become_subreaper()
        try:
            shim = Birth(sessions_fd, session_id, spec_fd, soft_files).give(link, birth_fds)
        except SpawnFailed as err:
            link.send(pack_json(Kind.FAILED, {"code": err.code, "message": err.message}))
        else:
            shim.run()
        status = 0
    finally:
        os._exit(status)


class Birth:
    """One birth, on both sides of the fork."""

    def __init__(self, sessions_fd: int, session_id: str, spec_fd: int, soft_files: int) -> None:
        self._sessions_fd = sessions_fd
        self._id = session_id
        self._spec_fd = spec_fd
        self._soft_files = soft_files
        self._shim_pid = os.getpid()
        self._is_published = False
        try:
            self._memory_fd = os.memfd_create("ptyd-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            self._word, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as err:
            raise _unprepared(err) from err

    # -- in the shim -----------------------------------------------------------------------------------

    def give(self, link: Link, birth_fds: list[int]) -> Shim:
        """Publish the record, then let the program go: in this order none ever runs without one.

        Raises:
            SpawnFailed: it did not start, and nothing of it is left.
        """
        try:
            program, beginning, ring = self._publish(birth_fds)
            self._say_go()
        except SpawnFailed:
            self._undo()
            raise
        with contextlib.suppress(OSError):  # the birth record stands; the exit record repeats all of it
            records.publish_begun(self._sessions_fd, self._id)
        return Shim(self._sessions_fd, beginning, self._memory_fd, ring, program, link)

    def _publish(self, birth_fds: list[int]) -> tuple[Program, Beginning, RingWriter]:
        """Have everything prepared, and publish the record."""
        try:
            kept = (self._sessions_fd, self._spec_fd, self._memory_fd, self._theirs.fileno())
            program = fork_in_pty(self._become_program, kept)
            self._theirs.close()
            beginning = self._hear_ready()
            ring = self._map_ring()
            records.publish_birth(self._sessions_fd, self._id)
            self._is_published = True
            return program, beginning, ring
        except FileExistsError:
            raise SpawnFailed("exists", f"session {self._id} has a record already") from None
        except OSError as err:
            raise _unprepared(err) from err
        finally:
            records.close_birth(self._sessions_fd, self._id, birth_fds)

    def _undo(self) -> None:
        """Prove that nobody is left; only then does the record vanish, for that says so."""
        self._word.close()  # whoever still waits for it leaves
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        records.drop_drafts(self._sessions_fd, self._id, self._shim_pid)
        if self._is_published:
            records.remove(self._sessions_fd, self._id + records.RECORD_SUFFIX)

    def _hear_ready(self) -> Beginning:
        said = self._word.recv(MAX_WORD_BYTES)
        if said != READY:
            raise _failure(said)
        beginning = Beginning(*marshal.loads(os.pread(self._spec_fd, os.fstat(self._spec_fd).st_size, 0)))
        os.close(self._spec_fd)
        return beginning

    def _map_ring(self) -> RingWriter:
        """Map the ring's memory: ours to write, everybody else's only to read, nobody's to resize."""
        memory = mmap.mmap(self._memory_fd, os.fstat(self._memory_fd).st_size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE
        fcntl.fcntl(self._memory_fd, fcntl.F_ADD_SEALS, seals)
        return RingWriter(memoryview(memory))

    def _say_go(self) -> None:
        """Let the program go, and wait until it runs."""
        try:
            self._word.send(GO)
            said = self._word.recv(MAX_WORD_BYTES)
        except OSError:
            raise _failure(b"") from None
        if said:
            raise _failure(said)
        self._word.close()

    # -- in the program-to-be --------------------------------------------------------------------------

    def _become_program(self) -> NoReturn:
        """Prepare everything, wait for the word, and exec; or say why not, and leave."""
        try:
            # Also the pipe of ptyprocess, which would wait for the exec.
            close_all_but({self._sessions_fd, self._spec_fd, self._memory_fd, self._theirs.fileno()})
            spec = read_spec(self._spec_fd)
            self._prepare(spec)
            self._theirs.send(READY)
            if self._theirs.recv(len(GO)) == GO:
                become(spec, self._soft_files, lambda: self._fenced(spec))
        except SpawnFailed as err:
            self._say(err)
        except OSError as err:
            self._say(_unprepared(err))
        finally:
            try:  # the shim does so, too, unless it was killed meanwhile
                records.drop_drafts(self._sessions_fd, self._id, self._shim_pid)
            finally:
                os._exit(127)

    def _say(self, failure: SpawnFailed) -> None:
        self._theirs.send(os.fsencode(f"{failure.code}|{failure.message}"))

    def _prepare(self, spec: SpawnSpec) -> None:
        os.ftruncate(self._memory_fd, ring_bytes(round_capacity(spec.scrollback_bytes)))
        birth, begun = self._birth_fields(spec)
        records.draft_birth(self._sessions_fd, spec.id, self._shim_pid, birth, begun)
        # Not JSON: a fork of the same interpreter reads it, in C alone.
        os.ftruncate(self._spec_fd, 0)
        os.pwrite(self._spec_fd, marshal.dumps(tuple(beginning_of(begun))), 0)

    def _birth_fields(self, spec: SpawnSpec) -> tuple[Body, Body]:
        """Return the birth record, and the one that says, by naming the leader, that its program ran."""
        shim, leader = procs.read_stat(self._shim_pid), procs.read_stat(os.getpid())
        assert shim is not None
        assert leader is not None
        birth = {
            **{key: value for key, value in spec._asdict().items() if key != "env"},
            "boot_id": procs.boot_id(),
            "shim_pid": shim.pid,
            "shim_start": shim.start_ticks,
        }
        return birth, {**birth, "pid": leader.pid, "pid_start": leader.start_ticks}

    def _fenced(self, spec: SpawnSpec) -> str | None:
        """Look, at the last moment before exec, whether a kill has overtaken this spawn."""
        try:
            fence = records.read_fence(self._sessions_fd, spec.id)
        except records.RecordError as err:
            return f"the fence cannot be read: {err}"
        if fence is not None and fence.generation >= spec.generation:
            return f"session {spec.id} was killed up to generation {fence.generation}"
        return None


def _unprepared(err: OSError) -> SpawnFailed:
    return SpawnFailed("no_space", f"cannot prepare the session: {err.strerror}")


def _failure(said: bytes) -> SpawnFailed:
    """Return what the program-to-be has said before it left; nothing, when it was killed or failed itself."""
    if not said:
        return SpawnFailed("spawn_failed", "its process ended before the program could run; try again")
    code, _, message = os.fsdecode(said).partition("|")
    return SpawnFailed(code, message)
