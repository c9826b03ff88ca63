"""The fake ptyd of the model and the real one keep the same promises to the host service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from hostsvc.live import Live, NotThere, Proven, Unproven
from hostsvc.model import OWNER_LABEL, WORKSPACE_LABEL, Known, LiveView
from ptyd.protocol.errors import Code, PtydError
from tests.hostsvc.world import FakePtyd, Fault, World
from tests.support.daemon import RuntimeDir

LABELS = {OWNER_LABEL: "us", WORKSPACE_LABEL: "w"}
Open = Callable[[], contextlib.AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["fake", "real"])
def open_live(request: pytest.FixtureRequest) -> Open:
    """Either of the two, to be opened by the test."""

    @contextlib.asynccontextmanager
    async def fake() -> AsyncIterator[Any]:
        await trio.lowlevel.checkpoint()
        yield FakePtyd(World())

    if request.param == "fake":
        return fake
    daemon: RuntimeDir = request.getfixturevalue("daemon")

    @contextlib.asynccontextmanager
    async def real() -> AsyncIterator[Any]:
        live = Live(str(daemon.path), start=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)  # noqa: ASYNC113 - `tried` says when it is up
            await live.tried.wait()
            yield live
            nursery.cancel_scope.cancel()

    return real


async def spawn(live: Any, id_: str, generation: int = 1) -> Any:
    return await live.spawn(
        (id_, generation), [b"sleep", b"100000"], labels=LABELS, expect_instance=live.instance()
    )


async def view(live: Any) -> LiveView:
    found = await live.view()
    assert isinstance(found, Known)
    assert found.value.instance_id == live.instance_id == live.instance() == live.hello["instance_id"]
    return found.value


async def test_a_session_lives_dies_and_is_remembered(open_live: Open) -> None:
    async with open_live() as live:
        born = await spawn(live, "a")
        assert (born.key, born.owner, born.workspace_id, born.is_alive) == (("a", 1), "us", "w", True)
        assert (await view(live)).sessions[born.key].is_alive
        killed = await live.kill(born.key, is_forced=True, instance_id=live.instance())
        assert isinstance(killed, Proven)
        assert (killed.evidence["proof"], killed.evidence["outcome"]) == ("echild", "killed")
        again = await live.kill(born.key, is_forced=True, instance_id=live.instance())
        assert isinstance(again, Proven)
        assert again.evidence["outcome"] == "already_exited"
        listed = (await view(live)).sessions[born.key]
        assert (listed.is_alive, listed.proof) == (False, "echild")
        got = await live.get("a")
        assert isinstance(got, Known)
        assert got.value == listed


async def test_C20_a_kill_fences_what_comes_late(open_live: Open) -> None:
    async with open_live() as live:
        assert await live.kill(("b", 1), is_forced=False, instance_id=live.instance()) == NotThere()
        with pytest.raises(PtydError) as fenced:
            await spawn(live, "b")
        assert fenced.value.code is Code.FENCED
        assert (await spawn(live, "b", generation=2)).is_alive
        await live.kill(("b", 2), is_forced=True, instance_id=live.instance())


async def test_P5_another_instance_is_left_alone(open_live: Open) -> None:
    async with open_live() as live:
        born = await spawn(live, "c")
        refused = await live.kill(born.key, is_forced=True, instance_id="another")
        assert isinstance(refused, Unproven)
        assert refused.error.code is Code.WRONG_INSTANCE
        assert (await view(live)).sessions[born.key].is_alive
        with pytest.raises(PtydError) as elsewhere:
            await live.spawn(("d", 1), [b"sleep"], labels=LABELS, expect_instance="another")
        assert elsewhere.value.code is Code.WRONG_INSTANCE
        assert ("d", 1) not in (await view(live)).sessions
        assert not isinstance(await live.get("d"), Known)
        await live.kill(born.key, is_forced=True, instance_id=live.instance())


async def test_a_spawn_that_is_refused_leaves_nothing(open_live: Open) -> None:
    async with open_live() as live:
        if isinstance(live, FakePtyd):
            live.spawn_fault = Fault.REFUSES
        with pytest.raises(PtydError) as refused:
            await live.spawn(("e", 1), [b"/no/such"], labels=LABELS, expect_instance=live.instance())
        assert refused.value.code not in (Code.NO_PTYD, Code.WRONG_INSTANCE)
        found = (await view(live)).sessions.get(("e", 1))
        assert found is None or not found.is_alive
