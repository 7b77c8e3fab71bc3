"""Reading what was fetched: read → classify → correlate → decide → record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from mailbound import logs
from mailbound.bounds import Unreadable
from mailbound.config import Policy
from mailbound.database import bounces, erasing, inbound_mail, token_keys
from mailbound.database.bounces import Recorded
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Understood, Unread
from mailbound.database.leases import Lease
from mailbound.errors import DatabaseError
from mailbound.inbound.findings import Arrived, Said
from mailbound.inbound.reader import Reader
from mailbound.model import Kind

log = structlog.get_logger()

_BATCH = 400
"""A transaction; the next ones are read meanwhile, and what is sent has its turn between two of them."""

_AHEAD = 3
"""So many transactions are read or wait for that: the reader never waits for us."""

_POLL_SECONDS = 2.0
_PURGE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the reading loop works with."""

    database: Database
    reader: Reader
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
        self._stopping = asyncio.Event()
        self._purged_at = float("-inf")
        self.ticked_at = time.monotonic()

    def wake(self) -> None:
        """Say that there is new mail."""
        self._arrived.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Record until `stopping` is set."""
        self._stopping = stopping
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
                while await self._go_on():
                    self.ticked_at = time.monotonic()
                    if not await self.record():
                        await self._purge()
                        break
            except DatabaseError:
                pass  # the database has told
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), _POLL_SECONDS)

    async def record(self) -> int:
        """Read and record mails that are new, each once; return how many.

        The try is counted before a mail is read, so one that kills even this process is known by its tries. All
        effects of a mail and the word that it is read are one commit.
        """
        mails = await self._parts.database.run(inbound_mail.take, limit=_AHEAD * _BATCH)
        for mail in mails:
            if mail.is_poison:
                log.error("mail.poisoned", mail=mail.id, tries=mail.attempts - 1)
        fit = [mail for mail in mails if not mail.is_poison]
        return len(mails) - len(fit) + await self._record(fit)

    async def _record(self, mails: Sequence[Unread]) -> int:
        """Record mails, and then all that follow; return how many these were together.

        While some are recorded the next ones are read, and the commit takes those after them.
        """
        last = (
            mails[-1].id if mails and mails[-1].attempts == 1 else None
        )  # what was tried before has no company
        reading: deque[asyncio.Task[_Understood]] = deque()
        count = 0
        try:
            while mails or reading:
                for batch in _batches(mails):
                    reading.append(asyncio.create_task(self._read(batch)))
                    last = last and batch[-1].id
                count += len(mails)
                understood = await reading.popleft()
                after = last if await self._go_on() else None
                mails = await self._write(understood, after=after, limit=_BATCH * (_AHEAD - len(reading)))
        finally:
            for task in reading:
                task.cancel()
        return count

    async def _go_on(self) -> bool:
        return not self._stopping.is_set() and await self._parts.lease.held()

    async def _read(self, mails: Sequence[Unread]) -> _Understood:
        keys = await self._parts.database.read(token_keys.verifying)
        packed = [(mail.packed, Arrived(mail.id, mail.store_id, mail.fetched_at)) for mail in mails]
        understood = []
        for mail, outcome in zip(mails, await self._parts.reader.read_all(packed, keys), strict=True):
            if isinstance(outcome, Unreadable):
                log.error("mail.unreadable", mail=mail.id, why=str(outcome))
            else:
                understood.append((mail, outcome))
        return understood

    async def _write(self, understood: _Understood, *, after: int | None, limit: int) -> Sequence[Unread]:
        """Record mails; return what is taken to be read next, of those that came after the mail `after`."""
        parts = self._parts
        done, following = await parts.database.run(
            _record_and_take,
            understood,
            limits=parts.limits,
            now=parts.clock(),
            after=after,
            count=limit,
        )
        self.ticked_at = time.monotonic()
        _tell(done.recorded)
        for mail, why in done.failed:
            log.error("mail.unreadable", mail=mail.id, why=f"recording it failed: {why}")
        return following

    async def _purge(self) -> None:
        if time.monotonic() - self._purged_at < _PURGE_SECONDS:
            return
        self._purged_at = time.monotonic()
        before = self._parts.clock() - self._parts.keep_for
        while purged := await self._parts.database.run(inbound_mail.purge, before=before):
            log.info("mail.purged", mails=purged)


def _batches(mails: Sequence[Unread]) -> Iterator[Sequence[Unread]]:
    return (mails[start : start + _BATCH] for start in range(0, len(mails), _BATCH))


_Understood = Sequence[tuple[Unread, Said]]
_Recorded = list[tuple[Unread, Said, list[Recorded]]]


@dataclass(slots=True)
class _Done:
    recorded: _Recorded = field(default_factory=list)
    failed: list[tuple[Unread, str]] = field(default_factory=list)


def _record_and_take(
    connection: sa.Connection,
    understood: _Understood,
    *,
    limits: Policy,
    now: datetime,
    after: int | None,
    count: int,
) -> tuple[_Done, Sequence[Unread]]:
    """Record mails, and by the same commit take at most `count` of those after the mail `after`."""
    done = _record(connection, understood, limits=limits, now=now)
    return done, [] if after is None else inbound_mail.follow(connection, after=after, limit=count)


def _record(connection: sa.Connection, understood: _Understood, *, limits: Policy, now: datetime) -> _Done:
    """Record mails together or, if something goes wrong with that, each for itself: none undoes another one.

    A mail that another node took in the meantime, since this one was given up, is left to it.
    """
    ours = {mail.id for mail in inbound_mail.ours(connection, [mail for mail, _ in understood])}
    left = [(mail, said) for mail, said in understood if mail.id in ours]
    done = _try(connection, left, limits, now)
    if not done.failed or len(left) == 1:
        return done
    each = [_try(connection, [one], limits, now) for one in left]
    return _Done(
        [one for some in each for one in some.recorded], [one for some in each for one in some.failed]
    )


def _try(connection: sa.Connection, understood: _Understood, limits: Policy, now: datetime) -> _Done:
    """Record mails, all of them or none."""
    try:
        with connection.begin_nested():
            return _Done(_record_all(connection, understood, limits, now))
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError):
        raise  # it is the database's fault, and no mail's
    except Exception as error:  # noqa: BLE001 - whatever strangers write, the rest goes on; its tries are counted
        return _Done(failed=[(mail, f"{type(error).__name__}: {error}") for mail, _ in understood])


def _record_all(
    connection: sa.Connection, understood: _Understood, limits: Policy, now: datetime
) -> _Recorded:
    flat = [finding for _, said in understood for finding in said.found]
    recorded = bounces.record_all(connection, flat, limits=limits)
    settled = [Understood(mail.id, said.kind, said.subject, said.why) for mail, said in understood]
    inbound_mail.settle(connection, settled, now=now)
    for each in recorded:
        if each is not None and each.erased:
            erasing.forget_late(connection, each.bounce_id)
    in_order = iter(recorded)
    return [
        (mail, said, [each for each in itertools.islice(in_order, len(said.found)) if each is not None])
        for mail, said in understood
    ]


def _tell(done: _Recorded) -> None:
    """Log one line for each bounce, or one for a mail without any."""
    for mail, said, recorded in done:
        if not recorded:
            tell = log.warning if said.kind is Kind.UNRECOGNISED else log.info
            tell("mail.read", mail=mail.id, kind=said.kind.value, part=said.part)
    rows = [_line(mail, said, each) for mail, said, recorded in done for each in recorded]
    logs.info_each("bounce.recorded", _LINE, rows)


_LINE = (
    *("bounce", "mail", "part", "delivery", "attempt", "evidence", "action"),
    *("status", "category", "permanent", "rule", "disposition", "why"),
)


def _line(mail: Unread, said: Said, recorded: Recorded) -> tuple[Any, ...]:
    """Return what is logged of a bounce, as plain values, since others take the log longer."""
    bounce_id, decision, finding = recorded[:3]
    verdict = finding.verdict
    return (
        bounce_id,
        mail.id,
        said.part,
        finding.delivery_id,
        finding.attempt,
        str(finding.evidence),
        str(finding.action),
        str(verdict.status) if verdict.status else None,
        str(verdict.category),
        verdict.permanent,
        verdict.rule,
        str(decision.disposition),
        decision.why,
    )
