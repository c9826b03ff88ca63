"""What the host service answers about workspaces."""

from __future__ import annotations

from typing import Any, Final

import attrs

from hostsvc.shapes.common import STRINGS
from hostsvc.states import WorkspaceState
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
    run: str | None = attrs.field(default=None, metadata=spec(SESSION_ID, "the run that it belongs to"))
    is_ephemeral: bool = attrs.field(metadata=spec(BOOL, "it goes with its run"))
    is_expendable: bool | None = attrs.field(
        default=None, metadata=spec(BOOL, "it does so also when work in it is at risk")
    )
    repository: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "whose worktree its folder is; nil for a plain one")
    )
    branch: str | None = attrs.field(
        default=None, metadata=spec(ANY_STRING, "the branch it was made or adopted with")
    )
    sessions: int = attrs.field(metadata=spec(COUNT, "how many of its sessions are not over"))
    created_at_ms: int = attrs.field(metadata=spec(COUNT, "when, since the epoch"))
    deleted_at_ms: int | None = attrs.field(default=None, metadata=spec(COUNT, "when it was gone"))
    git: dict[str, Any] | None = attrs.field(
        default=None,
        metadata=spec(ANY_MAP, "what its worktree is at, as last seen; nil for a plain folder"),
    )


WORKSPACE: Final = shape(Workspace, "workspace")


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
            choice("deleted", "deleting", "partial", "planned"),
            "`deleting` when a step has to be tried again, `partial` when only its folder is left",
        )
    )
    warnings: list[str] = attrs.field(metadata=spec(STRINGS, "what went wrong and did not stop it"))
    plan: list[dict[str, Any]] | None = attrs.field(
        default=None, metadata=spec(array(ANY_MAP), "of a dry run: `step`, `text`, `subjects`")
    )


@attrs.frozen(kw_only=True)
class WorkspaceRiskResult:
    """What would be lost with a workspace's folder."""

    safe: bool = attrs.field(metadata=spec(BOOL, "nothing, as far as can be told"))
    reasons: list[dict[str, str]] = attrs.field(
        metadata=spec(array(ANY_MAP), "why not: `code`, see Work at risk, and `text`")
    )
    head: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "the commit that is checked out"))
    branch: str | None = attrs.field(default=None, metadata=spec(ANY_STRING, "the branch, if it is on one"))
