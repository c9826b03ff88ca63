"""Fixtures of all tests, and the promise that no test touches a real ptyd or leaves a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest

from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService

SETTLE_S = 1.0  # for what is on its way out when its test ends, such as a command that was answered
KEPT_SETTINGS = ("PTYD_SOAK",)


def pytest_configure() -> None:
    """Cut the tests off from any ptyd of whoever runs them."""
    if real := os.environ.get("PTYD_RUNTIME_DIR"):
        pytest.exit(f"PTYD_RUNTIME_DIR={real} may be a real one; unset it to run the tests", 4)
    # Whoever runs the tests may do so inside a session, or have settings of their own.
    for name in [name for name in os.environ if name.startswith(("PTYD_", "HOSTSVC_"))]:
        if name not in KEPT_SETTINGS:
            del os.environ[name]
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        os.environ.pop(name, None)
    os.environ.update(PTYD_TEST="1", PTYD_ALLOW_NESTED="1")
    processes.become_subreaper()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _end_with_everything)


def _end_with_everything(signum: int, _frame: object) -> None:
    """Leave nothing behind when the run itself is ended, by timeout(1) or a closed terminal."""
    processes.Guard(spare_present=False).end_all()
    os._exit(128 + signum)


def pytest_unconfigure() -> None:
    """End what outlived even its guard, as after Ctrl-C."""
    if os.environ.get("PTYD_TEST"):
        processes.Guard(spare_present=False).end_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what daemon and zygote said beside a test that failed."""
    report = yield
    fixtures = getattr(item, "funcargs", {})
    for name in ("runtime", "shared_runtime"):
        if report.failed and isinstance(fixtures.get(name), RuntimeDir):
            report.sections.append((f"log of {name}", fixtures[name].log))
    return report


@pytest.fixture(autouse=True, scope="module")
def _measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep coverage from following what an `unmeasured` module starts."""
    with pytest.MonkeyPatch.context() as environment:
        if request.node.get_closest_marker("unmeasured"):
            for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
                environment.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def guard() -> Iterator[processes.Guard]:
    """End every process that the test started and fail the test if one was left."""
    guard = processes.Guard()
    yield guard
    guard.settle(SETTLE_S)
    if left := guard.end_all():
        pytest.fail("the test left processes behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
def runtime(guard: processes.Guard, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeDir]:
    """A private runtime directory, named by PTYD_RUNTIME_DIR; nothing runs in it yet."""
    with monkeypatch.context() as patch:
        runtime = RuntimeDir()
        for name, value in runtime.settings.items():
            patch.setenv(name, value)
        yield from _with_end(runtime, guard)


@pytest.fixture(scope="module")
def shared_runtime() -> Iterator[RuntimeDir]:
    """One running ptyd for all tests of a module that only use it; os.environ does not name it."""
    guard = processes.Guard()
    runtime = RuntimeDir()
    try:
        runtime.start()
    except BaseException:
        guard.end_all()
        runtime.remove()
        raise
    yield from _with_end(runtime, guard)


@pytest.fixture
def daemon(runtime: RuntimeDir) -> RuntimeDir:
    """The same private directory, with a zygote and its daemon running in it."""
    return runtime.start()


@pytest.fixture
def host(runtime: RuntimeDir) -> Iterator[HostService]:
    """A private host service, not started yet; it starts its own ptyd in the same directory."""
    service = HostService(runtime)
    yield service
    service.stop()


def _with_end(runtime: RuntimeDir, guard: processes.Guard) -> Iterator[RuntimeDir]:
    try:
        yield runtime
        stopped = runtime.stop()
        failed = not stopped and not runtime.was_wrecked and runtime.ended_badly()
    finally:
        log = runtime.log
        # Only after an orderly stop is what is left somebody's fault.
        left = guard.settle(SETTLE_S) if runtime.leftovers_expected is None else []
        ended = guard.end_all()
        runtime.remove()
    if stopped and left:
        pytest.fail("left after an orderly stop:\n  " + "\n  ".join(ended) + f"\n{log}", pytrace=False)
    if failed:
        pytest.fail(f"the daemon was gone, and nobody had stopped it:\n{log}", pytrace=False)
