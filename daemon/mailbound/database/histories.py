"""The history of an address, as the policy wants it: its status, and what failed since mail last arrived."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from mailbound.database.tables import bounce, delivery, recipient, recipient_status
from mailbound.lifecycle import DeliveryState
from mailbound.model import Action, Category, Disposition, RecipientStatus
from mailbound.policy import History, Past

COUNTED = (Disposition.APPLIED.value, Disposition.NOTED.value)
_ARRIVED = (Action.DELIVERED.value, Action.RELAYED.value, Action.EXPANDED.value)


def of_address(
    connection: sa.Connection, address_id: int, *, delivery_id: int, at: datetime, quiet_before: datetime
) -> History:
    """Return what is known of an address at a moment.

    What was accepted before `quiet_before`, and of which nothing was heard, has arrived.
    """
    known = connection.execute(
        sa.select(recipient_status).where(recipient_status.c.address_id == address_id)
    ).one_or_none()
    status = RecipientStatus(known.status) if known else RecipientStatus.DELIVERABLE
    if known and known.until is not None and known.until <= at:
        status = RecipientStatus.DELIVERABLE
    success = _last_success(connection, address_id, before=quiet_before)
    conditions = [
        bounce.c.address_id == address_id,
        bounce.c.action == Action.FAILED,
        bounce.c.disposition.in_(COUNTED),
        bounce.c.at <= at,
    ]
    if success is not None:
        conditions.append(bounce.c.at > success)
    rows = connection.execute(
        sa.select(bounce.c.at, bounce.c.category, bounce.c.permanent).where(*conditions).order_by(bounce.c.at)
    )
    arrived = sa.exists().where(bounce.c.delivery_id == delivery_id, bounce.c.action.in_(_ARRIVED))
    return History(
        status=status,
        since=known.since if known else None,
        failures=[Past(row.at, Category(row.category), row.permanent) for row in rows],
        arrived=bool(connection.execute(sa.select(arrived)).scalar()),
    )


def _last_success(connection: sa.Connection, address_id: int, *, before: datetime) -> datetime | None:
    """Return when mail last arrived: a report said so, or it was accepted before `before` and nothing came back."""
    reported = sa.select(sa.func.max(bounce.c.at)).where(
        bounce.c.address_id == address_id, bounce.c.action == Action.DELIVERED
    )
    quiet = (
        sa.select(sa.func.max(delivery.c.settled_at))
        .join(recipient, recipient.c.id == delivery.c.recipient_id)
        .where(
            recipient.c.address_id == address_id,
            delivery.c.address_id == address_id,
            delivery.c.state == DeliveryState.ACCEPTED,
            delivery.c.settled_at <= before,
        )
    )
    moments = [connection.execute(query).scalar() for query in (reported, quiet)]
    return max((moment for moment in moments if moment is not None), default=None)
