"""What is still to do of a run: when the next delivery is due, whether any is open, and how the rest is closed."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from mailbound import lifecycle
from mailbound.database import tally
from mailbound.database.deliveries import PACED
from mailbound.database.tables import delivery
from mailbound.lifecycle import DeliveryEvent, DeliveryState

_SWEEP = 5_000


def sweep(
    connection: sa.Connection,
    run_id: int,
    event: DeliveryEvent,
    *,
    now: datetime,
    reason: str,
    limit: int = _SWEEP,
) -> int:
    """Close up to `limit` queued deliveries of a run that expired or was cancelled; return how many."""
    after = lifecycle.advance(DeliveryState.QUEUED, event)
    some = (
        sa.select(delivery.c.id)
        .where(delivery.c.run_id == run_id, delivery.c.state == DeliveryState.QUEUED)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    closed = (
        delivery.update()
        .where(delivery.c.id.in_(some.scalar_subquery()))
        .values(state=after, next_attempt_at=None, settled_at=now, reason=reason)
        .returning(delivery.c.domain_id)
    )
    moves = tally.Moves()
    count = 0
    for domain_id in connection.execute(closed).scalars():
        moves.move(run_id, domain_id, DeliveryState.QUEUED, after)
        count += 1
    moves.write(connection, node_id=0, now=now)
    return count


def recall(
    connection: sa.Connection, run_id: int, *, now: datetime, until: datetime, limit: int = _SWEEP
) -> int:
    """Let deliveries be due now that nobody tried, of those due `until` then: the clock was set back.

    Return how many that were, up to `limit`. Whoever has a turn in the rate of a domain is given a new one.
    """
    some = (
        sa.select(delivery.c.id)
        .where(
            delivery.c.run_id == run_id,
            delivery.c.state == DeliveryState.QUEUED,
            delivery.c.attempt == 0,
            delivery.c.next_attempt_at > now,
            delivery.c.next_attempt_at <= until,
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    values = {"next_attempt_at": now, "reason": sa.func.nullif(delivery.c.reason, PACED)}
    due = delivery.update().where(delivery.c.id.in_(some.scalar_subquery())).values(values)
    return connection.execute(due).rowcount


def next_due(connection: sa.Connection, run_id: int) -> datetime | None:
    """Return when the next queued delivery of a run is due, or None if none is queued."""
    due = sa.select(sa.func.min(delivery.c.next_attempt_at)).where(
        delivery.c.run_id == run_id, delivery.c.state == DeliveryState.QUEUED
    )
    return connection.execute(due).scalar()


def any_open(connection: sa.Connection, run_id: int) -> bool:
    """Return whether a delivery of the run still has something to do."""
    queued = sa.exists().where(delivery.c.run_id == run_id, delivery.c.state == DeliveryState.QUEUED)
    held = sa.exists().where(
        delivery.c.run_id == run_id,
        delivery.c.state.in_((DeliveryState.CLAIMED.value, DeliveryState.SENDING.value)),
        delivery.c.node_id.is_not(None),  # as the index says
    )
    return bool(connection.execute(sa.select(queued | held)).scalar())
