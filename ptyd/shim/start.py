"""Starting a zygote: from the command line, at most one per runtime directory, never below a session.

Owns the way from `python -m ptyd.shim` to the loop: checks the machine, the directory and where
it runs, goes into the background unless told otherwise, and leaves with a reason when it cannot serve.
A second zygote for the same directory only asks the first one for its daemon.

Standard library and ptyprocess only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import sys
import time

from ptyd import paths, procs
from ptyd.shim.zygote import serve

LEAST_KERNEL = (5, 4)
EXIT_FAILED, EXIT_REFUSED, EXIT_UNAVAILABLE = 1, 4, 69
START_DEADLINE_S = 30.0
RACE_S = 5.0  # for a zygote that holds the lock but is not to be asked: it starts or leaves just now
RETRY_S = 0.02


def machine_problem() -> str | None:
    """Say why this machine cannot run ptyd; None when it can."""
    if sys.platform != "linux":
        return f"ptyd needs Linux, and this is {sys.platform}"
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"the shared output ring relies on x86-64's store order; this machine is {platform.machine()}"
    release = platform.release()
    with contextlib.suppress(ValueError):
        if tuple(int(part) for part in release.split(".")[:2]) < LEAST_KERNEL:
            return f"ptyd needs Linux 5.4 or newer (pidfd, subreaper, sealed memory); this is {release}"
    return None


def nested_problem() -> str | None:
    """Say why nothing may be started here: a daemon below a shim would die with that session."""
    if os.environ.get("PTYD_ALLOW_NESTED"):
        return None
    above = procs.shim_above(os.getpid())
    if above is None:
        return None
    return (
        f"this runs inside a session (shim {above}), and a daemon started here would die with it; "
        "start it outside: ptyd status (PTYD_ALLOW_NESTED=1 to insist)"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ptyd-zygote")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--foreground", action="store_true")
    args = parser.parse_args(argv)
    if problem := machine_problem():
        return _refuse(problem, EXIT_FAILED)
    if problem := nested_problem():
        return _refuse(problem, EXIT_REFUSED)
    try:
        runtime = paths.open_runtime(args.runtime)
    except paths.RuntimeDirError as err:
        return _refuse(str(err), EXIT_REFUSED)
    return _run_foreground(runtime) if args.foreground else _run_background(runtime)


def _refuse(why: str, status: int) -> int:
    sys.stderr.write(f"ptyd: {why}\n")
    return status


def _run_foreground(runtime: paths.Runtime) -> int:
    answer = _take_lock(runtime)
    if answer is None:
        return serve(runtime, True, None)
    if "error" in answer:
        return _report(answer)
    pid = paths.lock_holder(runtime, paths.ZYGOTE_LOCK)
    return _refuse(f"already served by zygote {pid}; see: ptyd status", EXIT_REFUSED)


def _run_background(runtime: paths.Runtime) -> int:
    """Fork the zygote away and wait until its daemon serves."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        # For longer than the other one waits, who says why.
        answer = _wait_for_answer(ours, START_DEADLINE_S + 2 * RACE_S)
        return _report(answer or {"error": "the zygote died at once; see daemon.log"})
    ours.close()
    os.setsid()
    os.chdir("/")
    answer = _take_lock(runtime)
    if answer is not None:
        with contextlib.suppress(OSError):  # whoever wanted to know may have been ended meanwhile
            theirs.send(json.dumps(answer).encode())
        return 0
    _detach_output(runtime)
    return serve(runtime, False, theirs)


def _take_lock(runtime: paths.Runtime) -> Answer | None:
    """Take the zygote's lock for life; or return what the zygote that holds it says of its daemon."""
    deadline = time.monotonic() + RACE_S
    while paths.take_lock(runtime, paths.ZYGOTE_LOCK) is None:
        answer = _ask_running(runtime)
        if answer is not None or time.monotonic() >= deadline:
            return answer or _mute(runtime)
        time.sleep(RETRY_S)  # it is just starting or just leaving: one of us will hold the lock
    return None


def _report(answer: dict[str, object]) -> int:
    return _refuse(str(answer["error"]), EXIT_UNAVAILABLE) if "error" in answer else 0


Answer = dict[str, object]


def _wait_for_answer(sock: socket.socket, deadline_s: float) -> Answer | None:
    """Return what the zygote says of its daemon; None when it ends, or the deadline comes, without a word."""
    sock.settimeout(deadline_s)
    try:
        answer: Answer = json.loads(sock.recv(65536))
    except (OSError, ValueError):
        return None
    return answer


def _ask_running(runtime: paths.Runtime) -> Answer | None:
    """Ask the zygote that holds the lock for its daemon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(runtime.address(paths.ZYGOTE_SOCKET))
        except OSError:
            return None
        return _wait_for_answer(sock, START_DEADLINE_S)


def _mute(runtime: paths.Runtime) -> Answer:
    holder = paths.lock_holder(runtime, paths.ZYGOTE_LOCK)
    return {"error": f"zygote {holder} holds the lock and does not answer; see: ptyd doctor"}


def _detach_output(runtime: paths.Runtime) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    log_fd = os.open(paths.LOG, flags, 0o600, dir_fd=runtime.fd)
    null_fd = os.open("/dev/null", os.O_RDWR)
    os.dup2(null_fd, 0)
    os.dup2(null_fd, 1)
    os.dup2(log_fd, 2)
