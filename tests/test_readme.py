"""README.md, held to the code: its tour works as it is written, and what it names exists.

The tour is typed line by line into a shell on a terminal, the way a reader would; Neovim runs the
example that is for it.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from ptyd.cli.group import COMMANDS, root
from ptyd.daemon.config import NUMBERS, read_config
from ptyd.protocol.errors import TABLE
from tests.support import processes
from tests.support.daemon import RuntimeDir

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = (ROOT / "README.md").read_text()
DEADLINE_S: Final = 20.0
DETACH: Final = b"\x1c"  # ctrl-\
# Its marker is made when a command is done, so that what is typed never looks like it.
BASHRC: Final = "PS1=; PROMPT_COMMAND='printf \"<%s:%d>\" done $?'\n"


def fenced(language: str) -> list[str]:
    """Return README's blocks of one language, as they stand."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def tour() -> list[str]:
    return [line for block in fenced("sh") for line in block.splitlines() if line.strip()]


class Shell:
    """A person at a terminal, in the checkout, with a bash that has no settings of its own."""

    def __init__(self, runtime: RuntimeDir) -> None:
        bashrc = runtime.home / "bashrc"
        bashrc.write_text(BASHRC)
        env = {key: value for key, value in runtime.env.items() if key not in ("PS1", "PYTHONPATH")}
        env |= {"SHELL": "/bin/sh", "TERM": "xterm", "LANG": "C.UTF-8"}
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execvpe("bash", ["bash", "--noediting", "--rcfile", str(bashrc), "-i"], env)
        self.shown = b""
        self._seen = 0
        self.expect(rb"<done:0>")

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def expect(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for what has not been looked at yet to match; what follows the match is next."""
        ends = time.monotonic() + DEADLINE_S
        while not (found := re.compile(pattern).search(self.shown, self._seen)):
            left_s = ends - time.monotonic()
            assert left_s > 0, f"{pattern!r} was not shown, but: {self.shown[self._seen :]!r}"
            if select.select([self._master], [], [], left_s)[0]:
                self.shown += os.read(self._master, 65536)
        self._seen = found.end()
        return found

    def run(self, line: str, meanwhile: Callable[[Shell], None] | None = None) -> str:
        """Type a line, do what it wants from us meanwhile, and return what it wrote.

        Raises:
            AssertionError: it took too long or did not exit with 0.
        """
        begun = self._seen
        self.type(line.encode() + b"\r")
        self.expect(re.escape(line.encode()) + rb"\r\n")
        if meanwhile:
            meanwhile(self)
        status = int(self.expect(rb"<done:(\d+)>")[1])
        wrote = self.shown[begun : self._seen].decode(errors="replace")
        assert status == 0, wrote
        return wrote

    def close(self) -> None:
        """End the shell, whatever it is doing."""
        os.close(self._master)
        processes.kill(self.pid)
        os.waitpid(self.pid, 0)


@pytest.fixture
def shell(runtime: RuntimeDir) -> Iterator[Shell]:
    if not (ROOT / ".venv/bin/activate").exists():
        pytest.skip("README's tour begins with the .venv that `make setup` makes")
    with contextlib.closing(Shell(runtime)) as shell:
        yield shell


def use_and_leave(number: int) -> Callable[[Shell], None]:
    """Compute something in the session that a command has attached us to, and detach."""

    def act(shell: Shell) -> None:
        # Typed before the program reads, it would be echoed twice and still be done once.
        shell.type(b"echo in-$((%d * 2))\r" % number)
        shell.expect(b"in-%d" % (number * 2))
        shell.type(DETACH)

    return act


def test_the_tour_works_as_it_is_written(runtime: RuntimeDir, shell: Shell) -> None:
    wrote: dict[str, str] = {}
    for line in tour():
        command = line.split("#")[0].strip()
        meanwhile = None
        if command.startswith(("ptyd new", "ptyd attach")):
            meanwhile = use_and_leave(21 + len(wrote))
        if command.startswith("kill -KILL"):
            killed = runtime.daemon_pid()
            wrote[command] = shell.run(line)
            runtime.wait_for_new_daemon(killed)
            continue
        wrote[command] = shell.run(line, meanwhile)
    assert "work" in wrote["ptyd ls"]
    assert "running" in wrote["ptyd ls"]
    assert "hello" in wrote["ptyd logs work"]
    # The second attachment shows what was printed before the daemon died.
    assert "in-44" in wrote["ptyd attach work"]
    assert "hello" in wrote["ptyd attach work"]
    assert re.search(r"kill|dead|proof", wrote["ptyd kill work"].partition("\n")[2])
    assert "exited" in wrote["ptyd ls --all"]
    assert runtime.hello() is None


@pytest.mark.skipif(shutil.which("nvim") is None, reason="needs nvim (Debian package neovim)")
def test_the_example_for_neovim_works_as_it_is_written(daemon: RuntimeDir) -> None:
    (example,) = fenced("vim")
    (daemon.base / "ptyd").symlink_to(daemon.path)
    script = daemon.base / "example.vim"
    script.write_text(example + "let g:left = rpcrequest(ptyd, 'session.get', {'id': session.id}).state\n")
    ended = subprocess.run(
        ["nvim", "--headless", "--clean", "-S", str(script), "+echo g:left", "+qall!"],
        env={"PATH": os.environ["PATH"], "HOME": str(daemon.home), "XDG_RUNTIME_DIR": str(daemon.base)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert "Error" not in ended.stderr, ended.stderr
    assert "ls" in ended.stderr  # :echo of what was read
    assert ended.stderr.endswith("exited")


# -- what is named exists --------------------------------------------------------------------------


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    # A bar inside code is written as \|.
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def commands_of(text: str) -> list[click.Command]:
    context = click.Context(root)
    names = re.findall(r"\bptyd ([a-z]+)", text)
    found = [root.get_command(context, name) for name in names]
    assert None not in found, f"README names one of {names}, which does not exist"
    return [command for command in found if command is not None]


def test_every_command_and_its_options_exist() -> None:
    named = set()
    for usage, meaning in rows("Commands"):
        commands = commands_of(usage)
        assert commands, usage
        named |= {command.name for command in commands}
        options = {name for command in commands for option in command.params for name in option.opts}
        assert set(re.findall(r"(?<!\w)--?[a-z][a-z-]*", usage + meaning)) <= options, usage
    assert named == set(COMMANDS)


def test_every_command_in_the_text_exists() -> None:
    context = click.Context(root)
    for name in re.findall(r"`ptyd ([a-z]+)", README):
        assert root.get_command(context, name) is not None, name


def test_every_setting_exists_with_the_default_that_is_told() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "ptyd").rglob("*.py"))
    for name in set(re.findall(r"\bPTYD_[A-Z_]*[A-Z]\b", README)):
        assert re.search(rf"\b{name}\b", sources), f"nothing reads {name}"
    told = {cells[0].strip("`"): cells[1] for cells in rows("Settings")}
    config = read_config({})
    for field, (variable, _, _) in NUMBERS.items():
        assert float(told[variable]) == getattr(config, field), variable
    assert told["PTYD_LOG_LEVEL"] == config.log_level


def test_the_exit_codes_are_those_of_the_errors() -> None:
    (sentence,) = re.findall(r"^Exit codes: (.*?)\. ", README, re.MULTILINE | re.DOTALL)
    assert {int(code) for code in re.findall(r"\d+", sentence)} == {
        0,
        *(row.exit_status for row in TABLE.values()),
    }


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)(?:`|\s+#)", README)) <= targets


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`([a-z.]+\.(?:md|toml|lock))`", README):
        assert (ROOT / name).exists(), name
