"""A session as the wire shows it.

Pure over what the daemon knows: builds the plain map that protocol.md describes, and decides `busy`.
For lists it comes packed, and what is packed once of a session is kept until it changes.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ptyd.daemon.session import Session
from ptyd.datagrams import Body
from ptyd.protocol.codec import open_map, pack_pairs
from ptyd.protocol.states import SessionState

SHELLS = frozenset(
    {"sh", "bash", "zsh", "fish", "dash", "ksh", "mksh", "tcsh", "csh", "nu", "xonsh", "elvish"}
)
BUSY_OUTPUT_MS = 10_000  # output younger than this: somebody is at work


def session_row(session: Session, look: Body | None = None) -> dict[str, Any]:
    """Return the session as protocol.md describes it; `look` is the shim's answer to a detailed one."""
    return _settled(session) | _moving(session, look)


def pack_row(session: Session, look: Body | None = None) -> bytes:
    """Return the row packed, for a list; what seldom changes is packed once for many of them."""
    moving = _moving(session, look)
    if session.packed is None:
        session.packed = open_map(_settled(session), more=len(moving))
    return session.packed + pack_pairs(moving)


def _settled(session: Session) -> dict[str, Any]:
    """What changes only with the session's record, facts or state."""
    known = session.known
    return {
        "id": session.id,
        "generation": known["generation"],
        "name": known.get("name") or None,
        "state": session.state.value,
        "argv": known["argv"],
        "cwd": known["cwd"],
        "pid": known.get("pid"),
        "pid_start": known.get("pid_start"),
        "rows": known.get("rows"),
        "cols": known.get("cols"),
        "labels": known.get("labels") or {},
        "created_at_ms": known["created_at_ms"],
        "exit": known.get("exit"),
        "proof": known.get("proof"),
        "ended_at_ms": known.get("ended_at_ms"),
        "shim_pid": known.get("shim_pid"),
        "shim_start": known.get("shim_start"),
        "boot_id": known.get("boot_id"),
    }


def _moving(session: Session, look: Body | None) -> dict[str, Any]:
    """What is another at every look."""
    output = session.output
    quiet_ms = session.quiet_ms()
    return {
        "age_ms": max(0, time.time_ns() // 1_000_000 - session.known["created_at_ms"]),
        "attached": session.attached,
        "output_offset": output.head if output else 0,
        "scrollback_start": output.start if output else 0,
        "last_output_age_ms": quiet_ms,
        "foreground": look.get("foreground") if look else None,
        "busy": _is_busy(session, look, quiet_ms) if look is not None else None,
        "processes": look.get("processes") if look else None,
    }


def _is_busy(session: Session, look: Body, quiet_ms: int | None) -> bool:
    """Not knowing counts as busy."""
    if session.state is SessionState.EXITED:
        return False
    foreground = look.get("foreground")
    is_idle = (
        foreground is not None
        and foreground["pgid"] == session.fact("pid")
        and not session.attached
        and not session.is_followed
        and (quiet_ms is None or quiet_ms > BUSY_OUTPUT_MS)
        and os.path.basename(session.record["argv"][0]).lstrip("-") in SHELLS
    )
    return not is_idle
