"""Soft bounces whose message is sent again: those that are due go back into the queue of their run.

Whether and when is written together with the bounce. Until then the delivery stays `bounced`, and its run is over; so
a run that waits for a full mailbox keeps no other one waiting.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.database import audience, recovery, runs
from mailbound.database.tables import activity, delivery, recipient, run
from mailbound.lifecycle import DeliveryState, RunEvent, RunState

_AT_ONCE = 1000


def is_due(connection: sa.Connection, *, now: datetime) -> bool:
    """Return whether there is something to queue again."""
    return connection.execute(_due(now).limit(1)).first() is not None


def requeue(connection: sa.Connection, *, now: datetime, limit: int = _AT_ONCE) -> dict[int, int]:
    """Queue again what is due and still wanted; return how many deliveries of which runs.

    A run that was over sends once more. One that is halted or paused keeps its deliveries until it is resumed.
    """
    due = _due(now).order_by(delivery.c.next_attempt_at, delivery.c.id).limit(limit)
    rows = connection.execute(due.with_for_update(skip_locked=True, of=delivery)).all()
    left = [row.id for row in rows if row.unwanted]
    connection.execute(delivery.update().where(delivery.c.id.in_(left)).values(next_attempt_at=None))
    queued = Counter(row.run_id for row in rows if not row.unwanted)
    for row in rows:
        if not row.unwanted:
            recovery.resend(connection, row.id, now=now)
    for run_id in sorted({row.run_id for row in rows if row.state == RunState.SENT} & queued.keys()):
        runs.move(connection, run_id, RunEvent.REOPEN, now=now)
    return dict(queued)


def _due(now: datetime) -> sa.Select[Any]:
    return (
        sa.select(delivery.c.id, delivery.c.run_id, run.c.state, _unwanted(now).label("unwanted"))
        .join(run, run.c.id == delivery.c.run_id)
        .join(activity, activity.c.id == run.c.activity_id)
        .outerjoin(recipient, recipient.c.id == delivery.c.recipient_id)
        .where(
            delivery.c.state
            == sa.literal_column(f"'{DeliveryState.BOUNCED}'"),  # so that the partial index serves
            delivery.c.next_attempt_at <= now,
            run.c.state.in_((RunState.SENDING.value, RunState.SENT.value)),
        )
    )


def _unwanted(now: datetime) -> sa.ColumnElement[bool]:
    """Return whether nobody wants the message any more, or it comes too late."""
    objection = audience.objection(
        delivery.c.recipient_id, delivery.c.address_id, delivery.c.domain_id, activity.c.store_id, now
    )
    return objection.isnot(None) | recipient.c.id.is_(None) | (run.c.expires_at <= now)
