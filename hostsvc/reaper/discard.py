"""What the kinds that clear the base directory do with an entry: look once more, compare, trash it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from hostsvc.index import Index
from hostsvc.manifest import taken_of
from hostsvc.model import Act, Candidate, Decision, Known
from hostsvc.reaper.base import Base, Found
from hostsvc.reaper.kinds import Skipped
from hostsvc.store import audit, trash
from hostsvc.store.trash import Entry
from hostsvc.trashcan import ADMIN, TrashCan
from hostsvc.tree import PathRefused
from ptyd.protocol.errors import Code, PtydError

_WHO: Final = "reaper"


async def look_again(base: Base, candidate: Candidate) -> Found:
    """Return what the candidate is now, from all sides; another one of its name is unrecognised.

    Raises:
        Skipped: it is gone.
        PtydError: path_refused, when it cannot be seen.
    """
    found = await base.look_at(candidate.subject)
    if found is None:
        raise Skipped("it is gone")
    return found


def check_again(candidate: Candidate, decision: Decision) -> None:
    """Compare what would be decided now.

    Raises:
        Skipped: it is something else.
    """
    if not isinstance(decision, Act):
        raise Skipped(decision.reason)
    if (decision.action, decision.basis) != (candidate.action, candidate.basis):
        raise Skipped("it is not what it was")


async def discard(
    index: Index, can: TrashCan, found: Found, candidate: Candidate, now_ms: int, keep_ms: int | None = None
) -> Mapping[str, object]:
    """Move a folder of the base to the trash, and enter it in the audit; return the evidence.

    Raises:
        Skipped: it was gone.
        PtydError: path_refused, when it cannot be moved; it is left where it is.
    """
    made = found.claim.made
    assert isinstance(made, Known)
    try:
        entry = await can.put(
            await _entry_id(index, found),
            path=found.entry.path,
            identity=found.entry.identity,
            why=candidate.reason,
            who=_WHO,
            workspace_id=made.value.workspace_id,
            generation=made.value.generation,
            keep_ms=keep_ms,
        )
    except PathRefused as error:
        raise PtydError(Code.PATH_REFUSED, str(error)) from error
    if entry["purged_at_ms"] is not None:
        raise Skipped("it is gone")
    return await enter(index, found, candidate, now_ms, {"trash": entry["id"]})


async def enter(
    index: Index, found: Found, candidate: Candidate, now_ms: int, evidence: Mapping[str, object]
) -> Mapping[str, object]:
    """Enter in the audit what was done to an entry; return the evidence."""
    made = found.claim.made
    assert isinstance(made, Known)
    await index.write(
        audit.append,
        at_ms=now_ms,
        event=candidate.action.value,
        kind=made.value.role.value,
        subject=made.value.workspace_id,
        generation=made.value.generation,
        detail={"path": found.entry.path, "reason": candidate.reason, **evidence},
    )
    return evidence


async def _entry_id(index: Index, found: Found) -> str:
    """An entry that an interrupted attempt has begun is gone on with."""
    sought = found.entry.path, found.entry.identity.inode
    for entry in await index.read(trash.find_all):
        if (entry["path"], entry["inode"]) == sought:
            return str(entry["id"])
    return secrets.token_hex(8)


# --- after a crash -------------------------------------------------------------------------------


def is_half_done(entry: Entry) -> bool:
    """Tell whether a worktree that the reaper has moved to the trash is still registered where it was."""
    taken = taken_of(entry["manifest"])
    if taken is None or entry["manifest"].get("who") != _WHO:
        return False
    registered = Path(taken.common_dir, "worktrees", taken.name, "gitdir")
    try:
        is_registered = registered.read_text().rstrip("\n") == taken.gitdir
    except OSError:
        return False
    is_moved = os.path.lexists(entry["trash_path"]) and not os.path.lexists(entry["path"])
    return is_registered and is_moved and not os.path.lexists(entry["trash_path"] + ADMIN)


async def finish(index: Index, can: TrashCan, entry_id: str) -> Mapping[str, object]:
    """Go on with an entry that a crash left half done.

    Raises:
        Skipped: somebody was quicker.
        PtydError: path_refused, when it cannot be done now.
    """
    entry = next((one for one in await index.read(trash.find_all) if one["id"] == entry_id), None)
    if entry is None or not await trio.to_thread.run_sync(is_half_done, entry):
        raise Skipped("it is done by now")
    try:
        with can.alone(entry_id):
            await can.put_again(entry)
    except PathRefused as error:
        raise PtydError(Code.PATH_REFUSED, str(error)) from error
    return {"trash": entry_id}
