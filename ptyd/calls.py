"""What every client of ours does the same way, whatever its I/O.

Owns four rules: what a client says in its hello, how a failed connection becomes a `PtydError`,
which calls may be sent a second time, and how long an answer may take. Never does I/O.

Imports the protocol's light half only: a quick command pays for this module at every start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.limits import MAX_INPUT_BYTES, PROTOCOL

Params = dict[str, Any]

REPEATABLE: Final = frozenset(
    ["hello", "session.list", "session.get", "session.read", "session.wait", "daemon.stats"]
)
"""Calls that change nothing: the only ones ever sent again after a lost connection."""

ANSWER_DEADLINE_S: Final = 30.0
"""A daemon that is alive answers in milliseconds; a machine that swaps may need this long."""

KILL_DEADLINE_S: Final = 15.0
"""What a kill may take beyond its two graces: 10 s for the proof, and some for the answer."""

INPUT_WAIT_MS: Final = 10_000
"""How long one piece of a long input waits for room before `input_full` is believed."""


def hello_params(client: str) -> Params:
    """Return what to say in `hello`: errors as maps, because only those carry data."""
    return {"client": client, "protocols": [PROTOCOL], "errors": "map"}


def interrupted(method: str, why: str, repeatable: frozenset[str] = REPEATABLE) -> PtydError:
    """Return the error for a call whose answer was lost: nobody knows whether it was carried
    out."""
    if method in repeatable:
        return PtydError(Code.UNREACHABLE, f"{why}; {method} was not answered")
    message = f"{why} before {method} was answered; look whether it took effect before repeating it"
    return PtydError(Code.MAYBE_APPLIED, message, method=method)


def answer_deadline_s(method: str, params: Mapping[str, Any]) -> float | None:
    """Return how long the answer to a call may take, None for as long as it likes."""
    match method:
        case "session.wait":
            asked_ms = params.get("timeout_ms")
            return None if asked_ms is None else ANSWER_DEADLINE_S + asked_ms / 1000
        case "session.kill":
            return KILL_DEADLINE_S + 2 * float(params.get("grace_ms", 1000)) / 1000
        case _:
            return ANSWER_DEADLINE_S + float(params.get("wait_ms", 0)) / 1000


def repeated_params(method: str, params: Params, spent_s: float) -> Params:
    """Return the params to send again after `spent_s`: a wait's time allowed does not start
    anew."""
    if method != "session.wait" or params.get("timeout_ms") is None:
        return params
    return {**params, "timeout_ms": max(0, params["timeout_ms"] - int(spent_s * 1000))}


def input_pieces(data: bytes) -> Iterator[bytes]:
    """Cut input into what one `session.input` may carry."""
    for start in range(0, len(data), MAX_INPUT_BYTES):
        yield data[start : start + MAX_INPUT_BYTES]


@contextlib.contextmanager
def launch_errors() -> Iterator[None]:
    """Turn what `ptyd.launch` and `ptyd.paths` raise into a `PtydError` with a code."""
    from ptyd.launch import Busy, Nested, Unreachable
    from ptyd.paths import RuntimeDirError

    try:
        yield
    except Nested as error:
        raise PtydError(Code.NESTED, str(error)) from error
    except Busy as error:
        raise PtydError(Code.BUSY, str(error)) from error
    except (Unreachable, RuntimeDirError) as error:
        raise PtydError(Code.UNREACHABLE, str(error)) from error
    except OSError as error:  # no descriptor or no memory is left for it
        raise PtydError(Code.UNREACHABLE, f"cannot connect to a daemon: {error.strerror}") from error
