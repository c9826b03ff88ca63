"""Fixtures of the host service's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon import RuntimeDir
from tests.support.host import HostService


@pytest.fixture(scope="module")
def shared_host(shared_runtime: RuntimeDir) -> Iterator[HostService]:
    """One running host service for all tests of a module that only use it."""
    service = HostService(shared_runtime).start()
    yield service
    service.stop()
