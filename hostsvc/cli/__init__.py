"""The command line `hostsvc`: one module a group of commands, imported when one of them is run.

Owns its exit statuses and the next step that each error names; how both are told is `ptyd.cli`'s.

Exit statuses: 0; 1 failure; 2 usage; 3 not found; 4 refused, or not proven dead; 5 done with warnings or
in part, or not all green; 69 the host service or ptyd cannot be reached; 75 has to be tried again; 78 a
setting cannot be used.
"""

from __future__ import annotations

from typing import Final, NoReturn

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_NOT_FOUND: Final = 3
EXIT_REFUSED: Final = 4
EXIT_PARTIAL: Final = 5
EXIT_TRY_AGAIN: Final = 75
EXIT_CONFIG: Final = 78


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    from ptyd.cli import leave

    leave(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    from hostsvc.cli.group import NEXT_STEPS, Settings, root
    from ptyd.cli import run_root

    return run_root(root, Settings(), NEXT_STEPS, arguments)
