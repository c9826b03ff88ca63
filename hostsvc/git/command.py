"""Calling git: a scrubbed environment, hostile settings overridden, a deadline, bytes out.

Owns every call of the program. Never decides anything by the text of an error: a call worked, or what it was
to tell is unknown.

Source: git(1) "ENVIRONMENT VARIABLES", git-config(1)
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import trio

DEADLINE_S: Final = 60.0
AT_ONCE: Final = 4
"""Calls at a time: a status of a large worktree keeps a core busy."""

_OVERRIDES: Final = (
    "core.fsmonitor=false",  # a command to run
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.preloadIndex=true",
    "core.trustctime=true",  # with the next three git would not see a change that keeps size and time
    "core.checkStat=default",
    "core.ignoreStat=false",
    "core.fileMode=true",
    "core.ignoreCase=false",
    "status.showUntrackedFiles=all",
    "status.renames=false",
    "submodule.recurse=false",
    "diff.ignoreSubmodules=none",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
)


class GitUnknown(Exception):
    """Git could not tell; the message says why. What it was asked about is to be kept."""


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which nothing that was inherited changes what git looks at or does."""
    env = os.environ if env is None else env
    kept = {name: value for name, value in env.items() if name in ("PATH", "HOME", "TMPDIR", "USER")}
    return {
        "PATH": os.defpath,
        **kept,
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_PAGER": "cat",
        "GIT_EDITOR": "/bin/false",
    }


class Git:
    """Runs git. Several may share one: it bounds how many calls run at a time."""

    def __init__(
        self, program: str = "git", deadline_s: float = DEADLINE_S, *, at_once: int = AT_ONCE
    ) -> None:
        self._program = program
        self._deadline_s = deadline_s
        self._limiter = trio.CapacityLimiter(at_once)

    async def run(
        self, folder: str, *arguments: str, overrides: Sequence[str] = (), stdin: bytes = b""
    ) -> bytes:
        """Run git in a folder and return its output.

        Args:
            folder: Where.
            arguments: The command and what it takes.
            overrides: More settings, as `name=value`.
            stdin: What it is given to read.

        Raises:
            GitUnknown: it is missing, was too slow, or ended with an error.

        Cancellation: ends git, wherever it is.
        """
        ended = await self._call(folder, arguments, overrides, stdin)
        if ended.returncode:
            raise GitUnknown(f"git {arguments[0]} ended with {ended.returncode}")
        return ended.stdout

    async def ask(self, folder: str, *arguments: str) -> bytes | None:
        """Run a command that says by its status 1 that there is nothing to tell.

        Raises:
            GitUnknown: any other status than 0 and 1.
        """
        ended = await self._call(folder, arguments, (), b"")
        if ended.returncode not in (0, 1):
            raise GitUnknown(f"git {arguments[0]} ended with {ended.returncode}")
        return None if ended.returncode else ended.stdout

    async def test(self, folder: str, *arguments: str) -> bool:
        """Run a command that answers by its status: 0 yes, 1 no; otherwise as `ask`."""
        return await self.ask(folder, *arguments) is not None

    async def _call(
        self, folder: str, arguments: Sequence[str], overrides: Sequence[str], stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        settings = [word for setting in (*_OVERRIDES, *overrides) for word in ("-c", setting)]
        command = [self._program, "-C", folder, "--no-pager", "--literal-pathspecs", *settings, *arguments]

        try:
            async with self._limiter:
                with trio.fail_after(self._deadline_s):
                    return await trio.run_process(
                        command,
                        env=environment(),
                        stdin=stdin or subprocess.DEVNULL,
                        capture_stdout=True,
                        stderr=subprocess.DEVNULL,
                        check=False,
                    )
        except trio.TooSlowError:
            raise GitUnknown(f"git {arguments[0]} was not done within {self._deadline_s:g} s") from None
        except OSError as error:
            raise GitUnknown(f"git cannot be run: {error.strerror}") from error


def text(output: bytes) -> str:
    """Read output that has to be text.

    Raises:
        GitUnknown: it is no UTF-8.
    """
    try:
        return output.decode().rstrip("\n")
    except UnicodeDecodeError:
        raise GitUnknown("git's output is no UTF-8") from None


def paths(output: bytes) -> list[bytes]:
    """Split NUL-terminated output."""
    return output.split(b"\0")[:-1]
