"""The command line `ptyd`: one module a group of commands, imported when one of them is run.

Owns exit statuses and how an error is told. Data goes to stdout, talk to stderr; see `output`.

Exit statuses: 0; 1 failure; 2 usage; 3 not found; 4 refused, or a kill that is not confirmed; 69
no daemon can be reached; 75 busy, try again; `attach`, `new` and `wait` return the program's own,
or 128 + N.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    status = run(arguments)
    _flush()
    sys.exit(status)


def run(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    import click

    from ptyd.cli.group import root
    from ptyd.cli.output import tell_error
    from ptyd.protocol.errors import PtydError

    try:
        status = root.main(arguments, prog_name="ptyd", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except PtydError as error:
        tell_error(error)
        return error.exit_status
    except Exception as error:  # noqa: BLE001  # the last place where a fault can be told
        return _tell_fault(error)
    return status if isinstance(status, int) else 0


def _flush() -> None:
    from ptyd.cli.output import drop_stdout

    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()


def _tell_fault(error: Exception) -> int:
    fault_id = os.urandom(4).hex()
    sys.stderr.write(f"ptyd: internal: {type(error).__name__}: {error} (fault {fault_id})\n")
    if os.environ.get("PTYD_DEBUG"):
        import traceback

        traceback.print_exception(error)
    else:
        sys.stderr.write("ptyd: set PTYD_DEBUG=1 to see where\n")
    return 1
