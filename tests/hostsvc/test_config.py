"""Settings: where each comes from, what it may be, and what is said of a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from hostsvc.cli.serve import serve
from hostsvc.config import SETTINGS, Config, ConfigError, Setting, file_path, find_setting, read_config

GOOD = {
    "runtime_dir": "/tmp/x/run",
    "state_dir": "/tmp/x/state",
    "base_dir": "/tmp/x/work",
    "reaper_interval_s": "1.5",
    "reaper_acts": "7",
    "reaper_deadline_s": "8",
    "age_floor_s": "9",
    "inferred_cap": "10",
    "inferred_share": "0.25",
    "kills_at_once": "3",
    "kill_deadline_s": "11",
    "keep_trash_s": "12",
    "sweep_age_s": "13",
    "worktree_grace_s": "14",
    "quarantine_grace_s": "15",
    "run_age_s": "16",
    "git_deadline_s": "17",
    "idle_ttl_s": "18",
    "sessions_per_workspace": "19",
    "sessions_per_host": "20",
    "probe_interval_s": "21",
    "probe_failures": "22",
    "probe_stale_s": "23",
    "probe_restarts": "24",
    "reconcile_cap": "25",
    "keep_rows_s": "61",
    "log_level": "debug",
}
_NUMBERS = [setting.name for setting in SETTINGS if " to " in setting.bound]
_PATHS = ["runtime_dir", "state_dir", "base_dir"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def write_file(env: Mapping[str, str], text: str) -> Path:
    path = file_path(env)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def value_of(config: Config, name: str) -> str:
    return str(getattr(config, name)).removesuffix(".0")


def test_defaults(env: dict[str, str], tmp_path: Path) -> None:
    config = read_config({}, env)
    assert config.runtime_dir == tmp_path / "run" / "ptyd"
    assert config.state_dir == tmp_path / ".local/state/hostsvc"
    assert config.base_dir == tmp_path / ".local/share/hostsvc/workspaces"
    assert set(config.origins.values()) == {"default"}
    assert set(GOOD) == {setting.name for setting in SETTINGS}


def test_xdg_directories(env: dict[str, str]) -> None:
    config = read_config({}, {**env, "XDG_STATE_HOME": "/s", "XDG_DATA_HOME": "/d"})
    assert (config.state_dir, config.base_dir) == (Path("/s/hostsvc"), Path("/d/hostsvc/workspaces"))
    assert file_path({**env, "XDG_CONFIG_HOME": "/c"}) == Path("/c/hostsvc/config.toml")
    relative = read_config({}, {**env, "XDG_STATE_HOME": "s", "XDG_DATA_HOME": "./d"})
    assert relative == read_config({}, env), "a relative one is to be ignored"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_is_set_by_flag_before_environment_before_file(setting: Setting, env: dict[str, str]) -> None:
    name, good = setting.name, GOOD[setting.name]
    path = write_file(env, f"{name} = {good!r}\n")
    config = read_config({}, env)
    assert (value_of(config, name), config.origins[name]) == (good, f"file {path}")
    path.write_text(f"{name} = 'nonsense'\n")
    config = read_config({}, {**env, setting.variable: good})
    assert (value_of(config, name), config.origins[name]) == (good, f"environment {setting.variable}")
    config = read_config({name: good}, {**env, setting.variable: "nonsense"})
    assert (value_of(config, name), config.origins[name]) == (good, f"flag {setting.flag}")
    assert find_setting(name, {name: good}, env).value == getattr(config, name)


def test_an_empty_variable_is_none(env: dict[str, str]) -> None:
    empty = dict.fromkeys([setting.variable for setting in SETTINGS], "")
    assert read_config({}, {**env, **empty, "HOSTSVC_CONFIG": ""}) == read_config({}, env)


def test_a_file_may_hold_numbers(env: dict[str, str]) -> None:
    write_file(env, "reaper_interval_s = 20\nreaper_acts = 30\ninferred_share = 0.75\n")
    config = read_config({}, env)
    assert (config.reaper_interval_s, config.reaper_acts, config.inferred_share) == (20.0, 30, 0.75)


BAD = {
    **{name: ["", "x", "nan", "inf", "-1", "1e400", "0x10", "1 2", "9" * 400] for name in _NUMBERS},
    **{name: ["", "relative/path", ".", "\0", "/a\0b"] for name in _PATHS},
    "log_level": ["", "loud", "INFO", "info "],
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_A9_a_bad_one_says_which_and_where_and_what_it_may_be(setting: Setting, env: dict[str, str]) -> None:
    for bad in BAD[setting.name]:
        with pytest.raises(ConfigError) as refused:
            read_config({setting.name: bad}, env)
        told = str(refused.value)
        assert setting.name in told
        assert setting.flag in told
        assert setting.bound in told
        assert told.isprintable()


@pytest.mark.parametrize("name", _NUMBERS)
def test_bounds_are_part_of_what_is_allowed(name: str, env: dict[str, str]) -> None:
    (setting,) = (setting for setting in SETTINGS if setting.name == name)
    least, most = setting.bound.split(" to ")
    for good in (least, most):
        assert getattr(read_config({name: good}, env), name) == float(good)
    for bad in (float(least) - 0.001, float(most) + 1):
        with pytest.raises(ConfigError):
            read_config({name: f"{bad:.10g}"}, env)


def test_where_a_bad_one_is_set(env: dict[str, str]) -> None:
    path = write_file(env, "reaper_acts = 0\n")
    with pytest.raises(ConfigError, match=f"file {path}"):
        read_config({}, env)
    with pytest.raises(ConfigError, match="environment HOSTSVC_REAPER_ACTS"):
        read_config({}, {**env, "HOSTSVC_REAPER_ACTS": "0"})


@pytest.mark.parametrize(
    "text, words",
    [
        ("[", "cannot be read"),
        ("reaper_intervall_s = 1", "'reaper_intervall_s', which is no setting"),
        ("reaper_acts = [1]", "reaper_acts"),
        ("reaper_acts = true", "reaper_acts"),
        ("reaper_acts = 1.5", "reaper_acts"),
        ("[reaper]\nacts = 1", "'reaper', which is no setting"),
    ],
)
def test_a_bad_file(env: dict[str, str], text: str, words: str) -> None:
    path = write_file(env, text)
    with pytest.raises(ConfigError, match=words) as refused:
        read_config({}, env)
    assert str(path) in str(refused.value)


def test_a_file_that_is_no_text(env: dict[str, str]) -> None:
    write_file(env, "").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config({}, env)


def test_a_file_that_is_named_has_to_be_there(env: dict[str, str], tmp_path: Path) -> None:
    named = {**env, "HOSTSVC_CONFIG": str(tmp_path / "no.toml")}
    with pytest.raises(ConfigError, match="does not exist"):
        read_config({}, named)
    with pytest.raises(ConfigError, match="does not exist"):
        find_setting("runtime_dir", {}, named)
    (tmp_path / "no.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config({}, named)


def test_one_by_itself_does_not_mind_the_others(env: dict[str, str], tmp_path: Path) -> None:
    broken = {**env, "HOSTSVC_REAPER_ACTS": "0"}
    found = find_setting("runtime_dir", {}, broken)
    assert found == (tmp_path / "run" / "ptyd", "default")


def test_under_test_the_runtime_directory_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="PTYD_TEST"):
        read_config({}, {"PTYD_TEST": "1", "HOME": "/nowhere"})


def test_serve_has_a_flag_for_each() -> None:
    flags = {option.opts[0]: option.help or "" for option in serve.params if isinstance(option, click.Option)}
    for setting in SETTINGS:
        assert setting.bound in flags[setting.flag]
        assert setting.variable in flags[setting.flag]
