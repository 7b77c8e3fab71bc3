"""How much was sent, from the tally. It counts by day (UTC), so a period begins at midnight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mailbound import tokens
from mailbound.database.tables import run, tally
from mailbound.lifecycle import DeliveryState

ACCEPTED = tuple(s.value for s in (DeliveryState.ACCEPTED, DeliveryState.DELIVERED, DeliveryState.BOUNCED))
"""The relay took responsibility, whatever was reported later."""

SENT = (*ACCEPTED, DeliveryState.REFUSED.value, DeliveryState.UNKNOWN.value)
"""The relay was asked to take it. A move within these changes no sum, so that a sum over days is right."""

_LATEST_REPORT = tokens.VALID_FOR + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a report covers: everything since a moment, or ever; of one activity, or of all."""

    since: datetime | None = None
    activity_id: int | None = None

    @property
    def of_whole_days(self) -> bool:
        """Tell whether the tally knows how much was sent in it."""
        return self.since is None or self.since == midnight(self.since)


EVERYTHING = Scope()
"""All that was ever sent."""


def midnight(moment: datetime) -> datetime:
    """Return when the day of `moment` began (UTC)."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def within(scope: Scope) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on `tally` for a scope; its days count from their midnight."""
    runs = sa.select(run.c.id)
    conditions = []
    if scope.activity_id is not None:
        runs = runs.where(run.c.activity_id == scope.activity_id)
    if scope.since is not None:
        # The tally is kept by run first: runs that were over long before are not even looked at.
        finished = scope.since - _LATEST_REPORT
        runs = runs.where(run.c.finished_at.is_(None) | (run.c.finished_at >= finished))
        conditions.append(tally.c.day >= tokens.day_number(scope.since))
    if scope != EVERYTHING:
        conditions.append(tally.c.run_id.in_(runs))
    return conditions


def total(connection: sa.Connection, scope: Scope) -> int | None:
    """Return how many deliveries were sent, or None where the scope begins within a day."""
    if not scope.of_whole_days:
        return None
    query = sa.select(counted(SENT)).where(*within(scope))
    return int(connection.execute(query).scalar_one())


def by(
    connection: sa.Connection,
    scope: Scope,
    column: sa.Column[Any],
    *,
    only: Sequence[int] | None = None,
) -> dict[int, int]:
    """Return how many deliveries were sent for each value of a column of the tally, or `only` for some.

    It is empty where the scope begins within a day.
    """
    if not scope.of_whole_days:
        return {}
    query = sa.select(column, counted(SENT)).where(*within(scope)).group_by(column)
    if only is not None:
        query = query.where(column.in_(only))
    return {key: int(count) for key, count in connection.execute(query)}


def counted(outcomes: Sequence[str]) -> sa.ColumnElement[int]:
    """Return the sum of the tally over some outcomes, 0 if there is none."""
    chosen = sa.case((tally.c.outcome.in_(outcomes), tally.c.count), else_=0)
    return sa.func.coalesce(sa.func.sum(chosen), 0)
