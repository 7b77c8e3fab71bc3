"""Once a minute, for whoever reads the log: how far each run is, how fast it goes, and what holds it back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa
import structlog

from mailbound.database import activities, runs, tally
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.database.progress import held_back
from mailbound.database.runs import Run
from mailbound.errors import DatabaseError
from mailbound.lifecycle import RunState

log = structlog.get_logger()

_EVERY_SECONDS = 60.0


class Progress:
    """Tells of the runs that send, on the one node that schedules."""

    def __init__(self, database: Database, *, lease: Lease, clock: Callable[[], datetime]) -> None:
        """Have told nothing yet."""
        self._database = database
        self._lease = lease
        self._clock = clock
        self._before: dict[
            int, tuple[datetime, int]
        ] = {}  # by run: when we last looked, and what was settled
        self.ticked_at = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Tell until `stopping` is set."""
        due = time.monotonic() + _EVERY_SECONDS
        while not stopping.is_set():
            self.ticked_at = time.monotonic()
            if self.ticked_at >= due:
                due = self.ticked_at + _EVERY_SECONDS
                try:
                    if await self._lease.held():
                        await self.tell()
                except DatabaseError:
                    pass  # the database has told
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), 1.0)

    async def tell(self) -> None:
        """Write a line for each run that sends. Raises DatabaseError."""
        now = self._clock()
        told = {}
        for run, counts, limit in await self._database.read(_sending, now):
            settled = sum(count for name, count in counts.items() if name != tally.OPEN)
            told[run.id] = now, settled
            log.info(
                "run.progress",
                run=run.id,
                activity=run.activity,
                open=counts.get(tally.OPEN, 0),
                settled=settled,
                rate=self._rate(run.id, settled, now),
                limit=limit,
            )
        self._before = told

    def _rate(self, run_id: int, settled: int, now: datetime) -> float | None:
        """Return how many deliveries a second came to their end since we last looked, None the first time."""
        if run_id not in self._before:
            return None
        then, before = self._before[run_id]
        return round((settled - before) / max((now - then).total_seconds(), 1.0), 1)


def _sending(connection: sa.Connection, now: datetime) -> list[tuple[Run, dict[str, int], str]]:
    return [
        (
            run,
            tally.of_run(connection, run.id),
            held_back(connection, run, activities.find(connection, run.activity_id), now=now),
        )
        for run in runs.in_state(connection, RunState.SENDING)
    ]
