"""What is shown where the backlog ends and the live stream begins."""

from __future__ import annotations

from ptyd.attach import Options
from ptyd.attach.screen import Screen


def test_what_a_program_draws_for_the_attach_is_live() -> None:
    """The new size came with the attach, and the program was quicker than the answer."""
    screen = Screen(Options())
    before = b"\x1b[?1049hold picture"
    since = screen.begin({"scrollback_start": 0, "output_offset": len(before)})
    drawn = b"\x1b[Hnew picture"
    screen.attached({"offset": since, "session": {"output_offset": len(before + drawn)}})
    screen.output(0, before + drawn)
    shown = bytes(screen._unshown)
    assert shown.endswith(drawn)
    assert b"old" not in shown
