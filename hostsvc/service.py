"""The parts of the host service, put together: who is given what.

Owns the wiring only. `app` starts and stops it, `api` serves it.
"""

from __future__ import annotations

import secrets

import trio

from hostsvc.adoption import Adoption
from hostsvc.births import Births
from hostsvc.clock import NowMs
from hostsvc.config import Config
from hostsvc.crowd import Crowd
from hostsvc.deletion import Deletion
from hostsvc.deletion_steps import DeletionSteps
from hostsvc.disposal import Disposal
from hostsvc.follower import Follower
from hostsvc.git.command import Git
from hostsvc.idle import Room
from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.monitor import Monitor
from hostsvc.policy import Limits
from hostsvc.ptyd_process import PtydProcess
from hostsvc.reaper.base import Base
from hostsvc.reaper.engine import Reaper, Schedule
from hostsvc.reaper.gate import Caps
from hostsvc.reaper.idle import Idle
from hostsvc.reaper.orphans import Orphans
from hostsvc.reaper.runs import LabelledRuns
from hostsvc.reaper.stale_rows import StaleRows
from hostsvc.reaper.stuck_sagas import StuckSagas
from hostsvc.reaper.trash import Trash
from hostsvc.reaper.triples import Triples
from hostsvc.reaper.worktrees import AT_ONCE, Worktrees
from hostsvc.reconciler import Reconciler
from hostsvc.restarter import Restarter
from hostsvc.runs.containers import Containers
from hostsvc.runs.lifecycle import Runs
from hostsvc.runs.policy import RunLimits
from hostsvc.runs.sessions import Sessions as RunSessions
from hostsvc.runs.workspaces import Workspaces as RunWorkspaces
from hostsvc.sweep import Ages
from hostsvc.teardown import Teardown
from hostsvc.watchdog import Patience
from hostsvc.watching import LOOK_S, Watching
from hostsvc.workspaces import Workspaces
from ptyd.protocol.eventlog import EventLog


class Service:
    """Everything that one process of the host service holds."""

    def __init__(
        self, config: Config, index: Index, owner: str, live: Live, nursery: trio.Nursery, now_ms: NowMs
    ) -> None:
        self.config = config
        self.index = index
        self.owner = owner
        self.live = live
        self.nursery = nursery
        self.now_ms = now_ms
        self.run_id = secrets.token_hex(8)
        self.started_at_s = trio.current_time()
        self.events = EventLog(self.run_id, now_ms)
        self.git = Git(deadline_s=config.git_deadline_s)
        self.places = Workspaces(
            index,
            config.base_dir,
            self.events,
            now_ms,
            git=self.git,
            keep_trash_ms=int(config.keep_trash_s * 1000),
            forbidden=[config.state_dir, config.runtime_dir],
        )
        self.disposal = Disposal(index, live, self.events, now_ms, config.kills_at_once)
        self.crowd = Crowd(index, live, self.disposal, _room(config), owner=owner)
        self.births = Births(
            index, live, self.disposal, self.crowd, self.events, now_ms, owner=owner, run_id=self.run_id
        )
        effects = DeletionSteps(
            index,
            self.disposal,
            self.places.disk,
            Teardown(live, self.births, owner=owner),
            self.events,
            now_ms,
        )
        self.deletion = Deletion(
            index,
            effects,
            self.events,
            now_ms,
            nursery,
            run_id=self.run_id,
        )
        self.monitor = Monitor(
            index, live, PtydProcess(str(config.runtime_dir)), self.events, _patience(config)
        )
        self.reconciler = Reconciler(
            index,
            self.crowd,
            self.deletion,
            now_ms,
            cap=config.reconcile_cap,
            age_floor_ms=int(config.age_floor_s * 1000),
        )
        self.watching = Watching(
            index, Git(deadline_s=min(LOOK_S, config.git_deadline_s)), self.events, now_ms
        )
        self.follower = Follower(index, live, self.disposal, self.crowd)
        self.adoption = Adoption(index, live, self.births, self.events, owner=owner, run_id=self.run_id)
        self.runs = Runs(
            index,
            self.disposal,
            [
                RunSessions(index, live, self.disposal, self.births, owner),
                Containers("docker", index, owner),
                Containers("podman", index, owner),
                RunWorkspaces(index, self.places, self.deletion),
            ],
            self.events,
            now_ms,
        )
        self.restarter = Restarter(index, self.births, self.events, now_ms)
        limits = Limits(age_floor_ms=int(config.age_floor_s * 1000))
        base, can = Base(index, config.base_dir), self.places.can
        ages = Ages(
            sweep_ms=int(config.sweep_age_s * 1000),
            worktree_ms=int(config.worktree_grace_s * 1000),
            quarantine_ms=int(config.quarantine_grace_s * 1000),
            limits=limits,
        )
        reapers_git = Git(deadline_s=config.git_deadline_s, at_once=AT_ONCE)
        self.reaper = Reaper(
            [
                StuckSagas(index, self.deletion),
                StaleRows(
                    index, self.disposal, self.births, self.places, limits, int(config.keep_rows_s * 1000)
                ),
                Orphans(index, live, self.disposal, self.births, limits, owner),
                Idle(self.crowd, self.births),
                LabelledRuns(
                    index, self.runs, RunLimits(age_ms=int(config.run_age_s * 1000), absence=limits)
                ),
                Worktrees(index, base, can, reapers_git, self.events, now_ms, ages),
                Triples(index, base, can, self.events, now_ms, ages),
                Trash(index, can),
            ],
            index,
            live,
            self.events,
            now_ms,
            caps=Caps(count=config.inferred_cap, share=config.inferred_share),
            schedule=Schedule(
                interval_s=config.reaper_interval_s,
                acts=config.reaper_acts,
                deadline_s=config.reaper_deadline_s,
            ),
        )


def _room(config: Config) -> Room:
    """How many sessions there may be; a setting of 0 means any number."""
    return Room(
        ttl_ms=int(config.idle_ttl_s * 1000) or None,
        per_workspace=config.sessions_per_workspace or None,
        per_host=config.sessions_per_host or None,
    )


def _patience(config: Config) -> Patience:
    return Patience(
        failures=config.probe_failures,
        interval_s=config.probe_interval_s,
        stale_s=config.probe_stale_s,
        restarts=config.probe_restarts,
    )
