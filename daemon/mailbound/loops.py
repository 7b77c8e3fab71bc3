"""The loops of a daemon, made from its configuration."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mailbound import classify, pacing, relay, sessions
from mailbound.config import Config, Store
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.inbound import Fetcher, Reader, Recorder, fetcher, recorder
from mailbound.outbound import Outbound, loop
from mailbound.outbound.composer import Composer
from mailbound.progress import Progress
from mailbound.scheduler import Parts as SchedulerParts
from mailbound.scheduler import Scheduler
from mailbound.watch import Parts as WatchParts
from mailbound.watch import Watch


class Loop(Protocol):
    """A loop that tells when it last moved."""

    ticked_at: float

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set."""
        ...


@dataclass(frozen=True, slots=True)
class Common:
    """What all loops share."""

    settings: Config
    database: Database
    node_id: int
    clock: Callable[[], datetime]

    def lease(self, work: str) -> Lease:
        """Return the lease of this node for `work`."""
        return Lease(self.database, work, node_id=self.node_id)


@dataclass(frozen=True, slots=True)
class _Where:
    """What the loops of one store share."""

    name: str
    store: Store
    store_id: int
    relay: relay.Relay
    pace: pacing.Pace


def build(
    common: Common,
    numbers: dict[str, int],
    reader: Reader,
    relays: dict[str, relay.Relay],
    paces: dict[str, pacing.Pace],
) -> list[Loop]:
    """Return all loops; stores have their `numbers`, `relays` and `paces` by their names."""
    settings, database = common.settings, common.database
    rules = classify.Rules.load()
    reading = Recorder(
        recorder.Parts(
            database=database,
            reader=reader,
            limits=settings.policy,
            keep_for=settings.inbound.keep_for,
            lease=common.lease("reading"),
            clock=common.clock,
        )
    )
    loops: list[Loop] = [
        Scheduler(
            SchedulerParts(
                database=database,
                templates=settings.templates.folder,
                breaker=settings.breaker,
                node_id=common.node_id,
                lease=common.lease("scheduling"),
                clock=common.clock,
            )
        ),
        Progress(database, lease=common.lease("scheduling"), clock=common.clock),
        reading,
        Watch(
            WatchParts(
                database=database,
                limits=settings.guard,
                inbound=settings.inbound,
                deleting=_deleting(settings, numbers),
                lease=common.lease("watching"),
                clock=common.clock,
            )
        ),
    ]
    for name, store in settings.stores.items():
        where = _Where(name, store, numbers[name], relays[name], paces[name])
        loops += [_outbound(common, where, rules), _fetcher(common, where, reading.wake)]
    return loops


def _outbound(common: Common, where: _Where, rules: classify.Rules) -> Outbound:
    outbound, settings = where.store.outbound, common.settings
    return Outbound(
        loop.Parts(
            database=common.database,
            relay=where.relay,
            composer=Composer(
                common.database, where.store, store_id=where.store_id, web=settings.web, clock=common.clock
            ),
            rules=rules,
            sending=settings.sending,
            limits=settings.policy,
            store=where.name,
            store_id=where.store_id,
            node_id=common.node_id,
            connections=outbound.connections,
            pace=where.pace,
            clock=common.clock,
        )
    )


def _fetcher(common: Common, where: _Where, arrived: Callable[[], None]) -> Fetcher:
    settings, inbox = common.settings, where.store.inbound
    return Fetcher(
        fetcher.Parts(
            database=common.database,
            open=functools.partial(sessions.open_mailbox, where.store, settings),
            store=where.name,
            store_id=where.store_id,
            host=inbox.host,
            account=inbox.username,
            poll=settings.inbound.poll,
            delete=inbox.after_storing != "keep",
            budget_octets=settings.inbound.budget,
            lease=common.lease(f"fetching {where.name}"),
            arrived=arrived,
            clock=common.clock,
        )
    )


def _deleting(settings: Config, numbers: dict[str, int]) -> frozenset[int]:
    """Return the stores that keep no mail on their servers."""
    return frozenset(
        numbers[name] for name, store in settings.stores.items() if store.inbound.after_storing != "keep"
    )
