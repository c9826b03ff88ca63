"""What the host service answers about its trash."""

from __future__ import annotations

from typing import Final

import attrs

from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import ANY_STRING, COUNT, array, choice, shape


@attrs.frozen(kw_only=True)
class TrashEntry:
    """Something in the trash."""

    id: str = attrs.field(metadata=spec(ANY_STRING, "the deletion's, with `.artifacts` for its artifacts"))
    workspace_id: str = attrs.field(metadata=spec(ANY_STRING, "whose it was; empty for nobody's"))
    generation: int = attrs.field(metadata=spec(COUNT, "which generation of that"))
    kind: str = attrs.field(
        metadata=spec(choice("worktree", "folder", "repository", "broken"), "see The trash")
    )
    path: str = attrs.field(metadata=spec(ANY_STRING, "where it was"))
    trash_path: str = attrs.field(metadata=spec(ANY_STRING, "where it is"))
    head: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "the commit that was checked out"))
    branch: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "the branch that was checked out")
    )
    repository: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "whose worktree it was"))
    size_bytes: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "of its files; nil for more than can be counted quickly")
    )
    why: str = attrs.field(metadata=spec(ANY_STRING, "for people"))
    who: str = attrs.field(metadata=spec(ANY_STRING, "what asked for it"))
    trashed_at_ms: int = attrs.field(metadata=spec(COUNT, "when"))
    purge_at_ms: int = attrs.field(metadata=spec(COUNT, "when it may go for good"))
    last_error: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "why it has not gone although its time is up")
    )


ENTRY: Final = shape(TrashEntry, "entry")


@attrs.frozen(kw_only=True)
class TrashListResult:
    """The trash, oldest first."""

    entries: list[TrashEntry] = attrs.field(metadata=spec(array(ENTRY), "what is in it"))
