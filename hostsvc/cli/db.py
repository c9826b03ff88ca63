"""`db`: is the index's file sound, and a copy of it. Neither needs the service, nor minds it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import click

from hostsvc.cli import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK, EXIT_REFUSED
from hostsvc.cli.config import load
from hostsvc.cli.group import Refused, Settings, command
from ptyd.cli.output import printable, put, put_json, say

file_path = click.Path(path_type=Path, dir_okay=False)


@command()
@click.argument("file", type=file_path, required=False)
def check(settings: Settings, file: Path | None) -> int:
    """Check the index, or a backup of it.

    Looks at the file's integrity, its references and its rules. Changes nothing. Returns 1 when
    there is a fault.
    """
    from hostsvc.store.database import check_file

    path = file or _index(settings)
    faults = check_file(path)
    if settings.json:
        put_json({"path": str(path), "faults": faults})
        return EXIT_FAILED if faults else EXIT_OK
    for fault in faults:
        put(printable(fault))
    if faults:
        say(f"hostsvc: {printable(str(path))} cannot be trusted; restore a backup in its place (see README)")
    elif not settings.quiet:
        put(f"{printable(str(path))}: sound")
    return EXIT_FAILED if faults else EXIT_OK


@command(with_json=False)
@click.argument("file", type=file_path)
def backup(settings: Settings, file: Path) -> int:
    """Write a consistent copy of the index to a new file.

    The service may run meanwhile. An existing file is refused.
    """
    from hostsvc.store.database import backup_file

    path = _index(settings)
    if not path.exists():
        raise Refused(f"there is no index at {path} yet; see: hostsvc config show", EXIT_NOT_FOUND)
    try:
        backup_file(path, file)
    except FileExistsError as error:
        raise Refused(f"{file} exists already; choose another name", EXIT_REFUSED) from error
    except (OSError, sqlite3.Error) as error:
        raise Refused(f"{file} could not be written: {error}; see: hostsvc db check", EXIT_FAILED) from error
    if not settings.quiet:
        say(f"hostsvc: {printable(str(file))} is a copy of {printable(str(path))}")
    return EXIT_OK


def _index(settings: Settings) -> Path:
    from hostsvc.store.database import FILE

    return load(settings).state_dir / FILE
