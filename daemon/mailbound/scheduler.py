"""The scheduler: due activities become runs, audiences are frozen, and runs are brought to their end.

One tick looks at everything that is open. Each step is one transaction and safe to repeat, so a crash between two of
them leaves nothing that the next tick does not finish.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import sqlalchemy as sa
import structlog

from mailbound import breaker, schedule, tokens
from mailbound.config import Breaker
from mailbound.database import (
    activities,
    audience,
    halting,
    remaining,
    resending,
    runs,
    segments,
    tally,
    token_keys,
)
from mailbound.database.activities import Activity
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.database.runs import Run
from mailbound.errors import DatabaseError, InputError, InvalidTransition
from mailbound.lifecycle import DeliveryEvent, RunEvent, RunState
from mailbound.template import Template

log = structlog.get_logger()

_TICK_SECONDS = 0.5
_MOST_PLANNED = 1000
"""How many due times that passed while no daemon ran become runs, each to be missed or started."""

_JUMP = timedelta(minutes=1)
"""How much more or less of the day may have passed than time, before the log is told that somebody set the clock."""

_NEVER = datetime.min.replace(tzinfo=UTC)
_FROZEN = (RunState.SENDING, RunState.PAUSED, RunState.HALTED)
"""The states in which a run has an audience that is not sent yet."""

_FAR = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the scheduler works with."""

    database: Database
    templates: Path
    breaker: Breaker
    node_id: int
    lease: Lease  # of many nodes one schedules
    clock: Callable[[], datetime]


class Scheduler:
    """Watches the clock, for all stores."""

    def __init__(self, parts: Parts) -> None:
        """Look at nothing yet."""
        self._parts = parts
        self._up_to_date = False  # what is planned was held to the time zones of now
        self._freezing = False  # there is more to freeze, so the next tick comes at once
        self._epoch: datetime | None = None  # when the machine was started, by the time of the last tick
        self._was = _NEVER  # what the clock said before it was set back
        self.ticked_at = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Tick until `stopping` is set. A database that cannot be reached delays the tick, and nothing else."""
        while not stopping.is_set():
            self.ticked_at = time.monotonic()
            self._freezing = False
            try:
                if await self._parts.lease.held():
                    await self.tick()
            except DatabaseError:
                pass  # the database has told
            try:
                await asyncio.wait_for(stopping.wait(), 0 if self._freezing else _TICK_SECONDS)
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """Do everything that is to be done now; of an audience, freeze one chunk."""
        now = self._parts.clock()
        self._watch_clock(now)
        await self._recall(now)
        if not self._up_to_date:
            for name, due in (await self._parts.database.run(_replan, now)).items():
                log.warning("activity.replanned", activity=name, due=due.isoformat())
            self._up_to_date = True
        for activity in await self._parts.database.read(activities.unplanned, now):
            await self._parts.database.run(_plan, activity, now)
        if await self._parts.database.read(resending.is_due, now=now):
            requeued = await self._parts.database.run(resending.requeue, now=now)
            for run_id, count in requeued.items():
                log.info("delivery.requeued", run=run_id, deliveries=count)
        for run in await self._parts.database.read(runs.in_state, RunState.SCHEDULED):
            if run.occurrence_at <= self._parts.clock():
                await self._unless_overtaken(self._begin, run)
        for run in await self._parts.database.read(runs.in_state, RunState.SENDING):
            await self._unless_overtaken(self._advance, run)
        for run in await self._parts.database.read(runs.with_leftovers):
            await self._parts.database.run(
                remaining.sweep, run.id, DeliveryEvent.CANCEL, now=self._parts.clock(), reason="cancelled"
            )

    def _watch_clock(self, now: datetime) -> None:
        """Tell of a clock that was set: what was due in between is missed, and what expired in between is not sent."""
        # Unlike the monotonic clock this one goes on while the machine sleeps, and a sleep is no jump.
        epoch = now - timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
        if self._epoch is not None and abs(epoch - self._epoch) > _JUMP:
            log.warning("clock.jumped", seconds=round((epoch - self._epoch).total_seconds()))
            if epoch < self._epoch:
                self._was = max(self._was, now + (self._epoch - epoch) + _JUMP)
        self._epoch = epoch

    async def _recall(self, now: datetime) -> None:
        """Let nobody wait until a clock that was set back has caught up: what was due then is due now."""
        if self._was > now:
            for run in await self._parts.database.read(runs.in_state, *_FROZEN):
                while await self._parts.database.run(remaining.recall, run.id, now=now, until=self._was):
                    self.ticked_at = time.monotonic()
        self._was = _NEVER

    @staticmethod
    async def _unless_overtaken(step: Callable[[Run], Awaitable[None]], run: Run) -> None:
        """Take a step with a run, unless an operator or another node moved it since we looked."""
        try:
            await step(run)
        except InvalidTransition as overtaken:
            log.debug("run.overtaken", run=run.id, why=str(overtaken))

    async def _begin(self, run: Run) -> None:
        """Start a due run, or let it wait, or call it missed."""
        now = self._parts.clock()
        activity = await self._parts.database.read(activities.find, run.activity_id)
        window = schedule.Hours(activity.window, activity.time_zone).of_run
        step = schedule.decide(run.occurrence_at, now=now, grace=activity.grace, window=window)
        busy = await self._parts.database.read(runs.predecessor_open, run)
        if isinstance(step, schedule.Missed):
            late = _spoken(step.late)
            why = (
                f"the run before it still sends, {late} later"
                if busy
                else f"it could have started for {late}"
            )
            await self._parts.database.run(runs.move, run.id, RunEvent.MISS, now=now, note=why)
            log.error(
                "run.missed", run=run.id, activity=run.activity, due=run.occurrence_at.isoformat(), why=why
            )
        elif isinstance(step, schedule.Start) and not busy:
            await self._start(run, activity)

    async def _start(self, run: Run, activity: Activity) -> None:
        now = self._parts.clock()
        try:
            template = await asyncio.to_thread(Template.load, self._parts.templates / activity.template)
            await self._parts.database.read(segments.members_of, activity.segment_id)
        except InputError as fault:
            await self._parts.database.run(runs.move, run.id, RunEvent.FAIL, now=now, note=str(fault))
            log.error("run.failed", run=run.id, activity=run.activity, why=str(fault))
            return
        await self._parts.database.run(start, run, activity, template.freeze(), now)
        log.info(
            "run.started", run=run.id, activity=run.activity, store=activity.store, segment=activity.segment
        )

    async def _advance(self, run: Run) -> None:
        """Freeze more of a sending run's audience, expire what is too old, halt it or finish it."""
        now = self._parts.clock()
        if run.frozen_at is None:
            frozen = await self._parts.database.run(_freeze, run, self._parts.node_id, now)
            log.info(
                "audience.frozen",
                run=run.id,
                activity=run.activity,
                queued=frozen.queued,
                skipped=frozen.skipped,
                complete=frozen.done,
            )
            self._freezing = self._freezing or not frozen.done
            return
        if run.expires_at is not None and run.expires_at <= now:
            expired = await self._parts.database.run(
                remaining.sweep, run.id, DeliveryEvent.EXPIRE, now=now, reason="expired"
            )
            if expired:
                log.warning("run.expired", run=run.id, activity=run.activity, deliveries=expired)
        trouble = await self._parts.database.read(_trouble, run.id, self._parts.breaker)
        if trouble:
            await self._parts.database.run(runs.move, run.id, RunEvent.HALT, now=now, note=trouble)
            log.error("run.halted", run=run.id, activity=run.activity, why=trouble)
            return
        if await self._parts.database.run(_finish, run, now):
            counts = await self._parts.database.read(tally.of_run, run.id)
            log.info("run.finished", run=run.id, activity=run.activity, **counts)


def _spoken(span: timedelta) -> str:
    """Return about how long that is: `90 s`, `59 min`, `5 h`, `12 days`."""
    seconds = span.total_seconds()
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds / size < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{span.days} days"


def _replan(connection: sa.Connection, now: datetime) -> dict[str, datetime]:
    """Plan anew what is still to come, where its time zone means another moment by now; return it by activity.

    A government may move the clocks of its country between two starts of the daemon. What was due is left as it is.
    """
    changed = {}
    for activity in activities.recurring(connection):
        where = schedule.zone(activity.time_zone)
        times = schedule.occurrences(
            starts_at=activity.starts_at, cron=activity.cron, where=where, after=now, until=now + _FAR
        )
        planned, due = runs.coming(connection, activity.id, now), next(iter(times), None)
        if due is not None and planned and planned != {due}:
            runs.unschedule(connection, activity.id, now)
            activities.plan_through(connection, activity.id, now)
            changed[activity.name] = due
    return changed


def _plan(connection: sa.Connection, activity: Activity, now: datetime) -> None:
    """Let the due times of an activity up to now, and the one after, become runs."""
    where = schedule.zone(activity.time_zone)
    coming = schedule.occurrences(
        starts_at=activity.starts_at,
        cron=activity.cron,
        where=where,
        after=activity.planned_through,
        until=now + _FAR,
    )
    planned = now + _FAR
    for moment in islice(coming, _MOST_PLANNED):
        runs.schedule(connection, activity.id, moment)
        if moment > now:
            planned = moment
            break
    activities.plan_through(connection, activity.id, planned)


def start(connection: sa.Connection, run: Run, activity: Activity, content: bytes, now: datetime) -> None:
    """Let a run begin, its template frozen as `content`."""
    key = token_keys.signing(connection, now=now)
    runs.start(
        connection,
        run.id,
        frozen_template=content,
        template_name=activity.template,
        key_id=key.id,
        day=tokens.day_number(now),
        expires_at=now + activity.expires_after,
        now=now,
    )


def _freeze(connection: sa.Connection, run: Run, node_id: int, now: datetime) -> audience.Frozen:
    segment_id = activities.find(connection, run.activity_id).segment_id
    return audience.freeze(
        connection,
        run_id=run.id,
        store_id=run.store_id,
        members=segments.members_of(connection, segment_id),
        node_id=node_id,
        now=now,
    )


def _trouble(connection: sa.Connection, run_id: int, limits: Breaker) -> str | None:
    """Return why a run must halt, or None."""
    blame = halting.blame(connection, run_id)
    settled = tally.tried(connection, [run_id]) if blame else 0
    return breaker.trips(blame=blame, settled=settled, limits=limits)


def _finish(connection: sa.Connection, run: Run, now: datetime) -> bool:
    if remaining.any_open(connection, run.id):
        return False
    runs.move(connection, run.id, RunEvent.FINISH, now=now)
    return True
