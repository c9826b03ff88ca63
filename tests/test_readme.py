"""README.md, held to the code: its tours work as they are written, and what it names exists.

The tours are typed line by line into a shell on a terminal, the way a reader would; Neovim runs the
example that is for it.
"""

from __future__ import annotations

import configparser
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

from hostsvc import app
from hostsvc import cli as hostsvc_cli
from hostsvc.cli.group import root as hostsvc
from hostsvc.config import SETTINGS
from hostsvc.config import read_config as read_hostsvc_config
from hostsvc.messages import KINDS
from hostsvc.saga import STEPS
from ptyd.cli.group import root as ptyd
from ptyd.daemon.config import NUMBERS, read_config
from ptyd.protocol.errors import TABLE
from tests.support import processes
from tests.support.daemon import RuntimeDir

pytestmark = pytest.mark.unmeasured


ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = (ROOT / "README.md").read_text()
DEADLINE_S: Final = 20.0
DETACH: Final = b"\x1c"  # ctrl-\
# Its marker is made when a command is done, so that what is typed never looks like it.
BASHRC: Final = "PS1=; PROMPT_COMMAND='printf \"<%s:%d>\" done $?'\n"


def fenced(language: str) -> list[str]:
    """Return README's blocks of one language, as they stand."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


PTYD_TOUR, SERVING, HOSTSVC_TOUR = (block.splitlines() for block in fenced("sh"))


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
    for line in PTYD_TOUR:
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


@pytest.fixture
def second_shell(runtime: RuntimeDir, shell: Shell) -> Iterator[Shell]:
    """Another terminal of the same person."""
    if not (ROOT / ".venv/bin/hostsvc").exists():
        pytest.skip("this .venv is older than hostsvc: run `make setup`")
    with contextlib.closing(Shell(runtime)) as second:
        yield second


def test_the_tour_of_hostsvc_works_as_it_is_written(
    runtime: RuntimeDir, shell: Shell, second_shell: Shell
) -> None:
    """On the defaults of every setting, below a private home."""
    activate, serve = SERVING
    second_shell.run(activate)
    second_shell.type(serve.encode() + b"\r")
    second_shell.expect(b"hostsvc serves")
    wrote: dict[str, str] = {}
    for line in HOSTSVC_TOUR:
        command = line.split("#")[0].strip()
        meanwhile = use_and_leave(21) if "--attach" in command else None
        wrote[command] = shell.run(line, meanwhile)
    assert re.search(r"rude +demo +active +running", wrote["hostsvc session ls"])
    assert "rude" in wrote["ptyd ls"]
    assert "point of no return" in wrote["hostsvc workspace rm demo --dry-run"]
    assert "demo is deleted" in wrote["hostsvc workspace rm demo"]
    assert re.search(r"\bdone\b", wrote["hostsvc saga ls"])
    assert "active" not in wrote["hostsvc session ls --all"]
    assert "startup" in wrote["hostsvc passes"]
    assert "green" in wrote["hostsvc health"]
    assert "fail" not in wrote["hostsvc doctor"]
    assert (runtime.home / "hostsvc-backup.db").exists()
    assert (runtime.home / ".local/state/hostsvc/index.db").exists()
    second_shell.type(b"\x03")
    assert second_shell.expect(rb"<done:(\d+)>")[1] == b"0"
    assert runtime.serves(), "ptyd and its sessions do not end with hostsvc"


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


def leaves(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each command by its whole name, such as `hostsvc workspace ls`."""
    path = (*path, group.name or "")
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from leaves(found, *path)
        else:
            yield " ".join([*path, name]), found


COMMANDS: Final = {**dict(leaves(ptyd)), **dict(leaves(hostsvc))}


def named_in(text: str) -> dict[str, click.Command]:
    """Return every command that a text names in code, by its whole name."""
    found = {}
    for usage in re.findall(r"`((?:ptyd|hostsvc) [a-z][^`]*)`", text):
        words = usage.split()
        names = {" ".join(words[:2]), " ".join(words[:3])} & COMMANDS.keys()
        assert names, f"README names `{usage}`, which does not exist"
        found.update({name: COMMANDS[name] for name in names})
    return found


def of_program(program: str) -> set[str]:
    return {name for name in COMMANDS if name.startswith(program + " ")}


OPTION: Final = r"(?<![\w-])--?[a-z][a-z-]*"


def check_table(heading: str) -> set[str]:
    """Check that the options in each row are those of its commands, all of its own; return their names."""
    named: set[str] = set()
    for usage, meaning in rows(heading):
        commands = named_in(usage)
        assert commands, usage
        named |= commands.keys()
        parameters = [option for one in commands.values() for option in one.params]
        options = {name for option in parameters for name in (*option.opts, *option.secondary_opts)}
        assert set(re.findall(OPTION, usage + meaning)) <= options, usage
    return named


def test_every_command_of_ptyd_and_its_options_exist() -> None:
    assert check_table("Commands of ptyd") == of_program("ptyd")


def test_every_command_of_hostsvc_and_its_options_exist() -> None:
    assert check_table("Commands of hostsvc") == of_program("hostsvc")


def test_every_option_of_hostsvc_is_told() -> None:
    """Each in its command's row; but for those of all, and the settings, which have tables of their own."""
    common = {"--runtime-dir", "--quiet", "--json"} | {setting.flag for setting in SETTINGS}
    for usage, meaning in rows("Commands of hostsvc"):
        for name, command in named_in(usage).items():
            for option in command.params:
                if isinstance(option, click.Option) and not common & set(option.opts):
                    told = set(re.findall(OPTION, usage + meaning))
                    assert told & set(option.opts), f"{name} {option.opts} is in no row"


def test_every_command_in_the_text_exists() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert named_in(prose).keys() == COMMANDS.keys()


def test_every_setting_exists_with_the_default_that_is_told() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "ptyd").rglob("*.py"))
    for name in set(re.findall(r"\bPTYD_[A-Z_]*[A-Z]\b", README)):
        assert re.search(rf"\b{name}\b", sources), f"nothing reads {name}"
    told = {cells[0].strip("`"): cells[1] for cells in rows("Settings of ptyd")}
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


def test_the_settings_of_hostsvc_are_told_as_they_are() -> None:
    config = read_hostsvc_config({}, {"HOME": "/h", "XDG_RUNTIME_DIR": "/r"})
    told = {cells[0].strip("`"): cells[1:] for cells in rows("Settings of hostsvc")}
    assert list(told) == [setting.name for setting in SETTINGS]
    for setting in SETTINGS:
        variable, bound, default, meaning = told[setting.name]
        assert (variable.strip("`"), bound, meaning) == (setting.variable, setting.bound, setting.meaning)
        value = getattr(config, setting.name)
        if isinstance(value, Path):
            assert setting.name == "runtime_dir" or str(value.relative_to("/h")) in default
        else:
            assert default == f"{value:.10g}" if isinstance(value, float) else str(value)
    sources = "".join(path.read_text() for path in (ROOT / "hostsvc").rglob("*.py"))
    known = {setting.variable for setting in SETTINGS}
    for name in set(re.findall(r"\bHOSTSVC_[A-Z_]*[A-Z]\b", README)) - known:
        assert f'"{name}"' in sources, f"nothing reads {name}"


def test_the_exit_codes_of_hostsvc_are_those_there_are() -> None:
    (sentence,) = re.findall(r"^Exit codes of hostsvc: (.*?)\. ", README, re.MULTILINE | re.DOTALL)
    ours = {value for name, value in vars(hostsvc_cli).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"\d+", sentence)} == ours | {2, 69}
    assert {row.exit_status for row in TABLE.values()} <= ours | {2, 69}


def test_the_steps_and_kinds_are_those_there_are() -> None:
    assert [cells[0] for cells in rows("How a workspace is deleted")] == [step.value for step in STEPS]
    assert [cells[0] for cells in rows("The reaper and its gate")] == list(KINDS)


def test_the_unit_file_runs_the_service_and_spares_the_sessions() -> None:
    (text,) = fenced("ini")
    unit = configparser.RawConfigParser()
    unit.read_string(text)
    service = unit["Service"]
    assert service["ExecStart"].endswith("/hostsvc serve")
    assert service["KillMode"] == "process"
    statuses = {int(word) for word in service["RestartPreventExitStatus"].split()}
    assert statuses == {app.EXIT_REFUSED, app.EXIT_TAKEN, hostsvc_cli.EXIT_CONFIG}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)(?:`|\s+#)", README)) <= targets


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"`([a-z.]+\.(?:md|toml|lock))`", README):
        assert (ROOT / name).exists(), name
