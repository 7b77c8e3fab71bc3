"""The watch over what came back: mass bounces are held before they empty a list, and forged ones fill no disk.

It looks at what the database counts, so a restart or another node forgets nothing. What changed people before it
looked is taken back, so it need not look at each bounce by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from mailbound import guard
from mailbound.config import Guard, Inbound
from mailbound.database import holds, quarantine
from mailbound.database.engine import Database
from mailbound.database.holds import Hold
from mailbound.database.leases import Lease
from mailbound.errors import DatabaseError
from mailbound.guard import Crowd, Traits

log = structlog.get_logger()

_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 60.0
"""It looks so often though nothing seems new: another node may commit an older number later."""

_TIDY_SECONDS = 10.0
_TELL_SECONDS = 3600.0
_SPARING = 10
"""It rests so many times as long as it looked: counting the bounces of a day must not slow down their recording."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the watch works with."""

    database: Database
    limits: Guard
    inbound: Inbound
    deleting: Collection[int]  # the stores that keep no mail on their servers
    lease: Lease  # of many nodes one watches
    clock: Callable[[], datetime]


class Watch:
    """Looks at the bounces of all stores, for ever."""

    def __init__(self, parts: Parts) -> None:
        """Look at nothing yet."""
        self._parts = parts
        self._seen = -1  # the latest bounce when it last looked
        self._looked_at = float("-inf")
        self._tidied_at = float("-inf")
        self._told_at = float("-inf")
        self._dropped = 0  # reports that nobody was told of yet
        self.ticked_at = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look again and again until `stopping` is set."""
        while not stopping.is_set():
            self.ticked_at = begun = time.monotonic()
            try:
                if await self._parts.lease.held():
                    await self.look()
                    if begun - self._tidied_at > _TIDY_SECONDS:
                        self._tidied_at = begun
                        await self.tidy()
            except DatabaseError:
                pass  # the database has told
            rest = max(_LOOK_SECONDS, _SPARING * (time.monotonic() - begun))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), rest)

    async def look(self) -> None:
        """Hold what came back in a mass, if anything came since the last look, or that is long ago."""
        latest = await self._parts.database.read(holds.latest)
        if latest == self._seen and time.monotonic() - self._looked_at < _AGAIN_SECONDS:
            return
        now = self._parts.clock()
        for each in await self._parts.database.read(holds.open_ones):
            await self._gather(each)
        counts = await self._parts.database.read(holds.counts, since=now - self._parts.limits.window)
        for store_id, of_store in counts.items():
            await self._judge(store_id, of_store)
        self._seen, self._looked_at = latest, time.monotonic()

    async def tidy(self) -> None:
        """Drop what was in quarantine for too long, and the oldest of what takes too much room."""
        database, inbound = self._parts.database, self._parts.inbound
        budget, deleting = inbound.quarantine_budget, self._parts.deleting
        shrunk = await database.run(quarantine.shrink, budget_octets=budget, deleting=deleting)
        self._dropped += shrunk.reports
        if self._dropped and time.monotonic() - self._told_at > _TELL_SECONDS:
            log.warning("quarantine.overflowed", reports=self._dropped, budget_octets=budget)
            self._dropped, self._told_at = 0, time.monotonic()
        before = self._parts.clock() - inbound.quarantine_for
        while expired := await database.run(quarantine.expire, before=before, deleting=deleting):
            self.ticked_at = time.monotonic()
            log.info("quarantine.expired", reports=expired)

    async def _judge(self, store_id: int, counts: Mapping[Traits, int]) -> None:
        """Hold one crowd of a store after the other: what is in a hold counts for no other."""
        left = counts
        while crowd := await self._alarm(store_id, guard.crowds(left, self._parts.limits)):
            left = guard.without(left, crowd)

    async def _alarm(self, store_id: int, crowds: Sequence[Crowd]) -> Crowd | None:
        """Hold the first crowd that is too large, and return it; None if there is none."""
        for crowd in crowds:
            settled = await self._parts.database.read(holds.settled, crowd)
            why = guard.alarm(crowd, settled=settled, limits=self._parts.limits)
            if why is None:
                continue
            now = self._parts.clock()
            placed = await self._parts.database.run(holds.place, store_id, crowd, why=why, now=now)
            if placed is not None:
                hold, halted = placed
                held = await self._gather(hold)
                log.error(
                    "bounces.held",
                    hold=hold.id,
                    trait=hold.by,
                    subject=hold.subject,
                    why=why,
                    bounces=held,
                    halted=halted,
                )
            return crowd
        return None

    async def _gather(self, hold: Hold) -> int:
        """Take into a hold what came before it was there; return how many bounces."""
        now = self._parts.clock()
        gathered = 0
        while some := await self._parts.database.run(
            holds.gather, hold, since=now - self._parts.limits.window, now=now
        ):
            gathered += some
            self.ticked_at = time.monotonic()
        return gathered
