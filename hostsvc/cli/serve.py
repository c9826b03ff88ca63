"""`serve` and `completion`: the service itself, with a flag for every setting."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from hostsvc.cli import EXIT_CONFIG
from hostsvc.cli.group import Refused, Settings, command, root
from hostsvc.config import SETTINGS, ConfigError, Setting, read_config
from ptyd.cli.output import printable, put, say

STDERR: Final = 2
HINTS: Final = """\
  a workspace:   hostsvc workspace create demo
  a session:     hostsvc session new -w demo --attach     (ctrl-\\ leaves it, it lives on)
  look:          hostsvc session ls, hostsvc health
  end it all:    hostsvc workspace rm demo
  stop serving:  ctrl-c; sessions live on"""


def _flag(setting: Setting) -> click.Option:
    text = f"{setting.meaning.capitalize()} ({setting.bound}) [${setting.variable}]."
    return click.Option([setting.flag], metavar="VALUE", help=text)


@command(with_json=False, params=[_flag(setting) for setting in SETTINGS])
def serve(settings: Settings, **flags: str | None) -> int:
    """Run the host service in the foreground.

    Starts ptyd when none runs, and listens for all other commands. Ends on ctrl-c or SIGTERM;
    sessions live on. A setting is taken from its flag, else the environment, else the settings
    file, else its default. On a terminal and under systemd the log goes to stderr, otherwise to
    hostsvc.log in the state directory.
    """
    from hostsvc import app

    given = {name: text for name, text in flags.items() if text is not None}
    if settings.runtime_dir and "runtime_dir" not in given:  # given before the command's name
        given["runtime_dir"] = settings.runtime_dir
    try:
        config = read_config(given)
        return app.serve(config, foreground=is_read(STDERR), say=_announcer(settings))
    except ConfigError as error:
        raise Refused(str(error), EXIT_CONFIG) from error
    except app.StartRefused as error:
        raise Refused(str(error), error.status) from error


def is_read(fd: int) -> bool:
    """Tell whether somebody reads what is written there: a person, or systemd's journal.

    Source: systemd.exec(5), JOURNAL_STREAM.
    """
    if os.isatty(fd):
        return True
    found = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _announcer(settings: Settings) -> Any:
    def announce(text: str) -> None:
        if not settings.quiet:
            say(printable(text))
            say(HINTS)

    return announce


@command(with_json=False)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(settings: Settings, shell: str) -> int:
    """Write a shell's completion script.

    \b
    bash: eval "$(hostsvc completion bash)"     in ~/.bashrc
    zsh:  eval "$(hostsvc completion zsh)"      in ~/.zshrc
    fish: hostsvc completion fish | source      in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # the choice has only those there are
    put(kind(root, {}, "hostsvc", "_HOSTSVC_COMPLETE").source())
    return 0
