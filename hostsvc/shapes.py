"""What the host service answers: the shape of every result, as declared fields.

The handlers build plain maps; tests hold them to these classes, and protocol.md's tables too.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from hostsvc.states import SagaState, SessionStatus, WorkspaceState
from ptyd.protocol import limits
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
    integer,
    shape,
)
from ptyd.protocol.results import EXIT, PID, Exit

STRINGS: Final = array(ANY_STRING)
HEALTH: Final = ("green", "yellow", "red")
PASS_STATES: Final = ("running", "ok", "partial", "refused", "error", "interrupted")


@attrs.frozen(kw_only=True)
class HelloResult:
    """Who serves here."""

    server: str = attrs.field(metadata=spec(choice("hostsvc"), "what this is"))
    version: str = attrs.field(metadata=spec(ANY_STRING, "for showing"))
    protocol: int = attrs.field(
        metadata=spec(integer(limits.PROTOCOL, limits.PROTOCOL, "1"), "the one spoken from here on")
    )
    daemon_id: str = attrs.field(metadata=spec(ANY_STRING, "this process of the host service"))
    index_id: str = attrs.field(metadata=spec(ANY_STRING, "the index; the owner label of its sessions"))
    pid: int = attrs.field(metadata=spec(PID, "the host service's"))
    features: list[str] = attrs.field(metadata=spec(STRINGS, "optional abilities; ignore unknown ones"))
    limits: dict[str, int] = attrs.field(metadata=spec(ANY_MAP, "see Limits"))


@attrs.frozen(kw_only=True)
class Workspace:
    """A workspace. What is not known is nil."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "names it for good"))
    generation: int = attrs.field(metadata=spec(GENERATION, "counts the workspaces of this id"))
    name: str | None = attrs.field(default=None, metadata=spec(NAME, "unique among living workspaces"))
    path: str = attrs.field(metadata=spec(ANY_STRING, "its folder"))
    is_ours: bool = attrs.field(metadata=spec(BOOL, "the folder was made for it, and goes with it"))
    state: str = attrs.field(metadata=spec(choice(*WorkspaceState), "see Workspace states"))
    labels: dict[str, str] = attrs.field(metadata=spec(LABELS, "for selecting it"))
    teardown: list[str] | None = attrs.field(
        default=None, metadata=spec(STRINGS, "the command that runs before its sessions are ended")
    )
    is_protected: bool = attrs.field(metadata=spec(BOOL, "it cannot be deleted"))
    sessions: int = attrs.field(metadata=spec(COUNT, "how many of its sessions are not over"))
    created_at_ms: int = attrs.field(metadata=spec(COUNT, "when, since the epoch"))
    deleted_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when it was gone"))


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
    live: dict[str, Any] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "ptyd's view: `state`, `pid`, `attached`, …; nil if not listed")
    )
    live_unknown: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "why `live` is nil although nobody knows")
    )


@attrs.frozen(kw_only=True)
class Foreign:
    """A living session in ptyd that has no row."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "its id"))
    generation: int = attrs.field(metadata=spec(GENERATION, "its generation"))
    state: str = attrs.field(metadata=spec(ANY_STRING, "its state in ptyd"))
    owner: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "an index's id, or nil"))


@attrs.frozen(kw_only=True)
class Saga:
    """A deletion."""

    id: str = attrs.field(metadata=spec(SESSION_ID, "names it"))
    workspace_id: str = attrs.field(metadata=spec(SESSION_ID, "what is deleted"))
    generation: int = attrs.field(metadata=spec(GENERATION, "which generation of it"))
    state: str = attrs.field(metadata=spec(choice(*SagaState), "see Sagas"))
    attempts: int = attrs.field(metadata=spec(COUNT, "how often a step after the point of no return failed"))
    next_attempt_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when it goes on"))
    last_error: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "of the last attempt"))
    warnings: list[str] = attrs.field(metadata=spec(STRINGS, "what went wrong and did not stop it"))
    created_at_ms: int = attrs.field(metadata=spec(COUNT, "when it was asked for"))
    finished_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when it was over"))


@attrs.frozen(kw_only=True)
class Pass:
    """A pass of the reaper."""

    id: int = attrs.field(metadata=spec(COUNT, "counts them"))
    origin: str = attrs.field(metadata=spec(choice("startup", "interval", "manual"), "why it ran"))
    state: str = attrs.field(metadata=spec(choice(*PASS_STATES), "see The reaper"))
    dry_run: bool = attrs.field(metadata=spec(BOOL, "nothing was to be changed"))
    kinds: list[str] = attrs.field(metadata=spec(STRINGS, "what was looked for"))
    started_at_ms: int = attrs.field(metadata=spec(COUNT, "when"))
    finished_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when it was recorded"))
    plan_hash: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "what to accept, when it was refused")
    )
    counts: dict[str, int] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "seen, kept, observed, and how many acts had which outcome")
    )
    kept: dict[str, Any] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "for each kind: why what was left alone was left alone")
    )
    acts: list[dict[str, Any]] | None = attrs.field(
        default=None,
        metadata=spec(array(ANY_MAP), "kind, subject, action, basis, reason, outcome; 500 at most"),
    )
    errors: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(ANY_MAP, "the kinds that could not see, and why")
    )
    refusals: list[str] | None = attrs.field(
        default=None, metadata=spec(STRINGS, "why what rests on absence was not done")
    )


WORKSPACE: Final = shape(Workspace, "workspace")
ROW: Final = shape(SessionRow, "row")
FOREIGN: Final = shape(Foreign, "foreign")
SAGA: Final = shape(Saga, "saga")
PASS: Final = shape(Pass, "pass")


@attrs.frozen(kw_only=True)
class WorkspaceListResult:
    """The workspaces, oldest first."""

    workspaces: list[Workspace] = attrs.field(metadata=spec(array(WORKSPACE), "those that matched"))


@attrs.frozen(kw_only=True)
class WorkspaceDeleteResult:
    """How far a deletion has come."""

    saga: str | None = attrs.field(
        default=None, metadata=spec(SESSION_ID, "its saga; nil for what never was, and for a plan")
    )
    state: str = attrs.field(
        metadata=spec(
            choice("deleted", "deleting", "planned"), "`deleting` when a step has to be tried again"
        )
    )
    warnings: list[str] = attrs.field(metadata=spec(STRINGS, "what went wrong and did not stop it"))
    plan: list[dict[str, Any]] | None = attrs.field(
        default=None, metadata=spec(array(ANY_MAP), "of a dry run: `step`, `text`, `subjects`")
    )


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


@attrs.frozen(kw_only=True)
class SagaListResult:
    """Deletions, open ones first."""

    sagas: list[Saga] = attrs.field(metadata=spec(array(SAGA), "the newest"))


@attrs.frozen(kw_only=True)
class SagaGetResult:
    """A deletion with its journal."""

    saga: Saga = attrs.field(metadata=spec(SAGA, "the deletion"))
    steps: list[dict[str, Any]] = attrs.field(
        metadata=spec(array(ANY_MAP), "`step`, `begun_at_ms`, `done_at_ms`, `detail`, in order")
    )


@attrs.frozen(kw_only=True)
class PassesResult:
    """Passes, newest first."""

    passes: list[Pass] = attrs.field(metadata=spec(array(PASS), "the newest"))


@attrs.frozen(kw_only=True)
class HealthResult:
    """Whether somebody should look."""

    status: str = attrs.field(metadata=spec(choice(*HEALTH), "`red`: something does not work"))
    reasons: list[str] = attrs.field(metadata=spec(STRINGS, "why it is not green"))
    ptyd: dict[str, Any] = attrs.field(metadata=spec(ANY_MAP, "`reachable`, and who it is"))
    reaper: dict[str, Any] = attrs.field(
        metadata=spec(ANY_MAP, "`last` pass, `missed` intervals, `running`, `interval_s`")
    )
    sagas: dict[str, int] = attrs.field(metadata=spec(ANY_MAP, "`open` and `stuck`"))
    sessions: dict[str, int] = attrs.field(
        metadata=spec(ANY_MAP, "how many of each status, `unwanted` and `stuck`")
    )
    index: dict[str, Any] = attrs.field(metadata=spec(ANY_MAP, "`id` and `path`"))
    pid: int = attrs.field(metadata=spec(PID, "the host service's"))
    uptime_ms: int = attrs.field(metadata=spec(COUNT, "of this process"))
