"""The index's async face: whole or nothing, one at a time, and a typed error for whatever the disk does."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from hostsvc import index as index_module
from hostsvc.index import Index, open_index
from hostsvc.store import database, sessions, workspaces
from hostsvc.store.database import FILE, check_file
from ptyd.protocol.errors import Code, PtydError
from tests.hostsvc.store import add_workspace, damage, fill, fresh
from tests.hostsvc.values import NOW


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return fresh(tmp_path / "state")


@pytest.fixture
def index(state: Path) -> Iterator[Index]:
    index = open_index(state)
    add_workspace(index._db)
    yield index
    index.close()


async def add(index: Index, id_: str = "s") -> bool:
    fields = {"workspace_id": "w", "name": None, "labels": {}, "argv": ["sh"], "cwd": None, "run_id": "r"}
    return await index.write(
        sessions.insert_spawning,
        id_=id_,
        generation=1,
        **fields,  # type: ignore[arg-type]
        instance_id="i",
        boot_id="b",
        now_ms=NOW,
    )


async def add_until_refused(index: Index, most: int) -> tuple[int, PtydError]:
    """Return how many were written, and why no more."""
    for number in range(most):
        try:
            await add(index, f"s{number}")
        except PtydError as error:
            return number, error
    raise AssertionError(f"it took {most}")


async def refused(index: Index, id_: str = "s") -> PtydError:
    with pytest.raises(PtydError) as error:
        await add(index, id_)
    assert "nothing was written" in str(error.value) or "underneath" in str(error.value)
    assert index.trouble is not None
    return error.value


async def test_a_lock_of_another_process_is_told_and_passes(index: Index, state: Path) -> None:
    index._db.execute("PRAGMA busy_timeout = 10")
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(state / FILE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        assert (await refused(index)).code is Code.BUSY
        assert await index.read(sessions.find_open) == [], "readers do not wait for a writer"
        holder.stdin.close()
        holder.wait()
    assert await add(index)
    assert index.trouble is None


async def test_a_full_disk_is_told_and_nothing_is_half_written(index: Index, state: Path) -> None:
    index._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = index._db.execute("PRAGMA page_count").fetchone()[0]
    index._db.execute(f"PRAGMA max_page_count = {pages}")
    written, error = await add_until_refused(index, 500)
    assert error.code is Code.NO_SPACE
    assert (await refused(index, "again")).code is Code.NO_SPACE
    assert len(await index.read(sessions.find_open)) == written
    index._db.execute("PRAGMA max_page_count = 1000000")
    assert await add(index, "after")
    assert database.integrity_faults(index._db) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_a_file_system_that_is_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k,mode=700", "none", small], check=True)
    try:
        index = open_index(small)
        add_workspace(index._db)
        written, error = await add_until_refused(index, 2000)
        assert error.code in (Code.NO_SPACE, Code.INDEX_FAILED)
        assert len(await index.read(sessions.find_open)) == written
        index._db.close()
        assert check_file(small / FILE) == []
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_file_deleted_underneath_takes_no_more(index: Index, state: Path, is_replaced: bool) -> None:
    (state / FILE).unlink()
    if is_replaced:
        (state / FILE).touch()
    error = await refused(index)
    assert error.code is Code.INDEX_FAILED
    assert "underneath" in (index.trouble or "")


async def test_damage_that_is_found_while_in_use_is_told(state: Path) -> None:
    fill(state)
    index = open_index(state)
    damage(state / FILE, is_late=True)
    with pytest.raises(PtydError) as error:
        await index.read(sessions.find_all)
    assert error.value.code is Code.INDEX_FAILED
    index.close()


async def test_a_broken_rule_is_a_fault_of_ours_and_changes_nothing(index: Index, state: Path) -> None:
    await add(index)
    with pytest.raises(sqlite3.IntegrityError):
        await add(index)
    assert index.trouble is None
    assert len(await index.read(sessions.find_open)) == 1


async def test_writes_are_whole_and_one_at_a_time(index: Index) -> None:
    """Many tasks at once; each sees what it wrote, and a failing one takes nothing of another with it."""

    def half(db: object) -> None:
        workspaces.bury_unknown(db, "half", NOW)  # type: ignore[arg-type]
        raise KeyError("half way")

    async def fail() -> None:
        with pytest.raises(KeyError):
            await index.write(half)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(add, index, f"s{number}")
            nursery.start_soon(fail)
    assert len(await index.read(sessions.find_open)) == 20
    assert await index.read(workspaces.find_tombstone, "workspace", "half") is None


async def test_a_cancelled_caller_still_knows_whether_it_was_written(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await add(index, "never")
    with trio.CancelScope() as scope:

        def slow(db: object) -> bool:
            trio.from_thread.run_sync(scope.cancel)
            return True

        assert await index.write(slow)
    assert await index.read(sessions.find, "never") is None


def test_an_error_without_a_code_is_still_told() -> None:
    assert index_module._failure(sqlite3.DatabaseError("odd"), Path("x")).code is Code.INDEX_FAILED
