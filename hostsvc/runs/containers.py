"""Plug-in: containers with a run's label and this index's owner label, through the command of their engine.

Owns every call of `docker` and `podman`. Nothing is ever listed without both labels, named by less than its
whole id, or believed for the text of an error: a call worked, or what it was to tell is unknown. An engine of
another host is refused before anything is listed.

Source: docker-ps(1), docker-inspect(1), docker-rm(1), docker-context-inspect(1), podman-ps(1), podman-info(1)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import trio

from hostsvc.index import Index
from hostsvc.model import OWNER_LABEL, RUN_LABEL
from hostsvc.runs.policy import Resource
from hostsvc.store import runs
from ptyd.protocol.errors import Code, PtydError

DEADLINE_S: Final = 30.0
"""Of one call: an engine that has much to remove answers slowly, and one that hangs not at all."""
INSPECTED_AT_ONCE: Final = 50
KEPT_VARIABLES: Final = (
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "CONTAINER_HOST",
    "CONTAINER_CONNECTION",
)
"""What chooses the engine is passed on, and then looked at; nothing else of our environment is."""
LOCAL: Final = "unix://"
_ID: Final = re.compile(r"[0-9a-f]{64}").fullmatch


class Containers:
    """Finds and ends those of one engine."""

    def __init__(self, program: str, index: Index, owner: str, *, deadline_s: float = DEADLINE_S) -> None:
        self.name = program
        self._index = index
        self._owner = owner
        self._deadline_s = deadline_s

    async def check(self) -> bool:
        if shutil.which(self.name) is None or not await self._index.read(runs.is_any):
            return False
        if self.name == "docker":
            if (await self._tell("--version")).startswith("podman"):  # its stand-in; podman is asked itself
                return False
            endpoint = await self._tell("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
            self._refuse_unless(endpoint.startswith(LOCAL), "its context is another host's")
            if not _is_there(endpoint.removeprefix(LOCAL)):
                return False  # only the command is here, and no engine
        else:
            endpoint = os.environ.get("CONTAINER_HOST", LOCAL)
            self._refuse_unless(endpoint.startswith(LOCAL), "CONTAINER_HOST is another host's")
        info = self._map(self._parsed(await self._tell("info", "--format", "{{json .}}")))
        host = self._map(info.get("host", {"hostname": info.get("Name")}))
        is_here = host.get("hostname") == os.uname().nodename and not host.get("serviceIsRemote")
        self._refuse_unless(is_here, "its engine runs on another host")
        return True

    def _refuse_unless(self, is_local: bool, why: str) -> None:
        if not is_local:
            raise PtydError(Code.WRONG_INSTANCE, f"{self.name}: {why}; nothing was listed")

    async def find(self, run: str | None) -> Sequence[Resource]:
        ids = await self._list(run)
        found: list[Resource | None] = []
        for at in range(0, len(ids), INSPECTED_AT_ONCE):
            found += await self._inspect(ids[at : at + INSPECTED_AT_ONCE], run)
        return [one for one in found if one is not None]

    async def look(self, resource: Resource) -> Resource | None:
        return (await self._inspect([resource.id], resource.run))[0]

    async def end(self, resource: Resource) -> Mapping[str, object]:
        status, _ = await self._call("rm", "--force", "--volumes", resource.id)
        if await self.look(resource) is not None:
            raise PtydError(Code.KILL_UNCONFIRMED, f"{self.name} rm ended with {status}; it is still there")
        return {"proof": "not_listed", "by": self.name}

    # -- what is there -----------------------------------------------------------------------------

    async def _list(self, run: str | None, id_: str | None = None) -> list[str]:
        labels = [RUN_LABEL if run is None else f"{RUN_LABEL}={run}", f"{OWNER_LABEL}={self._owner}"]
        filters = [f"label={label}" for label in labels] + ([] if id_ is None else [f"id={id_}"])
        words = [word for one in filters for word in ("--filter", one)]
        found = (await self._tell("ps", "--all", "--quiet", "--no-trunc", *words)).split()
        if not all(map(_ID, found)):
            raise PtydError(Code.PROTOCOL_VIOLATION, f"{self.name} lists what is no container's id")
        return found

    async def _inspect(self, ids: Sequence[str], run: str | None) -> list[Resource | None]:
        """Look at these; None for one that is gone, which a second list has to confirm."""
        ended, output = await self._call("inspect", "--type", "container", *ids)
        if ended == 0:
            shown = self._parsed(output)
            if not isinstance(shown, list) or len(shown) != len(ids):
                raise self._nonsense()
            return [self._resource(self._map(one)) for one in shown]
        if len(ids) > 1:  # one of them went meanwhile
            return [(await self._inspect([id_], run))[0] for id_ in ids]
        if ids[0] in await self._list(run, ids[0]):
            raise PtydError(Code.BUSY, f"{self.name} lists a container and does not show it")
        return [None]

    def _resource(self, shown: Mapping[str, Any]) -> Resource:
        labels = self._map(self._map(shown.get("Config")).get("Labels") or {})
        return Resource(
            plugin=self.name,
            id=str(shown.get("Id")),
            run=str(labels.get(RUN_LABEL)),
            created_at_ms=_at_ms(shown.get("Created")),
            is_ours=labels.get(OWNER_LABEL) == self._owner and RUN_LABEL in labels,
        )

    # -- the command -------------------------------------------------------------------------------

    def _parsed(self, output: str | bytes) -> Any:
        try:
            return json.loads(output)
        except ValueError:
            raise self._nonsense() from None

    def _map(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._nonsense()
        return value

    def _nonsense(self) -> PtydError:
        return PtydError(Code.PROTOCOL_VIOLATION, f"what {self.name} tells makes no sense")

    async def _tell(self, *words: str) -> str:
        """Return what a call writes, if it works.

        Raises:
            PtydError: it does not: nobody can tell.
        """
        ended, output = await self._call(*words)
        if ended:
            raise PtydError(Code.BUSY, f"{self.name} {words[0]} ended with {ended}: it cannot be reached now")
        return output.decode(errors="replace").strip()

    async def _call(self, *words: str) -> tuple[int, bytes]:
        env = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | {"LC_ALL": "C"}
        try:
            with trio.fail_after(self._deadline_s):
                done = await trio.run_process(
                    [self.name, *words],
                    env=env,
                    cwd="/",
                    check=False,
                    capture_stdout=True,
                    stderr=subprocess.DEVNULL,
                )
        except trio.TooSlowError:
            text = f"{self.name} {words[0]} was not done within {self._deadline_s:g} s"
            raise PtydError(Code.TIMEOUT, text) from None
        except OSError as error:
            raise PtydError(Code.BUSY, f"{self.name} cannot be run: {error.strerror}") from error
        return done.returncode, done.stdout


def _is_there(path: str) -> bool:
    return os.path.lexists(path)


def _at_ms(text: object) -> int | None:
    """Read when something was created; None for what is no moment that anything was created at."""
    try:
        moment = datetime.fromisoformat(str(text))
        at_ms = int(moment.timestamp() * 1000) if moment.tzinfo is not None else 0
    except (ValueError, OverflowError):
        return None
    return at_ms if at_ms > 0 else None
