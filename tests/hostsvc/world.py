"""A world for the reaper: sessions that live and die, and a ptyd that may be silent or lose its answers.

`FakePtyd` stands where `hostsvc.live.Live` does; test_world.py holds both to the same promises. It never says
that something is dead which lives: what is tested is what others make of its silence.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import attrs
import trio

from hostsvc.live import KillResult, NotThere, Proven, Unproven
from hostsvc.model import (
    OWNER_LABEL,
    RUN_LABEL,
    WORKSPACE_LABEL,
    Fact,
    Key,
    Known,
    LiveSession,
    LiveView,
    Unknown,
)
from hostsvc.processes import Marks
from ptyd.protocol.errors import Code, PtydError
from tests.hostsvc.values import NOW


class Crash(BaseException):
    """The host service is killed at this very point."""


class Fault(enum.Enum):
    """What is wrong with ptyd's answers to one kind of request."""

    NONE = "none"
    SILENT = "silent"  # nothing is done, nothing is answered
    ANSWER_LOST = "answer lost"  # it is done, and nobody hears of it
    REFUSES = "refuses"  # a list is incomplete, a kill is unconfirmed, a spawn fails
    OMITS = "omits"  # a list says that it is complete and lacks the half
    LATE = "late"  # a spawn is done long after nobody waits for it any more


@attrs.define(eq=False, kw_only=True)
class Shell:
    """A session, alive or dead, whatever anybody knows of it."""

    id: str
    generation: int
    owner: str | None
    workspace_id: str | None
    instance: str
    boot: str
    number: int
    created_at_ms: int
    is_alive: bool = True
    proof: str | None = None
    is_recorded: bool = True
    run: str | None = None

    @property
    def labels(self) -> dict[str, str]:
        told = {OWNER_LABEL: self.owner, WORKSPACE_LABEL: self.workspace_id, RUN_LABEL: self.run}
        return {key: value for key, value in told.items() if value is not None}

    @property
    def key(self) -> Key:
        return self.id, self.generation

    def end(self, proof: str | None = "echild") -> None:
        self.is_alive = False
        self.proof = proof
        self.is_recorded = proof is not None

    def listed(self) -> LiveSession:
        return LiveSession(
            id=self.id,
            generation=self.generation,
            state="running" if self.is_alive else "exited",
            owner=self.owner,
            workspace_id=self.workspace_id,
            run=self.run,
            created_at_ms=self.created_at_ms,
            ended_at_ms=None if self.is_alive else self.created_at_ms,
            proof=self.proof,
            exit=None if self.is_alive else {"signal": 9},
            shim_pid=self.number,
            shim_start=self.number,
            boot_id=self.boot,
            pid=self.number,
            pid_start=self.number,
        )


class World:
    """Everything that is true."""

    def __init__(self) -> None:
        self.now_ms = NOW
        self.instance = "i1"
        self.boot = "boot-1"
        self.shells: list[Shell] = []
        self.is_immortal = False
        self.fenced: dict[tuple[str, str], int] = {}
        self.late: list[dict[str, Any]] = []
        self.killed: list[Shell] = []
        self.is_crashed = False

    def clock(self) -> int:
        return self.now_ms

    def add(
        self,
        key: Key,
        owner: str | None,
        workspace_id: str | None = None,
        instance: str | None = None,
        run: str | None = None,
    ) -> Shell | None:
        """Start a session at a ptyd, that of now if none is named; None when its id is fenced."""
        instance = instance or self.instance
        if self.fenced.get((instance, key[0]), 0) >= key[1]:
            return None
        shell = Shell(
            id=key[0],
            generation=key[1],
            owner=owner,
            workspace_id=workspace_id,
            instance=instance,
            boot=self.boot,
            number=len(self.shells) + 1,
            created_at_ms=self.now_ms,
            run=run,
        )
        self.shells.append(shell)
        return shell

    def find(self, key: Key) -> Shell | None:
        """Return a session of the ptyd of now, if that has it or its record."""
        return next((one for one in self.here() if one.key == key), None)

    def here(self) -> list[Shell]:
        return [one for one in self.shells if one.instance == self.instance and one.is_recorded]

    def is_living(self, key: Key) -> bool:
        return any(one.is_alive for one in self.shells if one.key == key)

    def marks(self) -> Marks:
        return Marks(frozenset(one.id for one in self.shells if one.is_alive))

    def has_process(self, pid: int, start: int) -> bool:
        return any(one.is_alive and one.number == pid == start for one in self.shells)

    def reboot(self) -> None:
        """Every process is gone, and so is ptyd's runtime directory."""
        for shell in self.shells:
            if shell.is_alive:
                shell.end(proof=None)
            shell.is_recorded = False
        self.late.clear()
        number = int(self.boot.removeprefix("boot-")) + 1
        self.boot, self.instance = f"boot-{number}", f"i{number}0"


class FakePtyd:
    """What the host service sees of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.list_fault = self.kill_fault = self.spawn_fault = Fault.NONE
        self.held: trio.Event | None = None
        self.go: trio.Event | None = None
        self.holds_answer = False

    # -- the face of Live --------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        return self.world.instance

    @property
    def hello(self) -> dict[str, Any]:
        return {"instance_id": self.world.instance}

    def instance(self) -> str:
        return self.world.instance

    def client(self) -> SimpleNamespace:
        return SimpleNamespace(hello=self.hello)

    async def view(self, *, labels: Mapping[str, str] | None = None) -> Fact[LiveView]:
        await self._arrive()
        if self.list_fault in (Fault.SILENT, Fault.ANSWER_LOST):
            return Unknown("ptyd did not list")
        if self.list_fault is Fault.REFUSES:
            return Unknown("ptyd's list is not complete")
        found = self.world.here()
        if self.list_fault is Fault.OMITS:
            found = found[::2]
        wanted = (labels or {}).items()
        found = [one for one in found if wanted <= one.labels.items()]
        return Known(
            LiveView(instance_id=self.world.instance, sessions={one.key: one.listed() for one in found})
        )

    async def get(self, id_: str) -> Fact[LiveSession]:
        await self._arrive()
        found = [one for one in self.world.here() if one.id == id_]
        if not found or self.list_fault in (Fault.SILENT, Fault.ANSWER_LOST):
            return Unknown("not_found")
        return Known(found[-1].listed())

    async def kill(self, key: Key, *, is_forced: bool, instance_id: str | None) -> KillResult:
        await self._arrive()
        if self.kill_fault is Fault.SILENT:
            return Unproven(PtydError(Code.NO_PTYD, "ptyd did not answer the kill"))
        if instance_id not in (None, self.world.instance):
            return Unproven(PtydError(Code.WRONG_INSTANCE, "another instance"))
        place = self.world.instance, key[0]
        self.world.fenced[place] = max(self.world.fenced.get(place, 0), key[1])
        shell = self.world.find(key)
        is_news = shell is not None and shell.is_alive
        if is_news and shell is not None:
            self.world.killed.append(shell)
            if self.kill_fault is Fault.REFUSES or self.world.is_immortal:
                return Unproven(PtydError(Code.KILL_UNCONFIRMED, "1 survivor", survivors=[1]))
            shell.end()
        if self.kill_fault is Fault.ANSWER_LOST:
            return Unproven(PtydError(Code.NO_PTYD, "the connection was lost"))
        if shell is None:
            return NotThere()
        outcome = "killed" if is_news else "already_exited"
        return Proven({"proof": shell.proof, "outcome": outcome, "by": "ptyd"}, {"signal": 9})

    async def spawn(self, key: Key, argv: Sequence[bytes], **fields: Any) -> LiveSession:
        await self._hold(is_answer=False)
        labels = fields["labels"]
        wanted = {
            "key": key,
            "owner": labels[OWNER_LABEL],
            "workspace_id": labels[WORKSPACE_LABEL],
            "run": labels.get(RUN_LABEL),
            "instance": self.world.instance,
        }
        if self.spawn_fault is Fault.REFUSES:
            raise PtydError(Code.SPAWN_FAILED, "no such program")
        if fields["expect_instance"] != self.world.instance:
            raise PtydError(Code.WRONG_INSTANCE, "another instance")
        if self.spawn_fault is Fault.LATE:
            self.world.late.append(wanted)
        if self.spawn_fault in (Fault.LATE, Fault.SILENT):
            raise PtydError(Code.NO_PTYD, "ptyd did not answer the spawn")
        shell = self.world.add(**wanted)
        await self._hold(is_answer=True)
        if shell is None:
            raise PtydError(Code.FENCED, "that id was killed")
        if self.spawn_fault is Fault.ANSWER_LOST:
            raise PtydError(Code.NO_PTYD, "the connection was lost")
        return shell.listed()

    # -- what a test does with it ------------------------------------------------------------------

    def heal(self) -> None:
        self.list_fault = self.kill_fault = self.spawn_fault = Fault.NONE
        self.world.is_immortal = False

    async def _arrive(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.world.is_crashed:
            raise Crash

    async def _hold(self, *, is_answer: bool) -> None:
        """Keep a request, or its answer, until the test lets it go."""
        await self._arrive()
        if self.held is not None and self.go is not None and is_answer is self.holds_answer:
            self.held.set()
            await self.go.wait()
            await self._arrive()
