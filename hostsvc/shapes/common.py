"""What several answers have in common, and the answer to hello."""

from __future__ import annotations

from typing import Final

import attrs

from ptyd.protocol import limits
from ptyd.protocol.fields import spec
from ptyd.protocol.kinds import ANY_MAP, ANY_STRING, array, choice, integer
from ptyd.protocol.results import PID

STRINGS: Final = array(ANY_STRING)


@attrs.frozen(kw_only=True)
class HelloResult:
    """Who serves here."""

    server: str = attrs.field(metadata=spec(choice("hostsvc"), "what this is"))
    version: str = attrs.field(metadata=spec(ANY_STRING, "for showing"))
    protocol: int = attrs.field(
        metadata=spec(integer(limits.PROTOCOL, limits.PROTOCOL, "1"), "the one spoken from here on")
    )
    daemon_id: str = attrs.field(metadata=spec(ANY_STRING, "this process of the host service"))
    index_id: str = attrs.field(metadata=spec(ANY_STRING, "the index; the owner label of its sessions"))
    pid: int = attrs.field(metadata=spec(PID, "the host service's"))
    features: list[str] = attrs.field(metadata=spec(STRINGS, "optional abilities; ignore unknown ones"))
    limits: dict[str, int] = attrs.field(metadata=spec(ANY_MAP, "see Limits"))
