"""What ptyd tells, as the host service's own values; and believed only when it makes sense. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Final

from hostsvc.model import OWNER_LABEL, RUN_LABEL, WORKSPACE_LABEL, LiveSession
from ptyd.client import Exit, Listing, PtydError, Session
from ptyd.protocol.errors import Code
from ptyd.protocol.results import PROOFS

_NUMBERS: Final = ("ended_at_ms", "shim_pid", "shim_start", "pid", "pid_start")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "id": (str,),
    "generation": (int,),
    "state": (str,),
    "labels": (dict,),
    "created_at_ms": (int,),
    "boot_id": (str, NoneType),
    "age_ms": (int,),
    "attached": (int,),
    "output_offset": (int,),
    "last_output_age_ms": (int, NoneType),
    "busy": (bool, NoneType),
    **dict.fromkeys(_NUMBERS, (int, NoneType)),
}
"""What decisions and rows rest on: a ptyd that gets one of these wrong is not believed at all."""


def believed(listing: Listing) -> Listing:
    """Return a list that makes sense; what does not is no list.

    Raises:
        PtydError: protocol_violation.
    """
    heads: list[tuple[object, type]] = [(listing.instance_id, str), (listing.complete, bool)]
    if not all(isinstance(value, kind) for value, kind in heads):
        raise PtydError(Code.PROTOCOL_VIOLATION, "ptyd's list does not say whose, or whether all, it is")
    for session in listing.sessions:
        sound(session)
    return listing


def sound(session: Session) -> Session:
    """Return a session that makes sense.

    Raises:
        PtydError: protocol_violation.
    """
    odd = [name for name, types in _TYPES.items() if not isinstance(getattr(session, name), types)]
    if odd or session.proof not in (None, *PROOFS):
        text = f"what ptyd says of session {session.id!a} makes no sense ({', '.join(odd) or 'proof'})"
        raise PtydError(Code.PROTOCOL_VIOLATION, text)
    return session


def live_session(session: Session) -> LiveSession:
    """A session of ptyd's as the host service sees it."""
    return LiveSession(
        id=session.id,
        generation=session.generation,
        state=session.state,
        owner=session.labels.get(OWNER_LABEL),
        workspace_id=session.labels.get(WORKSPACE_LABEL),
        run=session.labels.get(RUN_LABEL),
        created_at_ms=session.created_at_ms,
        ended_at_ms=session.ended_at_ms,
        proof=session.proof,
        exit=exit_map(session.exit),
        shim_pid=session.shim_pid,
        shim_start=session.shim_start,
        boot_id=session.boot_id,
        pid=session.pid,
        pid_start=session.pid_start,
    )


def exit_map(found: Exit | None) -> dict[str, int] | None:
    if found is None:
        return None
    return {"code": found.code} if found.code is not None else {"signal": found.signal or 0}
