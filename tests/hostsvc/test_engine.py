"""The engine's passes, with kinds that a test invents, a real index, and a clock that jumps."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlite_utils import Database
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from hostsvc.model import Act, Action, Basis, Candidate, Decision, Fact, Keep, LiveView, Observe, Unknown
from hostsvc.reaper import engine
from hostsvc.reaper.engine import AGAIN_S, AT_ONCE, BLIND_S, PROGRESS_EVERY, Reaper, Schedule
from hostsvc.reaper.gate import Caps
from hostsvc.reaper.kinds import Findings, Look, Skipped
from hostsvc.store import passes
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog
from tests.hostsvc.store import InlineIndex, dump, inline_index
from tests.hostsvc.values import NOW

ASKED = Act(Action.KILL, Basis.INTENT, "it was asked for")
SAID = Act(Action.KILL, Basis.ROW, "its row says so")
INFERRED = Act(Action.KILL, Basis.ABSENCE, "it has no row")
INTERVAL_S = 300.0


class Blind:
    """A ptyd that nobody can see: fakes of kinds do not look at it."""

    async def view(self) -> Fact[LiveView]:
        return Unknown("nobody looks")


class FakeKind:
    """A kind that finds what a test has put there."""

    def __init__(self, name: str = "fake", **decisions: Decision) -> None:
        self.name = name
        self.decisions: dict[str, Decision] = dict(decisions)
        self.failure: Exception | None = None
        self.inventory: int | None = None
        self.acted: list[str] = []
        self.on_find: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.on_act: Callable[[Candidate], Awaitable[None]] = _nothing

    async def find(self, look: Look) -> Findings:
        await self.on_find()
        if self.failure is not None:
            raise self.failure
        findings = Findings(kind=self.name)
        findings.inventory = len(self.decisions) if self.inventory is None else self.inventory
        for subject, decision in self.decisions.items():
            findings.take(subject, 1, decision)
        return findings

    async def act(self, candidate: Candidate, look: Look) -> Mapping[str, object]:
        await self.on_act(candidate)
        self.acted.append(candidate.subject)
        self.decisions.pop(candidate.subject, None)
        return {"proof": "fake"}


async def _nothing(_: Candidate) -> None:
    await trio.lowlevel.checkpoint()


class Rig:
    """A reaper with kinds, in an index of its own."""

    def __init__(self, index: InlineIndex, *kinds: FakeKind, **schedule: Any) -> None:
        self.index = index
        self.events = EventLog("run", self.now_ms)
        self.reaper = Reaper(
            kinds,
            index,
            Blind(),  # type: ignore[arg-type]
            self.events,
            self.now_ms,
            caps=Caps(count=10, share=0.5),
            schedule=Schedule(**{"interval_s": INTERVAL_S, **schedule}),
        )

    def now_ms(self) -> int:
        return NOW + int(trio.current_time() * 1000)

    async def run_pass(self, origin: str = "interval", **params: Any) -> dict[str, Any]:
        return await self.reaper.run_pass(origin, **params)

    def told(self, kind: str = "reaper.pass") -> list[dict[str, Any]]:
        return [event for event in self.events.after(0, 1000) if event["type"] == kind]

    async def observed(self, kind: str = "fake") -> dict[str, int]:
        seen = await self.index.read(passes.observations, kind)
        return {subject: one.count for subject, one in seen.items()}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[InlineIndex]:
    index = inline_index(tmp_path / "state")
    yield index
    index.close()


def outcomes(recorded: Mapping[str, Any]) -> dict[str, str]:
    return {act["subject"]: act["outcome"] for act in recorded["acts"]}


# --- one pass ------------------------------------------------------------------------------------


async def test_a_pass_does_what_was_decided_and_is_recorded(index: InlineIndex) -> None:
    kind = FakeKind(asked=ASKED, said=SAID, wanted=Keep("it is wanted"), new=Observe("it has no row"))
    rig = Rig(index, kind)
    recorded = await rig.run_pass()
    assert sorted(kind.acted) == ["asked", "said"]
    assert outcomes(recorded) == {"asked": "done", "said": "done"}
    assert recorded["acts"][0]["evidence"] == {"proof": "fake"}
    assert recorded["counts"] | {"seen": 4, "kept": 2, "observed": 1, "done": 2} == recorded["counts"]
    assert recorded["kept"] == {"fake": {"it has no row": 1, "it is wanted": 1}}
    assert recorded["state"] == "ok"
    assert await index.read(passes.find_last, 9) == [recorded]
    assert await rig.observed() == {"new:1": 1}


async def test_M_a_second_pass_acts_on_nothing(index: InlineIndex) -> None:
    rig = Rig(index, FakeKind(asked=ASKED, said=SAID))
    await rig.run_pass()
    assert (await rig.run_pass())["acts"] == []


@pytest.mark.parametrize(
    "failure, outcome, state, error",
    [
        (Skipped("it is wanted again"), "skipped", "ok", "it is wanted again"),
        (
            PtydError(Code.KILL_UNCONFIRMED, "2 survivors"),
            "failed",
            "partial",
            "kill_unconfirmed: 2 survivors",
        ),
        (KeyError("secret"), "failed", "partial", "internal: KeyError"),
    ],
)
async def test_an_act_that_fails_stops_no_other(
    index: InlineIndex, failure: Exception, outcome: str, state: str, error: str
) -> None:
    kind = FakeKind(a=ASKED, b=ASKED)

    async def on_act(one: Candidate) -> None:
        await trio.lowlevel.checkpoint()
        if one.subject == "a":
            raise failure

    kind.on_act = on_act
    with capture_logs():
        recorded = await Rig(index, kind).run_pass()
    assert outcomes(recorded) == {"a": outcome, "b": "done"}
    assert recorded["state"] == state
    assert recorded["acts"][0]["error"] == error


@pytest.mark.parametrize("failure", [PtydError(Code.NO_PTYD, "the list is not complete"), KeyError("x")])
async def test_C18_B22_an_error_of_one_kind_stops_no_other(index: InlineIndex, failure: Exception) -> None:
    blind, seeing = FakeKind("blind", a=INFERRED), FakeKind("seeing", b=ASKED, new=Observe("no row"))
    rig = Rig(index, blind, seeing)
    await rig.run_pass()
    await index.write(passes.observe, "blind", ["a:1"], NOW)
    blind.failure = failure
    seeing.decisions["c"] = ASKED
    with capture_logs():
        recorded = await rig.run_pass()
    assert recorded["state"] == "error"
    assert list(recorded["errors"]) == ["blind"]
    assert seeing.acted == ["b", "c"]
    assert await rig.observed("blind") == {}, "whatever rests on absence begins anew"
    assert await rig.observed("seeing") == {"new:1": 2}


async def test_only_the_kinds_that_were_asked_for(index: InlineIndex) -> None:
    one, other = FakeKind("one", a=ASKED), FakeKind("other", b=ASKED, c=Observe("no row"))
    rig = Rig(index, one, other)
    await index.write(passes.observe, "other", ["c:1"], NOW)
    recorded = await rig.run_pass("manual", kinds=["one"])
    assert (one.acted, other.acted, recorded["kinds"]) == (["a"], [], ["one"])
    assert await rig.observed("other") == {"c:1": 1}, "it was not looked for, so nothing is known"


async def test_startup_only_observes_absence(index: InlineIndex) -> None:
    kind = FakeKind(said=SAID, inferred=INFERRED)
    rig = Rig(index, kind)
    await index.write(passes.observe, "fake", ["inferred:1"], NOW - 10**6)
    recorded = await rig.run_pass("startup")
    assert kind.acted == ["said"]
    assert recorded["state"] == "ok"
    assert await rig.observed() == {"inferred:1": 1}, "and trusts no look of an earlier process"


async def test_a_kind_that_stays_blind_keeps_no_other_in_startup(
    index: InlineIndex, autojump_clock: MockClock
) -> None:
    """It is looked at again soon, for as long as it is; the others' observations add up meanwhile."""
    blind, other = FakeKind("blind"), FakeKind("other", inferred=INFERRED, new=Observe("it has no row"))
    blind.failure = PtydError(Code.BUSY, "the engine refuses")
    rig = Rig(index, blind, other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reaper.run)
        await trio.sleep(2.5 * BLIND_S)
        assert other.acted == ["inferred"]
        assert await rig.observed("other") == {"new:1": 3}
        blind.failure = None
        await trio.sleep(BLIND_S + INTERVAL_S)
        nursery.cancel_scope.cancel()
    recorded = await index.read(passes.find_last, 9)
    assert [one["origin"] for one in reversed(recorded)] == ["startup", *["interval"] * 4]
    assert [one["state"] for one in reversed(recorded)] == [*["error"] * 3, "ok", "ok"]


async def test_some_acts_run_at_once_but_not_all(index: InlineIndex) -> None:
    kind = FakeKind(**{f"s{number}": ASKED for number in range(30)})
    running = most = 0

    async def on_act(_: Candidate) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await wait_all_tasks_blocked()
        running -= 1

    kind.on_act = on_act
    await Rig(index, kind).run_pass()
    assert most == AT_ONCE
    assert len(kind.acted) == 30


# --- never two at once ---------------------------------------------------------------------------


async def test_B22_passes_never_overlap(index: InlineIndex) -> None:
    kind = FakeKind()
    looking = most = 0

    async def on_find() -> None:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        await wait_all_tasks_blocked()
        looking -= 1

    kind.on_find = on_find
    rig = Rig(index, kind)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(rig.run_pass)
    assert most == 1
    assert [one["id"] for one in await index.read(passes.find_last, 9)] == [5, 4, 3, 2, 1]


async def test_C17_two_reapers_share_nothing(tmp_path: Path) -> None:
    """Neither waits for the other, and neither knows what the other has seen or said."""
    held, gate = trio.Event(), trio.Event()
    stuck = FakeKind(a=INFERRED)

    async def on_find() -> None:
        held.set()
        await gate.wait()

    stuck.on_find = on_find
    first = Rig(inline_index(tmp_path / "one"), stuck)
    second = Rig(inline_index(tmp_path / "two"), FakeKind(a=INFERRED))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run_pass)
        await held.wait()
        recorded = await second.run_pass()
        assert first.reaper.progress is not None
        assert second.reaper.progress is None
        gate.set()
    assert outcomes(recorded) == {"a": "done"}
    assert await second.observed() == await first.observed() == {"a:1": 1}
    assert len(first.told()) == len(second.told()) == 1
    first.index.close()
    second.index.close()


async def test_a_pass_that_was_cut_off_is_told_by_the_next(index: InlineIndex) -> None:
    kind = FakeKind()
    kind.on_find = trio.sleep_forever
    rig = Rig(index, kind)
    with trio.move_on_after(0.01):
        await rig.run_pass()
    assert rig.reaper.progress is None
    kind.on_find = trio.lowlevel.checkpoint
    await rig.run_pass()
    assert [one["state"] for one in await index.read(passes.find_last, 9)] == ["ok", "interrupted"]


# --- limits --------------------------------------------------------------------------------------


async def test_C24_acts_beyond_the_cap_are_left_but_never_what_was_asked_for(index: InlineIndex) -> None:
    kind = FakeKind(
        **{f"row{number}": SAID for number in range(4)}, **{f"asked{number}": ASKED for number in range(4)}
    )
    recorded = await Rig(index, kind, acts=5).run_pass()
    assert sorted(kind.acted) == ["asked0", "asked1", "asked2", "asked3", "row0"]
    assert recorded["counts"]["deferred"] == 3
    assert recorded["state"] == "partial"


async def test_C24_after_the_deadline_nothing_is_begun(index: InlineIndex, autojump_clock: MockClock) -> None:
    kind = FakeKind(**{f"s{number}": ASKED for number in range(3 * AT_ONCE)})

    async def on_act(_: Candidate) -> None:
        await trio.sleep(6)

    kind.on_act = on_act
    recorded = await Rig(index, kind, deadline_s=10.0).run_pass()
    assert recorded["counts"]["done"] == 2 * AT_ONCE
    assert recorded["counts"]["deferred"] == AT_ONCE


async def test_C24_what_was_left_comes_soon(index: InlineIndex, autojump_clock: MockClock) -> None:
    kind = FakeKind(**{f"s{number}": SAID for number in range(10)})
    at_s: list[float] = []

    async def on_find() -> None:
        await trio.lowlevel.checkpoint()
        at_s.append(trio.current_time())

    kind.on_find = on_find
    rig = Rig(index, kind, acts=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reaper.run)
        await trio.sleep(2 * INTERVAL_S)
        nursery.cancel_scope.cancel()
    waits_s = [round(after - before, 3) for before, after in itertools.pairwise(at_s)]
    assert waits_s[:3] == [AGAIN_S, AGAIN_S, INTERVAL_S]
    assert len(kind.acted) == 10


async def test_C24_progress_is_shown(index: InlineIndex) -> None:
    kind = FakeKind(**{f"s{number:03}": SAID for number in range(60)})
    shown: list[dict[str, Any] | None] = []
    rig = Rig(index, kind)

    async def on_act(_: Candidate) -> None:
        await trio.lowlevel.checkpoint()
        shown.append(rig.reaper.progress)

    kind.on_act = on_act
    with capture_logs():
        await rig.run_pass()
    assert shown[0] == {"id": 1, "done": 0, "total": 60}
    assert [event["done"] for event in rig.told("reaper.progress")] == [PROGRESS_EVERY, 2 * PROGRESS_EVERY]
    assert rig.reaper.progress is None


# --- refused plans -------------------------------------------------------------------------------


def many(count: int = 8) -> FakeKind:
    return FakeKind(**{f"s{number}": INFERRED for number in range(count)}, asked=ASKED)


async def test_C22_a_refused_plan_does_what_is_exempt_and_nothing_else(index: InlineIndex) -> None:
    kind = many()
    recorded = await Rig(index, kind).run_pass()
    assert kind.acted == ["asked"]
    assert recorded["state"] == "refused"
    assert recorded["counts"]["refused"] == 8
    assert recorded["plan_hash"]
    assert recorded["refusals"] == ["fake: 8 of 9, more than 50% of all"]


async def test_C22_an_accepted_plan_is_done_exactly(index: InlineIndex) -> None:
    kind = many()
    rig = Rig(index, kind)
    shown = await rig.run_pass("manual", is_dry=True)
    assert shown["state"] == "refused"
    planned = {subject for subject, outcome in outcomes(shown).items() if outcome == "refused"}
    recorded = await rig.run_pass("manual", accepted=shown["plan_hash"])
    assert recorded["state"] == "ok"
    assert set(kind.acted) == planned | {"asked"}


async def test_C22_another_plan_than_the_accepted_one_does_nothing(index: InlineIndex) -> None:
    kind = many()
    rig = Rig(index, kind)
    shown = await rig.run_pass("manual", is_dry=True)
    kind.decisions["another"] = INFERRED
    with pytest.raises(PtydError) as changed:
        await rig.run_pass("manual", accepted=shown["plan_hash"])
    assert changed.value.code is Code.PLAN_CHANGED
    assert changed.value.data["plan_hash"] != shown["plan_hash"]
    assert kind.acted == []
    [last] = await index.read(passes.find_last, 1)
    assert (last["state"], last["refusals"]) == ("refused", ["another plan was accepted"])


@pytest.mark.parametrize("kind", [many(), FakeKind(asked=ASKED, said=SAID, new=Observe("no row"))])
async def test_M_a_dry_pass_changes_nothing(index: InlineIndex, tmp_path: Path, kind: FakeKind) -> None:
    """But its own record, and that the pass before it was over."""
    rig = Rig(index, kind)
    await index.write(passes.observe, "fake", ["s1:1", "gone:1"], NOW)
    own = frozenset({"passes", "sqlite_sequence"})
    before = dump(tmp_path / "state" / "index.db", own)
    recorded = await rig.run_pass("manual", is_dry=True)
    assert dump(tmp_path / "state" / "index.db", own) == before
    assert kind.acted == []
    assert recorded["dry_run"] is True
    assert set(outcomes(recorded).values()) <= {"planned", "refused"}


async def test_D11_a_dry_pass_plans_what_the_next_does(index: InlineIndex) -> None:
    kind = FakeKind(a=ASKED, b=SAID, c=INFERRED)
    rig = Rig(index, kind)
    planned = await rig.run_pass("manual", is_dry=True)
    done = await rig.run_pass("manual")
    assert set(outcomes(planned)) == set(outcomes(done)) == {"a", "b", "c"}


# --- telling -------------------------------------------------------------------------------------


async def test_only_what_is_new_is_told(index: InlineIndex) -> None:
    """Many passes that find the same say it once; doing something is always told."""
    kind = FakeKind(wanted=Keep("it is wanted"))
    rig = Rig(index, kind)

    async def told() -> int:
        before = len(rig.told())
        with capture_logs() as logs:
            await rig.run_pass()
        lines = [line for line in logs if line["event"] == "pass"]
        assert len(lines) == len(rig.told()) - before
        return len(lines)

    assert [await told() for _ in range(3)] == [1, 0, 0]
    kind.failure = PtydError(Code.NO_PTYD, "gone")
    assert [await told() for _ in range(3)] == [1, 0, 0]
    kind.failure = PtydError(Code.NO_PTYD, "the list is not complete")
    assert await told() == 1
    kind.failure = None
    assert [await told() for _ in range(2)] == [1, 0]
    for _ in range(2):
        kind.decisions["asked"] = ASKED
        assert await told() == 1


async def test_C25_missed_passes(index: InlineIndex, mock_clock: MockClock) -> None:
    rig = Rig(index, FakeKind())
    assert rig.reaper.missed == 0, "also before anybody has run it"
    mock_clock.jump(3 * INTERVAL_S + 1)
    assert rig.reaper.missed == 3
    await rig.run_pass()
    assert rig.reaper.missed == 0
    mock_clock.jump(INTERVAL_S + 1)
    assert rig.reaper.missed == 1


async def test_B22_a_pass_that_cannot_be_recorded_does_not_stop_the_next(
    index: InlineIndex, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(index, FakeKind())
    real, failures = engine.passes.begin, [PtydError(Code.NO_SPACE, "full"), KeyError("x")]

    def begin(db: Database, **fields: Any) -> int:
        if failures:
            raise failures.pop()
        return real(db, **fields)

    monkeypatch.setattr(engine.passes, "begin", begin)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.reaper.run)
            await trio.sleep(2.5 * INTERVAL_S)
            nursery.cancel_scope.cancel()
    assert len(await index.read(passes.find_last, 9)) == 1
    assert len([line for line in logs if line["log_level"] == "error"]) == 2
