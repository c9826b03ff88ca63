"""A workspace's own teardown command, run as a session of ptyd.

So that it ends like everything else: with its exit status, the last of its output, and proof that nothing it
started is left. Its session has no row: the saga is what remembers it, and an attempt that a crash left
behind is ended before the next one begins.
"""

from __future__ import annotations

from typing import Final

from hostsvc.births import Births
from hostsvc.live import Live, Proven, Unproven
from hostsvc.model import OWNER_LABEL, WORKSPACE_LABEL, Key, Saga, Workspace
from ptyd.client import Client, Session
from ptyd.protocol.errors import Code, PtydError

DEADLINE_S: Final = 60.0
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
        client = self._live.client()
        id_ = f"teardown-{saga.id}"
        left = await self._find(client, id_)
        if left is not None:
            await self._end((id_, left.generation))
        key = id_, 1 if left is None else left.generation + 1
        with self._births.sheltered(key):
            await self._live.spawn(
                key,
                [word.encode(errors="surrogateescape") for word in workspace.teardown],
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
        why = f"the teardown command was not done within {DEADLINE_S:g} s"
        try:
            happened = await client.wait(key[0], "end", timeout_s=DEADLINE_S)
        except PtydError as error:
            failure = PtydError(Code.TIMEOUT, why) if error.code is Code.TIMEOUT else error
        else:
            status = 0 if happened.exit is None else happened.exit.status
            if happened.exit is not None and not status:
                await client.forget(key[0])
                return
            said = await client.read(key[0], max(0, happened.offset - TAIL_BYTES))
            text = said.data.decode(errors="replace").strip()
            failure = PtydError(Code.SPAWN_FAILED, f"the teardown command ended with {status}: {text}")
        await self._end(key)
        raise failure
