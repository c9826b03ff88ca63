"""Every command and every option is explained and loads only when needed; completions."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from hostsvc.cli import run
from hostsvc.cli.group import COMMANDS, root
from tests.support.host import HostService


def commands(group: click.Group = root, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        assert found.name == name
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)
        else:
            yield " ".join([*path, name]), found


ALL = dict(commands())


def test_every_command_of_the_table_is_there() -> None:
    assert {name.split()[0] for name in ALL} == set(COMMANDS)
    assert len(ALL) == 33


@pytest.mark.parametrize("name", ALL)
def test_command_is_explained(name: str) -> None:
    command = ALL[name]
    assert command.help
    first = command.help.splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 60, "too long for the table of commands"
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []
    assert {"runtime_dir", "quiet"} <= {option.name for option in options}
    assert len({option.name for option in options}) == len(options)


def test_help_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if f"  {name} " not in shown] == []
    for name in ALL:
        assert run([*name.split(), "-h"]) == 0
        assert f"Usage: hostsvc {name} " in capsys.readouterr().out


def test_the_statuses_in_help_are_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    from hostsvc import cli

    run(["--help"])
    told = re.sub(r"\s+", " ", capsys.readouterr().out).partition("Exit statuses: ")[2]
    ours = {value for name, value in vars(cli).items() if name.startswith("EXIT_")} | {2, 69}
    assert {int(word) for word in re.findall(r"\d+", told)} == ours - {0}


def test_nothing_heavy_is_loaded_to_ask_a_question(host: HostService) -> None:
    program = (
        "import sys; from hostsvc.cli import run; run(['workspace', 'ls'])\n"
        "print(' '.join(sys.modules))"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], env=host.env, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "hostsvc.cli.workspace" in loaded
    assert not loaded & {"trio", "structlog", "sqlite_utils", "hostsvc.app", "hostsvc.store"}
    assert not loaded & {"hostsvc.cli.session", "hostsvc.cli.reaper", "hostsvc.cli.doctor"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_HOSTSVC_COMPLETE" in capsys.readouterr().out
