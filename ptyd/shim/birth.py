"""The birth of a session: from a fresh fork of the zygote to a running program, or to nothing at all.

Owns the order that makes a half-born session impossible: the record is created (and fails when there is
one), then it is no more said that one may come, then the program is forked, then the fence is looked at
once more just before exec.
Standard library and ptyprocess only.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
from typing import NoReturn

from ptyd import procs, records
from ptyd.datagrams import Body, Kind, pack_json
from ptyd.ring import RingWriter, ring_bytes, round_capacity
from ptyd.shim.link import Link
from ptyd.shim.shim import Shim
from ptyd.shim.spawn import SpawnFailed, SpawnSpec, fork_program, read_spec

_F_SEAL_FUTURE_WRITE = 0x10  # fcntl(2): maps made from now on are read-only, ours stays writable


def run_shim(
    sessions_fd: int, spec_fd: int, daemon: socket.socket, birth_fds: list[int], soft_files: int
) -> NoReturn:
    """Be a shim. Called in a fresh fork that holds only these descriptors; leaves by `os._exit`.

    Args:
        sessions_fd: Where the records are.
        spec_fd: What to run.
        daemon: The link to whoever asked.
        birth_fds: Locked for as long as our record may still come; see `records`.
        soft_files: The RLIMIT_NOFILE to give the program.
    """
    status = 1
    try:
        link = Link(daemon)
        spec = read_spec(spec_fd)
        os.close(spec_fd)
        procs.set_name(procs.SHIM_NAME)
        procs.become_subreaper()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        try:
            shim = _begin(sessions_fd, spec, link, birth_fds, soft_files)
        except SpawnFailed as err:
            link.send(pack_json(Kind.FAILED, {"code": err.code, "message": err.message}))
        else:
            shim.run()
        status = 0
    finally:
        os._exit(status)


def _collect_failed_child() -> None:
    """Prove that a failed spawn left nobody: its only process has said that it is leaving."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _begin(sessions_fd: int, spec: SpawnSpec, link: Link, birth_fds: list[int], soft_files: int) -> Shim:
    """Write the birth record, then fork the program: in this order no program is ever without one."""
    birth = _birth_fields(spec)
    try:
        memory_fd, ring = make_ring(spec.scrollback_bytes)
        records.create_birth(sessions_fd, spec.id, birth)
    except FileExistsError:
        raise SpawnFailed("exists", f"session {spec.id} has a record already") from None
    except OSError as err:
        raise SpawnFailed("no_space", f"cannot prepare the session: {err.strerror}") from err
    finally:
        records.close_birth(sessions_fd, spec.id, birth_fds)
    try:
        program = fork_program(spec, [sessions_fd], soft_files, lambda: _fenced(sessions_fd, spec))
    except SpawnFailed:
        # Only now, for a record that vanishes says: nobody of this session was ever more than a fork of us.
        _collect_failed_child()
        records.remove(sessions_fd, spec.id + records.RECORD_SUFFIX)
        raise
    return Shim(sessions_fd, spec, birth, memory_fd, ring, program, link)


def _fenced(sessions_fd: int, spec: SpawnSpec) -> str | None:
    """Look, at the last moment before exec, whether a kill has overtaken this spawn."""
    try:
        fence = records.read_fence(sessions_fd, spec.id)
    except records.RecordError as err:
        return f"the fence cannot be read: {err}"
    if fence is not None and fence.generation >= spec.generation:
        return f"session {spec.id} was killed up to generation {fence.generation}"
    return None


def _birth_fields(spec: SpawnSpec) -> Body:
    stat = procs.read_stat(os.getpid())
    assert stat is not None
    kept = {key: value for key, value in spec._asdict().items() if key not in ("env", "ring_linger_s")}
    return {
        **kept,
        "boot_id": procs.boot_id(),
        "shim_pid": stat.pid,
        "shim_start": stat.start_ticks,
    }


def make_ring(scrollback_bytes: int) -> tuple[int, RingWriter]:
    """Make the ring's memory: ours to write, everybody else's only to read, nobody's to resize."""
    size = ring_bytes(round_capacity(scrollback_bytes))
    fd = os.memfd_create("ptyd-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE)
    return fd, RingWriter(memoryview(memory))
