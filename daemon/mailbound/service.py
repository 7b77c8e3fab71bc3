"""The daemon: configuration, database and loops wired together. It decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
import uvloop

from mailbound import config, holding, logs, loops, pacing, relay, sessions
from mailbound.config import Config, Store
from mailbound.database import lock, schema, stores
from mailbound.database.engine import Database
from mailbound.errors import ConfigError, DiskFailed
from mailbound.inbound import Reader
from mailbound.node import BEAT_SECONDS, Node
from mailbound.notify import Notifier
from mailbound.processor import Processor

log = structlog.get_logger()

_STUCK_SECONDS = 300.0
"""A loop that has not moved for so long is stuck: longer than any transaction or fetch may take."""

_GARBAGE = 10_000
"""After so many objects Python looks whether some hold only each other: seven hundred, its own number, take a
twentieth of the time.
"""

DISK_FAULT = 74
"""The exit status for a disk that fails: EX_IOERR of sysexits.h."""


def run(path: Path) -> None:
    """Run the daemon until SIGTERM. Raises ConfigError or DatabaseError if it cannot start."""
    settings = config.load(path, secrets=True)
    with (
        contextlib.closing(Processor()) as processor,  # before there are other threads
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        logs.configure(settings.log, secrets=settings.secrets)
        runner.run(_Service(path, settings, processor).run())


class _Service:
    def __init__(self, path: Path, settings: Config, processor: Processor) -> None:
        self._path = path
        self._settings = settings
        self._processor = processor
        self._notifier = Notifier()
        self._stopping = asyncio.Event()
        self._reload = asyncio.Event()
        self._loops: list[loops.Loop] = []
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
        gc.freeze()  # what is there now stays: nobody needs to look through it again and again
        gc.set_threshold(_GARBAGE)
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
        self._loops = loops.build(
            loops.Common(self._settings, database, node.id, _now), numbers, reader, self._relays, self._paces
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
            self._processor.look()
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


def _relay(store: Store, pace: pacing.Pace) -> relay.Relay:
    made = relay.Relay(sessions.account(store), connections=store.outbound.connections)
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


def _now() -> datetime:
    return datetime.now(UTC)
