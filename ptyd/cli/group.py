"""The command `ptyd` itself: which commands there are, where they live, and the options of all.

Owns the lazy loading: a command's module is imported when it is run or when help is asked for. hostsvc's
command line is made of the same parts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from ptyd import __version__
from ptyd.blocking import BlockingClient
from ptyd.cli.output import drop_stdout

Function = TypeVar("Function", bound=Callable[..., Any])

COMMANDS: Final = {  # in the order of help
    "new": "enter",
    "attach": "enter",
    "detach": "act",
    "ls": "look",
    "inspect": "look",
    "send": "act",
    "logs": "stream",
    "resize": "act",
    "signal": "act",
    "kill": "end",
    "wait": "stream",
    "forget": "end",
    "events": "stream",
    "status": "look",
    "daemon": "service",
    "stop": "service",
    "doctor": "doctor",
    "completion": "service",
}


class Settings:
    """What the options of all commands say."""

    def __init__(self) -> None:
        self.runtime_dir: str | None = None
        self.start = True
        self.quiet = False
        self.json = False

    def connect(self, *, start: bool | None = None) -> BlockingClient:
        """Connect to the daemon, starting one if that is allowed."""
        return BlockingClient.connect(self.runtime_dir, self.start if start is None else start)


def _store(name: str, value: Any) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that stores an option that was given; `value` None stores what was
    given."""

    def store(context: click.Context, parameter: click.Parameter, given: Any) -> None:
        if given:
            setattr(context.ensure_object(Settings), name, given if value is None else value)

    return store


def common_options(with_json: bool = True, with_start: bool = True) -> list[click.Parameter]:
    """Return the options of all commands; each command has parameters of its own."""
    options = [
        click.Option(
            ["--runtime-dir"],
            metavar="DIR",
            type=click.Path(file_okay=False),
            expose_value=False,
            callback=_store("runtime_dir", None),
            help="The runtime directory [default: $PTYD_RUNTIME_DIR, else $XDG_RUNTIME_DIR/ptyd].",
        ),
    ]
    if with_start:
        options.append(_flag(["--no-start"], "start", False, "Do not start a daemon when none runs."))
    options.append(_flag(["-q", "--quiet"], "quiet", True, "Say less: no talk, and of data only ids."))
    if with_json:
        options.append(_flag(["--json"], "json", True, "Write data as JSON."))
    return list(options)


def _flag(names: list[str], setting: str, value: bool, help: str) -> click.Option:
    return click.Option(names, is_flag=True, expose_value=False, callback=_store(setting, value), help=help)


class Command(click.Command):
    """A command that also takes the options of all, wherever they are written.

    An option of its own stands in for one of the same name.
    """

    def __init__(
        self, *arguments: Any, with_json: bool = True, with_start: bool = True, **keywords: Any
    ) -> None:
        super().__init__(*arguments, **keywords)
        own = {parameter.name for parameter in self.params}
        common = common_options(with_json, with_start)
        self.params = [*self.params, *(option for option in common if option.name not in own)]


class Group(click.Group):
    """A group of commands, none of which is imported before it is needed.

    Args:
        package: Where the modules are.
        commands: The module of each command; or a group of commands of its own.
    """

    def __init__(
        self,
        *arguments: Any,
        package: str,
        commands: Mapping[str, str | click.Group],
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._package = package
        self._modules = commands

    def invoke(self, context: click.Context) -> Any:
        """Run the command; that its reader has seen enough is no error (click would exit with 1)."""
        try:
            return super().invoke(context)
        except BrokenPipeError:
            drop_stdout()
            return 0

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        place = self._modules.get(name)
        if not isinstance(place, str):
            return place
        found: click.Command = getattr(importlib.import_module(f"{self._package}.{place}"), name)
        return found


root = Group(
    name="ptyd",
    package="ptyd.cli",
    commands=COMMANDS,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Terminal sessions that outlive their supervisor and die with proof.

    Names work wherever ids do. The daemon is started when it is needed.
    """,
    epilog="Exit statuses: 1 failure, 2 usage, 3 not found, 4 refused, 69 no daemon, 75 busy.",
)
root = click.version_option(__version__, prog_name="ptyd", help="Show the version and exit.")(root)

pass_settings = click.make_pass_decorator(Settings, ensure=True)


def command(
    *, with_json: bool = True, with_start: bool = True, **keywords: Any
) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command; its name is that of its function. Other keywords are click's."""

    def declare(function: Callable[..., Any]) -> Command:
        name = function.__name__.rstrip("_")
        made = click.command(name=name, cls=Command, with_json=with_json, with_start=with_start, **keywords)
        declared: Command = made(pass_settings(function))
        return declared

    return declare
