"""What the host service may be asked about workspaces."""

from __future__ import annotations

import attrs

from hostsvc import shapes
from hostsvc.kinds import COMMAND, CREDENTIAL, ENTRY, OWN_LABELS, TEXT
from hostsvc.messages.declare import TEARDOWN, WHICH, WHICH_GENERATION, method
from ptyd.protocol.errors import Code
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import BOOL, GENERATION, ID_OR_NAME, LABELS, NAME, NEW_NAME, SESSION_ID


@method(
    "workspace.create",
    shapes.Workspace,
    Code.EXISTS,
    Code.NAME_TAKEN,
    Code.DESTROYED,
    Code.PATH_REFUSED,
    Code.NOT_FOUND,
    Code.BEING_DELETED,
)
@attrs.frozen(kw_only=True)
class WorkspaceCreate:
    """Make a workspace: a new folder below the base directory, or one that is there already."""

    id: str | None = attrs.field(default=None, metadata=spec(SESSION_ID, "its id", "a new random one"))
    generation: int | None = attrs.field(
        default=None,
        metadata=spec(GENERATION, "counts the workspaces of this id; more than that of a destroyed one", "1"),
    )
    name: str | None = attrs.field(
        default=None, metadata=spec(NAME, "another way to refer to it; names the folder", "the id")
    )
    path: str | None = attrs.field(
        default=None, metadata=spec(TEXT, "adopt this folder; it is never removed", "make one")
    )
    repository: str | None = attrs.field(
        default=None, metadata=spec(TEXT, "make its folder a worktree of this one", "a plain folder")
    )
    branch: str | None = attrs.field(
        default=None, metadata=spec(TEXT, "one that is there, or is to be made", "what the folder is called")
    )
    start: str | None = attrs.field(
        default=None, metadata=spec(TEXT, "the commit that a new branch is made at", "HEAD")
    )
    credential: bytes | None = attrs.field(
        default=None,
        repr=False,
        metadata=spec(CREDENTIAL, "content of its credential helper; never told again", "none"),
    )
    labels: dict[str, str] = attrs.field(
        factory=dict, metadata=spec(OWN_LABELS, "for selecting it", "no labels")
    )
    teardown: list[str] | None = attrs.field(
        default=None, metadata=spec(COMMAND, "a command to run in it before it is deleted", "nothing")
    )
    is_protected: bool = attrs.field(default=False, metadata=spec(BOOL, "refuse to delete it"))
    run: str | None = attrs.field(
        default=None, metadata=spec(SESSION_ID, "the run that it belongs to", "none")
    )
    is_ephemeral: bool = attrs.field(default=False, metadata=spec(BOOL, "it goes with its run"))
    is_expendable: bool = attrs.field(
        default=False, metadata=spec(BOOL, "it does so also when work in it is at risk")
    )


@method("workspace.list", shapes.WorkspaceListResult)
@attrs.frozen(kw_only=True)
class WorkspaceList:
    """List workspaces."""

    labels: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(LABELS, "only those that have all of these", "all")
    )
    deleted: bool = attrs.field(default=False, metadata=spec(BOOL, "with those that are gone"))


@method("workspace.get", shapes.Workspace, Code.NOT_FOUND, Code.DESTROYED)
@attrs.frozen(kw_only=True)
class WorkspaceGet:
    """Look at one workspace. Looking creates nothing."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, WHICH))


@method("workspace.update", shapes.Workspace, Code.NOT_FOUND, Code.DESTROYED, Code.NAME_TAKEN)
@attrs.frozen(kw_only=True)
class WorkspaceUpdate:
    """Change what a workspace is called, or protect it. Its folder keeps its name."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, WHICH))
    name: str | None = attrs.field(
        default=None, metadata=spec(NEW_NAME, "its new name; empty for none", "unchanged")
    )
    labels: dict[str, str] | None = attrs.field(
        default=None, metadata=spec(OWN_LABELS, "replaces all of them", "unchanged")
    )
    is_protected: bool | None = attrs.field(
        default=None, metadata=spec(BOOL, "refuse to delete it", "unchanged")
    )


@method(
    "workspace.delete",
    shapes.WorkspaceDeleteResult,
    Code.PROTECTED,
    Code.AT_RISK,
    Code.PATH_REFUSED,
    Code.NOT_FOUND,
    Code.DESTROYED,
    *TEARDOWN,
)
@attrs.frozen(kw_only=True)
class WorkspaceDelete:
    """Delete a workspace and wait for it. Deleting what is gone, or never was, is done at once."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, WHICH))
    generation: int | None = attrs.field(
        default=None, metadata=spec(GENERATION, WHICH_GENERATION, "whichever lives")
    )
    force: bool = attrs.field(default=False, metadata=spec(BOOL, "also when work is at risk"))
    skip_teardown: bool = attrs.field(
        default=False, metadata=spec(BOOL, "without its teardown command; not part of force")
    )
    dry_run: bool = attrs.field(default=False, metadata=spec(BOOL, "only say what would be done"))


@method("workspace.risk", shapes.WorkspaceRiskResult, Code.NOT_FOUND, Code.DESTROYED)
@attrs.frozen(kw_only=True)
class WorkspaceRisk:
    """Find out what would be lost with a workspace's folder. Changes nothing, not a byte."""

    id: str = attrs.field(metadata=spec(ID_OR_NAME, WHICH))


@method(
    "workspace.restore",
    shapes.Workspace,
    Code.NOT_FOUND,
    Code.EXISTS,
    Code.NAME_TAKEN,
    Code.PATH_REFUSED,
)
@attrs.frozen(kw_only=True)
class WorkspaceRestore:
    """Make a workspace anew, in its next generation, of what is in the trash."""

    id: str = attrs.field(metadata=spec(ENTRY, "an entry of the trash, or a workspace that was deleted"))
