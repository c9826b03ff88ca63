"""How long an attached terminal hopes for a daemon, and when it stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptyd.attach import Options, connection
from ptyd.attach.connection import Attacher
from ptyd.protocol.errors import Code, PtydError


def attacher(tmp_path: Path) -> Attacher:
    (tmp_path / "r").mkdir(mode=0o700)
    return Attacher("web", Options(path=str(tmp_path / "r"), start=False))


def test_it_tries_again_and_says_so_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = attacher(tmp_path)
    lost.lost()
    assert lost.reattach(0) is None
    assert lost.try_at is not None
    assert not lost.is_overdue
    monkeypatch.setattr(connection, "TELL_AFTER_S", 0)
    assert lost.is_overdue


def test_it_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = attacher(tmp_path)
    lost.lost()
    monkeypatch.setattr(connection, "GIVE_UP_AFTER_S", 0)
    with pytest.raises(PtydError) as raised:
        lost.reattach(0)
    assert raised.value.code is Code.UNREACHABLE


def test_stopped_daemon_is_not_waited_for_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = attacher(tmp_path)
    lost.was_stopped = True
    lost.lost()
    assert lost.reattach(0) is None
    monkeypatch.setattr(connection, "STOPPED_WAIT_S", 0)
    with pytest.raises(PtydError) as raised:
        lost.reattach(0)
    assert raised.value.code is Code.STOPPING
    assert "ptyd attach web to return" in raised.value.message
