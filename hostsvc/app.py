"""The host service's life: lock, trust the index, reach ptyd, listen, and only then clean up.

Owns the order of starting and stopping. Listening waits for nothing that may take long: what was left behind
is drained in the background, and the reaper runs in every service there is.
"""

from __future__ import annotations

import gc
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import trio

from hostsvc.api import Api
from hostsvc.clock import wall_ms
from hostsvc.config import Config
from hostsvc.index import Index, open_index
from hostsvc.live import Live
from hostsvc.server import Server
from hostsvc.service import Service
from hostsvc.store import database, sagas
from hostsvc.store.database import IndexUnusable
from hostsvc.tree import PathRefused
from ptyd import paths
from ptyd.log import get_logger, set_up_log

log = get_logger()

LOCK = "hostsvc.lock"
LOG = "hostsvc.log"
WAIT_FOR_PTYD_S = 10.0
"""How long the start waits for ptyd before it listens without it; a slow one is never killed."""
EXIT_STOPPED, EXIT_REFUSED, EXIT_TAKEN = 0, 4, 75


class StartRefused(Exception):
    """The service cannot start; the message says why and what to do."""

    def __init__(self, message: str, status: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.status = status


def open_private(path: Path) -> int:
    """Open a directory that is ours alone, making it when it is not there.

    Raises:
        StartRefused: it is a link, somebody else's, or open to others.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StartRefused(f"state directory {path}: {error.strerror}") from error
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise StartRefused(f"state directory {path} is not yours alone; run: chmod 700 {path}")
    return fd


def take_locks(runtime: paths.Runtime, state_fd: int, config: Config) -> list[int]:
    """Take the runtime directory's lock and the index's, for life: one service each.

    Raises:
        StartRefused: another one runs; says which.
    """
    state = paths.Runtime(str(config.state_dir), state_fd, os.dup(state_fd))
    taken = []
    for directory in (runtime, state):
        fd = paths.take_lock(directory, LOCK)
        if fd is None:
            holder = paths.lock_holder(directory, LOCK)
            text = f"hostsvc {holder} runs already (it holds {directory.path}/{LOCK}); see: hostsvc health"
            raise StartRefused(text, EXIT_TAKEN)
        taken.append(fd)
    return taken


class App:
    """One run of the service."""

    def __init__(
        self, config: Config, runtime: paths.Runtime, index: Index, say: Callable[[str], None]
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._index = index
        self._say = say
        self._stopping = trio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. The order of the nurseries is the order of stopping."""
        owner = await self._index.read(database.index_id)
        live = Live(str(self._config.runtime_dir), start=True, kill_deadline_s=self._config.kill_deadline_s)
        async with trio.open_nursery() as outer:
            outer.start_soon(self._heed_signals)
            outer.start_soon(live.run)
            with trio.move_on_after(WAIT_FOR_PTYD_S):
                await live.tried.wait()
            async with trio.open_nursery() as nursery:
                service = Service(self._config, self._index, owner, live, nursery, wall_ms)
                await self._index.write(sagas.void_leases, service.run_id)
                server = Server(self._runtime, Api(service).handle, service.events)
                await nursery.start(server.run)
                nursery.start_soon(service.reaper.run)
                nursery.start_soon(service.follower.run)
                nursery.start_soon(service.restarter.run)
                nursery.start_soon(service.monitor.run)
                nursery.start_soon(service.watching.run)
                service.events.emit("service.ready")
                log.info("ready", index=owner, ptyd=live.instance_id)
                self._say(f"hostsvc serves {self._runtime.path}")
                await self._stopping.wait()
                await server.say_stopping()
                nursery.cancel_scope.cancel()
            service.places.close()
            outer.cancel_scope.cancel()
        log.info("stopped")

    async def _heed_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for _ in received:
                self._stopping.set()


def serve(config: Config, *, foreground: bool, say: Callable[[str], None] = lambda _: None) -> int:
    """Be the host service until it is told to stop; return the exit status.

    Raises:
        StartRefused: it cannot start.
    """
    try:
        runtime = paths.open_runtime(str(config.runtime_dir))
    except paths.RuntimeDirError as error:
        raise StartRefused(str(error)) from error
    state_fd = open_private(config.state_dir)
    locks = take_locks(runtime, state_fd, config)
    set_up_log(state_fd, LOG, config.log_level, foreground)
    try:
        index = open_index(config.state_dir)
    except IndexUnusable as error:
        raise StartRefused(str(error)) from error
    # All modules live as long as we do; a collection that looks at them too makes long lists twice as slow.
    gc.freeze()
    try:
        trio.run(App(config, runtime, index, say).run)
    except* PathRefused as refused:
        raise StartRefused(str(_first(refused))) from None
    finally:
        index.close()
        for fd in locks:
            os.close(fd)
    return EXIT_STOPPED


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first fault in a group, however deep the nurseries were."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
