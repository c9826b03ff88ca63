"""What the fields of this service's methods may be, beyond `ptyd.protocol.kinds`; and the bounds it tells.

Pure. No refusal quotes a path or a command: secrets travel there.
"""

from __future__ import annotations

import re
from typing import Final

from hostsvc.model import RESERVED_LABELS, RUN_LABEL
from ptyd.protocol import limits
from ptyd.protocol.fields import Kind, Refusal, refuse
from ptyd.protocol.kinds import LABELS, array, data, integer, matching

MAX_LISTED: Final = 100
"""Of passes or sagas in one answer: each may have hundreds of lines."""
MAX_LABELS: Final = limits.MAX_LABELS - 3
"""Three of ptyd's are the host service's own: its owner, its workspace, its run."""
MAX_TEXT: Final = 4096
MAX_CREDENTIAL_BYTES: Final = 65_536
MAX_CLIENTS: Final = 256
_SHARED: Final = ("frame_bytes", "reply_bytes", "depth", "items", "array_items", "map_items")
LIMITS: Final[dict[str, int]] = {
    **{name: limits.ADVERTISED[name] for name in (*_SHARED, "requests_in_flight", "events_kept")},
    "labels": MAX_LABELS,
    "clients": MAX_CLIENTS,
}
"""What the answer to hello tells."""


def _parse_own_labels(value: object) -> dict[str, str]:
    labels: dict[str, str] = LABELS.parse(value)
    for key in labels:
        if key.startswith(RESERVED_LABELS):
            raise Refusal(f"expected no label that begins with {RESERVED_LABELS}", key)
        if key == RUN_LABEL:  # by hand it would bypass the check that the run still takes something
            raise Refusal(f"expected no label {RUN_LABEL}; give the param {RUN_LABEL} in its place", key)
    if len(labels) > MAX_LABELS:
        raise Refusal(f"expected at most {MAX_LABELS} labels, got {len(labels)}")
    return labels


OWN_LABELS: Final = Kind(
    "{str: str}",
    f"at most {MAX_LABELS} labels, not `{RUN_LABEL}`, none beginning with `{RESERVED_LABELS}`",
    _parse_own_labels,
)
_PLAIN: Final = re.compile(rf"[^\x00\ud800-\udfff]{{0,{MAX_TEXT}}}", re.DOTALL).fullmatch


def _parse_text(value: object) -> str:
    """What goes into the index, to the file system and to exec: neither NUL nor what is no UTF-8."""
    if type(value) is str and _PLAIN(value):
        return value
    raise refuse(f"a string of at most {MAX_TEXT} characters, without NUL", value)


TEXT: Final = Kind("str", f"at most {MAX_TEXT} characters, no NUL", _parse_text)
ENTRY: Final = matching(
    r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", "an id or a name", "1..80 of `A-Z a-z 0-9 . _ -`"
)
CREDENTIAL: Final = data(1, MAX_CREDENTIAL_BYTES)
ANYTHING: Final = Kind("any", "", lambda value: value)
"""For what is judged by its meaning, and must not fail by its form."""
COMMAND: Final = array(TEXT, 1, 64, f"1..64 strings of at most {MAX_TEXT} characters")
LISTED: Final = integer(1, MAX_LISTED)
