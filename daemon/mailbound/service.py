"""The daemon: configuration, database and loops wired together. It decides nothing."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import structlog
import uvloop

from mailbound import access_token, classify, config, holding, logs, mailbox, pacing, relay
from mailbound.config import Config, Store
from mailbound.database import lock, schema, stores
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.errors import ConfigError, DiskFailed
from mailbound.inbound import Fetcher, Reader, Recorder, fetcher, recorder
from mailbound.mailbox import opening
from mailbound.node import BEAT_SECONDS, Node
from mailbound.notify import Notifier
from mailbound.outbound import Outbound, loop
from mailbound.outbound.composer import Composer
from mailbound.progress import Progress
from mailbound.scheduler import Parts as SchedulerParts
from mailbound.scheduler import Scheduler
from mailbound.watch import Parts as WatchParts
from mailbound.watch import Watch

log = structlog.get_logger()

_STUCK_SECONDS = 300.0
"""A loop that has not moved for so long is stuck: longer than any transaction or fetch may take."""


DISK_FAULT = 74
"""The exit status for a disk that fails: EX_IOERR of sysexits.h."""


class Loop(Protocol):
    """A loop that tells when it last moved."""

    ticked_at: float

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set."""
        ...


def run(path: Path) -> None:
    """Run the daemon until SIGTERM. Raises ConfigError or DatabaseError if it cannot start."""
    settings = config.load(path, secrets=True)
    logs.configure(settings.log, secrets=settings.secrets)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Service(path, settings).run())


class _Service:
    def __init__(self, path: Path, settings: Config) -> None:
        self._path = path
        self._settings = settings
        self._notifier = Notifier()
        self._stopping = asyncio.Event()
        self._reload = asyncio.Event()
        self._loops: list[Loop] = []
        self._relays: dict[str, relay.Relay] = {}
        self._paces: dict[str, pacing.Pace] = {}  # by store; a reload forgets no debts

    async def run(self) -> None:
        database = Database(self._settings.database.connect_url(), checkpoints=True)
        try:
            with lock.alone(database):
                await self._serve(database)
        except DiskFailed as failed:
            log.error("disk.failed", why=str(failed))
            logs.flush()
            os._exit(DISK_FAULT)  # to close the database would sync it once more, and believe what that says
        finally:
            database.close()

    async def _serve(self, database: Database) -> None:
        running = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(name, self._stop)
        running.add_signal_handler(signal.SIGHUP, self._reload.set)
        before, after = await asyncio.to_thread(schema.upgrade, database)
        if before != after:
            log.info("database.upgraded", before=before, after=after)
        node = Node(database, clock=_now, holding=self._holding, changed=self._share)
        await node.join()
        for warning in self._settings.warnings:
            log.warning("config.doubted", why=warning)
        log.info("service.started", node=node.id, stores=len(self._settings.stores), pid=os.getpid())
        heart = asyncio.gather(self._beat(), node.run())
        try:
            while not self._stopping.is_set():
                await self._work(database, node, heart)
                if node.lost.is_set():
                    await node.join()
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            await node.leave()
        log.info("service.stopped", node=node.id)

    async def _work(self, database: Database, node: Node, heart: asyncio.Future[Any]) -> None:
        """Run all loops with the configuration of now, until it is reloaded, we stop, or one of them fails.

        A node that was given up ends them, too: what they claimed is not theirs any more.
        """
        numbers = await database.run(stores.keep, list(self._settings.stores))
        stopping = asyncio.Event()
        reader = Reader()
        self._share(node.alive)
        self._relays = {
            name: _relay(store, self._paces[name]) for name, store in self._settings.stores.items()
        }
        self._loops = _build(
            _Common(self._settings, database, node.id), numbers, reader, self._relays, self._paces
        )
        self._notifier.ready(f"at work for {', '.join(self._settings.stores)}")
        tasks = [asyncio.create_task(each.run(stopping)) for each in self._loops]
        events = (self._stopping, self._reload, node.lost)
        signals = {event: asyncio.create_task(event.wait()) for event in events}
        try:
            while not stopping.is_set():
                watched = {heart, *tasks, *signals.values()}
                done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for task in done.intersection({heart, *tasks}):
                    task.result()
                if self._stopping.is_set() or node.lost.is_set():
                    stopping.set()
                elif self._reload.is_set():
                    self._reload.clear()
                    signals[self._reload] = asyncio.create_task(self._reload.wait())
                    if self._reloaded():
                        stopping.set()
        finally:
            stopping.set()
            for task in signals.values():
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            reader.close()
            self._loops = []
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _stop(self) -> None:
        """Say at once that we stop, whatever goes on: a reload, too, may wait for replies to final dots."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._notifier.stopping(self._settings.sending.drain.total_seconds() + 30)
            log.info("service.stopping")

    def _reloaded(self) -> bool:
        """Read the configuration again; return False, and keep the old one, if the new one is bad."""
        self._notifier.reloading()
        try:
            settings = config.load(self._path, secrets=True)
            faults = []
        except ConfigError as error:
            faults = error.faults
        else:
            if settings.database != self._settings.database:
                faults.append(f"{self._path}: database: it changes only with a restart")
        if faults:
            for fault in faults:
                log.error("config.rejected", why=fault)
            self._notifier.ready("the new configuration is bad, the old one stays: see the log")
            return False
        self._settings = settings
        logs.configure(settings.log, secrets=settings.secrets)
        log.info("config.reloaded")
        return True

    def _share(self, alive: int) -> None:
        """Take our share of every rate, of so many nodes; what was taken already stays taken."""
        now = time.monotonic()
        for name, store in self._settings.stores.items():
            new = name not in self._paces
            pace = self._paces.setdefault(name, pacing.Pace(store.outbound.connections))
            sending = self._settings.sending
            rates = pacing.Rates(store.outbound.rate, sending.domain_rate, sending.domain_rates)
            # The others hear of a new node at their next heartbeat, and go on as before until then.
            pace.change(rates, alive, now, owing=BEAT_SECONDS if new and alive > 1 else 0.0)
            pace.concurrency.change(store.outbound.connections, now)

    def _holding(self) -> dict[str, str]:
        """Return what holds back each store now."""
        now = time.monotonic()
        return {
            name: holding.of_store(_known(at, self._paces[name], now)) for name, at in self._relays.items()
        }

    async def _beat(self) -> None:
        """Tell systemd that we live, while every loop moves. A database that is locked is no reason to die."""
        interval = min(BEAT_SECONDS, self._notifier.watchdog_seconds / 2 or BEAT_SECONDS)
        while True:
            stuck = [
                type(each).__name__
                for each in self._loops
                if time.monotonic() - each.ticked_at > _STUCK_SECONDS
            ]
            if stuck:
                log.error("loop.stuck", loops=stuck)
            else:
                self._notifier.alive()
            await asyncio.sleep(interval)


@dataclass(frozen=True, slots=True)
class _Common:
    """What all loops share."""

    settings: Config
    database: Database
    node_id: int

    def lease(self, work: str) -> Lease:
        return Lease(self.database, work, node_id=self.node_id)


@dataclass(frozen=True, slots=True)
class _Where:
    """What the loops of one store share."""

    name: str
    store: Store
    store_id: int
    relay: relay.Relay
    pace: pacing.Pace


def _build(
    common: _Common,
    numbers: dict[str, int],
    reader: Reader,
    relays: dict[str, relay.Relay],
    paces: dict[str, pacing.Pace],
) -> list[Loop]:
    settings, database = common.settings, common.database
    rules = classify.Rules.load()
    reading = Recorder(
        recorder.Parts(
            database=database,
            reader=reader,
            rules=rules,
            limits=settings.policy,
            keep_for=settings.inbound.keep_for,
            lease=common.lease("reading"),
            clock=_now,
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
                clock=_now,
            )
        ),
        Progress(database, lease=common.lease("scheduling"), clock=_now),
        reading,
        Watch(
            WatchParts(
                database=database,
                limits=settings.guard,
                inbound=settings.inbound,
                deleting=_deleting(settings, numbers),
                lease=common.lease("watching"),
                clock=_now,
            )
        ),
    ]
    for name, store in settings.stores.items():
        where = _Where(name, store, numbers[name], relays[name], paces[name])
        loops += [_outbound(common, where, rules), _fetcher(common, where, reading.wake)]
    return loops


def _outbound(common: _Common, where: _Where, rules: classify.Rules) -> Outbound:
    outbound, settings = where.store.outbound, common.settings
    return Outbound(
        loop.Parts(
            database=common.database,
            relay=where.relay,
            composer=Composer(
                common.database, where.store, store_id=where.store_id, web=settings.web, clock=_now
            ),
            rules=rules,
            sending=settings.sending,
            limits=settings.policy,
            store=where.name,
            store_id=where.store_id,
            node_id=common.node_id,
            connections=outbound.connections,
            pace=where.pace,
            clock=_now,
        )
    )


def _fetcher(common: _Common, where: _Where, arrived: Callable[[], None]) -> Fetcher:
    settings = common.settings
    return Fetcher(
        fetcher.Parts(
            database=common.database,
            open=functools.partial(open_mailbox, where.store, settings),
            store=where.name,
            store_id=where.store_id,
            poll=settings.inbound.poll,
            delete=where.store.inbound.after_storing != "keep",
            budget_octets=settings.inbound.budget,
            lease=common.lease(f"fetching {where.name}"),
            arrived=arrived,
            clock=_now,
        )
    )


def _deleting(settings: Config, numbers: dict[str, int]) -> frozenset[int]:
    """Return the stores that keep no mail on their servers."""
    return frozenset(
        numbers[name] for name, store in settings.stores.items() if store.inbound.after_storing != "keep"
    )


def _relay(store: Store, pace: pacing.Pace) -> relay.Relay:
    made = relay.Relay(account(store), connections=store.outbound.connections)
    made.concurrency = pace.concurrency
    return made


def _known(at: relay.Relay, pace: pacing.Pace, now: float) -> holding.Known:
    crowded, until = pace.crowded or ("", 0.0)
    return holding.Known(
        connections=pace.concurrency.limit,
        allowed=pace.concurrency.allowed(now),
        down_until=_now() + timedelta(seconds=at.retry_at - now) if at.retry_at is not None else None,
        why=str(at.error or ""),
        rate=pace.rates.relay,
        nodes=pace.nodes,
        waits=pace.wait(now) > 0,
        crowded=crowded if until > now else "",
        domain_rate=pace.rates.domains.get(crowded, pace.rates.domain),
    )


def account(store: Store) -> relay.Account:
    """Return how to open a session with a store's relay."""
    outbound = store.outbound
    return relay.Account(
        host=outbound.host,
        port=outbound.port,
        tls=outbound.tls,
        username=outbound.username or "",
        password=outbound.password.get_secret_value() if outbound.password else "",
        token=functools.partial(access_token.fresh, command) if (command := outbound.token_command) else None,
        ca_file=str(outbound.ca_file or ""),
        ehlo_name=outbound.ehlo_name or "",
    )


async def open_mailbox(store: Store, settings: Config) -> mailbox.Mailbox:
    """Return a session with a store's mailbox. Raises MailboxError."""
    return await opening.open(store.inbound, largest_octets=settings.inbound.largest)


def _now() -> datetime:
    return datetime.now(UTC)
