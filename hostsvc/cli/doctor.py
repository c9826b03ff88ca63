"""`doctor`: what could be wrong with the host service, looked at one by one, and what to do about it.

Never starts anything and changes nothing. Works without the service: that is when it is needed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostsvc import __version__
from hostsvc.cli.group import Settings, command
from hostsvc.client import open_client
from hostsvc.config import Config, ConfigError, file_path, read_config
from ptyd import paths
from ptyd.blocking import BlockingClient
from ptyd.cli.findings import Finding, put_findings
from ptyd.protocol.errors import PtydError

LOCK: Final = "hostsvc.lock"
ANSWER_S: Final = 5.0
LITTLE_SPACE_BYTES: Final = 64 * 1024 * 1024
_NOT_RUNNING: Final = Finding("warn", "no host service runs", "start it: hostsvc serve")


@command()
def doctor(settings: Settings) -> int:
    """Check that everything is in order.

    Looks at the settings, the directories, the locks, the index, the host service and ptyd. Exits
    with 1 on a failure.
    """
    return put_findings(examine(settings), settings)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, from the settings up to the sessions."""
    flags = {"runtime_dir": settings.runtime_dir} if settings.runtime_dir else {}
    try:
        config = read_config(flags)
    except ConfigError as error:
        yield Finding("fail", str(error), "repair it; see: hostsvc config show --origin")
        return
    own = [name for name, origin in config.origins.items() if origin != "default"]
    told = ", ".join(sorted(own)) or "all are defaults"
    yield Finding("ok", f"settings: {told} (file {file_path(os.environ)})")
    yield from _directory("state directory", config.state_dir, 0o077)
    yield from _directory("base directory", config.base_dir, 0o022)
    yield from _index(config)
    yield from _locks(config)
    yield from _runtime(config)
    yield from _ptyd(config)


def _directory(what: str, path: Path, forbidden: int) -> Iterator[Finding]:
    """Look at a directory; `forbidden` are the mode's bits that `hostsvc serve` would refuse."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        yield Finding("ok", f"{what} {path}: made at the first start")
        return
    except OSError as error:
        yield Finding("fail", f"{what} {path}: {error.strerror}", "repair it, or choose another")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("fail", f"{what} {path} is no directory", "move it away, or choose another")
    elif found.st_uid != os.geteuid():
        yield Finding("fail", f"{what} {path} belongs to uid {found.st_uid}", "choose another")
    elif stat.S_IMODE(found.st_mode) & forbidden:
        yield Finding("fail", f"{what} {path} is open to others", f"chmod 700 {path}")
    else:
        yield Finding("ok", f"{what} {path}: yours")
        yield from _space(what, path)


def _space(what: str, path: Path) -> Iterator[Finding]:
    space = os.statvfs(path)
    free_bytes = space.f_bavail * space.f_frsize
    if free_bytes < LITTLE_SPACE_BYTES:
        text = f"{what}: {free_bytes >> 20} MiB are free"
        yield Finding("warn", text, "make room: without it nothing can be entered in the index")


def _index(config: Config) -> Iterator[Finding]:
    from hostsvc.store.database import FILE, check_file

    path = config.state_dir / FILE
    if not path.exists():
        yield Finding("ok", f"index {path}: made at the first start")
        return
    faults = check_file(path)
    for fault in faults:
        yield Finding("fail", f"index {path}: {fault}", "restore a backup in its place, with hostsvc stopped")
    if not faults:
        yield Finding("ok", f"index {path}: sound")


def _locks(config: Config) -> Iterator[Finding]:
    """A service holds two locks, its runtime directory's and its index's: they have to be one service's."""
    holder = _lock_holder(config.state_dir)
    if holder is not None and holder != _lock_holder(config.runtime_dir):
        todo = f"use its runtime directory, or end it: kill {holder} (sessions live on)"
        yield Finding("fail", f"hostsvc {holder} has this index open for another runtime directory", todo)


def _runtime(config: Config) -> Iterator[Finding]:
    """Look at the runtime directory, and at whoever holds the lock in it."""
    if not os.path.lexists(config.runtime_dir / paths.SESSIONS):  # nothing was ever started there
        yield _NOT_RUNNING
        return
    try:
        runtime = paths.open_runtime(str(config.runtime_dir), create=False)
    except paths.RuntimeDirError as error:
        yield Finding("fail", str(error), "repair it, or choose another with PTYD_RUNTIME_DIR")
        return
    runtime.close()
    yield Finding("ok", f"runtime directory {config.runtime_dir}: private and yours")
    holder = _lock_holder(config.runtime_dir)
    if holder is None:
        yield _NOT_RUNNING
    else:
        yield from _service(config, holder)


def _lock_holder(directory: Path) -> int | None:
    """Return the pid of the service that holds a directory's lock."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    with paths.Runtime(str(directory), fd, os.dup(fd)) as opened:
        return paths.lock_holder(opened, LOCK)


def _service(config: Config, holder: int) -> Iterator[Finding]:
    try:
        with open_client(str(config.runtime_dir), deadline_s=ANSWER_S) as client:
            hello, found = client.hello, client.call("health")
    except PtydError as error:
        todo = f"if this stays so, look at its log, then: kill {holder} (sessions live on)"
        yield Finding("fail", f"hostsvc {holder} does not answer: {error.message}", todo)
        return
    yield Finding("ok", f"hostsvc {holder} answers, index {hello['index_id']}")
    if hello["version"] != __version__:
        todo = "restart it; sessions and deletions go on"
        yield Finding("warn", f"hostsvc is {hello['version']}, this command {__version__}", todo)
    if found["index"]["path"] != str(config.state_dir):
        text = f"it keeps its index in {found['index']['path']}, your settings say {config.state_dir}"
        yield Finding("warn", text, "see: hostsvc config show --origin")
    for reason in found["reasons"]:
        yield Finding("fail" if found["status"] == "red" else "warn", f"health: {reason}")


def _ptyd(config: Config) -> Iterator[Finding]:
    place = str(config.runtime_dir)
    if not os.path.lexists(config.runtime_dir / paths.SOCKET):
        yield Finding("warn", "no ptyd runs", "hostsvc serve starts it, and so does every ptyd command")
        return
    try:
        with BlockingClient.connect(place, False, name="hostsvc doctor", deadline_s=ANSWER_S) as client:
            stats = client.call("daemon.stats")
    except PtydError as error:
        yield Finding("fail", f"ptyd: {error.message}", "see: ptyd doctor")
        return
    yield Finding("ok", f"ptyd {stats['pid']} answers, version {stats['version']}")
    if not stats["complete"]:
        todo = "until it is, nothing that rests on absence is done; see: ptyd doctor"
        yield Finding("warn", "ptyd's list of sessions is not complete", todo)
