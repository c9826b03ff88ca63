"""The engine: one pass after the other, never two at once, each recorded.

Owns the order of a pass (look, decide, gate, look again, act, confirm, record), its deadline, and the
schedule. Knows no kind by name. A kind that cannot see says so: the pass is an error, its observations begin
anew, and nothing of it is done; the other kinds go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from hostsvc.clock import NowMs
from hostsvc.index import Index
from hostsvc.live import Live
from hostsvc.model import Basis, Candidate
from hostsvc.reaper.gate import Caps, inferred, plan_hash, refusals
from hostsvc.reaper.kinds import Findings, Kind, Look, Skipped, Telling
from hostsvc.reaper.record import Pass, counts, outcome, share_out, state_of
from hostsvc.store import passes
from hostsvc.store.passes import STARTUP
from ptyd.log import get_logger
from ptyd.protocol.errors import Code, PtydError
from ptyd.protocol.eventlog import EventLog

log = get_logger()

ACTS_KEPT: Final = 500
"""Of one pass, in its record; the counts are of all."""
AT_ONCE: Final = 8
PROGRESS_EVERY: Final = 25
INTERVAL: Final = "interval"
BLIND_S: Final = 10.0
"""As long as no pass could see everything: ptyd is on its way, or somebody is about to look why not."""
AGAIN_S: Final = 1.0
"""After a pass that had to leave something for the next."""


@attrs.frozen(kw_only=True)
class Schedule:
    """When passes run, and how much one of them does."""

    interval_s: float = 300.0
    acts: int = 500
    deadline_s: float = 60.0


@attrs.define(kw_only=True)
class _Running:
    """The pass that is under way."""

    origin: str
    id: int
    at_ms: int
    total: int = 0
    outcomes: list[Pass] = attrs.Factory(list)


class Reaper:
    """Runs passes. Two of these share nothing but what they are given."""

    def __init__(
        self,
        kinds: Sequence[Kind],
        index: Index,
        live: Live,
        events: EventLog,
        now_ms: NowMs,
        *,
        caps: Caps,
        schedule: Schedule,
    ) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._index = index
        self._live = live
        self._events = events
        self._now_ms = now_ms
        self._caps = caps
        self._schedule = schedule
        self._alone = trio.Lock()
        self._running: _Running | None = None
        self._last_told: object = None
        self.last_at_s: float | None = None
        """When the last pass was finished, by trio's clock."""
        self.started_at_s = trio.current_time()  # one that nobody runs misses its passes, and health tells

    @property
    def progress(self) -> Pass | None:
        """How far the pass that is under way has come; None when there is none."""
        if self._running is None:
            return None
        return {"id": self._running.id, "done": len(self._running.outcomes), "total": self._running.total}

    @property
    def missed(self) -> int:
        """How many passes should have been finished since the last one."""
        since = self.started_at_s if self.last_at_s is None else self.last_at_s
        return max(0, int((trio.current_time() - since) / self._schedule.interval_s))

    async def run(self) -> None:
        """Run a pass now, and then one each interval, for ever; sooner after one that left something.

        Only the first that is recorded is the startup's: a kind that stays blind holds up no other. Until one
        could see everything they come sooner: what was left behind does not wait for an interval.
        """
        self.started_at_s = trio.current_time()
        origin, has_seen_all = STARTUP, False
        while True:
            pause_s = self._schedule.interval_s
            try:
                done = await self.run_pass(origin)
                origin = INTERVAL
                has_seen_all = has_seen_all or not done["errors"]
                if done["counts"]["deferred"]:
                    pause_s = AGAIN_S
                elif not has_seen_all:
                    pause_s = min(BLIND_S, pause_s)
            except PtydError as error:  # the index cannot record it: health tells, and the next one is due
                log.error("no pass was run", error=str(error))
            except Exception:
                log.exception("a pass failed")
            await trio.sleep(pause_s)

    async def run_pass(
        self,
        origin: str,
        *,
        kinds: Sequence[str] | None = None,
        is_dry: bool = False,
        accepted: str | None = None,
    ) -> Pass:
        """Run one pass and return its record; waits for one that is under way.

        Args:
            origin: "startup", "interval" or "manual".
            kinds: Which kinds; all of them when None.
            is_dry: Decide only; nothing changes.
            accepted: The hash of the plan that a person has seen refused and wants done.

        Raises:
            PtydError: plan_changed, when `accepted` names another plan, and nothing was done;
                index_failed.
        """
        chosen = [kind for name, kind in self._kinds.items() if kinds is None or name in kinds]
        async with self._alone:
            names, now_ms = [kind.name for kind in chosen], self._now_ms()
            id_ = await self._index.write(
                passes.begin, origin=origin, is_dry=is_dry, kinds=names, now_ms=now_ms
            )
            self._running = _Running(origin=origin, id=id_, at_ms=now_ms)
            try:
                return await self._run(self._running, chosen, is_dry, accepted)
            finally:
                self._running = None

    async def _run(self, running: _Running, kinds: list[Kind], is_dry: bool, accepted: str | None) -> Pass:
        look = Look(at_ms=running.at_ms, view=await self._live.view())
        found, errors = await self._find(kinds, look, is_dry)
        candidates = [one for findings in found.values() for one in findings.candidates]
        if running.origin == STARTUP:  # a drain: what rows say is done, absence is only observed
            candidates = [one for one in candidates if one.basis is not Basis.ABSENCE]
        refused = refusals(candidates, {name: f.inventory for name, f in found.items()}, self._caps)
        plan = plan_hash(inferred(candidates))
        if accepted is not None and accepted != plan:
            await self._record(running, "refused", plan, found, errors, ["another plan was accepted"])
            text = f"the plan is {plan} now, not {accepted}; look again: hostsvc reap --dry-run"
            raise PtydError(Code.PLAN_CHANGED, text, plan_hash=plan)
        if accepted is not None:
            refused = []
        held = frozenset(inferred(candidates) if refused else ())
        running.outcomes += [outcome(one, "refused") for one in held]
        due = [one for one in candidates if one not in held]
        if is_dry:
            running.outcomes += [outcome(one, "planned") for one in due]
        else:
            await self._act(running, due, look)
            await self._let_tell(running, found)
        return await self._record(
            running, state_of(running.outcomes, refused, errors), plan, found, errors, refused
        )

    async def _find(
        self, kinds: Sequence[Kind], look: Look, is_dry: bool
    ) -> tuple[dict[str, Findings], dict[str, str]]:
        found: dict[str, Findings] = {}
        errors: dict[str, str] = {}
        for kind in kinds:
            try:
                found[kind.name] = await kind.find(look)
                if (trouble := found[kind.name].trouble) is not None:
                    errors[kind.name] = trouble
            except PtydError as error:
                errors[kind.name] = str(error)
            except Exception as error:
                log.exception("a kind failed", kind=kind.name)
                errors[kind.name] = f"internal: {type(error).__name__}"
            if not is_dry:
                observed = found[kind.name].observed if kind.name in found else []
                await self._index.write(passes.observe, kind.name, observed, look.at_ms)
        return found, errors

    # -- acting ------------------------------------------------------------------------------------

    async def _act(self, running: _Running, due: Sequence[Candidate], look: Look) -> None:
        """Do what is due, some at once, until all is done or the deadline is over; the rest is deferred."""
        now, later = share_out(due, self._schedule.acts)
        running.total = len(running.outcomes) + len(now)
        ends_at = trio.current_time() + self._schedule.deadline_s
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def act(one: Candidate) -> None:
            async with limiter:
                if trio.current_time() >= ends_at:
                    later.append(one)
                    return
                running.outcomes.append(await self._act_on(one, look))
                self._tell_progress(running)

        async with trio.open_nursery() as nursery:
            for one in now:
                nursery.start_soon(act, one)
        running.outcomes += [outcome(one, "deferred") for one in later]

    async def _act_on(self, one: Candidate, look: Look) -> Pass:
        try:
            return outcome(one, "done", evidence=dict(await self._kinds[one.kind].act(one, look)))
        except Skipped as skipped:
            return outcome(one, "skipped", error=str(skipped))
        except PtydError as error:
            return outcome(one, "failed", error=str(error))
        except Exception as error:
            log.exception("an act failed", kind=one.kind, subject=one.subject)
            return outcome(one, "failed", error=f"internal: {type(error).__name__}")

    def _tell_progress(self, running: _Running) -> None:
        done = len(running.outcomes)
        if done % PROGRESS_EVERY == 0 and done < running.total:
            log.info("reaping", done=done, total=running.total)
            told: Pass = {"pass": running.id, "done": done, "total": running.total}
            self._events.emit("reaper.progress", **told)

    async def _let_tell(self, running: _Running, found: Mapping[str, Findings]) -> None:
        for name, findings in found.items():
            kind = self._kinds[name]
            if isinstance(kind, Telling):
                await kind.tell(findings, [act for act in running.outcomes if act["kind"] == name])

    # -- recording ---------------------------------------------------------------------------------

    async def _record(
        self,
        running: _Running,
        state: str,
        plan: str,
        found: Mapping[str, Findings],
        errors: Mapping[str, str],
        refused: Sequence[str],
    ) -> Pass:
        outcomes = sorted(running.outcomes, key=lambda act: (act["kind"], act["subject"], act["generation"]))
        body = {
            "counts": counts(found, outcomes),
            "kept": {name: dict(sorted(f.kept.items())) for name, f in found.items()},
            "acts": outcomes[:ACTS_KEPT],
            "errors": dict(errors),
            "refusals": list(refused),
        }
        recorded: Pass = await self._index.write(
            passes.finish,
            running.id,
            state=state,
            plan_hash=plan if refused else None,
            body=body,
            now_ms=self._now_ms(),
        )
        self.last_at_s = trio.current_time()
        self._tell(recorded)
        return recorded

    def _tell(self, recorded: Pass) -> None:
        """Say something only when something is new: a pass that found what the last one found is silent."""
        counts = recorded["counts"]
        news = (recorded["state"], counts["failed"], counts["refused"], recorded["errors"])
        if news == self._last_told and not counts["done"]:
            return
        self._last_told = news
        told = {key: recorded[key] for key in ("id", "state", "counts", "errors", "refusals")}
        (log.info if recorded["state"] == "ok" else log.warning)("pass", **told)
        self._events.emit(
            "reaper.pass", **{"pass": recorded["id"], "state": recorded["state"], "counts": counts}
        )
