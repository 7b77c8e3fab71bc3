"""This daemon among those that work on the same database: it is heard of, and takes over what dead ones held."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from datetime import datetime

import structlog

from mailbound.database import nodes, recovery
from mailbound.database.engine import Database
from mailbound.errors import DatabaseError, DiskFailed
from mailbound.lifecycle import DeliveryState

log = structlog.get_logger()

BEAT_SECONDS = 5.0

_STEADY_BEATS = 3
"""After so many beats in a row others may be judged: when the database was away, it is not they who were silent."""


class Node:
    """A member of those that share the work.

    `lost` is set when the others gave it up, or another server took over that may not know what it holds: then it has
    to join again.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        holding: Callable[[], Mapping[str, str]] = dict,
        changed: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Be nobody yet.

        `holding` tells what holds back each store; `changed` hears how many nodes there are when they come or go.
        """
        self.id = 0
        self.alive = 1  # how many nodes are, this one included
        self.lost = asyncio.Event()
        self._database = database
        self._clock = clock
        self._holding = holding
        self._changed = changed
        self._steady = 0  # beats in a row
        self._timeline = ""  # of the server that it joined

    async def join(self) -> None:
        """Become a new node. With SQLite nobody else can be alive, so what others held is taken over at once."""
        before = self.id
        self._timeline = await self._database.read(nodes.timeline)
        self.id = await self._database.run(nodes.join, socket.gethostname(), now=self._clock())
        self.lost.clear()
        self._steady = 0
        if before:
            log.warning("node.rejoined", node=self.id, before=before)
            # Nothing of it is on the wire any more: its loops have ended.
            _tell(await self._database.run(recovery.take_over, [before], now=self._clock()))
        if self._database.is_sqlite:
            others = await self._database.run(nodes.others, but=self.id)
            _tell(await self._database.run(recovery.take_over, others, now=self._clock()))
        await self.beat()

    async def run(self) -> None:
        """Beat for ever. While the database is away nothing is lost: nobody can mark anything."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with contextlib.suppress(DatabaseError):
                await self.beat()

    async def beat(self) -> None:
        """Tell the others that we live, and look after them."""
        steady, self._steady = self._steady, 0
        if self._timeline != (timeline := await self._database.read(nodes.timeline)):
            log.warning("database.replaced", before=self._timeline, after=timeline)
            await self._database.run(nodes.leave, self.id)
        alive = await self._database.run(nodes.beat, self.id, holding=self._holding())
        if alive is None:
            self.lost.set()
            return
        self._steady = steady + 1
        if alive != self.alive:
            self.alive = alive
            self._changed(alive)
        if not self._database.is_sqlite and self._steady >= _STEADY_BEATS:
            await self._look_after_others()

    async def leave(self) -> None:
        """Let the others know that we are gone; they would find out."""
        with contextlib.suppress(DatabaseError, DiskFailed):
            await self._database.run(nodes.leave, self.id)

    async def _look_after_others(self) -> None:
        now = self._clock()
        for node in await self._database.run(nodes.give_up, but=self.id):
            log.error("node.given_up", lost=node.id, host=node.name, seen_at=node.seen_at.isoformat())
        lost = await self._database.read(nodes.lost)
        if not lost:
            return
        released = await self._database.run(recovery.release, lost, now=now)
        answered = await self._database.read(nodes.lost, answered=True)
        counts = await self._database.run(recovery.take_over, answered, now=now)
        counts[DeliveryState.QUEUED] += released
        _tell(counts)


def _tell(counts: Mapping[DeliveryState, int]) -> None:
    if any(counts.values()):
        log.warning("node.recovered", **{str(state): count for state, count in counts.items()})
