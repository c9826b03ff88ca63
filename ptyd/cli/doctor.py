"""`doctor`: what could be wrong, looked at one by one, and what to do about it.

Never starts a daemon and changes nothing. Works without one: that is when it is needed.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Any, Final

from ptyd import __version__, paths, records
from ptyd.blocking import BlockingClient
from ptyd.cli.findings import Finding, put_findings
from ptyd.cli.group import Settings, command
from ptyd.protocol.errors import PtydError

ANSWER_S: Final = 5.0
FEW_FILES: Final = 4096
LITTLE_SPACE_BYTES: Final = 16 * 1024 * 1024


@command()
def doctor(settings: Settings) -> int:
    """Check that everything is in order.

    Looks at the machine, the runtime directory, the daemon and its records. Exits with 1 on a failure.
    """
    return put_findings(examine(settings), settings)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, from the machine up to the sessions."""
    yield from _machine()
    try:
        path = paths.runtime_path(settings.runtime_dir)
    except paths.RuntimeDirError as error:
        yield Finding("fail", str(error))
        return
    if not os.path.lexists(os.path.join(path, paths.SESSIONS)):
        yield Finding("ok", f"runtime directory {path}: nothing was started there yet")
        return
    try:
        runtime = paths.open_runtime(path, create=False)
    except paths.RuntimeDirError as error:
        yield Finding("fail", str(error), "repair it, or choose another with PTYD_RUNTIME_DIR")
        return
    with runtime:
        yield Finding("ok", f"runtime directory {path}: private and yours")
        yield from _space(runtime)
        yield from _records(runtime)
        yield from _processes(runtime, path)


def _machine() -> Iterator[Finding]:
    from ptyd.shim.start import machine_problem, nested_problem

    problem = machine_problem()
    system = os.uname()
    yield Finding("fail", problem) if problem else Finding("ok", f"kernel {system.release}, {system.machine}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"open files: {soft} now, {hard} at most"
    if hard != resource.RLIM_INFINITY and hard < FEW_FILES:
        todo = "a session needs four in the daemon; raise it: ulimit -Hn, or LimitNOFILE="
        yield Finding("warn", text, todo)
    else:
        yield Finding("ok", text)
    if nested := nested_problem():
        yield Finding("warn", nested)


def _space(runtime: paths.Runtime) -> Iterator[Finding]:
    space = os.fstatvfs(runtime.fd)
    free_bytes = space.f_bavail * space.f_frsize
    text = f"space for records: {free_bytes >> 20} MiB"
    if free_bytes < LITTLE_SPACE_BYTES:
        yield Finding("warn", text, f"make room on the file system of {runtime.path}")
    else:
        yield Finding("ok", text)


def _records(runtime: paths.Runtime) -> Iterator[Finding]:
    listing = records.list_sessions(runtime.sessions_fd)
    broken = [record for record in listing.records if not _is_readable(runtime, record)]
    if broken:
        todo = "the list stays incomplete while they are there; move them away if nothing of them lives"
        yield Finding("fail", f"unreadable records: {', '.join(sorted(broken))}", todo)
    stale = [name for name in listing.drafts if not _is_alive(records.draft_writer(name))]
    if stale:
        yield Finding("warn", f"{len(stale)} drafts of dead writers", "harmless; a new daemon removes them")
    yield Finding("ok", f"records: {len(listing.records)}, fences: {len(listing.fences)}")


def _is_readable(runtime: paths.Runtime, session_id: str) -> bool:
    try:
        records.read_record(runtime.sessions_fd, session_id)
    except records.RecordError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    return pid > 0 and os.path.exists(f"/proc/{pid}")


def _processes(runtime: paths.Runtime, path: str) -> Iterator[Finding]:
    zygote = paths.lock_holder(runtime, paths.ZYGOTE_LOCK)
    daemon = paths.lock_holder(runtime, paths.LOCK)
    if daemon is None:
        what = "no daemon runs" if zygote is None else f"zygote {zygote} runs without a daemon"
        log = os.path.join(path, paths.LOG)
        todo = "the next command starts one" if zygote is None else f"if this stays so, see {log}"
        yield Finding("ok" if zygote is None else "warn", what, todo)
        return
    if zygote is None:
        todo = "the daemon steps down by itself, and the next command starts a new pair"
        yield Finding("warn", f"daemon {daemon} runs without a zygote", todo)
    else:
        yield Finding("ok", f"zygote {zygote}, daemon {daemon}")
    yield from _daemon(path, daemon)


def _daemon(path: str, pid: int) -> Iterator[Finding]:
    log = os.path.join(path, paths.LOG)
    try:
        with BlockingClient.connect(path, False, name="ptyd doctor", deadline_s=ANSWER_S) as client:
            stats = client.call("daemon.stats")
            sessions = client.call("session.list")["sessions"]
    except PtydError as error:
        todo = f"if this stays so, see {log}, then: kill {pid} (sessions live on)"
        yield Finding("fail", f"daemon {pid} does not answer: {error.message}", todo)
        return
    yield Finding("ok", f"daemon answers, {len(sessions)} sessions, {stats['clients']} clients")
    if stats["version"] != __version__:
        todo = "to change over, with all sessions kept: ptyd stop; ptyd status"
        yield Finding("warn", f"daemon is {stats['version']}, this command {__version__}", todo)
    if not stats["complete"]:
        yield Finding("warn", "the list of sessions is not complete", f"see {log}")
    yield from _sessions(sessions)


def _sessions(sessions: list[dict[str, Any]]) -> Iterator[Finding]:
    for session in sessions:
        name = session["name"] or session["id"]
        if session["state"] == "unsupervised":
            yield Finding("warn", f"session {name} lost its shim", f"end it: ptyd kill {session['id']}")
        elif session["state"] == "killing":
            todo = f"if this stays so, look who survives: ptyd kill {session['id']}"
            yield Finding("warn", f"session {name} is being killed", todo)
