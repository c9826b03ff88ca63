"""Descriptors: some are kept back, so that clients and sessions can never take them all.

Writing down a kill, looking up a user and turning a client away each need one for a moment; without it
whoever opens enough connections would keep everybody from killing anything.
"""

from __future__ import annotations

import resource

RESERVED = 32


def is_reserved(fd: int) -> bool:
    """Tell whether a new descriptor is one of those kept back: the kernel gives the lowest free one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return fd >= soft - RESERVED
