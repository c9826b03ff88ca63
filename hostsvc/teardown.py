"""A workspace's own teardown command, run as a session of ptyd.

So that it ends like everything else: with its exit status, the last of its output, and proof that nothing it
started is left. Its session has no row: the saga is what remembers it, and an attempt that a crash left
behind is ended before the next one begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import trio

from hostsvc.births import Births
from hostsvc.live import Live, Proven, Unproven
from hostsvc.model import OWNER_LABEL, WORKSPACE_LABEL, Key, Saga, Workspace
from ptyd.client import Client, Session
from ptyd.protocol.errors import Code, PtydError

DEADLINE_S: Final = 60.0
ANSWER_S: Final = 60.0
"""What ptyd may take beyond that, to start it and to end it. One that is stopped never answers."""
TAIL_BYTES: Final = 500


class Teardown:
    """Runs teardown commands."""

    def __init__(self, live: Live, births: Births, *, owner: str) -> None:
        self._live = live
        self._births = births
        self._owner = owner

    async def run(self, saga: Saga, workspace: Workspace) -> None:
        """Run the command and wait for the end of everything it starts.

        Raises:
            PtydError: ptyd_unreachable, spawn_failed or another refusal of the spawn; timeout;
                kill_unconfirmed.
        """
        assert workspace.teardown is not None
        try:
            with trio.fail_after(DEADLINE_S + ANSWER_S):
                await self._run(workspace, f"teardown-{saga.id}", workspace.teardown)
        except trio.TooSlowError:
            text = f"ptyd did not answer for the teardown command within {DEADLINE_S + ANSWER_S:g} s"
            raise PtydError(Code.NO_PTYD, f"{text}; see: ptyd status") from None

    async def _run(self, workspace: Workspace, id_: str, command: Sequence[str]) -> None:
        client = self._live.client()
        left = await self._find(client, id_)
        if left is not None:
            await self._end((id_, left.generation))
        key = id_, 1 if left is None else left.generation + 1
        with self._births.sheltered(key):
            await self._live.spawn(
                key,
                [word.encode(errors="surrogateescape") for word in command],
                cwd=workspace.path,
                labels={OWNER_LABEL: self._owner, WORKSPACE_LABEL: workspace.id},
                on_leader_exit="kill",
            )
            await self._wait(client, key)

    async def _find(self, client: Client, id_: str) -> Session | None:
        try:
            return await client.get(id_)
        except PtydError as error:
            if error.code is Code.NOT_FOUND:
                return None
            raise

    async def _end(self, key: Key) -> None:
        match await self._live.kill(key, is_forced=True, instance_id=None):
            case Unproven(error):
                raise error
            case Proven():
                pass

    async def _wait(self, client: Client, key: Key) -> None:
        """Wait for the end of all of it, and take its exit for its verdict.

        Raises:
            PtydError: it failed, or nobody could tell in time; what was left of it is ended.
        """
        failure = await self._failure(client, key)
        if failure is not None:
            await self._end(key)
            raise failure
        with contextlib.suppress(PtydError):  # tidying up: ptyd forgets it by itself, later
            await client.forget(key[0])

    async def _failure(self, client: Client, key: Key) -> PtydError | None:
        try:
            happened = await client.wait(key[0], "end", timeout_s=DEADLINE_S)
        except PtydError as error:
            if error.code is not Code.TIMEOUT:
                return error
            return PtydError(Code.TIMEOUT, f"the teardown command was not done within {DEADLINE_S:g} s")
        if happened.exit is not None and happened.exit.status == 0:
            return None
        how = "in a way that nobody knows" if happened.exit is None else f"with {happened.exit.status}"
        said = await client.read(key[0], max(0, happened.offset - TAIL_BYTES))
        text = said.data.decode(errors="replace").strip()
        return PtydError(Code.SPAWN_FAILED, f"the teardown command ended {how}: {text}")
