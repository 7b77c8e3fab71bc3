"""What became of each run of an activity: its audience is the sum of the states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from mailbound.database import activities, runs
from mailbound.database import tally as tallies
from mailbound.database.activities import Activity
from mailbound.database.reports import bounces, sent
from mailbound.database.reports.bounces import Group
from mailbound.database.runs import Run
from mailbound.database.tables import activity, bounce, delivery, run, tally
from mailbound.lifecycle import DeliveryState
from mailbound.model import Kind

OUTCOMES = (
    tallies.OPEN,
    DeliveryState.ACCEPTED.value,
    DeliveryState.DELIVERED.value,
    DeliveryState.BOUNCED.value,
    DeliveryState.REFUSED.value,
    DeliveryState.UNKNOWN.value,
    DeliveryState.EXPIRED.value,
    DeliveryState.FAILED.value,
    DeliveryState.CANCELLED.value,
    DeliveryState.SKIPPED.value,
)
"""Where a delivery can stand, in the order in which reports show it."""

# The predicate of the index, word for word: only so does SQLite see that the index answers the query.
_EXCEPTIONAL = next(index for index in delivery.indexes if index.name == "ix_delivery_exceptional")


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run: how many deliveries stand where, why some were skipped, and what came back."""

    run: Run
    outcomes: dict[str, int]  # every outcome, 0 included
    skipped: dict[str, int]  # by reason, the most frequent first
    reasons: list[Group]  # why it bounced, the most frequent first
    returned: Group  # everything that came back
    unsubscribed: int  # who got it, and unsubscribed before the store's next run

    @property
    def audience(self) -> int:
        """Return the sum of the states: everybody in the segment when the audience was frozen."""
        return sum(self.outcomes.values())

    @property
    def sent(self) -> int:
        """Return how many the relay was given, whatever became of them."""
        return sum(self.outcomes[outcome] for outcome in sent.SENT)

    @property
    def proven(self) -> bool:
        """Tell whether as many were skipped as the tally says; `mailbound doctor` proves the rest."""
        return sum(self.skipped.values()) == self.outcomes[DeliveryState.SKIPPED]

    def duration(self, now: datetime) -> timedelta | None:
        """Return how long it took, or has taken until `now`; None if it did not begin."""
        if self.run.started_at is None:
            return None
        return (self.run.finished_at or now) - self.run.started_at

    def rate(self, now: datetime) -> float | None:
        """Return how many messages a second were sent, waiting included; None if it took no time."""
        duration = self.duration(now)
        return self.sent / duration.total_seconds() if duration else None


@dataclass(frozen=True, slots=True)
class Report:
    """An activity and its runs, the latest first; `earlier` runs are left out."""

    activity: Activity
    runs: list[RunReport]
    earlier: int


def report(connection: sa.Connection, name_or_id: str | int, *, limit: int | None = None) -> Report:
    """Return what became of the latest runs of an activity. Raises InputError if there is none."""
    found = activities.find(connection, name_or_id)
    every = runs.of_activity(connection, found.id)
    chosen = every[:limit]
    outcomes = _outcomes(connection, [one.id for one in chosen])
    return Report(
        found, [_run(connection, one, outcomes[one.id]) for one in chosen], earlier=len(every) - len(chosen)
    )


def _run(connection: sa.Connection, one: Run, outcomes: dict[str, int]) -> RunReport:
    return RunReport(
        run=one,
        outcomes={outcome: outcomes.get(outcome, 0) for outcome in OUTCOMES},
        skipped=_skipped(connection, one.id) if outcomes.get(DeliveryState.SKIPPED) else {},
        reasons=bounces.by_reason(connection, one.id),
        returned=bounces.of_run(connection, one.id),
        unsubscribed=_unsubscribed(connection, one),
    )


def _outcomes(connection: sa.Connection, run_ids: Sequence[int]) -> defaultdict[int, dict[str, int]]:
    query = (
        sa.select(tally.c.run_id, tally.c.outcome, sa.func.sum(tally.c.count))
        .where(tally.c.run_id.in_(run_ids))
        .group_by(tally.c.run_id, tally.c.outcome)
    )
    counts: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for run_id, outcome, count in connection.execute(query):
        counts[run_id][outcome] = int(count)
    return counts


def _skipped(connection: sa.Connection, run_id: int) -> dict[str, int]:
    count = sa.func.count()
    query = (
        sa.select(delivery.c.reason, count)
        .where(
            delivery.c.run_id == run_id,
            delivery.c.state == DeliveryState.SKIPPED.value,
            _EXCEPTIONAL.dialect_options[connection.dialect.name]["where"],
        )
        .group_by(delivery.c.reason)
        .order_by(count.desc(), delivery.c.reason)
    )
    return {reason or "": number for reason, number in connection.execute(query)}


def _unsubscribed(connection: sa.Connection, one: Run) -> int:
    """Return how many of those who got the run unsubscribed from its store before the store's next run.

    Their token names no delivery, for it never expires; so the last run that they got is taken for the cause.
    """
    if one.started_at is None:
        return 0
    following = connection.execute(
        sa.select(sa.func.min(run.c.started_at))
        .join(activity, activity.c.id == run.c.activity_id)
        .where(activity.c.store_id == one.store_id, run.c.started_at > one.started_at)
    ).scalar()
    got_it = sa.exists().where(
        delivery.c.recipient_id == bounce.c.recipient_id,
        delivery.c.run_id == one.id,
        delivery.c.state.in_(sent.SENT),
    )
    query = sa.select(sa.func.count(sa.distinct(bounce.c.recipient_id))).where(
        bounce.c.at >= one.started_at,
        bounce.c.at < following if following else sa.true(),
        bounce.c.kind == Kind.UNSUBSCRIBE.value,
        bounce.c.disposition.in_(bounces.COUNTED),
        bounce.c.store_id == one.store_id,
        got_it,
    )
    return int(connection.execute(query).scalar_one())
