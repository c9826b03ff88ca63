"""What ptyd says, as facts: a list that is whole or unknown, a kill that is proven or not.

Owns the connection to ptyd and its loss. Nothing in here ever turns "I could not ask" into "there is
nothing": every answer is either ptyd's own or an Unknown that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from hostsvc.believed import believed, exit_map, live_session, sound
from hostsvc.model import Fact, Key, Known, LiveSession, LiveView, Unknown
from ptyd.client import Client, Listing, PtydError, Session, open_client
from ptyd.protocol.errors import Code
from ptyd.protocol.results import PROOFS

LIST_DEADLINE_S: Final = 10.0
COMPLETION_PAUSES_S: Final = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Before each look: whoever is just being born makes a list incomplete, for some milliseconds."""
KILL_DEADLINE_S: Final = 30.0
"""Two graces, ten seconds for the proof, and room for a machine that swaps."""
SPAWN_DEADLINE_S: Final = 20.0
RECONNECT_DEADLINE_S: Final = 5.0
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 5.0
NO_ANSWER: Final = frozenset(
    {
        Code.UNREACHABLE,
        Code.MAYBE_APPLIED,
        Code.TIMEOUT,
        Code.STOPPING,
        Code.BUSY,
        Code.INTERNAL,
        Code.PROTOCOL_VIOLATION,
    }
)
"""After these nobody knows whether it was done."""


@attrs.frozen
class Proven:
    """Nothing of it is alive, and this is how that is known."""

    evidence: dict[str, Any]
    exit: dict[str, int] | None


@attrs.frozen
class NotThere:
    """ptyd has no such session. Not a death; but from now on it refuses a spawn of it."""


@attrs.frozen
class Unproven:
    """It may be alive."""

    error: PtydError


KillResult = Proven | NotThere | Unproven


class Live:
    """The one way to ptyd. Run `run` in a nursery; every call answers, whether ptyd does or not."""

    def __init__(self, runtime: str, *, start: bool, kill_deadline_s: float = KILL_DEADLINE_S) -> None:
        self._runtime = runtime
        self._start = start
        self._kill_deadline_s = kill_deadline_s
        self._client: Client | None = None
        self._trouble = PtydError(Code.NO_PTYD, "ptyd was not reached yet; see: ptyd status")
        self.tried = trio.Event()

    async def run(self) -> None:
        """Keep a client, also when ptyd cannot be reached at first; sets `tried` after one attempt."""
        pause_s = FIRST_RETRY_S
        while True:
            try:
                async with open_client(
                    self._runtime,
                    start=self._start,
                    name="hostsvc",
                    reconnect_deadline_s=RECONNECT_DEADLINE_S,
                ) as client:
                    self._client = client
                    self.tried.set()
                    await trio.sleep_forever()
            except PtydError as error:
                self._trouble = _unreachable(error)
                self.tried.set()
            finally:
                self._client = None
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)

    @property
    def instance_id(self) -> str | None:
        """The instance that was last spoken to; None when none ever was."""
        told = self.hello.get("instance_id")
        return told if isinstance(told, str) else None

    @property
    def hello(self) -> Mapping[str, Any]:
        told = None if self._client is None else self._client.hello
        return told if isinstance(told, dict) else {}

    @property
    def was_stopped(self) -> bool:
        """Whether ptyd has said that it was told to stop: then nobody starts it from here."""
        return self._client is not None and self._client.was_stopped

    def instance(self) -> str:
        """The instance that is spoken to.

        Raises:
            PtydError: ptyd_unreachable.
        """
        self.client()
        if self.instance_id is None:
            raise PtydError(Code.NO_PTYD, "ptyd did not say which instance it is; see: ptyd doctor")
        return self.instance_id

    def client(self) -> Client:
        """The client.

        Raises:
            PtydError: ptyd_unreachable.
        """
        if self._client is None:
            raise self._trouble
        return self._client

    # -- looking -----------------------------------------------------------------------------------

    async def listing(
        self, *, labels: Mapping[str, str] | None = None, detail: bool = False
    ) -> Fact[Listing]:
        """Return what ptyd lists, complete or not; only those that have all of `labels`, if any are given."""
        try:
            with trio.fail_after(LIST_DEADLINE_S):
                return Known(believed(await self.client().list(labels=labels, detail=detail)))
        except trio.TooSlowError:
            return Unknown(f"ptyd did not list within {LIST_DEADLINE_S:g} s")
        except PtydError as error:
            return Unknown(f"ptyd did not list: {error}")

    async def view(self, *, labels: Mapping[str, str] | None = None) -> Fact[LiveView]:
        """List everything, or what has all of `labels`: Known only if the list is complete."""
        for pause_s in COMPLETION_PAUSES_S:
            await trio.sleep(pause_s)
            match await self.listing(labels=labels):
                case Known(listing) if listing.complete:
                    sessions = {found.key: found for found in map(live_session, listing.sessions)}
                    return Known(LiveView(instance_id=listing.instance_id, sessions=sessions))
                case Unknown(why):
                    return Unknown(why)
        return Unknown("ptyd's list is not complete")

    async def trouble(self) -> str | None:
        """Return why ptyd cannot be used now; None when it answers."""
        try:
            with trio.fail_after(LIST_DEADLINE_S):
                await self.client().stats()
        except trio.TooSlowError:
            return f"it did not answer within {LIST_DEADLINE_S:g} s"
        except PtydError as error:
            return str(error)
        return None

    async def get(self, id_: str) -> Fact[LiveSession]:
        """Look at one; not_found is Unknown here, because one answer is no complete list."""
        match await self.look_at(id_):
            case Known(session):
                return Known(live_session(session))
            case unknown:
                return Unknown(getattr(unknown, "why", "ptyd does not tell"))

    async def look_at(self, id_: str) -> Fact[Session]:
        """Look at one with all that ptyd tells of it, also whether it is busy; otherwise as `get`."""
        try:
            with trio.fail_after(LIST_DEADLINE_S):
                return Known(sound(await self.client().get(id_)))
        except trio.TooSlowError:
            return Unknown(f"ptyd did not answer within {LIST_DEADLINE_S:g} s")
        except PtydError as error:
            return Unknown(str(error))

    # -- acting ------------------------------------------------------------------------------------

    async def spawn(self, key: Key, argv: Sequence[bytes], **fields: Any) -> LiveSession:
        """Start a session.

        Raises:
            PtydError: ptyd's refusal, after which nothing runs; or ptyd_unreachable, after which
                something may.
        """
        try:
            with trio.fail_after(SPAWN_DEADLINE_S):
                spawned = sound(await self.client().spawn(argv, id=key[0], generation=key[1], **fields))
        except trio.TooSlowError:
            text = f"ptyd did not answer the spawn within {SPAWN_DEADLINE_S:g} s"
            raise PtydError(Code.NO_PTYD, text) from None
        except PtydError as error:
            raise (_unreachable(error) if error.code in NO_ANSWER else error) from error
        return live_session(spawned)

    async def kill(self, key: Key, *, is_forced: bool, instance_id: str | None) -> KillResult:
        """End a session, and say how that is known. Fences the id, also when there is no such session."""
        try:
            with trio.fail_after(self._kill_deadline_s):
                killed = await self.client().kill(
                    key[0], force=is_forced, generation=key[1], expect_instance=instance_id
                )
        except trio.TooSlowError:
            text = f"ptyd did not answer the kill within {self._kill_deadline_s:g} s"
            return Unproven(PtydError(Code.NO_PTYD, text))
        except PtydError as error:
            if error.code is Code.NOT_FOUND:
                return NotThere()
            return Unproven(_unreachable(error) if error.code in NO_ANSWER else error)
        if killed.proof not in PROOFS:
            return Unproven(PtydError(Code.KILL_UNCONFIRMED, "ptyd answered without a proof"))
        return Proven({"proof": killed.proof, "outcome": killed.outcome, "by": "ptyd"}, exit_map(killed.exit))


def _unreachable(error: PtydError) -> PtydError:
    return PtydError(Code.NO_PTYD, f"{error.message}; what was asked stays due (see: ptyd status)")
