"""What every handler has at hand, and the one check that several of them make."""

from __future__ import annotations

import attrs

from ptyd.daemon.births import Births
from ptyd.daemon.killing import Killer
from ptyd.daemon.registry import Registry
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog


@attrs.frozen(kw_only=True)
class Identity:
    """Who this daemon is."""

    instance_id: str
    daemon_id: str
    started_at: float


@attrs.frozen(kw_only=True)
class Context:
    """The daemon as handlers see it."""

    registry: Registry
    births: Births
    killer: Killer
    events: EventLog
    identity: Identity

    def check_instance(self, expected: str | None) -> None:
        """Refuse what was meant for another runtime directory.

        Raises:
            PtydError: `wrong_instance`.
        """
        if expected is not None and expected != self.identity.instance_id:
            message = f"this is instance {self.identity.instance_id}; nothing was done"
            raise PtydError(Code.WRONG_INSTANCE, message, instance_id=self.identity.instance_id)
