"""How mail fares at each recipient domain, from the tally."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.database.reports import sent
from mailbound.database.tables import domain, tally
from mailbound.lifecycle import DeliveryState

_COUNTS = ("sent", "accepted", "refused", "bounced", "unknown")


@dataclass(frozen=True, slots=True)
class Domain:
    """What became of the mail to one domain. `accepted` was so by the relay, and may have bounced later."""

    name: str
    sent: int
    accepted: int
    refused: int
    bounced: int
    unknown: int

    @property
    def share(self) -> float | None:
        """Return what failed as a share of what was sent; None where nothing was."""
        return (self.refused + self.bounced) / self.sent if self.sent else None


@dataclass(frozen=True, slots=True)
class Report:
    """The domains that most was sent to, the largest first; all domains together; how many there are."""

    domains: list[Domain]
    total: Domain
    count: int


def report(connection: sa.Connection, since: datetime | None = None, *, limit: int | None = None) -> Report:
    """Return what became of the mail to each domain since the midnight before `since` (UTC), or ever."""
    conditions = sent.within(sent.Scope(since))
    counts = _counts()
    sent_to = sa.case((tally.c.outcome.in_(sent.SENT), tally.c.domain_id))
    everywhere = connection.execute(
        sa.select(*counts, sa.func.count(sa.distinct(sent_to)).label("domains")).where(*conditions)
    ).one()
    largest = (
        sa.select(tally.c.domain_id, *counts)
        .where(*conditions)
        .group_by(tally.c.domain_id)
        .order_by(sa.text("sent DESC"), tally.c.domain_id)
        .limit(limit)
        .subquery()
    )
    query = (
        sa.select(domain.c.name, largest)
        .join(largest, largest.c.domain_id == domain.c.id)
        .where(largest.c.sent + largest.c.bounced > 0)
        .order_by(largest.c.sent.desc(), domain.c.name)
    )
    rows = [_domain(row.name, row) for row in connection.execute(query)]
    return Report(rows, _domain("", everywhere), everywhere.domains)


def _counts() -> list[sa.Label[int]]:
    return [
        sent.counted(sent.SENT).label("sent"),
        sent.counted(sent.ACCEPTED).label("accepted"),
        sent.counted((DeliveryState.REFUSED.value,)).label("refused"),
        sent.counted((DeliveryState.BOUNCED.value,)).label("bounced"),
        sent.counted((DeliveryState.UNKNOWN.value,)).label("unknown"),
    ]


def _domain(name: str, row: Any) -> Domain:
    return Domain(name, *(int(getattr(row, count)) for count in _COUNTS))
