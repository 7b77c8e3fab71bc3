"""Reading what was fetched: read → classify → correlate → decide → record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from mailbound import classify, tokens
from mailbound.bounds import Unreadable
from mailbound.config import Policy
from mailbound.database import bounces, erasing, inbound_mail, token_keys
from mailbound.database.bounces import Finding, Recorded
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Understood, Unread
from mailbound.database.leases import Lease
from mailbound.errors import DatabaseError
from mailbound.inbound import findings
from mailbound.inbound.findings import Arrived
from mailbound.inbound.reader import Reader
from mailbound.model import Kind
from mailbound.reading import Report

log = structlog.get_logger()

_BATCH = 200
"""A transaction; the next ones are read meanwhile, and what is sent has its turn between two of them."""

_TAKEN = 10 * _BATCH
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
            except DatabaseError:
                pass  # the database has told
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), _POLL_SECONDS)

    async def record(self) -> int:
        """Read and record some mails; return how many.

        The try is counted before a mail is read, so one that kills even this process is known by its tries. All
        effects of a mail and the word that it is read are one commit.
        """
        mails = await self._parts.database.run(inbound_mail.take, limit=_TAKEN)
        for mail in mails:
            if mail.is_poison:
                log.error("mail.poisoned", mail=mail.id, tries=mail.attempts - 1)
        fit = [mail for mail in mails if not mail.is_poison]
        batches = [fit[start : start + _BATCH] for start in range(0, len(fit), _BATCH)]
        if batches:
            await self._record(batches)
        return len(mails)

    async def _record(self, batches: Sequence[Sequence[Unread]]) -> None:
        """Record one batch after the other, while the next one is read."""
        reading = asyncio.create_task(self._read(batches[0]))
        try:
            for following in (*batches[1:], ()):
                reports = await reading
                reading = asyncio.create_task(self._read(following))
                await self._write(reports)
        finally:
            reading.cancel()

    async def _read(self, mails: Sequence[Unread]) -> _Reports:
        outcomes = await self._parts.reader.read_all([mail.packed for mail in mails])
        reports = []
        for mail, outcome in zip(mails, outcomes, strict=True):
            if isinstance(outcome, Unreadable):
                log.error("mail.unreadable", mail=mail.id, why=str(outcome))
            else:
                reports.append((mail, outcome))
        return reports

    async def _write(self, reports: _Reports) -> None:
        keys = await self._parts.database.read(token_keys.verifying)
        parts = self._parts
        done = await parts.database.run(
            _record, reports, keys=keys, rules=parts.rules, limits=parts.limits, now=parts.clock()
        )
        self.ticked_at = time.monotonic()
        for mail, report, recorded in done.recorded:
            _tell(mail, report, recorded)
        for mail, why in done.failed:
            log.error("mail.unreadable", mail=mail.id, why=f"recording it failed: {why}")

    async def _purge(self) -> None:
        if time.monotonic() - self._purged_at < _PURGE_SECONDS:
            return
        self._purged_at = time.monotonic()
        before = self._parts.clock() - self._parts.keep_for
        while purged := await self._parts.database.run(inbound_mail.purge, before=before):
            log.info("mail.purged", mails=purged)


_Reports = Sequence[tuple[Unread, Report]]


@dataclass(slots=True)
class _Done:
    recorded: list[tuple[Unread, Report, list[Recorded]]] = field(default_factory=list)
    failed: list[tuple[Unread, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _How:
    """What mails are recorded by."""

    keys: Mapping[int, tokens.Key]
    rules: classify.Rules
    limits: Policy
    now: datetime


def _record(
    connection: sa.Connection,
    reports: _Reports,
    *,
    keys: Mapping[int, tokens.Key],
    rules: classify.Rules,
    limits: Policy,
    now: datetime,
) -> _Done:
    """Record mails together or, if something goes wrong with that, each for itself: none undoes another one.

    A mail that another node took in the meantime, since this one was given up, is left to it.
    """
    how = _How(keys, rules, limits, now)
    ours = {mail.id for mail in inbound_mail.ours(connection, [mail for mail, _ in reports])}
    left = [(mail, report) for mail, report in reports if mail.id in ours]
    done = _try(connection, left, how)
    if not done.failed or len(left) == 1:
        return done
    each = [_try(connection, [one], how) for one in left]
    return _Done(
        [one for some in each for one in some.recorded], [one for some in each for one in some.failed]
    )


def _try(connection: sa.Connection, reports: _Reports, how: _How) -> _Done:
    """Record mails, all of them or none."""
    try:
        with connection.begin_nested():
            return _Done(_record_all(connection, reports, how))
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError):
        raise  # it is the database's fault, and no mail's
    except Exception as error:  # noqa: BLE001 - whatever strangers write, the rest goes on; its tries are counted
        return _Done(failed=[(mail, f"{type(error).__name__}: {error}") for mail, _ in reports])


def _record_all(
    connection: sa.Connection, reports: _Reports, how: _How
) -> list[tuple[Unread, Report, list[Recorded]]]:
    found = [
        findings.worth_recording(
            findings.find(
                report, Arrived(mail.id, mail.store_id, mail.fetched_at), keys=how.keys, rules=how.rules
            )
        )
        for mail, report in reports
    ]
    flat = [finding for some in found for finding in some]
    recorded = bounces.record_all(connection, flat, limits=how.limits)
    understood = [
        Understood(mail.id, _kind(report, some), report.subject, report.why)
        for (mail, report), some in zip(reports, found, strict=True)
    ]
    inbound_mail.settle(connection, understood, now=how.now)
    for each in recorded:
        if each is not None and each.erased:
            erasing.forget_late(connection, each.bounce_id)
    in_order = iter(recorded)
    return [
        (
            mail,
            replace(report, kind=_kind(report, some)),
            [each for each in itertools.islice(in_order, len(some)) if each is not None],
        )
        for (mail, report), some in zip(reports, found, strict=True)
    ]


def _kind(report: Report, found: Sequence[Finding]) -> Kind:
    return report.kind if found or report.kind is not Kind.BOUNCE else Kind.UNRECOGNISED


def _tell(mail: Unread, report: Report, recorded: Sequence[Recorded]) -> None:
    """Log one line for each bounce, or one for a mail without any; plain values, since others take the log longer."""
    if not recorded:
        tell = log.warning if report.kind is Kind.UNRECOGNISED else log.info
        tell("mail.read", mail=mail.id, kind=report.kind.value, part=report.part)
    for each in recorded:
        finding, verdict = each.finding, each.finding.verdict
        log.info(
            "bounce.recorded",
            bounce=each.bounce_id,
            mail=mail.id,
            part=report.part,
            delivery=finding.delivery_id,
            attempt=finding.attempt,
            evidence=finding.evidence.value,
            action=finding.action.value,
            status=str(verdict.status) if verdict.status else None,
            category=verdict.category.value,
            permanent=verdict.permanent,
            rule=verdict.rule,
            disposition=each.decision.disposition.value,
            why=each.decision.why,
        )
