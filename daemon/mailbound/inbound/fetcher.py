"""Fetching: from the mailbox into the database, and only then out of the mailbox."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import random
from typing import Any

import sqlalchemy as sa
import structlog

from mailbound import packing
from mailbound.database import inbound_mail, renumbering
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival
from mailbound.database.leases import Lease
from mailbound.errors import DatabaseError, MailboxError
from mailbound.mailbox import Item, Mailbox, SessionError
from mailbound.pacing import Backoff
from mailbound.packing import Pack

log = structlog.get_logger()

_BATCH = 200
_BATCH_OCTETS = 8_388_608  # a batch lies in memory until it is committed, as it came and packed
# To begin a session costs the server more the more lies in the mailbox, so it takes many batches: of 100,000 mails it
# was a quarter of all its work with a third of them. But one that breaks off lets nothing go of what it kept, and does
# not see what arrives meanwhile.
_SESSION_MAILS = 30_000
_SESSION_SECONDS = 30.0
_ROOMY = 0.9  # of the budget, when room was made
_BACKOFF = Backoff(first=5.0, cap=900.0)
_ALARM = Backoff(first=300.0, cap=3600.0)  # for a refused password: each try may bring a lock nearer
_ALARM_AFTER = 3


@dataclass(frozen=True, slots=True)
class Parts:
    """What the fetching loop of one store works with."""

    database: Database
    open: Callable[[], Awaitable[Mailbox]]
    store: str
    store_id: int
    host: str
    account: str  # the name by which it logs in there
    poll: timedelta
    delete: bool
    budget_octets: int
    lease: Lease  # of many nodes one fetches from a mailbox
    arrived: Callable[[], None]  # called when there is new mail to read
    clock: Callable[[], datetime]


class Fetcher:
    """Empties the mailbox of one store into the database, for ever."""

    def __init__(self, parts: Parts) -> None:
        """Connect to nothing yet."""
        self._parts = parts
        self._mailbox: Mailbox | None = None  # a session that goes on
        self._failures = 0
        self._alarmed = False
        self._full = False
        self._held_octets = 0  # of raw mail, as far as we know
        self._login_delay_seconds = 0
        self._withheld: set[str] = set()  # names of what the server keeps to itself
        self._doubts: set[str] = set()  # that were told of
        self._renumbered: dict[str, bool] = {}  # by series
        self.ticked_at = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look into the mailbox again and again until `stopping` is set. One that is down alarms once."""
        try:
            while not stopping.is_set():
                await self._round(stopping)
        finally:
            await self._leave()

    async def _round(self, stopping: asyncio.Event) -> None:
        """Empty the mailbox, then wait until it is time, or until a session that goes on tells of new mail."""
        try:
            while not stopping.is_set() and await self._ours() and await self.fetch():
                self.ticked_at = time.monotonic()
            wait = max(self._parts.poll.total_seconds(), self._login_delay_seconds)
            wait = await self._watch(wait, stopping)
            self._recovered()
        except (MailboxError, DatabaseError) as error:
            await self._leave()
            wait = self._failed(error)
        await self._rest(asyncio.sleep(wait), stopping)

    async def _watch(self, seconds: float, stopping: asyncio.Event) -> float:
        """Wait until a session that goes on tells of new mail; return how many seconds are left where none does."""
        mailbox = self._mailbox
        if mailbox is None or (watch := mailbox.watch) is None:
            return seconds
        await self._rest(watch(seconds), stopping)
        self._tell(mailbox.doubts)
        if mailbox.watch is None:  # it promised more than it does
            await self._leave()
            return seconds
        return 0.0

    async def _ours(self) -> bool:
        held = await self._parts.lease.held()
        if not held:
            await self._leave()
        return held

    async def _leave(self) -> None:
        """End a session that could have gone on."""
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            await mailbox.close(commit=True)

    def _failed(self, error: MailboxError | DatabaseError) -> float:
        """Tell of a failure, and return the seconds to wait. A refused password calls for an operator at once."""
        self._failures += 1
        passing = not isinstance(error, SessionError) or error.trouble.passing
        wait = (_BACKOFF if passing else _ALARM).delay(self._failures, jitter=random())
        alarm = not self._alarmed and (not passing or self._failures >= _ALARM_AFTER)
        self._alarmed = self._alarmed or alarm
        tell = log.error if alarm else log.warning
        tell(
            "mailbox.failed",
            store=self._parts.store,
            host=self._parts.host,
            account=self._parts.account,
            why=str(error),
            retry_in=round(wait, 1),
        )
        return wait

    def _recovered(self) -> None:
        if self._alarmed:
            log.info("mailbox.recovered", store=self._parts.store)
        self._failures, self._alarmed = 0, False

    async def fetch(self) -> bool:
        """Bring what one session can into safety; return whether there may be more.

        Safe to be cut off at any line. A mail leaves the mailbox only after the commit that keeps it. Whatever
        fails before that drops the connection, and a mailbox that was dropped lets nothing go (RFC 1939 §6).
        """
        if not await self._has_room():
            return False
        mailbox, self._mailbox = self._mailbox or await self._parts.open(), None
        self._login_delay_seconds = mailbox.login_delay_seconds
        ended_well = False
        try:
            more = await self._session(mailbox)
            ended_well = True
        finally:
            if ended_well and mailbox.watch is not None:
                self._mailbox = mailbox
            else:
                await mailbox.close(commit=ended_well)
        return more

    async def _session(self, mailbox: Mailbox) -> bool:
        """Fetch, keep, and only then delete, batch by batch; return whether to go on at once in another session."""
        items = await mailbox.list()
        self._tell(mailbox.doubts)
        new = items if self._parts.delete else await self._new(items)
        before = len(self._withheld)
        progress = False
        until = time.monotonic() + _SESSION_SECONDS
        done = 0
        for batch in _batches(itertools.islice(self._in_turn(new), _SESSION_MAILS)):
            progress |= await self._batch(mailbox, batch)
            done += len(batch)
            if self._is_full() or time.monotonic() > until:  # the next session makes room, or tells
                break
        if self._withheld:
            self._withheld &= {_name(item) for item in items}
        progress |= len(self._withheld) > before
        return progress and done < len(new)

    def _in_turn(self, items: Sequence[Item]) -> Iterator[Item]:
        """Yield the items with those last that we could not get or delete before: they stop nothing else."""
        withheld = frozenset(self._withheld)
        if not withheld:
            return iter(items)
        others = (item for item in items if _name(item) not in withheld)
        return itertools.chain(others, (item for item in items if _name(item) in withheld))

    async def _batch(self, mailbox: Mailbox, batch: Sequence[Item]) -> bool:
        """Fetch some mails, keep them, and only then delete them; return whether that changed anything."""
        fetched, kept = await self._keep(mailbox, batch)
        before = len(mailbox.refused)
        if self._parts.delete:
            await mailbox.delete(fetched)
        gone = len(fetched) - (len(mailbox.refused) - before) if self._parts.delete else 0
        for item, why in mailbox.refused:
            if _name(item) not in self._withheld:
                self._withheld.add(_name(item))
                log.warning("mail.withheld", store=self._parts.store, uid=_name(item), why=why)
        return bool(kept or gone)

    async def _has_room(self) -> bool:
        """Return whether another mail may be kept. What was read makes room for it, the oldest first."""
        database, store = self._parts.database, self._parts.store
        self._held_octets = await database.read(inbound_mail.held_octets)
        purged = 0
        while self._is_full() or purged:
            excess = self._held_octets - int(_ROOMY * self._parts.budget_octets)
            room = await database.run(inbound_mail.make_room, octets=excess)
            if not room.mails:
                break
            self._held_octets -= room.octets
            purged += room.mails
        if purged:
            log.warning("mail.displaced", mails=purged, held_octets=self._held_octets)
        full = self._is_full()
        if full and not self._full:
            poison = await database.read(inbound_mail.poison_octets)
            log.error(
                "mailbox.budget_exceeded",
                store=store,
                held_octets=self._held_octets,
                poison_octets=poison,
            )
        elif self._full and not full:
            log.info("mailbox.recovered", store=store)
        self._full = full
        return not full

    def _is_full(self) -> bool:
        return self._held_octets >= self._parts.budget_octets

    def _tell(self, doubts: Sequence[str]) -> None:
        for why in doubts:
            if why not in self._doubts:
                log.warning("mailbox.doubted", store=self._parts.store, why=why)
        self._doubts.update(doubts)

    async def _new(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of a mailbox that keeps its mail without those that we have.

        Two identical mails may share one uid (RFC 1939 §7), and a server may give none: then a mail is fetched
        again, and its hash tells. What we delete is always fetched, since the uid of a mail that is gone may be
        given to another one.
        """
        counts = Counter(item.uid for item in items)
        known = await self._parts.database.read(inbound_mail.known, self._parts.store_id, list(counts))
        return [item for item in items if not item.uid or item.uid not in known or counts[item.uid] > 1]

    async def _keep(self, mailbox: Mailbox, batch: Sequence[Item]) -> tuple[Sequence[Item], int]:
        """Fetch mails and commit them; return which are kept now, and how many of them are new."""
        fetched: list[Item] = []
        arrivals: list[Arrival] = []
        octets = kept = 0
        async with contextlib.aclosing(mailbox.fetch(batch)) as mails:
            async for mail in mails:
                self.ticked_at = time.monotonic()
                fetched.append(mail.item)
                arrivals.append(Arrival(mail.uid, mail.content, mail.item.size_octets, mail.truncated))
                octets += len(mail.content)
                if octets > _BATCH_OCTETS:  # the sizes that were listed are not to be relied on
                    kept += await self._store(mailbox.series, arrivals)
                    arrivals, octets = [], 0
        kept += await self._store(mailbox.series, arrivals)
        return fetched, kept

    async def _store(self, series: str, arrivals: Sequence[Arrival]) -> int:
        """Commit mails; return how many of them are new."""
        if not arrivals:
            return 0
        packs = await asyncio.to_thread(_prepared, arrivals)  # it takes longer than the transaction
        kept = await self._parts.database.run(self._commit, series, arrivals, packs, now=self._parts.clock())
        self._held_octets += sum(arrival.held_octets for arrival in arrivals)
        if kept:
            log.info("mail.fetched", store=self._parts.store, mails=kept)
            self._parts.arrived()
        return kept

    def _commit(
        self,
        connection: sa.Connection,
        series: str,
        arrivals: Sequence[Arrival],
        packs: Sequence[Pack],
        *,
        now: datetime,
    ) -> int:
        store_id = self._parts.store_id
        if series:
            if series not in self._renumbered:
                self._renumbered = {series: renumbering.is_renumbered(connection, store_id, series)}
            if self._renumbered[series]:
                renumbering.recognise(connection, store_id, series, arrivals)
        return inbound_mail.keep(connection, store_id, arrivals, now=now, packs=packs)

    async def _rest(self, work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
        """Wait for `work`, or until we are to stop. Raises what it raises."""
        resting = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(stopping.wait())
        try:
            while not (resting.done() or stop.done()):
                self.ticked_at = time.monotonic()
                await asyncio.wait({resting, stop}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (resting, stop):
                task.cancel()
            await asyncio.gather(resting, stop, return_exceptions=True)
        if not resting.cancelled():
            resting.result()


def _name(item: Item) -> str:
    """Return what tells a mail from others in all sessions, as well as its server lets us."""
    return item.uid or f"of {item.size_octets} octets"


def _batches(items: Iterable[Item]) -> Iterator[Sequence[Item]]:
    """Yield the items in order, as many at once as may lie in memory."""
    batch: list[Item] = []
    octets = 0
    for item in items:
        if batch and (len(batch) == _BATCH or octets + item.size_octets > _BATCH_OCTETS):
            yield batch
            batch, octets = [], 0
        batch.append(item)
        octets += item.size_octets
    if batch:
        yield batch


def _prepared(arrivals: Sequence[Arrival]) -> Sequence[Pack]:
    for arrival in arrivals:
        _ = arrival.sha256  # it is worked out once
    return packing.together([arrival.content for arrival in arrivals])
