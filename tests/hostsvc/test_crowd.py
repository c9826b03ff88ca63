"""Idle sessions and room for one more, on a real ptyd: B26 to B31."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tests.hostsvc.liar import DeceivedHost, Edit, Hold, Liar, Refuse
from tests.hostsvc.places import (
    OWNER,
    acts,
    is_alive,
    reap,
    reap_until,
    row_of,
    serve,
    session,
    workspace,
)
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.rpc import RpcError
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


IDLE = ["sh", "-c", "exec sleep 100000"]  # a shell that is its own foreground group and says nothing
TTL = {"HOSTSVC_IDLE_TTL_S": "1"}
MINUTE_MS = 60_000


def ages(idle_ms: dict[str, int], busy: dict[str, bool | None] | None = None) -> Callable[[Any], Any]:
    """Make sessions as old, and as busy, as a test wants them: by id, as ptyd tells of each."""

    def change(told: Any) -> Any:
        for one in told.get("sessions", [told]):
            if one["id"] in idle_ms:
                one.update(age_ms=10 * MINUTE_MS, last_output_age_ms=idle_ms[one["id"]])
            if one["id"] in (busy or {}):
                one["busy"] = (busy or {})[one["id"]]
        return told

    return change


@pytest.fixture
def liar(daemon: RuntimeDir) -> Iterator[Liar]:
    with Liar(daemon.base / "liar", daemon.socket) as liar:
        yield liar


@pytest.fixture
def told(liar: Liar, daemon: RuntimeDir) -> Iterator[HostService]:
    """A service that believes to speak to ptyd."""
    host = DeceivedHost(liar, HostService(daemon))
    yield host
    host.stop()


def old(liar: Liar, idle_ms: dict[str, int], busy: dict[str, bool | None] | None = None) -> None:
    for method in ("session.list", "session.get"):
        liar.lies[method] = Edit(ages(idle_ms, busy))


def test_B26_idle_beyond_its_time_is_ended_with_proof(host: HostService) -> None:
    serve(host, **TTL)
    workspace(host, id="w")
    idle = session(host, "w", IDLE)
    working = session(host, "w")
    found = reap_until(host, idle["id"], "kill done")
    (act,) = found["acts"]
    assert (act["kind"], act["basis"], act["evidence"]["proof"]) == ("idle", "row", "echild")
    row = row_of(host, idle["id"])
    assert (row["status"], row["dispose_reason"][:8]) == ("disposed", "idle for")
    assert is_alive(working)
    assert found["kept"]["idle"] == {"it is in use, or may be": 1}


def test_B26_the_command_shows_who_would_go_and_ends_them(host: HostService) -> None:
    serve(host, **TTL)
    workspace(host, id="w")
    idle = session(host, "w", IDLE)

    def planned() -> bool:
        return "planned" in host.run("reap", "--kind", "idle", "--dry-run").stdout

    wait_until(planned, what="it is idle long enough")
    assert is_alive(idle)
    assert host.run("reap", "--kind", "idle").returncode == 0
    assert not is_alive(idle)


def test_B26_without_a_limit_nobody_is_idle_long_enough(host: HostService) -> None:
    serve(host)
    workspace(host, id="w")
    session(host, "w", IDLE)
    assert reap(host, kinds=["idle"])["counts"]["seen"] == 0


def test_B27_a_busy_one_is_never_ended(host: HostService) -> None:
    """A foreground job, a program that is no shell, an attached client, a request that waits for it."""
    serve(host, **TTL)
    workspace(host, id="w")
    job = session(host, "w", ["bash", "--norc", "-ic", "sleep 100000; :"])
    program = session(host, "w")
    attached = session(host, "w", IDLE)
    waited = session(host, "w", IDLE)
    idle = session(host, "w", IDLE)
    with host.runtime.connect() as viewer, host.runtime.connect() as waiter:
        viewer.call("session.attach", id=attached["id"])
        waiter.send("session.wait", id=waited["id"], **{"for": "end"})
        reap_until(host, idle["id"], "kill done")
        reap(host)
        assert all(map(is_alive, (job, program, attached, waited)))
    reap_until(host, attached["id"], "kill done")


def test_B27_somebody_elses_and_one_with_an_intent_are_not_its_business(host: HostService) -> None:
    serve(host, **TTL)
    workspace(host, id="w")
    host.runtime.call("session.spawn", id="other", argv=IDLE, labels={OWNER: "another"})
    idle = session(host, "w", IDLE)
    found = reap_until(host, idle["id"], "kill done")
    assert list(acts(found)) == [idle["id"]]
    assert host.runtime.call("session.get", id="other")["state"] == "running"


@pytest.mark.parametrize("unknown", [{"complete": False}, {"instance_id": None}])
def test_B27_a_list_that_is_not_whole_ends_nobody(
    liar: Liar, told: HostService, unknown: dict[str, Any]
) -> None:
    serve(told, **TTL)
    workspace(told, id="w")
    idle = session(told, "w", IDLE)
    old(liar, {idle["id"]: MINUTE_MS})
    liar.lies["session.list"] = Edit(lambda told: {**told, **unknown})
    found = reap(told, kinds=["idle"])
    assert (found["state"], list(found["errors"])) == ("error", ["idle"])
    assert is_alive(idle)


def test_B28_B30_over_the_cap_the_longest_idle_go_exactly_to_the_cap(liar: Liar, told: HostService) -> None:
    serve(told)
    workspace(told, id="w")
    made = [session(told, "w", IDLE) for _ in range(5)]
    busy = session(told, "w")
    told.stop()
    told.start(HOSTSVC_SESSIONS_PER_HOST="3", HOSTSVC_REAPER_INTERVAL_S="3600")
    idle = dict(zip((one["id"] for one in made), (5, 4, 4, 3, 2), strict=True))
    old(liar, {id_: count * MINUTE_MS for id_, count in idle.items()})
    wait_until(lambda: reap(told, kinds=["idle"])["state"] == "ok", what="ptyd is seen")
    left = {one["id"] for one in made if is_alive(one)}
    assert left == {made[3]["id"], made[4]["id"]}, "the longest idle went, the busy one counts"
    assert is_alive(busy)
    assert acts(reap(told)) == {}


def test_B29_admission_ends_the_longest_idle_first_or_refuses(liar: Liar, told: HostService) -> None:
    host = serve(told, HOSTSVC_SESSIONS_PER_WORKSPACE="2")
    workspace(host, id="w")
    first, second = session(host, "w", IDLE), session(host, "w", IDLE)
    refused = host.error("session.create", workspace="w", argv=IDLE)
    assert refused.code == "too_many_sessions", "both are just made"
    assert "2 sessions, all of them busy; 2 are allowed" in str(refused)
    old(liar, {first["id"]: MINUTE_MS, second["id"]: 2 * MINUTE_MS})
    third = session(host, "w")
    assert (is_alive(first), is_alive(second), is_alive(third)) == (True, False, True)
    assert row_of(host, second["id"])["status"] == "disposed"
    workspace(host, id="v")
    assert is_alive(session(host, "v")), "the cap is each workspace's own"


def test_B29_who_does_not_die_makes_no_room(liar: Liar, told: HostService) -> None:
    host = serve(told, HOSTSVC_SESSIONS_PER_HOST="1")
    workspace(host, id="w")
    first = session(host, "w", IDLE)
    old(liar, {first["id"]: MINUTE_MS})
    liar.lies["session.kill"] = Refuse("kill_unconfirmed", {"survivors": []})
    refused = host.error("session.create", workspace="w", argv=IDLE)
    assert refused.code == "too_many_sessions"
    assert "not proven dead" in str(refused)
    assert len(host.call("session.list")["sessions"]) == 1
    del liar.lies["session.kill"]
    reap_until(host, first["id"], "kill done")
    assert is_alive(session(host, "w")), "and whoever was refused keeps no seat"


def test_B29_admissions_at_once_do_not_overshoot_the_cap(host: HostService) -> None:
    serve(host, HOSTSVC_SESSIONS_PER_HOST="3")
    workspace(host, id="w")

    def create(_: int) -> str:
        try:
            return str(session(host, "w")["id"])
        except RpcError as error:
            return error.code

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(create, range(8)))
    assert answers.count("too_many_sessions") == 5
    assert len(host.runtime.call("session.list", state="running")["sessions"]) == 3


PATIENT: Final = {"HOSTSVC_KILL_DEADLINE_S": "300"}  # no test takes so long: what is held is held


def test_who_dies_slowly_in_a_pass_holds_up_nobody(liar: Liar, told: HostService) -> None:
    host = serve(told, **PATIENT, HOSTSVC_IDLE_TTL_S="60", HOSTSVC_SESSIONS_PER_HOST="2")
    workspace(host, id="w")
    one = session(host, "w", IDLE)
    old(liar, {one["id"]: 2 * MINUTE_MS})
    held = liar.lies["session.kill"] = Hold("request")
    with ThreadPoolExecutor() as threads:
        passing = threads.submit(reap, host, kinds=["idle"])
        held.wait_held()
        assert all(is_alive(session(host, "w")) for _ in range(2)), "what is to go counts no more"
        assert (is_alive(one), passing.done()) == (True, False)
        held.release.set()
        assert acts(passing.result(30)) == {one["id"]: "kill done"}


def test_B28_who_dies_slowly_for_a_newcomer_holds_up_no_other_and_keeps_its_place(
    liar: Liar, told: HostService
) -> None:
    """The next newcomer makes room for itself; and the first one's place is nobody else's meanwhile."""
    host = serve(told, **PATIENT, HOSTSVC_SESSIONS_PER_HOST="2")
    workspace(host, id="w")
    slow, other = session(host, "w", IDLE), session(host, "w", IDLE)
    old(liar, {slow["id"]: 2 * MINUTE_MS, other["id"]: MINUTE_MS})
    held = Hold("request")
    liar.lies["session.kill"] = lambda asked: held if asked["id"] == slow["id"] else None
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(session, host, "w")
        held.wait_held()
        second = session(host, "w")
        assert [is_alive(one) for one in (slow, other, second)] == [True, False, True]
        assert not waiting.done(), "it begins when the one that made room for it is proven dead"
        refused = host.error("session.create", workspace="w", argv=IDLE)
        assert "this host has 2 sessions, all of them busy" in str(refused)
        held.release.set()
        first = waiting.result(30)
    assert [is_alive(one) for one in (slow, first, second)] == [False, True, True]
    assert len(host.runtime.call("session.list", state="running")["sessions"]) == 2


@pytest.mark.parametrize("busy", [True, None], ids=["busy", "unknown"])
def test_B31_busy_between_plan_and_act_is_kept(liar: Liar, told: HostService, busy: bool | None) -> None:
    host = serve(told, **TTL, HOSTSVC_SESSIONS_PER_HOST="1")
    workspace(host, id="w")
    one = session(host, "w", IDLE)
    old(liar, {one["id"]: MINUTE_MS})
    liar.lies["session.get"] = Edit(ages({one["id"]: MINUTE_MS}, {one["id"]: busy}))
    assert acts(reap(host, kinds=["idle"])) == {one["id"]: "kill skipped"}
    assert host.error("session.create", workspace="w", argv=IDLE).code == "too_many_sessions"
    assert is_alive(one)
    assert row_of(host, one["id"])["dispose_requested_at_ms"] is None


def test_B31_used_again_between_plan_and_act_is_kept(liar: Liar, told: HostService) -> None:
    """It is not busy any more, but somebody has looked at it since: its time begins anew."""
    host = serve(told, HOSTSVC_IDLE_TTL_S="60")
    workspace(host, id="w")
    one = session(host, "w", IDLE)
    old(liar, {one["id"]: 2 * MINUTE_MS})
    with host.runtime.connect() as viewer:
        viewer.call("session.attach", id=one["id"])
    wait_until(lambda: acts(reap(host, kinds=["idle"])) == {}, what="its use was noted")
    assert is_alive(one)


def test_B28_what_has_gone_since_the_plan_makes_the_cap_hold(liar: Liar, told: HostService) -> None:
    """Between plan and act another one was disposed of: nothing is over the cap any more, and none goes."""
    host = serve(told)
    workspace(host, id="w")
    one, other = session(host, "w", IDLE), session(host, "w")
    host.stop()
    old(liar, {one["id"]: MINUTE_MS}, busy={one["id"]: True})
    serve(host, HOSTSVC_SESSIONS_PER_HOST="1")
    old(liar, {one["id"]: MINUTE_MS})
    wait_until(lambda: host.runtime.call("session.get", id=one["id"])["age_ms"] > 2000, what="it is older")
    held = liar.lies["session.get"] = Hold("request")
    with ThreadPoolExecutor() as threads:
        passing = threads.submit(reap, host, kinds=["idle"])
        held.wait_held()
        old(liar, {one["id"]: MINUTE_MS})
        host.call("session.dispose", id=other["id"])
        held.release.set()
        found = passing.result(30)
    (act,) = found["acts"]
    assert (act["outcome"], act["error"]) == ("skipped", "nothing is over its limit any more")
    assert is_alive(one)
