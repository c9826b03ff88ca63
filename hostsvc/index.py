"""The index's async face: every statement runs in a thread, one at a time, whole or not at all.

Owns the order of calls and the translation of SQLite's errors. A caller that is cancelled while its
transaction runs still waits for it: afterwards it is known whether it was done.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import trio
from sqlite_utils import Database

from hostsvc.store.database import FILE, close_database, open_database, writing
from ptyd.protocol.errors import Code, PtydError

P = ParamSpec("P")
T = TypeVar("T")


class Index:
    """An open index. Make it with `open_index`."""

    def __init__(self, db: Database, directory: Path) -> None:
        self._db = db
        self._directory = directory
        self._path = directory / FILE
        self._identity = self._stat()
        self._limiter = trio.CapacityLimiter(1)
        self._write_error: PtydError | None = None

    async def read(self, work: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function of `hostsvc.store` that only looks.

        Raises:
            PtydError: index_failed.
        """
        return await self._run(lambda: work(self._db, *args, **kwargs))

    async def write(
        self, work: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function of `hostsvc.store` as one transaction, which is on the disk afterwards.

        Raises:
            PtydError: no_space or index_failed; nothing of it was written.
        """

        def transaction() -> T:
            self._check_file()
            with writing(self._db):
                return work(self._db, *args, **kwargs)

        try:
            written = await self._run(transaction)
        except PtydError as error:
            self._write_error = error
            raise
        self._write_error = None
        return written

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written: the last attempt's error, or that the file is gone; else None."""
        if self._stat() != self._identity:
            return f"{self._path} was deleted or replaced underneath"
        return None if self._write_error is None else str(self._write_error)

    def close(self) -> None:
        close_database(self._db, self._directory)

    async def _run(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(self._translated, work, limiter=self._limiter)

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a rule of the schema stopped a mistake of ours: that is a fault, not bad luck
        except sqlite3.DatabaseError as error:
            raise _failure(error, self._path) from error

    def _check_file(self) -> None:
        """What is written to a deleted file is lost with us, however often SQLite says yes."""
        if self._stat() != self._identity:
            raise PtydError(
                Code.INDEX_FAILED,
                f"{self._path} was deleted or replaced underneath; stop hostsvc and restore a backup",
            )

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def open_index(directory: Path) -> Index:
    """Open the index in a directory; see `open_database` for errors."""
    return Index(open_database(directory), directory)


def _failure(error: sqlite3.Error, path: Path) -> PtydError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # the module has errors of its own
    if code == sqlite3.SQLITE_FULL:
        return PtydError(Code.NO_SPACE, f"the disk of {path} is full; nothing was written")
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return PtydError(Code.BUSY, f"somebody else holds {path}; nothing was written, try again")
    return PtydError(Code.INDEX_FAILED, f"{path}: {error}; nothing was written (see: hostsvc db check)")
