"""The daemon's settings: from the environment, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs


class ConfigError(Exception):
    """A setting is out of its range; the message names it."""


@attrs.frozen(kw_only=True)
class Config:
    """Every setting, with its default."""

    ring_linger_s: float = 60.0
    keep_ended_s: float = 86_400.0
    keep_ended: int = 1000
    max_sessions: int = 16_384
    max_clients: int = 1024
    log_level: str = "info"


# setting: (environment variable, least, most)
NUMBERS: dict[str, tuple[str, float, float]] = {
    "ring_linger_s": ("PTYD_RING_LINGER_S", 0, 86_400),
    "keep_ended_s": ("PTYD_KEEP_ENDED_S", 1, 31_536_000),
    "keep_ended": ("PTYD_KEEP_ENDED", 0, 100_000),
    "max_sessions": ("PTYD_MAX_SESSIONS", 1, 1_000_000),
    "max_clients": ("PTYD_MAX_CLIENTS", 1, 1_000_000),
}
LOG_LEVELS = ("debug", "info", "warning", "error")


def read_config(env: Mapping[str, str] | None = None) -> Config:
    """Read the settings.

    Raises:
        ConfigError: one of them is not a number or out of range.
    """
    env = os.environ if env is None else env
    given = {
        name: _number(variable, env[variable], least, most, name.endswith("_s"))
        for name, (variable, least, most) in NUMBERS.items()
        if env.get(variable)
    }
    level = env.get("PTYD_LOG_LEVEL", "info")
    if level not in LOG_LEVELS:
        raise ConfigError(f"PTYD_LOG_LEVEL is {level!r}; it can be {', '.join(LOG_LEVELS)}")
    return Config(log_level=level, **given)  # type: ignore[arg-type]  # a number fits every other field


def _number(variable: str, text: str, least: float, most: float, is_float: bool) -> float | int:
    try:
        value = float(text) if is_float else int(text)
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}, not a number") from None
    if not least <= value <= most:
        raise ConfigError(f"{variable} is {text}; it can be {least:g} to {most:g}")
    return value
