"""What is shown where the backlog ends and the live stream begins, and what it waits for."""

from __future__ import annotations

from ptyd.attach import Options
from ptyd.attach.frontend import Frontend
from ptyd.attach.screen import Screen
from ptyd.attach.tty import Terminal


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


def test_who_waits_for_the_terminal_does_not_wait_for_a_moment_that_is_over() -> None:
    """The program has exited, and what it wrote cannot be shown: the terminal wakes us, not the clock."""
    frontend = Frontend("s", Options())
    frontend._leave_at = 0.0
    terminal = Terminal.__new__(Terminal)
    terminal._pending = bytearray(b"x")
    assert frontend._wait_ms(terminal) is None
    terminal._pending.clear()
    assert frontend._wait_ms(terminal) == 0
