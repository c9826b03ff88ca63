"""The blocking client against a real daemon: calls, losses, notifications, and how little it imports."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from ptyd.blocking import BlockingClient
from ptyd.calls import answer_deadline_s, interrupted, repeated_params
from ptyd.protocol.errors import Code, PtydError
from tests.client.proxy import Loss, Proxy
from tests.support.daemon import RuntimeDir

pytestmark = pytest.mark.unmeasured


def test_calls_and_refusals(daemon: RuntimeDir) -> None:
    with BlockingClient.connect(str(daemon.path)) as client:
        assert client.hello["server"] == "ptyd"
        session = client.call("session.spawn", {"argv": ["cat"], "name": "web"})
        assert client.call("session.get", {"id": "web"})["id"] == session["id"]
        with pytest.raises(PtydError) as raised:
            client.call("session.get", {"id": "nobody"})
        assert raised.value.code is Code.NOT_FOUND
        with pytest.raises(PtydError) as raised:
            client.call("session.frobnicate")
        assert raised.value.code is Code.UNKNOWN_METHOD


def test_many_calls_at_once_keep_their_order(daemon: RuntimeDir) -> None:
    with BlockingClient.connect(str(daemon.path)) as client:
        ids = [client.call("session.spawn", {"argv": ["true"]})["id"] for _ in range(3)]
        asked = [ids[0], "nobody", ids[1], ids[2]] * 30
        answers = list(client.call_each("session.get", ({"id": each} for each in asked)))
    assert [a.code if isinstance(a, PtydError) else a["id"] for a in answers] == [
        Code.NOT_FOUND if each == "nobody" else each for each in asked
    ]


@pytest.mark.parametrize("loss", ["request", "reply"])
def test_reading_is_repeated_and_spawning_is_not(proxy: Proxy, loss: Loss) -> None:
    with BlockingClient.connect(proxy.path, False) as client:
        proxy.lose("session.list", loss)
        assert client.call("session.list")["complete"] is True
        assert proxy.seen["session.list"] == 2
        proxy.lose("session.spawn", loss)
        with pytest.raises(PtydError) as raised:
            client.call("session.spawn", {"argv": ["true"], "id": "mine"})
        assert raised.value.code is Code.MAYBE_APPLIED
        assert proxy.seen["session.spawn"] == 1
        assert len(client.call("session.list")["sessions"]) == (loss == "reply")


def test_calls_at_once_fail_one_by_one_when_the_line_is_cut(proxy: Proxy) -> None:
    with BlockingClient.connect(proxy.path, False) as client:
        proxy.lose("session.forget", "request")
        answers = list(client.call_each("session.forget", ({"id": "x"} for _ in range(50))))
    assert len(answers) == 50
    assert {a.code for a in answers if isinstance(a, PtydError)} == {Code.MAYBE_APPLIED}


def test_notifications_until_the_line_is_cut(proxy: Proxy) -> None:
    with BlockingClient.connect(proxy.path, False) as client:
        client.call("events.subscribe")
        client.call("session.spawn", {"argv": ["true"]})
        notifications = client.notifications()
        method, params = next(notifications)
        assert (method, params["type"]) == ("event", "session.spawned")
        while next(notifications)[1]["type"] != "session.ended":
            pass
        proxy.cut()
        with pytest.raises(PtydError) as raised:
            list(notifications)
        assert raised.value.code is Code.UNREACHABLE
        client.reconnect()
        assert list(client.notifications(deadline_s=0.01)) == []


def test_wait_outlives_the_daemon(daemon: RuntimeDir) -> None:
    with BlockingClient.connect(str(daemon.path)) as client:
        session = client.call("session.spawn", {"argv": ["sh", "-c", "read x; exit 6"]})["id"]
        answers = []
        waiter = threading.Thread(
            target=lambda: answers.append(client.call("session.wait", {"id": session, "for": "exit"}))
        )
        waiter.start()
        daemon.wait_for_new_daemon(daemon.kill_daemon())
        daemon.call("session.input", id=session, data=b"\n")
        waiter.join(20)
    assert answers[0]["exit"] == {"code": 6}


def test_S13_nested_client_is_refused_when_nothing_runs(daemon: RuntimeDir) -> None:
    """A client inside a session, with another directory where nothing runs: nothing is started there."""
    other = daemon.base / "other"
    program = (
        "from ptyd.blocking import BlockingClient\n"
        "from ptyd.protocol.errors import PtydError\n"
        f"try: BlockingClient.connect({str(other)!r})\n"
        "except PtydError as e: print('CODE', e.code, flush=True)\n"
    )
    env = {"PYTHONPATH": daemon.settings["PYTHONPATH"], "PTYD_TEST": "1"}
    argv = [sys.executable, "-c", program]
    session = daemon.call("session.spawn", argv=argv, env=env)["id"]
    daemon.call("session.wait", id=session, **{"for": "end"})
    assert b"CODE nested" in daemon.call("session.read", id=session, offset=0)["data"]
    assert not (other / "ptyd.sock").exists()


def test_it_imports_nothing_heavy() -> None:
    program = "import ptyd.blocking, sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"trio", "attr", "click", "structlog", "asyncio", "subprocess", "ptyd.daemon"}


# --- the rules both clients share ----------------------------------------------------------------


@pytest.mark.parametrize(
    "method, code",
    [
        ("session.list", Code.UNREACHABLE),
        ("session.read", Code.UNREACHABLE),
        ("session.spawn", Code.MAYBE_APPLIED),
        ("session.input", Code.MAYBE_APPLIED),
        ("session.kill", Code.MAYBE_APPLIED),
    ],
)
def test_what_a_lost_answer_means(method: str, code: Code) -> None:
    assert interrupted(method, "lost").code is code


@pytest.mark.parametrize(
    "method, params, allowed_s",
    [
        ("session.list", {}, 30),
        ("session.read", {"wait_ms": 5000}, 35),
        ("session.wait", {}, None),
        ("session.wait", {"timeout_ms": 1000}, 31),
        ("session.kill", {}, 17),
        ("session.kill", {"grace_ms": 0}, 15),
    ],
)
def test_how_long_an_answer_may_take(method: str, params: dict[str, int], allowed_s: float | None) -> None:
    assert answer_deadline_s(method, params) == allowed_s


def test_a_repeated_wait_has_only_the_time_that_is_left() -> None:
    assert repeated_params("session.wait", {"timeout_ms": 5000}, 2)["timeout_ms"] == 3000
    assert repeated_params("session.wait", {"timeout_ms": 5000}, 9)["timeout_ms"] == 0
    assert repeated_params("session.read", {"wait_ms": 5000}, 2) == {"wait_ms": 5000}
