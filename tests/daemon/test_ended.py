"""Which ended sessions give way to others, without a daemon."""

from __future__ import annotations

from typing import cast

from ptyd.daemon.ended import LINGERING_SHIMS, EndedSessions
from ptyd.daemon.session import Session


class Stub:
    """What is asked of an ended session, counted."""

    looks = 0

    def __init__(self, at_ms: int, *, is_linked: bool = True) -> None:
        self.at_ms = at_ms
        self._is_linked = is_linked

    def fact(self, key: str) -> int:
        assert key == "ended_at_ms"
        Stub.looks += 1
        return self.at_ms

    @property
    def is_linked(self) -> bool:
        Stub.looks += 1
        return self._is_linked

    def leave(self) -> None:
        self._is_linked = False


def session(at_ms: int, **state: bool) -> Session:
    return cast(Session, Stub(at_ms, **state))


def times(sessions: list[Session]) -> list[int]:
    return [cast(Stub, one).at_ms for one in sessions]


def entered(*at_ms: int) -> EndedSessions:
    ended = EndedSessions()
    for each in at_ms:
        ended.add(session(each))
    return ended


def test_the_oldest_go_however_they_came() -> None:
    ended = entered(30, 10, 20, 10)
    assert times(list(ended.overdue(2, 0))) == [10, 10]
    assert list(ended.overdue(2, 0)) == []
    assert times(list(ended.overdue(2, 30))) == [20]
    assert times(list(ended.overdue(0, 0))) == [30]


def test_one_that_is_forgotten_counts_no_more() -> None:
    ended = entered(20)
    gone = session(10)
    ended.add(gone)
    ended.discard(gone)
    ended.discard(gone)
    assert list(ended.overdue(1, 0)) == []
    assert times(list(ended.overdue(0, 0))) == [20]


def test_what_is_forgotten_takes_no_room_although_an_older_one_stays() -> None:
    ended = entered(1)
    for at in range(2, 2000):
        gone = session(at, is_linked=False)
        ended.add(gone)
        ended.discard(gone)
        assert len(ended._oldest) <= 2 + LINGERING_SHIMS
    assert times(list(ended.overdue(0, 0))) == [1]


def test_the_oldest_shims_leave_and_only_as_many_as_have_to() -> None:
    ended = EndedSessions()
    kept = [session(at) for at in range(LINGERING_SHIMS)]
    assert [ended.add(one) for one in kept] == [[]] * LINGERING_SHIMS
    cast(Stub, kept[0]).leave()
    assert ended.add(session(100)) == [], "one has left by itself"
    assert ended.add(session(101)) == [kept[1]]
    assert ended.add(session(102)) == [kept[2]]


def test_many_that_end_at_once_cost_each_other_nothing() -> None:
    """Each is looked at once, and the few that linger once more."""
    ended, count = EndedSessions(), 5000
    Stub.looks = 0
    for at in range(count):
        ended.add(session(at))
        assert list(ended.overdue(count, 0)) == []
    assert Stub.looks <= count * (1 + LINGERING_SHIMS)
