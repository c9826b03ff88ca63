"""The paths of workspaces as values: what each is for, and which file or directory it was.

Owns no rule and does no I/O.
"""

from __future__ import annotations

import enum

import attrs


class PathRole(enum.StrEnum):
    """What one of a workspace's paths is for."""

    FOLDER = "folder"
    CREDENTIAL = "credential"
    ARTIFACTS = "artifacts"


@attrs.frozen(kw_only=True)
class OwnedPath:
    """A path that we made, or were about to: its identity is not known before it was there."""

    path: str
    role: PathRole
    workspace_id: str
    generation: int
    device: int | None
    inode: int | None
    created_at_ms: int

    @property
    def identity(self) -> tuple[int, int] | None:
        return None if self.device is None or self.inode is None else (self.device, self.inode)
