"""Reading what was fetched: read → classify → correlate → decide → record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from mailbound import classify, tokens
from mailbound.config import Policy
from mailbound.database import bounces, erasing, inbound_mail, nodes
from mailbound.database.bounces import Recorded
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Unread
from mailbound.database.leases import Lease
from mailbound.errors import DatabaseError
from mailbound.inbound import findings
from mailbound.inbound.bounds import Unreadable
from mailbound.inbound.findings import Arrived
from mailbound.inbound.reader import Reader
from mailbound.model import Kind
from mailbound.reading import Report

log = structlog.get_logger()

_BATCH = 100
_POLL_SECONDS = 2.0
_PURGE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the reading loop works with."""

    database: Database
    reader: Reader
    rules: classify.Rules
    limits: Policy
    keep_for: timedelta
    lease: Lease  # of many nodes one reads
    clock: Callable[[], datetime]


class Recorder:
    """Reads kept mail of all stores, for ever."""

    def __init__(self, parts: Parts) -> None:
        """Read nothing yet."""
        self._parts = parts
        self._arrived = asyncio.Event()
        self._purged_at = float("-inf")
        self.ticked_at = time.monotonic()

    def wake(self) -> None:
        """Say that there is new mail."""
        self._arrived.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Record until `stopping` is set."""
        waker = asyncio.create_task(self._wake_for(stopping))
        try:
            await self._run(stopping)
        finally:
            waker.cancel()

    async def _wake_for(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._arrived.set()

    async def _run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            self.ticked_at = time.monotonic()
            self._arrived.clear()
            try:
                while not stopping.is_set() and await self._parts.lease.held():
                    self.ticked_at = time.monotonic()
                    if not await self.record():
                        await self._purge()
                        break
            except DatabaseError as error:
                log.error("database.failed", why=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), _POLL_SECONDS)

    async def record(self) -> int:
        """Read and record one batch; return how many mails it had.

        The try is counted before a mail is read, so one that kills even this process is known by its tries. All
        effects of a mail and the word that it is read are one commit.
        """
        mails = await self._parts.database.run(inbound_mail.take, limit=_BATCH)
        reports = []
        for mail in mails:
            if mail.is_poison:
                log.error("mail.poisoned", mail=mail.id, tries=mail.attempts - 1)
                continue
            try:
                reports.append((mail, await self._parts.reader.read(mail.content)))
            except Unreadable as error:
                log.error("mail.unreadable", mail=mail.id, why=str(error))
        keys = await self._parts.database.read(nodes.keys)
        done = await self._parts.database.run(
            _record,
            reports,
            keys=keys,
            rules=self._parts.rules,
            limits=self._parts.limits,
            now=self._parts.clock(),
        )
        for mail, report, recorded in done.recorded:
            _tell(mail, report, recorded)
        for mail, why in done.failed:
            log.error("mail.unreadable", mail=mail.id, why=f"recording it failed: {why}")
        return len(mails)

    async def _purge(self) -> None:
        if time.monotonic() - self._purged_at < _PURGE_SECONDS:
            return
        self._purged_at = time.monotonic()
        before = self._parts.clock() - self._parts.keep_for
        while purged := await self._parts.database.run(inbound_mail.purge, before=before):
            log.info("mail.purged", mails=purged)


@dataclass(slots=True)
class _Done:
    recorded: list[tuple[Unread, Report, list[Recorded]]] = field(default_factory=list)
    failed: list[tuple[Unread, str]] = field(default_factory=list)


def _record(
    connection: sa.Connection,
    reports: Sequence[tuple[Unread, Report]],
    *,
    keys: Mapping[int, tokens.Key],
    rules: classify.Rules,
    limits: Policy,
    now: datetime,
) -> _Done:
    """Record each mail for itself: whatever goes wrong with one undoes nothing of the others.

    A mail that another node took in the meantime, since this one was given up, is left to it.
    """
    done = _Done()
    for mail, report in reports:
        arrived = Arrived(mail.id, mail.store_id, mail.fetched_at)
        try:
            with connection.begin_nested():
                if not inbound_mail.is_ours(connection, mail):
                    continue
                found = findings.find(report, arrived, keys=keys, rules=rules)
                recorded = [bounces.record(connection, finding, limits=limits) for finding in found]
                kind = report.kind if found or report.kind is not Kind.BOUNCE else Kind.UNRECOGNISED
                inbound_mail.settle(
                    connection, mail.id, kind=kind, subject=report.subject, why=report.why, now=now
                )
                for each in recorded:
                    if each is not None and each.erased:
                        erasing.forget_late(connection, each.bounce_id)
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError):
            raise  # it is the database's fault, and no mail's
        except Exception as error:  # noqa: BLE001 - whatever strangers write, the rest goes on; its tries are counted
            done.failed.append((mail, f"{type(error).__name__}: {error}"))
        else:
            done.recorded.append((mail, report, [each for each in recorded if each is not None]))
    return done


def _tell(mail: Unread, report: Report, recorded: Sequence[Recorded]) -> None:
    log.info("mail.read", mail=mail.id, kind=report.kind, part=report.part, bounces=len(recorded))
    for each in recorded:
        finding = each.finding
        log.info(
            "bounce.recorded",
            bounce=each.bounce_id,
            mail=mail.id,
            delivery=finding.delivery_id,
            attempt=finding.attempt,
            evidence=finding.evidence,
            action=finding.action,
            status=str(finding.verdict.status) if finding.verdict.status else None,
            category=finding.verdict.category,
            permanent=finding.verdict.permanent,
            rule=finding.verdict.rule,
            disposition=each.decision.disposition,
            why=each.decision.why,
        )
