"""One session whose tree holds every kind of child a kill must find; see tests/support/victim.py.

    victim.py DIRECTORY [rude] [storm] [leave CODE]

Every process writes its pid to DIRECTORY/ROLE once it is what its role says. Runs with `-S -E`.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

HUP, TERM = signal.SIGHUP, signal.SIGTERM
STORM_PAUSE_S = 0.002
STORM_MOST = 20_000  # a storm that nobody ends: some 40 s


def main(arguments: list[str]) -> None:
    directory, *words = arguments
    if "rude" in words:
        ignore(HUP, TERM)
    if "leave" in words:
        leave(directory, int(words[-1]))
    start_all(directory)
    if "storm" in words:
        fork(lambda: storm(directory))
    announce(directory, "leader")
    wait_forever()


def start_all(directory: str) -> None:
    def role(name: str, *prepare: Callable[[], object]) -> int:
        return fork(lambda: be(directory, name, prepare))

    own_group = lambda: os.setpgid(0, 0)  # noqa: E731 - a table reads better with names of one word
    foreground(role("foreground", own_group))
    role("background", own_group)
    role("own_group", own_group)
    role("ignores_hup", lambda: ignore(HUP))
    role("ignores_hup_term", lambda: ignore(HUP, TERM))
    role("setsid", os.setsid)
    fork(lambda: be_daemon(directory))
    fork(lambda: be_stopped(directory))
    fork(lambda: be_program(directory, "nohup", ["nohup", "sleep", "100000"], dict(os.environ)))
    fork(lambda: be_program(directory, "renamed", ["sleep", "100000"], {}, "[kworker/7:3]"))


def leave(directory: str, code: int) -> None:
    """End as a leader that leaves children behind: one in its session, one out of it."""
    fork(lambda: be(directory, "ignores_hup", (lambda: ignore(HUP),)))
    fork(lambda: be(directory, "setsid", (os.setsid,)))
    for name in ("ignores_hup", "setsid"):
        while not os.path.exists(os.path.join(directory, name)):
            time.sleep(0.001)
    announce(directory, "leader")
    sys.exit(code)


def fork(child: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in (HUP, TERM):
            signal.signal(number, signal.SIG_DFL)  # a rude leader is rude alone
        child()
    finally:
        os._exit(99)


def be(directory: str, name: str, prepare: tuple[Callable[[], object], ...]) -> None:
    for step in prepare:
        step()
    announce(directory, name)
    wait_forever()


def be_daemon(directory: str) -> None:
    """Double fork, setsid, no terminal: what a well-behaved daemon does."""
    os.setsid()
    if os.fork():
        os._exit(0)
    null_fd = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null_fd, fd)
    be(directory, "daemon", (lambda: os.chdir("/"),))


def be_stopped(directory: str) -> None:
    announce(directory, "stopped")
    os.kill(os.getpid(), signal.SIGSTOP)
    wait_forever()


def be_program(
    directory: str, name: str, argv: list[str], env: dict[str, str], title: str | None = None
) -> None:
    null_fd = os.open("/dev/null", os.O_RDWR)
    os.dup2(null_fd, 0)
    os.dup2(null_fd, 1)
    announce(directory, name)
    path = next(p for p in ("/usr/bin", "/bin") if os.path.exists(f"{p}/{argv[0]}"))
    os.execve(f"{path}/{argv[0]}", [title or argv[0], *argv[1:]], env)


def storm(directory: str) -> None:
    """Fork a new session every 2 ms for as long as anyone lets us."""
    announce(directory, "storm")
    for _ in range(STORM_MOST):
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)
        time.sleep(STORM_PAUSE_S)


def foreground(pid: int) -> None:
    """Hand the terminal to `pid`'s group, as a shell does."""
    os.setpgid(pid, pid)  # whoever of the two is first
    if os.isatty(0):
        os.tcsetpgrp(0, pid)


def ignore(*numbers: int) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def announce(directory: str, name: str) -> None:
    """Write our pid where the test looks for it, whole or not at all."""
    draft = os.path.join(directory, f".{name}")
    with open(draft, "w") as file:
        file.write(str(os.getpid()))
    os.rename(draft, os.path.join(directory, name))


def wait_forever() -> None:
    while True:
        signal.pause()


main(sys.argv[1:])
