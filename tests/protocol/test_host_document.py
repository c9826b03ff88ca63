"""The host service's chapter of protocol.md: its states, moves, steps, bounds and words are the code's.

Its methods, shapes, events and examples are held to the code together with ptyd's, in `test_document`.
"""

from typing import Any

import pytest

from hostsvc import manifest, messages, saga, shapes, states
from hostsvc.git import risk
from hostsvc.health import MISSED_RED
from hostsvc.kinds import LIMITS, MAX_CLIENTS
from hostsvc.model import Basis
from hostsvc.policy import STUCK_ATTEMPTS
from hostsvc.reaper.engine import ACTS_KEPT
from hostsvc.reaper.gate import SHARE_FLOOR, Caps
from hostsvc.reaper.record import OUTCOMES
from hostsvc.server import UNREAD_BYTES
from hostsvc.store.passes import PASSES_KEPT
from ptyd.protocol import limits
from tests.protocol.document import HOST, code, tables


def test_limits() -> None:
    (documented,) = tables(HOST.section("limits"), "limit")
    assert {code(row[0]): int(row[1]) for row in documented} == LIMITS


@pytest.mark.parametrize(
    "title, head, members",
    [
        ("workspace states", "state", states.WorkspaceState),
        ("session rows", "status", states.SessionStatus),
        ("sagas", "state", states.SagaState),
        ("the reaper", "pass", shapes.PASS_STATES),
        ("the reaper", "basis", Basis),
        ("the reaper", "outcome", OUTCOMES),
        ("health states", "status", shapes.HEALTH),
        ("deleting a workspace", "step", saga.STEPS),
        ("work at risk", "reason", risk.CODES),
        ("the trash", "kind", manifest.KINDS),
    ],
)
def test_words(title: str, head: str, members: Any) -> None:
    (documented,) = tables(HOST.section(title), head)
    assert [code(row[0]) for row in documented] == list(members)


@pytest.mark.parametrize(
    "title, moves",
    [
        ("workspace states", states.WORKSPACE_MOVES),
        ("session rows", states.SESSION_MOVES),
        ("sagas", states.SAGA_MOVES),
    ],
)
def test_moves(title: str, moves: Any) -> None:
    (documented,) = tables(HOST.section(title), "from", "to")
    told = [(code(row[0]), code(row[1])) for row in documented]
    assert set(told) == set(moves)
    assert len(told) == len(moves)


def test_the_steps_of_a_deletion_say_what_a_failure_means() -> None:
    (steps,) = tables(HOST.section("deleting a workspace"), "step")
    done: list[saga.Step] = []
    for step, row in zip(saga.STEPS, steps, strict=True):
        words = {saga.OnFailure.COMPENSATE: "undone", saga.OnFailure.RETRY: "tried again"}
        assert row[2] == words[saga.on_failure(step, done)]
        done.append(step)
    assert steps[done.index(saga.POINT_OF_NO_RETURN)][1] == "the point of no return"


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    buffers = HOST.section("buffers")
    assert f"| {limits.MAX_REQUESTS_IN_FLIGHT} not answered |" in buffers
    assert f"| {UNREAD_BYTES >> 20} MiB not read by the client, and one answer more |" in buffers
    assert f"| one answer | {limits.MAX_REPLY_BYTES} bytes |" in buffers
    assert f"| events | {limits.EVENTS_KEPT} |" in buffers
    assert f"| connections | {MAX_CLIENTS}, " in buffers
    assert f"| acts in the record of a pass | {ACTS_KEPT} |" in buffers
    assert f"| passes | {PASSES_KEPT} |" in buffers
    gate = f"a count ({Caps().count} unless set otherwise), or {SHARE_FLOOR} or more and more than a share"
    assert gate in HOST.section("the reaper")
    assert f"has failed {STUCK_ATTEMPTS} times" in HOST.section("sagas")
    assert "three passes of the reaper" in HOST.section("health states")
    assert MISSED_RED == 3
    by_code = {cls: name for name, cls in HOST.methods.items()}
    in_turn = ", ".join(f"`{by_code[cls]}`" for cls in messages.LONG_ANSWERS[:-1])
    assert f"{in_turn} and `{by_code[messages.LONG_ANSWERS[-1]]}`" in HOST.section("ordering")
