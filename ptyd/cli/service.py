"""`daemon`, `stop` and `completion`: the service itself."""

from __future__ import annotations

import os
import sys

import click

from ptyd import paths
from ptyd.calls import launch_errors
from ptyd.cli.group import Settings, command, root
from ptyd.cli.output import put, put_json, say
from ptyd.protocol.errors import Code, PtydError


@command(with_json=False)
def daemon(settings: Settings) -> int:
    """Run the supervisor in the foreground.

    For service managers.     Not needed otherwise: every command starts one when none runs.
    """
    with launch_errors():
        path = paths.runtime_path(settings.runtime_dir)
    sys.stdout.flush()
    # Exec'd, never forked or called: what forks all the others is to hold nothing of ours.
    arguments = ["-P", "-m", "ptyd.shim", "--runtime", path, "--foreground"]
    os.execv(sys.executable, [sys.executable, *arguments])


@command()
@click.option("--kill", "kills", is_flag=True, help="End all sessions first, with proof.")
def stop(settings: Settings, kills: bool) -> int:
    """Stop the daemon.

    Sessions live on, and the next daemon finds them.
    """
    try:
        client = settings.connect(start=False)
    except PtydError as error:
        if error.code is not Code.UNREACHABLE:
            raise
        if not settings.quiet:
            say("ptyd: no daemon runs")
        return 0
    with client:
        answer = client.call("daemon.stop", {"kill": kills})
    if settings.json:
        put_json(answer)
    elif not settings.quiet:
        left = answer["sessions"]
        say(f"ptyd: stopped; {left} sessions live on" if left else "ptyd: stopped; no session is left")
    return 0


@command(with_json=False)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(settings: Settings, shell: str) -> int:
    """Write a shell's completion script.

    \b
    bash: eval "$(ptyd completion bash)"     in ~/.bashrc
    zsh:  eval "$(ptyd completion zsh)"      in ~/.zshrc
    fish: ptyd completion fish | source      in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # the choice has only those there are
    put(kind(root, {}, "ptyd", "_PTYD_COMPLETE").source())
    return 0
