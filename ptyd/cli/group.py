"""The command `ptyd` itself: which commands there are, where they live, and the options of all.

Owns the lazy loading: a command's module is imported when it is run or when help is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ptyd import __version__
from ptyd.blocking import BlockingClient
from ptyd.cli.output import drop_stdout

Function = TypeVar("Function", bound=Callable[..., Any])

COMMANDS: Final = {  # in the order of help
    "new": "enter",
    "attach": "enter",
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


def _common_options(with_json: bool) -> list[click.Parameter]:
    options: list[click.Parameter] = [
        click.Option(
            ["--runtime-dir"],
            metavar="DIR",
            type=click.Path(file_okay=False),
            expose_value=False,
            callback=_store("runtime_dir", None),
            help="The runtime directory [default: $PTYD_RUNTIME_DIR, else $XDG_RUNTIME_DIR/ptyd].",
        ),
        click.Option(
            ["--no-start"],
            is_flag=True,
            expose_value=False,
            callback=_store("start", False),
            help="Do not start a daemon when none runs.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_store("quiet", True),
            help="Say less: no talk, and of data only ids.",
        ),
    ]
    if with_json:
        options.append(
            click.Option(
                ["--json"],
                is_flag=True,
                expose_value=False,
                callback=_store("json", True),
                help="Write data as JSON.",
            )
        )
    return options


class Command(click.Command):
    """A command that also takes the options of all, wherever they are written."""

    def __init__(self, *arguments: Any, with_json: bool = True, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.params = [*self.params, *_common_options(with_json)]


class Root(click.Group):
    """The group of all commands, none of which is imported before it is needed."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command; that its reader has seen enough is no error (click would exit with 1)."""
        try:
            return super().invoke(context)
        except BrokenPipeError:
            drop_stdout()
            return 0

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"ptyd.cli.{COMMANDS[name]}")
        found: click.Command = getattr(module, name)
        return found


root = Root(
    name="ptyd",
    params=_common_options(with_json=True),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Terminal sessions that outlive their supervisor and die with proof.

    Names work wherever ids do. The daemon is started when it is needed.
    """,
    epilog="Exit statuses: 1 failure, 2 usage, 3 not found, 4 refused, 69 no daemon, 75 busy.",
)
root = click.version_option(__version__, prog_name="ptyd", help="Show the version and exit.")(root)

pass_settings = click.make_pass_decorator(Settings, ensure=True)


def command(*, with_json: bool = True, **keywords: Any) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command; its name is that of its function. Other keywords are click's."""

    def declare(function: Callable[..., Any]) -> Command:
        name = function.__name__.rstrip("_")
        declared: Command = click.command(name=name, cls=Command, with_json=with_json, **keywords)(
            pass_settings(function)
        )
        return declared

    return declare
