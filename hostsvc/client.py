"""How commands reach the host service: the blocking client, on this service's socket.

Never starts it: a service that decides what is deleted is started by a person or by systemd.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from ptyd import paths
from ptyd.blocking import BlockingClient, Service
from ptyd.calls import ANSWER_DEADLINE_S
from ptyd.launch import Busy, Unreachable

SOCKET: Final = "hostsvc.sock"
REPEATABLE: Final = frozenset(
    [
        "hello",
        "workspace.list",
        "workspace.get",
        "session.list",
        "saga.list",
        "saga.get",
        "run.list",
        "run.get",
        "passes",
        "health",
    ]
)
"""What changes nothing. Deletions and disposals are idempotent, but whether to repeat one is the caller's."""
LASTING: Final = frozenset(["workspace.delete", "saga.resume", "run.end", "reap"])
"""As long as they take: they say how far they are by events."""
DISPOSE_DEADLINE_S: Final = 90.0


def connect(path: str, start: bool, deadline_s: float) -> socket.socket:
    """Connect to the host service of a runtime directory.

    Raises:
        Unreachable, Busy: it does not run, or does not accept in time.
        paths.RuntimeDirError: the directory cannot be trusted.
    """
    try:
        runtime = paths.open_runtime(path, create=False)
    except paths.RuntimeDirError as error:
        if os.path.lexists(os.path.join(path, paths.SESSIONS)):
            raise
        raise Unreachable(f"no host service serves {path}; start one: hostsvc serve") from error
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    give_up_at = time.monotonic() + deadline_s
    with runtime:
        while True:
            try:
                unix.settimeout(max(0.01, give_up_at - time.monotonic()))
                unix.connect(runtime.address(SOCKET))
            except (BlockingIOError, TimeoutError):
                if time.monotonic() < give_up_at:
                    time.sleep(0.02)
                    continue
                unix.close()
                raise Busy(f"the host service of {path} is alive but does not answer; try again") from None
            except OSError as error:
                unix.close()
                text = f"no host service serves {path} ({error.strerror}); start one: hostsvc serve"
                raise Unreachable(text) from error
            unix.settimeout(None)
            return unix


def answer_deadline_s(method: str, params: Mapping[str, Any]) -> float | None:
    """Return how long the answer to a call may take; None for as long as it likes."""
    if method in LASTING:
        return None
    return DISPOSE_DEADLINE_S if method.startswith("session.") else ANSWER_DEADLINE_S


HOSTSVC: Final = Service(connect, REPEATABLE, answer_deadline_s)


def open_client(path: str | None = None, *, deadline_s: float = 10.0) -> BlockingClient:
    """Return a client of the host service; see `BlockingClient`.

    Raises:
        PtydError: unreachable, busy.
    """
    return BlockingClient.connect(
        path, start=False, name="hostsvc-cli", deadline_s=deadline_s, service=HOSTSVC
    )
