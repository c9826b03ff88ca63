"""The deletion of a workspace, step by step: which step is next, and what a failure of it means.

Pure. The journal is a map from step to whether it is done; a step that was begun and not done is done
again, so every step can be repeated. Before the point of no return a failure compensates; after it the
saga only goes forward, however often it has to try.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs

from hostsvc.model import SessionRow, Workspace
from hostsvc.owned import OwnedPath, PathRole


class Step(enum.StrEnum):
    PREFLIGHT = "preflight"
    """Look whether work would be lost; nothing was touched yet."""
    SEAL = "seal"
    """One transaction: deleting, tombstone, intents; from here on it takes nothing new."""
    TEARDOWN = "teardown"
    """The workspace's own command, if it has one."""
    DISPOSE = "dispose"
    """End all of its sessions; a kill that fails is a warning, and stays the reaper's."""
    RECHECK = "recheck"
    """Look again, now that nothing runs."""
    COMMIT = "commit"
    """The point of no return. Only the journal knows it."""
    CREDENTIAL = "credential"
    """Its credential is unlinked, never trashed: the first to go, whatever happens to the rest."""
    ARTIFACTS = "artifacts"
    """Its artifacts go to the trash; before the folder, which may be in somebody's way."""
    FOLDER = "folder"
    """Its folder goes to the trash, if we made it; a worktree is unregistered exactly, its commits kept."""
    FINISH = "finish"
    """One transaction: what is proven dead to the audit, the rest to the reaper, deleted."""


class OnFailure(enum.StrEnum):
    COMPENSATE = "compensate"
    RETRY = "retry"


STEPS: Final[tuple[Step, ...]] = tuple(Step)
POINT_OF_NO_RETURN: Final = Step.COMMIT

TEXT: Final[dict[Step, str]] = {
    Step.PREFLIGHT: "look for work at risk",
    Step.SEAL: "take nothing new, mark all of its sessions to be ended",
    Step.TEARDOWN: "run its teardown command",
    Step.DISPOSE: "end its sessions",
    Step.RECHECK: "look for work at risk again, now that nothing runs",
    Step.COMMIT: "point of no return",
    Step.CREDENTIAL: "remove its credential for good",
    Step.ARTIFACTS: "move its artifacts to the trash",
    Step.FOLDER: "move its folder to the trash",
    Step.FINISH: "close its rows",
}


def next_step(done: Collection[Step]) -> Step | None:
    """Return the first step that is not done; None when all are."""
    return next((step for step in STEPS if step not in done), None)


def is_past_return(done: Collection[Step]) -> bool:
    """Tell whether the saga can only go forward."""
    return POINT_OF_NO_RETURN in done


def has_only_folder_left(done: Collection[Step]) -> bool:
    """Tell whether all but the folder has gone that was to go from the disk."""
    return Step.ARTIFACTS in done and Step.FOLDER not in done


def on_failure(step: Step, done: Collection[Step]) -> OnFailure:
    """Return what the failure of a step means."""
    if is_past_return(done) or step is POINT_OF_NO_RETURN:
        return OnFailure.RETRY
    return OnFailure.COMPENSATE


@attrs.frozen(kw_only=True)
class Planned:
    """One line of a plan: what a step would do here; empty when it has nothing to do."""

    step: Step
    text: str
    subjects: tuple[str, ...] = ()


def plan_delete(
    workspace: Workspace,
    sessions: Sequence[SessionRow],
    *,
    skips_teardown: bool = False,
    owned: Mapping[PathRole, OwnedPath] | None = None,
    done: Collection[Step] = (),
) -> tuple[Planned, ...]:
    """Say what deleting a workspace would do now, step by step, without what is done already."""
    subjects: dict[Step, tuple[str, ...]] = {
        Step.TEARDOWN: () if skips_teardown else workspace.teardown or (),
        Step.DISPOSE: tuple(sorted(row.id for row in sessions if not row.is_ended)),
        Step.CREDENTIAL: _owned(owned, PathRole.CREDENTIAL),
        Step.ARTIFACTS: _owned(owned, PathRole.ARTIFACTS),
        Step.FOLDER: (workspace.path,) if workspace.is_ours else (),
    }
    return tuple(
        Planned(step=step, text=_text(step, workspace), subjects=subjects.get(step, ()))
        for step in STEPS
        if step not in done and (step not in _MAY_BE_IDLE or subjects[step])
    )


_MAY_BE_IDLE: Final = frozenset({Step.TEARDOWN, Step.DISPOSE, Step.CREDENTIAL, Step.ARTIFACTS})


def _owned(owned: Mapping[PathRole, OwnedPath] | None, role: PathRole) -> tuple[str, ...]:
    return (owned[role].path,) if owned and role in owned else ()


def _text(step: Step, workspace: Workspace) -> str:
    if step is Step.FOLDER and not workspace.is_ours:
        return "leave its folder alone: it was there before"
    if step is Step.FOLDER and workspace.common_dir is not None:
        return f"{TEXT[step]}, out of its repository {workspace.common_dir}"
    return TEXT[step]
