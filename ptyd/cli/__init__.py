"""The command line `ptyd`: one module a group of commands, imported when one of them is run.

Owns exit statuses and how an error is told. Data goes to stdout, talk to stderr; see `output`.

Exit statuses: 0; 1 failure; 2 usage; 3 not found; 4 refused, or a kill that is not confirmed; 69
no daemon can be reached; 75 busy, try again; `attach`, `new` and `wait` return the program's own,
or 128 + N.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click

    from ptyd.cli.group import Settings
    from ptyd.protocol.errors import Code


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    leave(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    from ptyd.cli.group import Settings, root
    from ptyd.cli.output import NEXT_STEPS

    return run_root(root, Settings(), NEXT_STEPS, arguments)


def run_root(
    root: click.Group, settings: Settings, next_steps: Mapping[Code, str], arguments: list[str] | None
) -> int:
    """Run one command of a program that is called as its group; tell every error; return the exit status."""
    import click

    from ptyd.cli.output import tell_error
    from ptyd.protocol.errors import PtydError

    program = root.name or ""
    try:
        status = root.main(arguments, prog_name=program, standalone_mode=False, obj=settings)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except PtydError as error:
        tell_error(error, program, next_steps)
        return error.exit_status
    except Exception as error:  # noqa: BLE001  # the last place where a fault can be told
        return _tell_fault(program, error)
    return status if isinstance(status, int) else 0


def leave(status: int) -> NoReturn:
    """Exit, with everything written; that nobody reads it any more is no error."""
    _flush()
    sys.exit(status)


def _flush() -> None:
    from ptyd.cli.output import drop_stdout

    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()


def _tell_fault(program: str, error: Exception) -> int:
    fault_id = os.urandom(4).hex()
    sys.stderr.write(f"{program}: internal: {type(error).__name__}: {error} (fault {fault_id})\n")
    if os.environ.get("PTYD_DEBUG"):
        import traceback

        traceback.print_exception(error)
    else:
        sys.stderr.write(f"{program}: set PTYD_DEBUG=1 to see where\n")
    return 1
