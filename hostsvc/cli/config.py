"""`config show`: every setting, its value and where that comes from."""

from __future__ import annotations

from pathlib import Path

import click

from hostsvc.cli import EXIT_CONFIG, EXIT_OK
from hostsvc.cli.group import Refused, Settings, command
from hostsvc.config import SETTINGS, Config, ConfigError, read_config
from ptyd.cli.output import put_json, put_table


def load(settings: Settings) -> Config:
    """Read all settings, with the flags of all commands.

    Raises:
        Refused: one cannot be used.
    """
    try:
        return read_config({"runtime_dir": settings.runtime_dir} if settings.runtime_dir else {})
    except ConfigError as error:
        raise Refused(str(error), EXIT_CONFIG) from error


@command()
@click.option("--origin", is_flag=True, help="Also where each value comes from, and what it may be.")
def show(settings: Settings, origin: bool) -> int:
    """Show every setting as `hostsvc serve` would use it.

    Exits with 78 when one cannot be used.
    """
    config = load(settings)
    values = {setting.name: _plain(getattr(config, setting.name)) for setting in SETTINGS}
    if settings.json and origin:
        put_json({name: {"value": value, "origin": config.origins[name]} for name, value in values.items()})
    elif settings.json:
        put_json(values)
    elif origin:
        bounds = {setting.name: setting.bound for setting in SETTINGS}
        rows = [[name, _text(value), config.origins[name], bounds[name]] for name, value in values.items()]
        put_table(["SETTING", "VALUE", "FROM", "MAY BE"], rows)
    else:
        put_table(["SETTING", "VALUE"], [[name, _text(value)] for name, value in values.items()])
    return EXIT_OK


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _text(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
