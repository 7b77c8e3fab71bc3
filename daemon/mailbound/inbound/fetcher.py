"""Fetching: from the mailbox into the database, and only then out of the mailbox."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import random

import structlog

from mailbound.database import inbound_mail
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival
from mailbound.errors import DatabaseError, MailboxError
from mailbound.mailbox import Item, Mailbox
from mailbound.pacing import Backoff

log = structlog.get_logger()

_BATCH = 200
_BACKOFF = Backoff(first=5.0, cap=900.0)
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
    arrived: Callable[[], None]  # called when there is new mail to read
    clock: Callable[[], datetime]


class Fetcher:
    """Empties the mailbox of one store into the database, for ever."""

    def __init__(self, parts: Parts) -> None:
        """Connect to nothing yet."""
        self._parts = parts
        self._failures = 0
        self.ticked_at = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look into the mailbox again and again until `stopping` is set. One that is down alarms once."""
        while not stopping.is_set():
            wait = self._parts.poll.total_seconds()
            try:
                while await self.fetch():
                    self.ticked_at = time.monotonic()
                if self._failures >= _ALARM_AFTER:
                    log.info("mailbox.recovered", store=self._parts.store)
                self._failures = 0
            except (MailboxError, DatabaseError) as error:
                self._failures += 1
                wait = _BACKOFF.delay(self._failures, jitter=random())  # noqa: S311 - jitter, no secret
                tell = log.error if self._failures == _ALARM_AFTER else log.warning
                tell("mailbox.failed", store=self._parts.store, why=str(error), retry_in=round(wait, 1))
            await self._sleep(wait, stopping)

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
        committed = False
        try:
            items = await mailbox.list()
            new, old = await self._sort(items)
            batch = new[:_BATCH]
            kept = await self._keep(mailbox, batch)
            done = [*old, *batch][: _BATCH * 5] if self._parts.delete else []
            if done:
                await mailbox.delete(done)
            committed = True
        finally:
            await mailbox.close(commit=committed)
        if kept:
            log.info("mail.fetched", store=self._parts.store, mails=kept)
            self._parts.arrived()
        return len(new) > len(batch) or (self._parts.delete and len(old) + len(batch) > len(done))

    async def _sort(self, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """Return the items that are new and those that are kept already."""
        uids = [item.uid for item in items]
        known = await self._parts.database.read(inbound_mail.known, self._parts.store_id, uids)
        # Two identical mails may share one uid (RFC 1939 §7); then both are looked at, and the hash tells.
        twins = {uid for uid in uids if uids.count(uid) > 1} if len(set(uids)) < len(uids) else set()
        new = [item for item in items if item.uid not in known or item.uid in twins]
        return new, [item for item in items if item.uid in known and item.uid not in twins]

    async def _keep(self, mailbox: Mailbox, batch: Sequence[Item]) -> int:
        if not batch:
            return 0
        arrivals = [
            Arrival(mail.uid, mail.content, mail.size_octets, mail.truncated) for mail in await mailbox.fetch(batch)
        ]
        return await self._parts.database.run(
            inbound_mail.keep, self._parts.store_id, arrivals, now=self._parts.clock()
        )

    async def _sleep(self, seconds: float, stopping: asyncio.Event) -> None:
        until = time.monotonic() + seconds
        while not stopping.is_set() and (left := until - time.monotonic()) > 0:
            self.ticked_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), min(left, 1.0))
