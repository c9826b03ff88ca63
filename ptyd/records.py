"""The session's record: the small file that is the truth about one session.

Owns the files a session can have in `sessions/`: `ID.json` (birth, replaced by the exit record),
`ID.fence` (a kill's intent, and the refusal of late spawns), `ID.birth` (somebody may still create the
record) and the name of its link socket. Never
decides anything and never guesses: a file that cannot be read is reported as such.

Who writes what, so that no lock is needed:
  - `ID.json` is created by the shim with link(2), which fails when it exists, *before* the program is
    exec'd; after that only the same shim replaces it (the zygote, once that shim is gone). The daemon
    removes it, and only when it shows an end.
  - `ID.fence` is written by the daemon alone (there is one, by flock) and its generation only rises.
  - `ID.birth` is made by the daemon before it asks for a shim, and locked with flock(2) for as long as
    anybody holds the descriptor, which travels with the question: the message under way, the zygote, the
    shim. The shim removes it *after* the record is there. So a daemon that finds it locked knows that its
    list is not complete, whoever of the others has died; one that is not locked is a dead one's, and proof
    that nothing was born.
The daemon writes the fence and then looks for the record; the shim writes the record and then looks
for the fence. Whatever the order, at least one of them sees the other.

Standard library only: every shim imports this.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

RECORD_SUFFIX = ".json"
FENCE_SUFFIX = ".fence"
SOCKET_SUFFIX = ".sock"
BIRTH_SUFFIX = ".birth"
TAIL_BYTES = 4096  # of output kept in the exit record: a screenful, small beside a tmpfs
MAX_RECORD_BYTES = 4 << 20  # argv and labels are bounded far below this

Fields = dict[str, Any]


class RecordError(Exception):
    """A record cannot be read or does not say what a record must say."""


class Fence(NamedTuple):
    """A kill's intent: refuses spawns up to `generation`, and is carried on by the next daemon."""

    generation: int
    grace_ms: int
    force: bool
    at_ms: int


def draft_birth(dir_fd: int, session_id: str, shim_pid: int, birth: Fields, begun: Fields) -> None:
    """Write the birth record, and the one that follows it, where nobody looks: the shim publishes both.

    Raises:
        OSError: ENOSPC and its like.
    """
    for draft, fields in zip(_birth_drafts(session_id, shim_pid), (birth, begun), strict=True):
        _write_draft(dir_fd, draft, fields)


def publish_birth(dir_fd: int, session_id: str) -> None:
    """Make the birth record that was drafted for the calling shim the session's.

    Raises:
        FileExistsError: the id has a record already, living or ended; the drafts are still there.
    """
    draft, _ = _birth_drafts(session_id, os.getpid())
    os.link(draft, session_id + RECORD_SUFFIX, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    os.unlink(draft, dir_fd=dir_fd)


def publish_begun(dir_fd: int, session_id: str) -> None:
    """Replace the birth record by the one that names the leader, whose program runs."""
    _, draft = _birth_drafts(session_id, os.getpid())
    os.rename(draft, session_id + RECORD_SUFFIX, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def drop_drafts(dir_fd: int, session_id: str, pid: int) -> None:
    """Remove what a process that is dead, or has given up, was about to publish."""
    for draft in _birth_drafts(session_id, pid):
        remove(dir_fd, draft)


def open_birth(dir_fd: int, session_id: str) -> int:
    """Say that a session may be born soon, for as long as anybody holds the returned descriptor.

    Raises:
        BlockingIOError: an earlier spawn of this id is still under way.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(session_id + BIRTH_SUFFIX, flags, 0o600, dir_fd=dir_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def close_birth(dir_fd: int, session_id: str, fds: Iterable[int]) -> None:
    """Say that the session is born and has its record, or never will be."""
    remove(dir_fd, session_id + BIRTH_SUFFIX)
    for fd in fds:
        os.close(fd)


def is_birth_pending(dir_fd: int, session_id: str) -> bool:
    """Tell whether somebody may still create this record; tidies up after one who cannot any more."""
    try:
        fd = os.open(session_id + BIRTH_SUFFIX, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(dir_fd, session_id + BIRTH_SUFFIX)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def replace_record(dir_fd: int, session_id: str, fields: Mapping[str, Any]) -> None:
    """Replace the record by a newer one, whole or not at all."""
    _replace(dir_fd, session_id, RECORD_SUFFIX, fields)


def write_exit(dir_fd: int, session_id: str, fields: Mapping[str, Any], tail: bytes) -> None:
    """Replace the record by its exit record, without the tail of output when space is short.

    Raises:
        OSError: not even the short one could be written; the birth record still stands.
    """
    with_tail = {**fields, "tail": base64.b64encode(tail).decode()}
    try:
        replace_record(dir_fd, session_id, with_tail)
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        replace_record(dir_fd, session_id, fields)


def read_record(dir_fd: int, session_id: str) -> Fields | None:
    """Read a record; None when there is none.

    Raises:
        RecordError: there is one, and it cannot be understood.
    """
    return _read_json(dir_fd, session_id + RECORD_SUFFIX, ("id", "generation", "boot_id", "shim_pid"))


def record_tail(fields: Mapping[str, Any]) -> bytes:
    """Return the tail of output an exit record keeps."""
    return base64.b64decode(fields.get("tail", ""))


def write_fence(dir_fd: int, session_id: str, fence: Fence) -> None:
    """Write the fence; the caller sees to it that its generation only rises."""
    _replace(dir_fd, session_id, FENCE_SUFFIX, fence._asdict())


def read_fence(dir_fd: int, session_id: str) -> Fence | None:
    """Read a fence; None when there is none.

    Raises:
        RecordError: there is one, and it cannot be understood. Treat that as fenced.
    """
    fields = _read_json(dir_fd, session_id + FENCE_SUFFIX, Fence._fields)
    return None if fields is None else Fence(**{name: fields[name] for name in Fence._fields})


def remove(dir_fd: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=dir_fd)


class Listing(NamedTuple):
    """What lies in `sessions/`, by session id."""

    records: list[str]
    fences: list[str]
    births: list[str]
    drafts: list[str]


def list_sessions(dir_fd: int) -> Listing:
    """List `sessions/` once."""
    listing = Listing([], [], [], [])
    for name in os.listdir(dir_fd):
        if name.startswith("."):
            listing.drafts.append(name)
        elif name.endswith(RECORD_SUFFIX):
            listing.records.append(name.removesuffix(RECORD_SUFFIX))
        elif name.endswith(FENCE_SUFFIX):
            listing.fences.append(name.removesuffix(FENCE_SUFFIX))
        elif name.endswith(BIRTH_SUFFIX):
            listing.births.append(name.removesuffix(BIRTH_SUFFIX))
    return listing


def tidy_up_after(dir_fd: int, session_id: str, pid: int) -> None:
    """Remove what a dead shim was about to finish."""
    drop_drafts(dir_fd, session_id, pid)
    with contextlib.suppress(OSError):  # no descriptor left: whoever looks next will do it
        is_birth_pending(dir_fd, session_id)


def draft_writer(name: str) -> int:
    """Return the pid that wrote the draft `name`, 0 when the name does not tell."""
    pid = name.rpartition(".")[2]
    return int(pid) if pid.isdecimal() else 0


def _draft_name(session_id: str, pid: int) -> str:
    return f".{session_id}.{pid}"


def _birth_drafts(session_id: str, shim_pid: int) -> tuple[str, str]:
    return _draft_name(session_id, shim_pid), _draft_name(f"{session_id}.begun", shim_pid)


def _replace(dir_fd: int, session_id: str, suffix: str, fields: Mapping[str, Any]) -> None:
    draft = _draft_name(session_id, os.getpid())
    _write_draft(dir_fd, draft, fields)
    os.rename(draft, session_id + suffix, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def _write_draft(dir_fd: int, draft: str, fields: Mapping[str, Any]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(draft, flags, 0o600, dir_fd=dir_fd)
    try:
        _write_whole(fd, json.dumps(fields).encode("ascii"))
    except BaseException:
        os.unlink(draft, dir_fd=dir_fd)
        raise
    finally:
        os.close(fd)


def _write_whole(fd: int, data: bytes) -> None:
    """Write all of it, without a file object: what a shim touches is its own memory for life."""
    while data:
        data = data[os.write(fd, data) :]


def _read_json(dir_fd: int, name: str, required: tuple[str, ...]) -> Fields | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise RecordError(f"{name}: {err.strerror}") from err
    try:
        with open(fd, "rb") as file:
            fields = json.loads(file.read(MAX_RECORD_BYTES))
    except (OSError, ValueError) as err:
        raise RecordError(f"{name}: {err}") from err
    if not isinstance(fields, dict) or any(key not in fields for key in required):
        raise RecordError(f"{name}: not a record of ours")
    return fields
