"""Settings: a flag before the environment before the file before the default; a bad one refuses to start.

Owns the one table of settings; the command line's flags, `hostsvc config show` and README are held to it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import attrs

from ptyd import paths


class ConfigError(Exception):
    """A setting cannot be used; the message says which, where it is set, and what it may be."""


class Setting(NamedTuple):
    """One setting."""

    name: str
    variable: str
    read: Callable[[str], Any]
    default: Callable[[Mapping[str, str]], Any]
    bound: str
    meaning: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


class Found(NamedTuple):
    """A setting's value and where it comes from."""

    value: Any
    origin: str


def _number(least: float, most: float, whole: bool) -> Callable[[str], Any]:
    def read(text: str) -> float:
        value = int(text) if whole else float(text)
        if not least <= value <= most:  # neither is nan
            raise ValueError
        return value

    return read


def _path(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute() or "\0" in text:
        raise ValueError
    return path


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def _home(env: Mapping[str, str], variable: str, *below: str) -> Path:
    given = env.get(variable, "")
    if not os.path.isabs(given):  # a relative one is to be ignored, as the XDG specification has it
        given = str(Path(env.get("HOME") or Path.home()).joinpath(*below))
    return Path(given) / "hostsvc"


def _number_setting(
    name: str, least: float, most: float, default: float, meaning: str, *, whole: bool = False
) -> Setting:
    bound = f"{least:.10g} to {most:.10g}"
    variable = "HOSTSVC_" + name.upper()
    return Setting(name, variable, _number(least, most, whole), lambda _: default, bound, meaning)


_ABSOLUTE: Final = "an absolute path"
_LEVELS: Final = ("debug", "info", "warning", "error")
_DAY_S: Final = 86_400.0

SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "runtime_dir",
        "PTYD_RUNTIME_DIR",
        _path,
        lambda env: Path(paths.runtime_path(None, env)),
        _ABSOLUTE,
        "the runtime directory, shared with ptyd",
    ),
    Setting(
        "state_dir",
        "HOSTSVC_STATE_DIR",
        _path,
        lambda env: _home(env, "XDG_STATE_HOME", ".local", "state"),
        _ABSOLUTE,
        "where the index is kept",
    ),
    Setting(
        "base_dir",
        "HOSTSVC_BASE_DIR",
        _path,
        lambda env: _home(env, "XDG_DATA_HOME", ".local", "share") / "workspaces",
        _ABSOLUTE,
        "where new workspaces get their folders",
    ),
    _number_setting("reaper_interval_s", 1, _DAY_S, 300.0, "time between two passes of the reaper"),
    _number_setting("reaper_acts", 1, 100_000, 500, "acts of one pass that nobody asked for", whole=True),
    _number_setting("reaper_deadline_s", 1, 3600, 60.0, "after this a pass begins no further act"),
    _number_setting("age_floor_s", 1, _DAY_S, 60.0, "how long something is absent before that is believed"),
    _number_setting("inferred_cap", 1, 10_000, 50, "kills of one pass that rest on absence", whole=True),
    _number_setting("inferred_share", 0.01, 1, 0.5, "the share of all sessions that those may be"),
    _number_setting("kills_at_once", 1, 64, 8, "kills that run at the same time", whole=True),
    _number_setting("kill_deadline_s", 1, 600, 30.0, "how long ptyd may take to answer a kill"),
    _number_setting("keep_trash_s", 0, 365 * _DAY_S, 7 * _DAY_S, "how long the trash keeps a folder"),
    _number_setting("sweep_age_s", 1, 365 * _DAY_S, 3600.0, "age from which paths without a workspace go"),
    _number_setting("worktree_grace_s", 1, 365 * _DAY_S, _DAY_S, "age from which an orphan worktree goes"),
    _number_setting(
        "quarantine_grace_s", 1, 365 * _DAY_S, 7 * _DAY_S, "how long a worktree is broken before it goes"
    ),
    _number_setting("run_age_s", 1, 365 * _DAY_S, 3600.0, "age from which a run that nobody holds goes"),
    _number_setting("git_deadline_s", 1, 3600, 60.0, "how long one call of git may take"),
    _number_setting("idle_ttl_s", 0, 365 * _DAY_S, 0.0, "how long a session may idle; 0 for ever"),
    _number_setting("sessions_per_workspace", 0, 10_000, 0, "how many live; 0 for any number", whole=True),
    _number_setting("sessions_per_host", 0, 10_000, 0, "how many live; 0 for any number", whole=True),
    _number_setting("probe_interval_s", 1, 3600, 10.0, "time between two looks whether ptyd answers"),
    _number_setting("probe_failures", 1, 100, 3, "of them in a row before ptyd is restarted", whole=True),
    _number_setting("probe_stale_s", 1, 3600, 120.0, "how long ptyd may be busy without an answer"),
    _number_setting("probe_restarts", 1, 100, 3, "of ptyd within 10 minutes, then a person", whole=True),
    _number_setting("reconcile_cap", 1, 10_000, 20, "workspaces dropped by one reconciliation", whole=True),
    _number_setting("keep_rows_s", 60, 3650 * _DAY_S, 30 * _DAY_S, "how long rows that are over are listed"),
    Setting(
        "log_level",
        "HOSTSVC_LOG_LEVEL",
        _one_of(*_LEVELS),
        lambda _: "info",
        ", ".join(_LEVELS),
        "what the log tells",
    ),
)
FILE_VARIABLE: Final = "HOSTSVC_CONFIG"


@attrs.frozen(kw_only=True)
class Config:
    """Every setting's value, and where each comes from."""

    runtime_dir: Path
    state_dir: Path
    base_dir: Path
    reaper_interval_s: float
    reaper_acts: int
    reaper_deadline_s: float
    age_floor_s: float
    inferred_cap: int
    inferred_share: float
    kills_at_once: int
    kill_deadline_s: float
    keep_trash_s: float
    sweep_age_s: float
    worktree_grace_s: float
    quarantine_grace_s: float
    run_age_s: float
    git_deadline_s: float
    idle_ttl_s: float
    sessions_per_workspace: int
    sessions_per_host: int
    probe_interval_s: float
    probe_failures: int
    probe_stale_s: float
    probe_restarts: int
    reconcile_cap: int
    keep_rows_s: float
    log_level: str
    origins: Mapping[str, str]


def file_path(env: Mapping[str, str]) -> Path:
    """Return where the settings file is looked for."""
    given = env.get(FILE_VARIABLE)
    return Path(given) if given else _home(env, "XDG_CONFIG_HOME", ".config") / "config.toml"


def read_config(flags: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None) -> Config:
    """Read all settings.

    Args:
        flags: What the command line gave, by setting; as text.
        env: The environment.

    Raises:
        ConfigError: one is unknown or out of its bound, or the file cannot be read.
    """
    env = os.environ if env is None else env
    path = file_path(env)
    in_file = _read_file(path, is_named=bool(env.get(FILE_VARIABLE)))
    found = {setting.name: _find(setting, flags or {}, env, in_file, path) for setting in SETTINGS}
    values = {name: one.value for name, one in found.items()}
    return Config(**values, origins={name: one.origin for name, one in found.items()})


def find_setting(
    name: str, flags: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
) -> Found:
    """Read one setting by itself: a command that only connects need not mind the others.

    Raises:
        ConfigError: it is out of its bound, or the file cannot be read.
    """
    env = os.environ if env is None else env
    path = file_path(env)
    in_file = _read_file(path, is_named=bool(env.get(FILE_VARIABLE)))
    (setting,) = (setting for setting in SETTINGS if setting.name == name)
    return _find(setting, flags or {}, env, in_file, path)


def _find(
    setting: Setting,
    flags: Mapping[str, str],
    env: Mapping[str, str],
    in_file: Mapping[str, Any],
    path: Path,
) -> Found:
    if setting.name in flags:
        return _read(setting, flags[setting.name], f"flag {setting.flag}")
    if env.get(setting.variable):
        return _read(setting, env[setting.variable], f"environment {setting.variable}")
    if setting.name in in_file:
        return _read(setting, str(in_file[setting.name]), f"file {path}")
    try:
        return Found(setting.default(env), "default")
    except paths.RuntimeDirError as error:
        raise ConfigError(str(error)) from error


def _read(setting: Setting, text: str, origin: str) -> Found:
    try:
        return Found(setting.read(text), origin)
    except ValueError:
        raise ConfigError(
            f"{setting.name} ({origin}) is {text[:200]!a}; it may be {setting.bound}: {setting.meaning}"
        ) from None


def _read_file(path: Path, is_named: bool) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        if is_named:
            raise ConfigError(f"{path} ({FILE_VARIABLE}) does not exist") from None
        return {}
    except (OSError, ValueError) as error:  # no TOML, or no text at all
        raise ConfigError(f"{path} cannot be read: {error}") from error
    known = {setting.name for setting in SETTINGS}
    if unknown := sorted(found.keys() - known):
        raise ConfigError(f"{path} has {unknown[0]!r}, which is no setting; see: hostsvc config show")
    return found
