"""What the host service answers about sessions."""

from __future__ import annotations

from typing import Any, Final

import attrs

from hostsvc.restart import Policy
from hostsvc.shapes.common import STRINGS
from hostsvc.states import SessionStatus
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import (
    ANY_MAP,
    ANY_STRING,
    BOOL,
    COUNT,
    GENERATION,
    LABELS,
    NAME,
    SESSION_ID,
    array,
    choice,
    shape,
)
from ptyd.protocol.results import EXIT, Exit


@attrs.frozen(kw_only=True)
class SessionRow:
    """A session's row in the index, with what ptyd says of it."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "the same as in ptyd"))
    generation: int = attrs.field(metadata=spec(GENERATION, "the same as in ptyd"))
    workspace_id: str | None = attrs.field(
        default=None, metadata=spec(SESSION_ID, "nil when its workspace was deleted before it had ended")
    )
    origin_workspace_id: str = attrs.field(metadata=spec(SESSION_ID, "where it was made"))
    status: str = attrs.field(metadata=spec(choice(*SessionStatus), "see Session rows"))
    name: str | None = attrs.field(default=None, metadata=spec(NAME, "the same as in ptyd"))
    labels: dict[str, str] = attrs.field(metadata=spec(LABELS, "for selecting it"))
    argv: list[str] = attrs.field(metadata=spec(STRINGS, "what was started"))
    run: str | None = attrs.field(default=None, metadata=spec(SESSION_ID, "the run that it belongs to"))
    created_at_ms: int = attrs.field(metadata=spec(COUNT, "when its row was written"))
    ended_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when its end was entered"))
    dispose_requested_at_ms: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "when its end was asked for; never cleared")
    )
    dispose_reason: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "why"))
    attempts: int = attrs.field(metadata=spec(COUNT, "kills that were not confirmed"))
    next_attempt_at_ms: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "when it is tried again; nil for the next pass")
    )
    last_error: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "of the last attempt"))
    stuck_at_ms: int | None = attrs.field(
        default=None, metadata=spec(COUNT, "since when a person should look; it is retried all the same")
    )
    kill_evidence: dict[str, Any] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "how its death is known: `proof` and more")
    )
    exit: Exit | None = attrs.field(default=None, metadata=spec(EXIT, "the leader's, if it is known"))
    restart: str = attrs.field(
        default="never", metadata=spec(choice(*Policy), "whether it is started again when it ends by itself")
    )
    restarts: int = attrs.field(
        default=0, metadata=spec(COUNT, "so many starts in a row before this one did not last")
    )
    live: dict[str, Any] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "ptyd's view: `state`, `pid`, `attached`, …; nil if not listed")
    )
    live_unknown: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "why `live` is nil although nobody knows")
    )


ROW: Final = shape(SessionRow, "row")


@attrs.frozen(kw_only=True)
class Foreign:
    """A living session in ptyd that has no row."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "its id"))
    generation: int = attrs.field(metadata=spec(GENERATION, "its generation"))
    state: str = attrs.field(metadata=spec(ANY_STRING, "its state in ptyd"))
    owner: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "an index's id, or nil"))


FOREIGN: Final = shape(Foreign, "foreign")


@attrs.frozen(kw_only=True)
class SessionListResult:
    """The rows, oldest first."""

    sessions: list[SessionRow] = attrs.field(metadata=spec(array(ROW), "those that matched"))
    foreign: list[Foreign] = attrs.field(
        metadata=spec(array(FOREIGN), "living ones that have no row; only without a filter")
    )


@attrs.frozen(kw_only=True)
class SessionAdoptResult:
    """Sessions of a lost index."""

    sessions: list[Foreign] = attrs.field(
        metadata=spec(array(FOREIGN), "those that were, or would be, taken")
    )
    adopted: bool = attrs.field(metadata=spec(BOOL, "false for a dry run"))
