"""What the host service answers about deletions."""

from __future__ import annotations

from typing import Any, Final

import attrs

from hostsvc.shapes.common import STRINGS
from hostsvc.states import SagaState
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import ANY_MAP, ANY_STRING, COUNT, GENERATION, SESSION_ID, array, choice, shape


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


SAGA: Final = shape(Saga, "saga")


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
