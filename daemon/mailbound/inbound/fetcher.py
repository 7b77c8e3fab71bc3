"""Fetching: from the mailbox into the database, and only then out of the mailbox."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import random

import structlog

from mailbound.database import inbound_mail
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival
from mailbound.database.leases import Lease
from mailbound.errors import DatabaseError, MailboxError
from mailbound.mailbox import Item, Mailbox, SessionError
from mailbound.pacing import Backoff

log = structlog.get_logger()

_BATCH = 200
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
        self._failures = 0
        self._login_delay_seconds = 0
        self.ticked_at = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look into the mailbox again and again until `stopping` is set. One that is down alarms once."""
        while not stopping.is_set():
            try:
                while await self._parts.lease.held() and await self.fetch():
                    self.ticked_at = time.monotonic()
            except (MailboxError, DatabaseError) as error:
                wait = self._failed(error)
            else:
                if self._failures >= _ALARM_AFTER:
                    log.info("mailbox.recovered", store=self._parts.store)
                self._failures = 0
                wait = max(self._parts.poll.total_seconds(), self._login_delay_seconds)
            await self._sleep(wait, stopping)

    def _failed(self, error: MailboxError | DatabaseError) -> float:
        """Tell of a failure, and return the seconds to wait. A refused password calls for an operator at once."""
        self._failures += 1
        passing = not isinstance(error, SessionError) or error.trouble.passing
        backoff = _BACKOFF if passing else _ALARM
        wait = backoff.delay(self._failures, jitter=random())
        alarm = self._failures == (_ALARM_AFTER if passing else 1)
        tell = log.error if alarm else log.warning
        tell("mailbox.failed", store=self._parts.store, why=str(error), retry_in=round(wait, 1))
        return wait

    async def fetch(self) -> bool:
        """Bring one batch of mail into safety; return whether there may be more.

        Safe to be cut off at any line. A mail is deleted only by a QUIT after the commit that keeps it; whatever
        fails before that drops the connection, and a mailbox that was dropped deletes nothing (RFC 1939 §6).
        """
        held = await self._parts.database.read(inbound_mail.held_octets)
        if held >= self._parts.budget_octets:
            log.error("mailbox.budget_exceeded", store=self._parts.store, held_octets=held)
            return False
        mailbox = await self._parts.open()
        self._login_delay_seconds = mailbox.login_delay_seconds
        committed = False
        try:
            items = await mailbox.list()
            new = items if self._parts.delete else await self._new(items)
            batch = new[:_BATCH]
            kept = await self._keep(mailbox, batch)
            if self._parts.delete:
                refused = {item.number for item, _ in mailbox.refused}
                await mailbox.delete(item for item in batch if item.number not in refused)
            committed = True
        finally:
            await mailbox.close(commit=committed)
        for item, why in mailbox.refused:
            log.warning("mail.withheld", store=self._parts.store, uid=item.uid, why=why)
        if kept:
            log.info("mail.fetched", store=self._parts.store, mails=kept)
            self._parts.arrived()
        return bool(kept) and len(new) > len(batch)

    async def _new(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of a mailbox that keeps its mail without those that we have.

        Two identical mails may share one uid (RFC 1939 §7), and a server may give none: then a mail is fetched
        again, and its hash tells. What we delete is always fetched, since the uid of a mail that is gone may be
        given to another one.
        """
        counts = Counter(item.uid for item in items)
        known = await self._parts.database.read(inbound_mail.known, self._parts.store_id, list(counts))
        return [item for item in items if not item.uid or item.uid not in known or counts[item.uid] > 1]

    async def _keep(self, mailbox: Mailbox, batch: Sequence[Item]) -> int:
        """Fetch mails and commit them; return how many of them were new."""
        arrivals = [
            Arrival(mail.uid, mail.content, mail.item.size_octets, mail.truncated)
            async for mail in mailbox.fetch(batch)
        ]
        if not arrivals:
            return 0
        return await self._parts.database.run(
            inbound_mail.keep, self._parts.store_id, arrivals, now=self._parts.clock()
        )

    async def _sleep(self, seconds: float, stopping: asyncio.Event) -> None:
        until = time.monotonic() + seconds
        while not stopping.is_set() and (left := until - time.monotonic()) > 0:
            self.ticked_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), min(left, 1.0))
