"""A teardown command's end: nobody waits for ever for a ptyd that does not answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from hostsvc.births import Births
from hostsvc.live import Live
from hostsvc.model import Saga, Workspace
from hostsvc.teardown import Teardown
from ptyd.client import Exit
from ptyd.protocol.errors import Code, PtydError

SAGA = cast(Saga, SimpleNamespace(id="s"))
PLACE = cast(Workspace, SimpleNamespace(id="w", path="/", teardown=("true",)))


class Silent:
    """A ptyd that is stopped: it takes every call and never answers."""

    def client(self) -> Any:
        return self

    async def get(self, _: str) -> Any:
        await trio.sleep_forever()


class Ending(Silent):
    """A ptyd in which the command has ended so; notes what it was told to do."""

    def __init__(self, exit_: Exit | None) -> None:
        self.exit = exit_
        self.told: list[str] = []

    async def get(self, _: str) -> Any:
        raise PtydError(Code.NOT_FOUND, "no such session")

    async def spawn(self, *_: Any, **__: Any) -> None:
        self.told.append("spawn")

    async def wait(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(exit=self.exit, offset=4)

    async def read(self, *_: Any) -> Any:
        return SimpleNamespace(data=b"said")

    async def forget(self, _: str) -> None:
        self.told.append("forget")
        raise PtydError(Code.UNREACHABLE, "gone")

    async def kill(self, *_: Any, **__: Any) -> None:
        self.told.append("kill")


def teardown(ptyd: Silent) -> Teardown:
    births = Births(*[cast(Any, None)] * 6, owner="o", run_id="r")
    return Teardown(cast(Live, ptyd), cast(Births, births), owner="o")


async def test_a_ptyd_that_never_answers_holds_up_no_deletion(autojump_clock: MockClock) -> None:
    with pytest.raises(PtydError) as refused:
        await teardown(Silent()).run(SAGA, PLACE)
    assert refused.value.code is Code.NO_PTYD


async def test_one_that_ends_well_is_forgotten_and_that_is_no_condition() -> None:
    ptyd = Ending(Exit(code=0))
    await teardown(ptyd).run(SAGA, PLACE)
    assert ptyd.told == ["spawn", "forget"]


@pytest.mark.parametrize("exit_,how", [(Exit(code=3), "with 3: said"), (None, "nobody knows: said")])
async def test_one_that_fails_is_ended_and_says_how(exit_: Exit | None, how: str) -> None:
    ptyd = Ending(exit_)
    with pytest.raises(PtydError, match=how) as refused:
        await teardown(ptyd).run(SAGA, PLACE)
    assert refused.value.code is Code.SPAWN_FAILED
    assert ptyd.told == ["spawn", "kill"]
