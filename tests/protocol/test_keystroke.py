"""The quick way of a keystroke decides nothing: whatever takes it means what it means the long way."""

from hypothesis import given
from hypothesis import strategies as st

from ptyd.protocol.codec import pack_notification, pack_request
from ptyd.protocol.connection import NotificationReceived, ServerConnection
from ptyd.protocol.keystroke import Keystrokes
from ptyd.protocol.messages import SessionInput


def typed(session_id: str, data: bytes, **more: object) -> bytes:
    return pack_notification("session.input", {"id": session_id, "data": data, **more})


IDS = st.sampled_from(["a", "web-1", "w" * 40, "n\u00e4me"])
INPUTS = st.builds(typed, IDS, st.binary(max_size=300))
LOOKALIKES = st.one_of(
    st.builds(typed, IDS, st.binary(max_size=3), wait_ms=st.integers(-1, 2)),
    st.builds(lambda wire, rest: wire + rest, INPUTS, st.binary(max_size=3)),
    st.builds(lambda wire, end: wire[:end], INPUTS, st.integers(0, 40)),
    st.builds(lambda i, wire: wire[:i] + b"\xa1" + wire[i + 1 :], st.integers(0, 40), INPUTS),
    st.builds(pack_request, st.integers(0, 3), st.just("session.get"), st.just({"id": "a"})),
)


@given(st.lists(INPUTS | LOOKALIKES, min_size=1, max_size=6))
def test_X1_the_quick_way_and_the_long_way_hear_the_same(received: list[bytes]) -> None:
    quick, long = ServerConnection(), ServerConnection()
    for data in received:
        heard = quick.receive(data) if data else []
        # Byte by byte nothing is ever whole, so nothing takes the quick way.
        assert heard == [event for byte in data for event in long.receive(bytes([byte]))]
        assert quick.state is long.state


def test_a_second_input_into_the_same_session_takes_the_quick_way() -> None:
    keystrokes = Keystrokes()
    assert keystrokes.again(typed("web-1", b"l")) is None
    keystrokes.note(SessionInput(id="web-1", data=b"l"))
    assert keystrokes.again(typed("web-1", b"s")) == SessionInput(id="web-1", data=b"s")
    assert keystrokes.again(typed("web-1", b"")) == SessionInput(id="web-1", data=b"")
    assert keystrokes.again(typed("web-1", b"x" * 255)) == SessionInput(id="web-1", data=b"x" * 255)


def test_whatever_looks_different_does_not() -> None:
    keystrokes = Keystrokes()
    keystrokes.note(SessionInput(id="web-1", data=b"l"))
    wire = typed("web-1", b"s")
    for other in (typed("web-2", b"s"), typed("web-1", b"s", wait_ms=1), typed("web-1", b"s" * 256)):
        assert keystrokes.again(other) is None
    for end in range(len(wire)):
        assert keystrokes.again(wire[:end]) is None
    assert keystrokes.again(wire + wire) is None


def test_behind_a_message_that_is_not_whole_there_is_no_quick_way() -> None:
    server, wire = ServerConnection(), typed("a", b"k")
    event = NotificationReceived("session.input", SessionInput(id="a", data=b"k"))
    inner = typed("b", wire)  # ends with bytes that would be an input, were they not somebody's paste
    assert server.receive(wire) == [event]
    assert server.receive(inner[: -len(wire)]) == []
    paste = NotificationReceived("session.input", SessionInput(id="b", data=wire))
    assert server.receive(wire) == [paste]
