"""The daemon's life: take the lock, adopt what lives, serve, step down.

Owns the order of starting and stopping. The daemon owns no child and no PTY, so it may die at any moment;
stepping down only means to tell the clients first.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import secrets
import signal
import socket
import sys
import time

import trio

from ptyd import paths, records
from ptyd.daemon.births import Births
from ptyd.daemon.config import Config, ConfigError, read_config
from ptyd.daemon.connection import Client
from ptyd.daemon.handlers import Methods
from ptyd.daemon.handlers.context import Context, Identity
from ptyd.daemon.killing import Killer
from ptyd.daemon.pacer import Pacer
from ptyd.daemon.poller import Poller
from ptyd.daemon.registry import Registry, now_ms
from ptyd.daemon.server import Server
from ptyd.daemon.watch import Watch
from ptyd.daemon.zygote_link import ZygoteLink
from ptyd.log import get_logger, set_up_log
from ptyd.protocol.errors import Code
from ptyd.protocol.eventlog import EventLog
from ptyd.shim.link import EXIT_CONFIG, EXIT_STOPPED, EXIT_TEMPORARY

log = get_logger()

LOCK_WAIT_S = 10.0  # for a predecessor that is stepping down
LOCK_LOOK_S = 0.05
FAREWELL_S = 0.5  # for the last replies to go out
YOUNG_OBJECTS = 5000  # before a collection: 256 keys that nobody has answered yet keep half of that
EXIT_AGAIN = 1  # any other status: the zygote starts a new daemon


class Daemon:
    """Everything one daemon process holds, put together."""

    def __init__(self, runtime: paths.Runtime, config: Config, zygote_fd: int, nursery: trio.Nursery) -> None:
        self.exit_status = EXIT_AGAIN
        self._runtime = runtime
        self._config = config
        self._nursery = nursery
        self._poller = Poller()
        self._pacer = Pacer()
        self._clients: set[Client] = set()
        self._stopping = trio.Event()
        identity = Identity(
            instance_id=paths.instance_id(runtime),
            daemon_id=secrets.token_hex(8),
            started_at=trio.current_time(),
        )
        self._events = EventLog(identity.daemon_id, now_ms)
        self._registry = Registry(runtime, config, self._poller, self._events, nursery)
        self._zygote = ZygoteLink(zygote_fd, self._poller, self._registry.unsupervised_ended)
        killer = Killer(self._registry, self._zygote, self._events)
        self._registry.on_adopted = killer.resume
        context = Context(
            registry=self._registry,
            births=Births(runtime, config, self._registry, self._zygote),
            killer=killer,
            events=self._events,
            identity=identity,
        )
        self._methods = Methods(context, self._clients, self.stop)
        self._server = Server(runtime, self._poller, self._admit, self._has_room)
        self._watch = Watch(runtime, self._poller, self._top_changed, self._session_changed, self._upheaval)

    def _has_room(self) -> bool:
        return len(self._clients) < self._config.max_clients

    def _admit(self, sock: socket.socket) -> None:
        client = Client(
            sock,
            self._methods,
            self._poller,
            self._pacer,
            self._events,
            self._nursery,
            self._clients.discard,
        )
        self._clients.add(client)

    async def run(self) -> None:
        """Serve until told to stop; the clients hear of it first."""
        self._nursery.start_soon(self._poller.run)
        self._nursery.start_soon(self._pacer.run)
        self._nursery.start_soon(self._heed_signals)
        self._nursery.start_soon(self._mourn_zygote)
        self._registry.load()
        await self._registry.settle()
        keep_collections_short()
        self._server.listen()
        self._zygote.tell_ready()
        self._events.emit("daemon.ready")
        log.info("ready", sessions=len(self._registry.sessions), complete=self._registry.is_complete)
        await self._stopping.wait()
        await self._say_farewell()
        self._nursery.cancel_scope.cancel()

    def stop(self, for_good: bool) -> None:
        """Begin to step down; `for_good` when nobody is to start a new daemon."""
        if for_good:
            self.exit_status = EXIT_STOPPED
        self._stopping.set()

    async def _heed_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for _ in received:
                self.stop(for_good=True)

    async def _mourn_zygote(self) -> None:
        """Without a zygote no session can be started: step down for a new pair."""
        await self._zygote.lost.wait()
        log.warning("the zygote is gone; stepping down")
        self.stop(for_good=False)

    async def _say_farewell(self) -> None:
        self._zygote.tell_stopping()
        self._server.close()
        if self.exit_status == EXIT_STOPPED:
            self._registry.dismiss_ended()  # the zygote leaves with the last shim: let no ended one hold it
            self._say_stopping()
        with trio.move_on_after(FAREWELL_S):
            while any(client.is_sending for client in self._clients):  # noqa: ASYNC110 - once, at the end
                await trio.sleep(LOCK_LOOK_S)

    def _say_stopping(self) -> None:
        """Only where it was asked for: else clients are to come back, and that starts a new pair."""
        self._events.emit("daemon.stopping")
        farewell = {
            "code": Code.STOPPING.value,
            "message": "the daemon was told to stop; start one: ptyd daemon",
        }
        for client in list(self._clients):
            for attachment in list(client.attachments.values()):
                client.drop(attachment)  # no output after its last word
                body = {"attachment": attachment.number, "reason": "stopping"}
                client.send(client.protocol.notify("session.detached", body))
            client.flush()  # the event, which waits for its turn
            client.close_after(client.protocol.notify("error", farewell))

    # -- the runtime directory -------------------------------------------------------------------------

    def _top_changed(self, name: str, appeared: bool) -> None:
        if not self._runtime.still_there():
            self._upheaval()
        elif name == paths.SOCKET and not appeared and not self._stopping.is_set():
            self._server.ensure()

    def _session_changed(self, name: str, appeared: bool) -> None:
        if name.startswith("."):
            return
        if appeared and name.endswith(records.RECORD_SUFFIX):
            self._registry.notice(name.removesuffix(records.RECORD_SUFFIX))
        elif not appeared and name.endswith(records.SOCKET_SUFFIX):
            self._registry.socket_vanished(name.removesuffix(records.SOCKET_SUFFIX))

    def _upheaval(self) -> None:
        """The directory itself went, or we have missed what happened in it."""
        if self._runtime.still_there():
            self._registry.load()
            self._server.ensure()
        else:
            log.error("the runtime directory is gone; stepping down", path=self._runtime.path)
            self.stop(for_good=True)


async def serve(runtime: paths.Runtime, config: Config, zygote_fd: int) -> int:
    """Be the daemon until it steps down; returns the exit status."""
    async with trio.open_nursery() as nursery:
        daemon = Daemon(runtime, config, zygote_fd, nursery)
        nursery.start_soon(daemon.run)
    return daemon.exit_status


def keep_collections_short() -> None:
    """Let no session wait while Python looks for garbage: a full pass over what is here now takes 40 ms."""
    gc.freeze()  # it stays for life
    gc.set_threshold(YOUNG_OBJECTS)


def wait_for_lock(runtime: paths.Runtime) -> bool:
    """Take the daemon's lock, waiting for a predecessor that is stepping down."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while paths.take_lock(runtime, paths.LOCK) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOCK_LOOK_S)
    return True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ptyd-daemon")
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--zygote-fd", type=int, required=True)
    parser.add_argument("--foreground", action="store_true")
    args = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.set_inheritable(args.zygote_fd, False)
    runtime = paths.open_runtime(args.runtime)
    try:
        config = read_config()
    except ConfigError as err:
        sys.stderr.write(f"ptyd: {err}\n")
        return EXIT_CONFIG
    set_up_log(runtime.fd, paths.LOG, config.log_level, args.foreground)
    if not wait_for_lock(runtime):
        log.error("another daemon holds the lock", pid=paths.lock_holder(runtime, paths.LOCK))
        return EXIT_TEMPORARY
    return trio.run(serve, runtime, config, args.zygote_fd)
