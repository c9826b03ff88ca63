"""Births: from a checked request to a running session, or to a typed refusal and nothing at all.

Owns the rules by which a spawn is refused before anything is done, and what a program is given to start
with. Forks nothing: the zygote does, and the new shim tells what became of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Container

import trio

from ptyd import paths, records
from ptyd.daemon.config import Config
from ptyd.daemon.descriptors import is_reserved
from ptyd.daemon.environment import program_cwd, program_env
from ptyd.daemon.registry import BIRTH_DEADLINE_S, Registry, now_ms
from ptyd.daemon.session import Session
from ptyd.daemon.zygote_link import ZygoteLink
from ptyd.datagrams import Body
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.messages import SessionSpawn
from ptyd.protocol.states import SessionState
from ptyd.shim.link import Link


class Births:
    """Spawns."""

    def __init__(
        self, runtime: paths.Runtime, config: Config, registry: Registry, zygote: ZygoteLink
    ) -> None:
        self._runtime = runtime
        self._config = config
        self._registry = registry
        self._zygote = zygote

    async def spawn(self, request: SessionSpawn) -> Session:
        """Start a session and wait until its program runs.

        Cancellation: the session goes on being born; a list shows it.

        Raises:
            PtydError: every way in which a spawn can be refused or fail.
        """
        session_id = request.id or _fresh_id(self._registry.sessions)
        self._check_spawn(session_id, request)
        record = self._record(session_id, request)
        self._make_way(session_id)
        session = self._registry.add(record)
        try:
            self._fork(session, request)
        except (PtydError, OSError) as err:
            self._registry.drop(session)
            raise err if isinstance(err, PtydError) else _no_descriptors(err) from err
        with trio.move_on_after(BIRTH_DEADLINE_S):
            await session.born.wait()
        return self._born(session)

    def _check_spawn(self, session_id: str, request: SessionSpawn) -> None:
        self._registry.fences.check(session_id, request.generation)
        if session_id in self._registry.unborn:
            raise PtydError(Code.BUSY, f"an earlier spawn of {session_id} is still under way; try again")
        existing = self._registry.sessions.get(session_id)
        if existing is not None and existing.is_living:
            raise PtydError(
                Code.EXISTS,
                f"session {session_id} is living; attach to it: ptyd attach {session_id}",
            )
        if existing is not None and existing.generation >= request.generation:
            message = (
                f"session {session_id} has ended; forget it, or ask for generation {existing.generation + 1}"
            )
            raise PtydError(Code.EXISTS, message, generation=existing.generation)
        if request.name and any(session.name == request.name for session in self._registry.living()):
            raise PtydError(Code.NAME_TAKEN, f"a living session is named {request.name}; see: ptyd ls")
        if sum(1 for _ in self._registry.living()) >= self._config.max_sessions:
            raise PtydError(
                Code.TOO_MANY_SESSIONS, f"{self._config.max_sessions} sessions live; end some first"
            )

    def _record(self, session_id: str, request: SessionSpawn) -> Body:
        return {
            "id": session_id,
            "generation": request.generation,
            "mark": secrets.token_hex(16),
            "argv": [_text(word) for word in request.argv],
            "cwd": program_cwd(request.cwd),
            "rows": request.rows,
            "cols": request.cols,
            "name": request.name or None,
            "labels": dict(request.labels or {}),
            "scrollback_bytes": request.scrollback_bytes,
            "on_leader_exit": request.on_leader_exit,
            "created_at_ms": now_ms(),
        }

    def _fork(self, session: Session, request: SessionSpawn) -> None:
        record = session.record
        given = {_text(key): _text(value) for key, value in (request.env or {}).items()}
        marks = {
            "PTYD_SESSION": session.id,
            "PTYD_MARK": record["mark"],
            "PTYD_RUNTIME_DIR": self._runtime.path,
        }
        spec = {
            **record,
            "env": program_env(given) | marks,
            "ring_linger_s": self._config.ring_linger_s,
        }
        with contextlib.ExitStack() as stack:
            birth_fd = records.open_birth(self._runtime.sessions_fd, session.id)
            stack.callback(os.close, birth_fd)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(theirs)
            try:
                if is_reserved(theirs.fileno()):
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                self._zygote.fork_shim(session.id, spec, theirs, birth_fd)
            except BaseException:
                ours.close()
                records.close_birth(self._runtime.sessions_fd, session.id, ())
                raise
        session.connect(Link(ours))

    def _make_way(self, session_id: str) -> None:
        """Remove the ended predecessor's record, so that the shim can create its own and nobody else's."""
        if predecessor := self._registry.sessions.get(session_id):
            self._registry.forget(predecessor)

    def _born(self, session: Session) -> Session:
        if session.failure is not None:
            raise session.failure
        if session.facts or session.state is SessionState.UNSUPERVISED:
            return session
        raise PtydError(Code.BUSY, f"session {session.id} is still starting; see: ptyd inspect {session.id}")


def _no_descriptors(err: OSError) -> PtydError:
    return PtydError(
        Code.SPAWN_FAILED, f"cannot start a session: {err.strerror}; end some, or raise ulimit -n"
    )


def _fresh_id(taken: Container[str]) -> str:
    while (fresh := secrets.token_hex(4)) in taken:
        pass
    return fresh


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
