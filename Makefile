# Everything a person or CI runs. Needs Python 3.11 or newer, git and make; the rest is in the lock.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
# Every process that a test starts would compile all of ours anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
STAMP := $(VENV)/.installed

.PHONY: help setup run test lint types cover crash soak bench wheel lock clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(STAMP) ## make .venv from the lock; quick when nothing changed

# The lock holds everything, so pip resolves nothing and fetches only what the hashes name.
$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps --require-hashes --requirement requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

run: setup ## the host service; without a terminal, its whole story told line by line
	@$(BIN)/python -m hostsvc.demo

test: lint types cover crash wheel ## every check there is

lint: setup ## ruff, its formatter, flake8-async, the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	grep -rlwE 'async|trio' --include='*.py' ptyd hostsvc tests | xargs $(BIN)/flake8 $(ASYNC_RULES)
	$(BIN)/lint-imports --no-logo

# Over the files that have anything to do with async only: flake8 is slow.
# Not the optional rules about guaranteed checkpoints (910 to 913), which cannot see through branches.
# A test may start a process and look at a file where the daemon may not.
ASYNC_RULES := --select=ASYNC1,ASYNC2,ASYNC3,ASYNC900 --startable-in-context-manager=run \
	--per-file-ignores='tests/*:ASYNC22,ASYNC23,ASYNC24'

types: setup ## mypy, strict
	$(BIN)/mypy

# A file's tests stay together, as they share a daemon; a file more than there are cores, as they wait a lot.
AT_ONCE = --numprocesses=$$(($$(nproc) + 1)) --dist=loadfile

cover: setup ## the tests with branch coverage, of subprocesses too; the crash cases are left out
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest $(AT_ONCE) --ignore=tests/crash
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

crash: setup ## the crash cases: what dies by SIGKILL cannot be measured
	$(BIN)/python -m pytest $(AT_ONCE) tests/crash

soak: setup ## all tests at full size; takes hours
	PTYD_SOAK=1 $(BIN)/python -m pytest

bench: setup ## speed and memory beside dtach, tmux and others: build/bench/; takes ten minutes
	$(BIN)/python -m tests.bench --json build/bench/figures.json --markdown build/bench/table.md --plot build/bench/plot.svg

# Installed without this tree in sight, from the lock that users get.
wheel: setup ## build the wheel, install it in a clean environment and try it
	rm -rf dist build/wheel && mkdir -p build/wheel
	$(BIN)/hatchling build --target wheel --directory dist
	$(BIN)/python -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes --requirement requirements.lock
	build/wheel/venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps dist/ptyd-*.whl
	cd build/wheel && venv/bin/python -m pip check
	cd build/wheel && venv/bin/ptyd --version && venv/bin/ptyd --help >/dev/null
	cd build/wheel && venv/bin/hostsvc --version && venv/bin/hostsvc --help >/dev/null
	cd build/wheel && venv/bin/python -c 'import pathlib, ptyd; here = pathlib.Path(ptyd.__file__).parent; assert (here / "py.typed").exists() and "wheel" in str(here), here'

# Run it after a change of the dependencies in pyproject.toml.
lock: ## pin the newest versions that fit, with their hashes
	$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip --quiet install uv
	build/lock/bin/uv pip compile $(LOCK_FLAGS) --output-file requirements.lock pyproject.toml
	build/lock/bin/uv pip compile $(LOCK_FLAGS) --extra dev --constraints requirements.lock --output-file requirements-dev.lock pyproject.toml

LOCK_FLAGS := --quiet --upgrade --universal --generate-hashes --no-header --annotation-style line --no-emit-index-url --no-emit-find-links

clean: ## remove what was built and cached, but not .venv
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find ptyd hostsvc tests -name __pycache__ -type d -prune -exec rm -rf {} +
