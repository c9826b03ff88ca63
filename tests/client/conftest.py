"""A wire to cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.proxy import Proxy
from tests.support.daemon import RuntimeDir


@pytest.fixture
def proxy(daemon: RuntimeDir) -> Iterator[Proxy]:
    """A proxy in front of the daemon of this test."""
    with Proxy(daemon.base / "p", daemon.socket) as proxy:
        yield proxy
