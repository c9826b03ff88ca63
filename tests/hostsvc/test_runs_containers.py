"""Containers of runs: group D on a stand-in command that records its calls, and on a real podman."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hostsvc.run import Run
from hostsvc.runs.containers import Containers
from hostsvc.states import RunState
from hostsvc.store import runs
from ptyd.protocol.errors import Code, PtydError
from tests.hostsvc.engine import NAMES, OLD, Engine
from tests.hostsvc.places import OWNER, acts, owner_of, reap, reap_until, serve, stray
from tests.hostsvc.store import InlineIndex, inline_index
from tests.hostsvc.values import NOW
from tests.support import processes
from tests.support.daemon import RuntimeDir
from tests.support.host import HostService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unmeasured


US = "0123456789abcdef"
OLD_MS = 1_577_934_245_123
RUNS = {"kinds": ["runs"]}
ONE_ENGINE = pytest.mark.parametrize("program", NAMES[:1], indirect=True)
"""What is the same whatever it is called."""


@pytest.fixture(params=NAMES)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine of each name in turn, alone on the PATH."""
    made = Engine(tmp_path, program)
    monkeypatch.setenv("PATH", str(made.bin))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST", "CONTAINER_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
async def index(tmp_path: Path) -> InlineIndex:
    """An index that has had a run."""
    index = inline_index(tmp_path / "state")
    run = Run(
        id="a",
        state=RunState.OPEN,
        holder_pid=None,
        holder_start=None,
        boot_id=None,
        created_at_ms=NOW,
        deadline_at_ms=None,
    )
    await index.write(runs.insert, run)
    return index


@pytest.fixture
def containers(program: str, index: InlineIndex) -> Containers:
    return Containers(program, index, US, deadline_s=20)


# --- looking --------------------------------------------------------------------------------------


async def test_D1_D2_and_D4_only_what_has_both_labels_is_listed(
    engine: Engine, containers: Containers
) -> None:
    ours = {run: {engine.add(run=run, owner=US) for _ in range(2)} for run in ("a", "b")}
    engine.add(run="a")
    engine.add(run="a", owner="another")
    engine.add(owner=US)
    engine.add()
    assert await containers.check()
    for run, ids in ours.items():
        found = await containers.find(run)
        assert {one.id for one in found} == ids
        assert {(one.plugin, one.run, one.is_ours) for one in found} == {(containers.name, run, True)}
    assert {one.id for one in await containers.find(None)} == ours["a"] | ours["b"]
    listed = engine.calls("ps")
    fixed = ["ps", "--all", "--quiet", "--no-trunc", "--filter"]
    owner = ["--filter", f"label=hostsvc.owner={US}"]
    assert listed == [
        [*fixed, "label=run=a", *owner],
        [*fixed, "label=run=b", *owner],
        [*fixed, "label=run", *owner],
    ]


CREATED = [
    (OLD, OLD_MS),
    ("2020-01-02T05:04:05.123+02:00", OLD_MS),
    ("2020-01-02T03:04:05", None),
    ("0001-01-01T00:00:00Z", None),
    ("yesterday", None),
    ("", None),
    (None, None),
    (17, None),
]


@pytest.mark.parametrize("created, at_ms", CREATED)
async def test_D7_and_D8_age_is_from_creation_if_that_can_be_read(
    engine: Engine, containers: Containers, created: object, at_ms: int | None
) -> None:
    """Each was started just now, which is nobody's age."""
    engine.add(created, run="a", owner=US)
    [found] = await containers.find("a")
    assert found.created_at_ms == at_ms


async def test_one_that_goes_between_two_looks_is_no_error(engine: Engine, containers: Containers) -> None:
    """A13: a sweep races the normal end of what it looks at."""
    gone, there = (engine.add(run="a", owner=US) for _ in range(2))
    both = await containers.find("a")
    (engine.directory / f"{gone}.json").unlink()
    resources = {one.id: one for one in both}
    assert await containers.look(resources[gone]) is None
    assert await containers.look(resources[there]) == resources[there]
    assert (await containers.end(resources[gone]))["proof"] == "not_listed"
    assert await containers._inspect([gone, there], "a") == [None, resources[there]]
    engine.fail(inspect="fail")
    with pytest.raises(PtydError, match="lists a container and does not show it"):
        await containers.look(resources[there])


@pytest.mark.parametrize("verb", ["ps", "info", "inspect"])
async def test_D12_what_fails_or_hangs_is_an_error_and_no_empty_list(
    engine: Engine, program: str, index: InlineIndex, verb: str
) -> None:
    engine.add(run="a", owner=US)
    patient, hasty = Containers(program, index, US), Containers(program, index, US, deadline_s=1)

    async def see(containers: Containers) -> Any:
        return await containers.check() and await containers.find("a")

    engine.fail(**{verb: "fail"})
    with pytest.raises(PtydError):
        await see(patient)
    engine.fail(**{verb: "hang"})
    with pytest.raises(PtydError) as raised:
        await see(hasty)
    assert raised.value.code is Code.TIMEOUT


@pytest.mark.parametrize(
    "faults, programs",
    [
        ({"endpoint": "ssh://elsewhere"}, {"docker"}),
        ({"endpoint": "tcp://127.0.0.1:2375"}, {"docker"}),
        ({"remote": True}, {"podman"}),
        ({"host": "elsewhere"}, set(NAMES)),
    ],
)
async def test_D15_another_host_is_refused_before_anything_is_listed(
    engine: Engine, containers: Containers, faults: dict[str, Any], programs: set[str]
) -> None:
    if containers.name not in programs:
        pytest.skip(f"{containers.name} has no such thing")
    engine.fail(**faults)
    with pytest.raises(PtydError) as raised:
        await containers.check()
    assert raised.value.code is Code.WRONG_INSTANCE
    assert engine.calls("ps", "inspect", "rm") == []


async def test_D15_a_podman_of_another_host_is_not_even_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: InlineIndex
) -> None:
    engine = Engine(tmp_path, "podman")
    monkeypatch.setenv("PATH", str(engine.bin))
    monkeypatch.setenv("CONTAINER_HOST", "ssh://elsewhere")
    with pytest.raises(PtydError, match="another host"):
        await Containers("podman", index, US).check()
    assert engine.calls() == []


async def test_where_there_is_no_engine_there_is_nothing_to_look_at(
    engine: Engine, containers: Containers, tmp_path: Path
) -> None:
    """Without the command, or a run ever; of docker with the command alone, or as another name of podman."""
    other = "podman" if containers.name == "docker" else "docker"
    empty = inline_index(tmp_path / "empty")
    assert not await Containers(other, containers._index, US).check()
    assert not await Containers(containers.name, empty, US).check()
    assert engine.calls() == []
    if containers.name == "docker":
        engine.fail(endpoint="unix:///nowhere/docker.sock")
        assert not await containers.check()
        (engine.bin / "docker").write_text("#!/bin/sh\necho podman version 5\n")
        assert not await containers.check()


async def test_nothing_of_our_environment_is_told(
    engine: Engine, containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    program = engine.bin / containers.name
    program.write_text(f"#!/bin/sh\nset > {engine.directory}/env\nexit 1\n")
    with pytest.raises(PtydError):
        await containers.find("a")
    assert "secret" not in (engine.directory / "env").read_text()


# --- ending ---------------------------------------------------------------------------------------


async def test_one_is_removed_by_its_whole_id_and_looked_for_again(
    engine: Engine, containers: Containers
) -> None:
    id_, other = (engine.add(run="a", owner=US) for _ in range(2))
    [one] = [one for one in await containers.find("a") if one.id == id_]
    assert await containers.end(one) == {"proof": "not_listed", "by": containers.name}
    assert engine.calls("rm") == [["rm", "--force", "--volumes", id_]]
    assert not engine.has(id_)
    assert engine.has(other)


@pytest.mark.parametrize("status", [0, 1])
async def test_an_answer_is_no_proof(engine: Engine, containers: Containers, status: int) -> None:
    id_ = engine.add(run="a", owner=US)
    [one] = await containers.find("a")
    engine.fail(stuck=[id_], rm_status=status)
    with pytest.raises(PtydError) as raised:
        await containers.end(one)
    assert raised.value.code is Code.KILL_UNCONFIRMED


# --- the whole of it ------------------------------------------------------------------------------


@pytest.fixture
def host(program: str, tmp_path: Path, runtime: RuntimeDir) -> Iterator[HostService]:
    """A service with an engine of each name in turn."""
    service = HostService(runtime, PATH=str(tmp_path / "bin"))
    yield service
    service.stop()


def test_D1_D12_D13_and_D15_a_run_ends_its_containers(engine: Engine, host: HostService) -> None:
    serve(host, HOSTSVC_RUN_AGE_S="1")
    us = owner_of(host)
    for run in ("a", "b"):
        host.call("run.start", id=run)
    of_a = [engine.add(run="a", owner=us) for _ in range(10)]
    others = [engine.add(run="b", owner=us), engine.add(run="a"), engine.add(owner=us)]
    engine.fail(host="elsewhere")
    assert host.run("run", "sweep").returncode == 1
    answer = host.call("run.end", id="a")
    assert (answer["state"], answer["run"]["state"]) == ("partial", "ending")
    assert "another host" in answer["warnings"][0]
    assert engine.calls("ps", "rm") == []
    engine.fail(stuck=of_a[:3])
    answer = host.call("run.end", id="a")
    assert (answer["state"], answer["ended"], answer["failed"]) == ("partial", 7, 3)
    found = reap(host, **RUNS)
    assert (found["state"], found["counts"]["failed"]) == ("partial", 3)
    engine.fail(ps="fail")
    assert reap(host, **RUNS)["state"] == "error"
    assert host.run("run", "end", "a").returncode == 5
    engine.fail()
    assert host.run("run", "sweep").returncode == 0
    assert not any(map(engine.has, of_a))
    assert all(map(engine.has, others))
    assert host.call("run.end", id="a")["run"]["state"] == "ended"
    late = engine.add(run="a", owner=us)
    assert list(acts(reap(host, **RUNS)).values()) == ["end done"], "what comes late of an ended run goes"
    assert not engine.has(late)


@ONE_ENGINE
def test_an_engine_that_refuses_keeps_the_reaper_from_nothing_else(
    program: str, engine: Engine, host: HostService
) -> None:
    """Its command is there and may not be used, for good: orphans are ended, and a person sees why."""
    serve(host)
    host.call("run.start", id="a")
    host.stop()
    engine.fail(info="fail")
    serve(host, HOSTSVC_REAPER_INTERVAL_S="1")
    pid = stray(host, "orphan", **{OWNER: owner_of(host)})
    wait_until(lambda: not processes.alive(pid), what="an orphan is ended, pass by pass")
    why = f"{program} info ended with 1"
    for words in (["health"], ["doctor"], ["passes"]):
        assert why in host.run(*words).stdout, words
    assert (host.call("health")["status"], host.call("run.end", id="a")["state"]) == ("yellow", "partial")
    engine.fail()
    wait_until(lambda: host.call("run.get", id="a")["state"] == "ended", what="it can be asked again")


@ONE_ENGINE
def test_D6_to_D11_containers_of_a_run_that_nobody_holds(
    program: str, engine: Engine, host: HostService
) -> None:
    serve(host, HOSTSVC_RUN_AGE_S="60", HOSTSVC_INFERRED_CAP="2")
    us = owner_of(host)
    holder = subprocess.Popen(["sleep", "1000"])
    host.call("run.start", id="held", holder_pid=holder.pid)
    holder.kill()
    holder.wait()
    young = engine.add(datetime.now(UTC).isoformat(), run="held", owner=us)
    odd = [engine.add(created, run="held", owner=us) for created in ("?", "2999-01-01T00:00:00Z")]
    old = engine.add(run="held", owner=us)
    unknown = engine.add(run="nobody-knows-it", owner=us)
    reap_until(host, f"{program}/{old}", "end done", **RUNS)
    assert not engine.has(unknown)
    kept = reap(host, **RUNS)["kept"]["runs"]
    assert (kept["nobody can tell when it was created"], kept["its creation lies in the future"]) == (1, 1)
    assert all(map(engine.has, [young, *odd]))
    many = [engine.add(run="held", owner=us) for _ in range(3)]
    reap(host, **RUNS)
    refused = reap_until(host, f"{program}/{many[0]}", "end refused", **RUNS)
    assert refused["state"] == "refused"
    assert reap(host, dry_run=True, **RUNS)["plan_hash"] == refused["plan_hash"]
    assert all(map(engine.has, many))
    assert host.run("run", "sweep").returncode == 4


# --- the real thing -------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman (Debian package podman)")
async def test_real_podman(tmp_path: Path, index: InlineIndex) -> None:
    """A container of an empty image, which is created and never started: all that removal needs."""
    owner = os.urandom(8).hex()
    containers = Containers("podman", index, owner)
    root = tmp_path / "root"
    root.mkdir()
    labels = ["--label", "run=a", "--label", f"hostsvc.owner={owner}"]
    made = subprocess.run(
        ["podman", "create", *labels, "--rootfs", str(root), "true"], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"podman cannot make a container here: {made.stderr[-200:]}")
    assert await containers.check()
    [found] = await containers.find("a")
    assert (found.id, found.is_ours) == (made.stdout.strip(), True)
    assert found.created_at_ms is not None
    assert await containers.find("b") == []
    assert await containers.end(found)
    assert await containers.find(None) == []
