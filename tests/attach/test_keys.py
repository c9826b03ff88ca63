"""Keys by name, and the keys to leave by in input that is split anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyd.attach.keys import DetachKeys, UnknownKey, key_bytes


@pytest.mark.parametrize(
    "name, sent",
    [
        ("C-c", b"\x03"), ("c-C", b"\x03"), ("ctrl-c", b"\x03"), ("^-c", b"\x03"), ("C-\\", b"\x1c"),
        ("C-[", b"\x1b"), ("C-@", b"\0"), ("C-Space", b"\0"), ("C-?", b"\x7f"), ("C-_", b"\x1f"),
        ("M-x", b"\x1bx"), ("M-C-a", b"\x1b\x01"), ("M-Enter", b"\x1b\r"), ("Enter", b"\r"), ("enter", b"\r"),
        ("Up", b"\x1b[A"), ("F1", b"\x1bOP"), ("F4", b"\x1bOS"), ("F5", b"\x1b[15~"), ("F12", b"\x1b[24~"),
        ("x", b"x"), ("-", b"-"), ("č", "č".encode()), ("Escape", b"\x1b"), ("BSpace", b"\x7f"),
    ],
)  # fmt: skip
def test_key(name: str, sent: bytes) -> None:
    assert key_bytes(name) == sent


@pytest.mark.parametrize("name", ["", "Foo", "C-", "C-1", "C-foo", "M-", "M-Foo", "F13", "F0"])
def test_unknown_key(name: str) -> None:
    with pytest.raises(UnknownKey):
        key_bytes(name)


@pytest.mark.parametrize(
    "keys, typed, passed, leaves",
    [
        ("ctrl-\\", [b"abc"], b"abc", False),
        ("ctrl-\\", [b"ab\x1ccd"], b"ab", True),
        ("ctrl-\\", [b"\x1b"], b"\x1b", False),  # Escape is never held back
        ("ctrl-\\", [b"\x1b[92;5u"], b"", True),  # the kitty way
        ("ctrl-\\", [b"a\x1b[92;5:1u"], b"a", True),
        ("ctrl-\\", [b"\x1b[92;133u"], b"", True),  # with num lock
        ("ctrl-\\", [b"\x1b[27;5;92~"], b"", True),  # xterm's modifyOtherKeys
        ("ctrl-\\", [b"\x1b[92;2u"], b"\x1b[92;2u", False),  # another modifier
        ("ctrl-a,d", [b"\x01d"], b"", True),
        ("ctrl-a,d", [b"x\x01", b"d"], b"x", True),
        ("ctrl-a,d", [b"x\x01", b"e"], b"x\x01e", False),
        ("ctrl-a,d", [b"\x01\x01", b"d"], b"\x01", True),
        ("ctrl-a,d", [b"\x1b[97;5u", b"d"], b"", True),
        ("a,a,b", [b"a", b"a", b"a", b"b"], b"a", True),
        ("ctrl-p,ctrl-q", [b"\x10", b"\x11"], b"", True),
        ("q", [b"pq"], b"p", True),
    ],
)
def test_detach_keys(keys: str, typed: list[bytes], passed: bytes, leaves: bool) -> None:
    detach = DetachKeys(keys)
    results = [detach.feed(piece) for piece in typed]
    assert b"".join(result[0] for result in results) == passed
    assert results[-1][1] is leaves


@given(st.lists(st.sampled_from([b"\x01", b"d", b"x", b"\x1b"]), max_size=12), st.data())
def test_split_makes_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    at = text.find(b"\x01d")
    detach, passed = DetachKeys("ctrl-a,d"), b""
    for i in range(len(text)):
        shown, leaves = detach.feed(text[i : i + 1])
        passed += shown
        assert leaves is (i == at + 1 and at >= 0)
        if leaves:
            break
    else:
        assert at < 0
    assert passed == (text[:at] if at >= 0 else text.removesuffix(b"\x01"))


@pytest.mark.parametrize("keys", ["", "ctrl-", "foo", "alt-x", "ctrl-a,,d", "ctrl-1"])
def test_no_keys(keys: str) -> None:
    with pytest.raises(UnknownKey):
        DetachKeys(keys)
