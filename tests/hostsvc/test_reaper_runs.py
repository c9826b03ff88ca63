"""The kind `runs` in the engine, over plug-ins that a test holds in its hand: looks, acts and doubts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from hostsvc.disposal import Disposal
from hostsvc.model import Unknown
from hostsvc.policy import Limits
from hostsvc.reaper.engine import Reaper, Schedule
from hostsvc.reaper.gate import Caps
from hostsvc.reaper.runs import LabelledRuns
from hostsvc.run import Run
from hostsvc.runs.lifecycle import Runs
from hostsvc.runs.policy import Resource, RunLimits
from hostsvc.states import RunState
from hostsvc.store import runs
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog
from tests.hostsvc.store import InlineIndex, inline_index
from tests.hostsvc.values import NOW, OLD

US, DEAD_PID = "us", 2**22 + 1


class FakePlugin:
    """Things that carry a run's label; what is to go wrong is the test's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.things: dict[str, Resource] = {}
        self.calls: list[str] = []
        self.failure: PtydError | None = None
        self.is_there = True
        self.deaf: set[str] = set()
        self.on_look: Callable[[], None] = lambda: None

    def add(self, *ids: str, run: str = "a", **fields: Any) -> None:
        for id_ in ids:
            plain = {"plugin": self.name, "id": id_, "run": run, "created_at_ms": OLD}
            self.things[id_] = Resource(**{**plain, **fields})

    async def check(self) -> bool:
        self.calls.append("check")
        await self._arrive()
        return self.is_there

    async def find(self, run: str | None) -> Sequence[Resource]:
        self.calls.append(f"find {run}")
        await self._arrive()
        return [one for one in self.things.values() if run in (None, one.run)]

    async def look(self, resource: Resource) -> Resource | None:
        self.on_look()
        await self._arrive()
        return self.things.get(resource.id)

    async def end(self, resource: Resource) -> Mapping[str, object]:
        self.calls.append(f"end {resource.id}")
        if resource.id in self.deaf:
            raise PtydError(Code.KILL_UNCONFIRMED, "it is still there")
        self.things.pop(resource.id, None)
        return {"proof": "fake"}

    async def _arrive(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure


class Blind:
    """A ptyd that nothing here needs."""

    async def view(self) -> Unknown:
        return Unknown("nobody looks")


@attrs.define
class Rig:
    """A reaper of runs, and the runs."""

    index: InlineIndex
    one: FakePlugin = attrs.Factory(lambda: FakePlugin("one"))
    other: FakePlugin = attrs.Factory(lambda: FakePlugin("other"))
    now_ms: int = NOW
    events: EventLog = attrs.field(init=False)
    runs: Runs = attrs.field(init=False)
    reaper: Reaper = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.events = EventLog("run", self.clock)
        blind: Any = Blind()
        disposal = Disposal(self.index, blind, self.events, self.clock, 4)
        self.runs = Runs(self.index, disposal, [self.one, self.other], self.events, self.clock)
        limits = RunLimits(age_ms=600_000, absence=Limits(age_floor_ms=60_000))
        self.reaper = Reaper(
            [LabelledRuns(self.index, self.runs, limits)],
            self.index,
            blind,
            self.events,
            self.clock,
            caps=Caps(count=10, share=0.5),
            schedule=Schedule(),
        )

    def clock(self) -> int:
        return self.now_ms

    async def start(self, id_: str = "a", holder_pid: int | None = DEAD_PID, **fields: Any) -> None:
        """Write a run as an earlier time has left it; its holder is gone."""
        run = Run(
            id=id_,
            state=RunState.OPEN,
            holder_pid=holder_pid,
            holder_start=1,
            boot_id="another",
            created_at_ms=OLD,
            deadline_at_ms=None,
        )
        assert await self.index.write(runs.insert, attrs.evolve(run, **fields))

    async def run_pass(self, **params: Any) -> dict[str, Any]:
        """Run a pass, a minute after the last."""
        self.now_ms += 60_000
        return await self.reaper.run_pass("manual", **params)

    async def state(self, id_: str = "a") -> RunState:
        return (await self.runs.find(id_)).state

    def ended(self) -> list[str]:
        return [call.split()[1] for one in (self.one, self.other) for call in one.calls if "end " in call]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    index = inline_index(tmp_path / "state")
    yield Rig(index)
    index.close()


def acts(found: Mapping[str, Any]) -> dict[str, str]:
    return {act["subject"]: f"{act['action']} {act['outcome']}" for act in found["acts"]}


async def test_D6_what_nobody_holds_goes_and_its_run_takes_nothing_meanwhile(rig: Rig) -> None:
    await rig.start()
    await rig.start("b", holder_pid=None)
    rig.one.add("x", "y")
    rig.other.add("z")
    rig.one.add("kept", run="b")
    assert acts(await rig.run_pass()) == {}
    assert await rig.state() is RunState.OPEN
    found = await rig.run_pass()
    assert acts(found) == {"one/x": "end done", "one/y": "end done", "other/z": "end done"}
    assert found["counts"]["seen"] == 4
    assert await rig.state() is RunState.ENDING
    assert acts(await rig.run_pass()) == {"run/a": "settle done"}
    assert await rig.state() is RunState.ENDED
    assert list(rig.one.things) == ["kept"]
    told = [(one["type"], one["id"]) for one in rig.events.after(0, 99) if one["type"].startswith("run.")]
    assert told == [("run.ending", "a"), ("run.ended", "a")]
    assert (await rig.run_pass())["acts"] == []


async def test_D9_and_D11_nothing_goes_beyond_the_cap_and_no_run_is_given_up(rig: Rig) -> None:
    await rig.start()
    await rig.start("b", holder_pid=None)
    rig.one.add(*(f"x{number}" for number in range(11)))
    rig.one.add(*(f"kept{number}" for number in range(20)), run="b")
    await rig.run_pass()
    rehearsed = await rig.run_pass(is_dry=True)
    refused = await rig.run_pass()
    assert (refused["state"], refused["refusals"]) == ("refused", ["runs: 11 at once, more than 10"])
    assert (rehearsed["plan_hash"], rehearsed["acts"]) == (refused["plan_hash"], refused["acts"])
    assert rig.ended() == []
    assert await rig.state() is RunState.OPEN
    done = await rig.run_pass(accepted=refused["plan_hash"])
    assert (done["state"], done["counts"]["done"]) == ("ok", 11)


async def test_D10_more_than_half_of_all_that_carries_a_label(rig: Rig) -> None:
    await rig.start()
    rig.one.add("1", "2", "3", "4", "5")
    rig.other.add("foreign-1", "foreign-2", "foreign-3", "foreign-4", is_ours=False)
    await rig.run_pass()
    assert (await rig.run_pass())["refusals"] == ["runs: 5 of 9, more than 50% of all"]
    rig.other.add("foreign-5", is_ours=False)
    assert (await rig.run_pass())["counts"]["done"] == 5


async def test_what_was_asked_for_has_no_cap_and_no_age(rig: Rig) -> None:
    await rig.start()
    await rig.index.write(runs.request_end, "a", NOW)
    rig.one.add(*(f"x{number}" for number in range(20)), created_at_ms=None)
    assert (await rig.run_pass())["counts"]["done"] == 20


async def test_D12_what_one_cannot_see_stops_no_other_and_no_run_is_over(rig: Rig) -> None:
    await rig.start()
    rig.one.add("x")
    rig.other.add("y")
    await rig.run_pass()
    rig.other.failure = PtydError(Code.TIMEOUT, "it was not done within 30 s")
    found = await rig.run_pass()
    assert found["state"] == "error"
    assert found["errors"] == {"runs": "other: timeout: it was not done within 30 s"}
    assert acts(found) == {"one/x": "end done"}
    assert (await rig.run_pass())["acts"] == [], "nobody knows whether something of it is left"
    assert await rig.state() is RunState.ENDING
    rig.other.failure = None
    assert (await rig.run_pass())["counts"]["observed"] == 1, "what was not seen is observed anew"
    assert acts(await rig.run_pass()) == {"other/y": "end done"}


async def test_D12_a_run_that_was_asked_to_end_is_not_over_unseen(rig: Rig) -> None:
    await rig.start()
    rig.other.failure = PtydError(Code.TIMEOUT, "too slow")
    ending = await rig.runs.end("a")
    assert (ending.is_partial, ending.warnings) == (True, ["other: timeout: too slow"])
    assert (await rig.runs.find("a")).last_error == "other: timeout: too slow"
    with pytest.raises(PtydError):
        await rig.runs.settle("a")
    rig.other.failure = None
    rig.other.add("y")
    with pytest.raises(PtydError, match="other/y is left"):
        await rig.runs.settle("a")
    again = await rig.runs.end("a")
    assert (again.is_partial, again.ended, again.run.state) == (False, 1, RunState.ENDED)


async def test_D13_three_of_ten_are_left(rig: Rig) -> None:
    await rig.start()
    rig.one.add(*map(str, range(10)))
    rig.one.deaf = {"0", "1", "2"}
    ending = await rig.runs.end("a")
    assert (ending.ended, sorted(ending.failures)) == (7, ["one/0", "one/1", "one/2"])
    assert ending.run.state is RunState.ENDING
    found = await rig.run_pass()
    assert (found["state"], found["counts"]["failed"]) == ("partial", 3)
    told = [event["partial"] for event in rig.events.after(0, 99) if event["type"] == "run.ended"]
    assert told == [True]
    rig.one.deaf = set()
    assert (await rig.run_pass())["state"] == "ok"
    assert acts(await rig.run_pass()) == {"run/a": "settle done"}
    told = [event["partial"] for event in rig.events.after(0, 99) if event["type"] == "run.ended"]
    assert told == [True, False]


async def test_an_end_that_is_no_end_is_found_by_the_second_look(rig: Rig) -> None:
    """A plug-in that says it is done, and it is not."""
    await rig.start()
    rig.one.add("x")

    async def pretend(resource: Resource) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return {"proof": "none"}

    rig.one.end = pretend  # type: ignore[method-assign]
    ending = await rig.runs.end("a")
    assert ending.warnings == ["one/x: it is still there"]
    assert ending.run.state is RunState.ENDING


async def test_D15_nothing_is_listed_where_the_check_fails(rig: Rig) -> None:
    await rig.start()
    rig.one.failure = PtydError(Code.WRONG_INSTANCE, "another host's")
    await rig.run_pass()
    await rig.runs.end("a")
    assert set(rig.one.calls) == {"check"}


async def test_a_sort_that_is_not_there_is_not_asked(rig: Rig) -> None:
    await rig.start()
    rig.one.is_there = rig.other.is_there = False
    assert (await rig.runs.end("a")).run.state is RunState.ENDED
    assert set(rig.one.calls) == {"check"}


def revive(rig: Rig) -> None:
    rig.one.things["x"] = attrs.evolve(rig.one.things["x"], created_at_ms=rig.now_ms)


def rename(rig: Rig) -> None:
    rig.one.things["x"] = attrs.evolve(rig.one.things["x"], run="b")


def shelter(rig: Rig) -> None:
    rig.one.things["x"] = attrs.evolve(rig.one.things["x"], is_being_born=True)


@pytest.mark.parametrize("change", [revive, rename, shelter, lambda rig: rig.one.things.clear()])
async def test_each_is_looked_at_again_just_before_its_end(rig: Rig, change: Callable[[Rig], None]) -> None:
    await rig.start()
    await rig.start("b", holder_pid=None)
    rig.one.add("x")
    await rig.run_pass()
    rig.one.on_look = lambda: change(rig)
    found = await rig.run_pass()
    assert acts(found) == {"one/x": "end skipped"}
    assert rig.ended() == []
    assert await rig.state() is RunState.OPEN


async def test_a_run_that_was_never_used_is_given_up_without_a_cap(rig: Rig) -> None:
    """After a restart of the machine all are such: nothing goes by it."""
    for number in range(20):
        await rig.start(f"r{number}")
    await rig.start("young", created_at_ms=NOW)
    await rig.run_pass()
    found = await rig.run_pass()
    assert (found["state"], found["counts"]["done"]) == ("ok", 20)
    assert await rig.state("r0") is RunState.ENDED
    assert await rig.state("young") is RunState.OPEN


async def test_M_a_second_pass_acts_on_nothing(rig: Rig) -> None:
    await rig.start()
    rig.one.add("x")
    for _ in range(4):
        await rig.run_pass()
    for _ in range(3):
        assert (await rig.run_pass())["acts"] == []
