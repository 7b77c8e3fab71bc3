"""The daemon: configuration, database and loops wired together. It decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog
import uvloop

from mailbound import classify, config, logs, mailbox, relay
from mailbound.config import Config, Store
from mailbound.database import engine, nodes, recovery, schema, stores
from mailbound.database.engine import Database
from mailbound.errors import ConfigError, DatabaseError
from mailbound.inbound import Fetcher, Reader, Recorder, fetcher, recorder
from mailbound.mailbox import pop3
from mailbound.notify import Notifier
from mailbound.outbound import Outbound, loop
from mailbound.outbound.composer import Composer
from mailbound.scheduler import Parts as SchedulerParts
from mailbound.scheduler import Scheduler

log = structlog.get_logger()

_BEAT_SECONDS = 5.0
_STUCK_SECONDS = 300.0
"""A loop that has not moved for so long is stuck: longer than any transaction or fetch may take."""


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

    async def run(self) -> None:
        database = Database(self._settings.database.connect_url(), checkpoints=True)
        try:
            with _alone(database):
                await self._serve(database)
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
        node_id = await database.run(nodes.join, socket.gethostname(), now=_now())
        await self._recover(database, node_id)
        for warning in self._settings.warnings:
            log.warning("config.doubted", why=warning)
        log.info("service.started", node=node_id, stores=len(self._settings.stores), pid=os.getpid())
        heart = asyncio.gather(self._beat(), self._hold(database, node_id))
        try:
            while not self._stopping.is_set():
                await self._work(database, node_id)
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
        log.info("service.stopped", node=node_id)

    async def _recover(self, database: Database, node_id: int) -> None:
        """Take over what dead nodes held."""
        dead = await database.run(nodes.dead, alone=database.is_sqlite, but=node_id)
        if dead:
            counts = await database.run(recovery.recover, dead, now=_now())
            await database.run(nodes.forget, dead)
            if any(counts.values()):
                log.warning("node.recovered", **{str(state): count for state, count in counts.items()})

    async def _work(self, database: Database, node_id: int) -> None:
        """Run all loops with the configuration of now, until it is reloaded, we stop, or one of them fails."""
        numbers = await database.run(stores.keep, list(self._settings.stores))
        stopping = asyncio.Event()
        reader = Reader()
        self._loops = _build(self._settings, database, node_id, numbers, reader)
        self._notifier.ready(f"at work for {', '.join(self._settings.stores)}")
        tasks = [asyncio.create_task(each.run(stopping)) for each in self._loops]
        signals = [asyncio.create_task(self._stopping.wait()), asyncio.create_task(self._reload.wait())]
        try:
            while not stopping.is_set():
                done, _ = await asyncio.wait({*tasks, *signals}, return_when=asyncio.FIRST_COMPLETED)
                for task in done.intersection(tasks):
                    task.result()
                if self._stopping.is_set():
                    stopping.set()
                elif self._reload.is_set():
                    self._reload.clear()
                    signals[1] = asyncio.create_task(self._reload.wait())
                    if self._reloaded():
                        stopping.set()
        finally:
            stopping.set()
            for task in signals:
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

    async def _beat(self) -> None:
        """Tell systemd that we live, while every loop moves. A database that is locked is no reason to die."""
        interval = min(_BEAT_SECONDS, self._notifier.watchdog_seconds / 2 or _BEAT_SECONDS)
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

    async def _hold(self, database: Database, node_id: int) -> None:
        """Tell the other nodes that we live, and take over what dead ones held."""
        while True:
            with contextlib.suppress(DatabaseError):
                await database.run(nodes.beat, node_id)
                if not database.is_sqlite:
                    await self._recover(database, node_id)
            await asyncio.sleep(_BEAT_SECONDS)


def _build(
    settings: Config, database: Database, node_id: int, numbers: dict[str, int], reader: Reader
) -> list[Loop]:
    rules = classify.Rules.load()
    reading = Recorder(
        recorder.Parts(
            database=database,
            reader=reader,
            rules=rules,
            limits=settings.policy,
            keep_for=settings.inbound.keep_for,
            clock=_now,
        )
    )
    loops: list[Loop] = [
        Scheduler(
            SchedulerParts(
                database=database,
                templates=settings.templates.folder,
                breaker=settings.breaker,
                node_id=node_id,
                clock=_now,
            )
        ),
        reading,
    ]
    for name, store in settings.stores.items():
        where = _Where(name, store, settings, database, node_id, numbers[name])
        loops += [_outbound(where, rules), _fetcher(where, reading.wake)]
    return loops


@dataclass(frozen=True, slots=True)
class _Where:
    """What the loops of one store share."""

    name: str
    store: Store
    settings: Config
    database: Database
    node_id: int
    store_id: int


def _outbound(where: _Where, rules: classify.Rules) -> Outbound:
    outbound, settings = where.store.outbound, where.settings
    return Outbound(
        loop.Parts(
            database=where.database,
            relay=relay.Relay(account(where.store), connections=outbound.connections),
            composer=Composer(
                where.database, where.store, store_id=where.store_id, web=settings.web, clock=_now
            ),
            rules=rules,
            sending=settings.sending,
            limits=settings.policy,
            store=where.name,
            store_id=where.store_id,
            node_id=where.node_id,
            connections=outbound.connections,
            rate=outbound.rate,
            clock=_now,
        )
    )


def _fetcher(where: _Where, arrived: Callable[[], None]) -> Fetcher:
    return Fetcher(
        fetcher.Parts(
            database=where.database,
            open=functools.partial(open_mailbox, where.store, where.settings),
            store=where.name,
            store_id=where.store_id,
            poll=where.settings.inbound.poll,
            delete=where.store.inbound.after_storing == "delete",
            budget_octets=where.settings.inbound.budget,
            arrived=arrived,
            clock=_now,
        )
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
        token=_token(outbound.token_command) if outbound.token_command else None,
        ca_file=str(outbound.ca_file or ""),
        ehlo_name=outbound.ehlo_name or "",
    )


async def open_mailbox(store: Store, settings: Config) -> mailbox.Mailbox:
    """Return a session with a store's mailbox. Raises MailboxError."""
    inbox = store.inbound
    return await pop3.open(
        host=inbox.host,
        port=inbox.port,
        tls=inbox.tls,
        username=inbox.username,
        password=inbox.password.get_secret_value() if inbox.password else "",
        ca_file=inbox.ca_file,
        max_size_octets=settings.inbound.largest,
    )


def _token(command: tuple[str, ...]) -> Callable[[], Awaitable[str]]:
    async def fresh() -> str:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        return output.decode().strip()

    return fresh


@contextlib.contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Hold the lock that keeps a second daemon from the same SQLite file."""
    if database.path is None:
        yield
        return
    path = Path(f"{database.path}.lock")
    with contextlib.ExitStack() as held:
        try:
            engine.create(str(path))
            fcntl.flock(held.enter_context(path.open("r+")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseError(f"another daemon works on {database.path}; several need PostgreSQL") from None
        except OSError as error:
            raise DatabaseError(f"database: {path}: {error.strerror}") from None
        yield


def _now() -> datetime:
    return datetime.now(UTC)
