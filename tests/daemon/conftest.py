"""Fixtures of the daemon's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.daemon import RuntimeDir
from tests.support.rpc import Rpc

Connect = Callable[[], Rpc]


@pytest.fixture
def connect(shared_runtime: RuntimeDir) -> Iterator[Connect]:
    """Connect to the module's daemon, with errors as maps; every connection ends with the test."""
    with ExitStack() as stack:

        def connect() -> Rpc:
            rpc = stack.enter_context(shared_runtime.connect())
            rpc.call("hello", client="test", protocols=[1], errors="map")
            return rpc

        yield connect


@pytest.fixture
def rpc(connect: Connect) -> Rpc:
    """One connection to the module's daemon."""
    return connect()
