"""The project holds together: one version, locks for everyone, settings told, house rules kept."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import ptyd
from hostsvc.config import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [ROOT / "ptyd", ROOT / "hostsvc"]
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
LOCKS = ("requirements.lock", "requirements-dev.lock")
MOST_LINES = 300
# A module that is longer and for one topic all the same: its path, and why it stays whole.
LONG_MODULES = {
    "ptyd/protocol/messages.py": "one class a method: a table in all but name",
    "ptyd/protocol/results.py": "one class a result: a table in all but name",
    "ptyd/shim/shim.py": "one loop over one session; terminal, links and ending are rooms of their own",
    "ptyd/daemon/session.py": "the daemon's end of one link; pending, output and row are rooms of their own",
    "ptyd/daemon/connection.py": "in and out of one socket; outbox, lane and subscription are their own",
    "ptyd/daemon/registry.py": "the table of sessions; births, kills and adoption are rooms of their own",
    "ptyd/attach/frontend.py": "one loop over one terminal; keys, screen, replay and modes are their own",
    "ptyd/blocking.py": "one client over one socket; connecting and the rules of calls are elsewhere",
    "ptyd/client/core.py": "one method of the client for each of the wire",
}
# Folders of tests that are about no single package.
TOPICS = {"support", "crash", "e2e", "bench"}


def project() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, object] = tomllib.load(file)["project"]
    return found


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__main__"], ids=str)
def test_every_module_can_be_imported(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    importlib.import_module(name)


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in project()
    assert project()["dynamic"] == ["version"]
    quoted = re.compile(rf"""["']{re.escape(ptyd.__version__)}["']""")
    places = [path for path in MODULES if quoted.search(path.read_text())]
    assert places == [ROOT / "ptyd" / "__init__.py"]


def test_the_changelog_has_this_version_on_top() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ptyd.__version__


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"://|^\s*--(?!hash)|\bindex\b|find-links|@ file", text, re.MULTILINE)
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+ ", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_locks_agree_and_hold_every_dependency() -> None:
    runtime, everything = (dict(_pins(name)) for name in LOCKS)
    assert runtime.items() <= everything.items()
    found = project()
    dependencies, extras = found["dependencies"], found["optional-dependencies"]
    assert isinstance(dependencies, list)
    assert isinstance(extras, dict)
    assert {_name(text) for text in dependencies} <= runtime.keys()
    assert {_name(text) for text in extras["dev"]} <= everything.keys()


def _pins(lock: str) -> list[tuple[str, str]]:
    return re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE)


def _name(requirement: str) -> str:
    return re.split(r"[<>=~ ]", requirement)[0]


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lines = [line for line in text.splitlines() if re.match(r'  "[a-z0-9-]+>=', line)]
    assert len(lines) >= 17
    assert [line for line in lines if not re.search(r"# \w+", line)] == []


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = set(re.findall(r"^  make (\S+)  +\S", shown.stdout, re.MULTILINE))
    assert listed == set(phony[1].split())
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert targets == listed


def test_the_packages_say_that_they_are_typed() -> None:
    assert [package.name for package in PACKAGES if not (package / "py.typed").exists()] == []


def test_every_setting_is_in_the_readme() -> None:
    pattern = re.compile(r"\b(?:PTYD|HOSTSVC)_[A-Z_]*[A-Z]\b")
    settings = {name for path in MODULES for name in pattern.findall(path.read_text())}
    settings |= {setting.variable for setting in SETTINGS}
    assert settings >= {"PTYD_RUNTIME_DIR", "HOSTSVC_CONFIG", "HOSTSVC_REAPER_ACTS"}
    readme = set(pattern.findall((ROOT / "README.md").read_text()))
    assert settings - readme == set()


def test_modules_are_of_a_readable_length() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    long = {name: count for name, count in lengths.items() if count > MOST_LINES}
    assert {name: count for name, count in long.items() if name not in LONG_MODULES} == {}
    assert LONG_MODULES.keys() - long.keys() == set(), "no longer too long: take them off the list"


def test_every_module_says_what_it_owns() -> None:
    assert [str(path) for path in MODULES if not re.match(r'r?"""\S', path.read_text())] == []


def test_the_tests_mirror_the_packages() -> None:
    """Each package of ptyd has a folder of tests, and hostsvc has one."""
    packages = {path.parent.name for path in (ROOT / "ptyd").glob("*/__init__.py")} | {"hostsvc"}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders - TOPICS == packages
    without = [name for name in packages if not list((ROOT / "tests" / name).glob("test_*.py"))]
    assert without == []
