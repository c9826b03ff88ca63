"""A session as the wire shows it.

Pure over what the daemon knows: builds the plain map that protocol.md describes, and decides `busy`.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ptyd.daemon.session import Session
from ptyd.protocol.states import SessionState
from ptyd.shim.link import Body

SHELLS = frozenset(
    {"sh", "bash", "zsh", "fish", "dash", "ksh", "mksh", "tcsh", "csh", "nu", "xonsh", "elvish"}
)
BUSY_OUTPUT_MS = 10_000  # output younger than this: somebody is at work


def session_row(session: Session, look: Body | None = None) -> dict[str, Any]:
    """Return the session as protocol.md describes it; `look` is the shim's answer to a detailed one."""
    now_ms = time.time_ns() // 1_000_000
    output = session.output
    quiet_ms = session.quiet_ms()
    created_at_ms = session.record["created_at_ms"]
    return {
        "id": session.id,
        "generation": session.generation,
        "name": session.name,
        "state": session.state.value,
        "argv": session.record["argv"],
        "cwd": session.record["cwd"],
        "pid": session.fact("pid"),
        "pid_start": session.fact("pid_start"),
        "rows": session.fact("rows"),
        "cols": session.fact("cols"),
        "labels": session.record.get("labels") or {},
        "created_at_ms": created_at_ms,
        "age_ms": max(0, now_ms - created_at_ms),
        "attached": session.attached,
        "output_offset": output.head if output else 0,
        "scrollback_start": output.start if output else 0,
        "last_output_age_ms": quiet_ms,
        "foreground": look.get("foreground") if look else None,
        "busy": _is_busy(session, look, quiet_ms) if look is not None else None,
        "processes": look.get("processes") if look else None,
        "exit": session.exit,
        "proof": session.fact("proof"),
        "ended_at_ms": session.fact("ended_at_ms"),
        "shim_pid": session.fact("shim_pid"),
        "shim_start": session.fact("shim_start"),
        "boot_id": session.fact("boot_id"),
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
        and (quiet_ms is None or quiet_ms > BUSY_OUTPUT_MS)
        and os.path.basename(session.record["argv"][0]).lstrip("-") in SHELLS
    )
    return not is_idle
