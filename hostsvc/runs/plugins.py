"""What a sort of resource has to offer to be ended with its run, and to be swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hostsvc.runs.policy import Resource


class Plugin(Protocol):
    """One sort of resource that can carry a run's label."""

    name: str

    async def check(self) -> bool:
        """Make sure, before anything is listed, that it is this host's and can be seen.

        Returns:
            False when this host has nothing of the sort, so that there is nothing to look at.

        Raises:
            PtydError: it is another host's, or cannot be reached.
        """
        ...

    async def find(self, run: str | None) -> Sequence[Resource]:
        """List what carries the label of a run, or of any; never anything without one.

        Raises:
            PtydError: it cannot all be seen. That is never an empty list.
        """
        ...

    async def look(self, resource: Resource) -> Resource | None:
        """Look at one again, just before it is ended; None when it is gone for certain.

        Raises:
            PtydError: nobody can tell.
        """
        ...

    async def end(self, resource: Resource) -> Mapping[str, object]:
        """End it, see that it is gone, and return how that is known.

        Raises:
            PtydError: it was tried and is not proven.
        """
        ...
