"""What is known of an address before something new is said of it: what the policy decides by.

Nothing of it is stored. It is folded anew from the bounces and deliveries of the address each time, so that undoing
one undoes all that followed from it.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from mailbound.database.tables import (
    address,
    bounce,
    change,
    delivery,
    opt_in,
    recipient,
    recipient_status,
)
from mailbound.lifecycle import DeliveryState
from mailbound.model import Action, Category, Disposition, Evidence, RecipientStatus, Source
from mailbound.policy import History, Past

COUNTED = (Disposition.APPLIED.value, Disposition.NOTED.value)
_COUNTED = bounce.c.disposition.in_(COUNTED)
_ARRIVED = (Action.DELIVERED.value, Action.RELAYED.value, Action.EXPANDED.value)
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


def of_address(
    connection: sa.Connection, address_id: int, *, delivery_id: int, at: datetime, quiet_before: datetime
) -> History:
    """Return what is known of an address at a moment, before something is said of one of its deliveries.

    What was accepted before `quiet_before`, and of which nothing was heard, has arrived.
    """
    asked = {"address": address_id, "delivery": delivery_id, "at": at, "quiet": quiet_before}
    known = connection.execute(_known(), asked).one()
    status = RecipientStatus(known.status or RecipientStatus.DELIVERABLE)
    if known.until is not None and known.until <= at:
        status = RecipientStatus.DELIVERABLE
    chances = (known.consented, known.since if status is RecipientStatus.PROBATION else None)
    renewed = max((moment for moment in chances if moment is not None), default=None)
    success = max((moment for moment in (known.reported, known.quiet) if moment is not None), default=_NEVER)
    rows = connection.execute(_failures(), {**asked, "success": success, "renewed": renewed or _NEVER})
    return History(
        status=status,
        renewed_at=renewed,
        failures=[Past(row.at, Category(row.category), row.permanent) for row in rows],
        arrived=known.arrived,
    )


# Building these takes SQLAlchemy longer than running them, so that is done once.

_ADDRESS = sa.bindparam("address", type_=address.c.id.type)
_AT = sa.bindparam("at", type_=bounce.c.at.type)


@functools.cache
def _known() -> sa.Select[Any]:
    """Return the status, the owners' last own consent, the last successes, and whether the delivery arrived.

    Mail arrived if a report said so, or if it was accepted before `quiet` and nothing was said of it.
    """
    arrived = sa.exists().where(
        bounce.c.delivery_id == sa.bindparam("delivery"), bounce.c.action.in_(_ARRIVED), _COUNTED
    )
    reported = sa.select(sa.func.max(bounce.c.at)).where(
        bounce.c.address_id == _ADDRESS, bounce.c.action == Action.DELIVERED, bounce.c.at <= _AT, _COUNTED
    )
    consented = (
        sa.select(sa.func.max(opt_in.c.changed_at))
        .join(recipient, recipient.c.id == opt_in.c.recipient_id)
        .where(recipient.c.address_id == _ADDRESS, opt_in.c.receive, opt_in.c.source == Source.USER.value)
    )
    delayed = sa.exists().where(bounce.c.delivery_id == delivery.c.id, bounce.c.action == Action.DELAYED)
    quiet = sa.select(sa.func.max(delivery.c.settled_at)).where(
        delivery.c.recipient_id.in_(_owners()),  # by whom there is an index
        delivery.c.address_id == _ADDRESS,
        delivery.c.state == DeliveryState.ACCEPTED,
        delivery.c.settled_at <= sa.bindparam("quiet", type_=delivery.c.settled_at.type),
        sa.not_(delayed),
    )
    moments = {"reported": reported, "consented": consented, "quiet": quiet}
    return (
        sa.select(
            recipient_status.c.status,
            recipient_status.c.since,
            recipient_status.c.until,
            arrived.label("arrived"),
            *(query.scalar_subquery().label(name) for name, query in moments.items()),
        )
        .select_from(address.outerjoin(recipient_status, recipient_status.c.address_id == address.c.id))
        .where(address.c.id == _ADDRESS)
    )


def _owners() -> sa.CompoundSelect[Any]:
    """Return the people who have the address, or had it before they changed it or were erased."""
    now = sa.select(recipient.c.id).where(recipient.c.address_id == _ADDRESS)
    once = sa.select(change.c.recipient_id).where(
        change.c.address_id == _ADDRESS, change.c.recipient_id.is_not(None)
    )
    return sa.union(now, once)


@functools.cache
def _failures() -> sa.Select[Any]:
    """Return what failed after the last success and was sent after the last new chance, oldest first.

    What failed behind an arrival of its own delivery is left out: that was somebody else's address.
    """
    arrival = bounce.alias("arrival")
    behind = sa.exists().where(
        arrival.c.delivery_id == bounce.c.delivery_id,
        arrival.c.action.in_(_ARRIVED),
        arrival.c.disposition.in_(COUNTED),
        arrival.c.id < bounce.c.id,
    )
    said_of = sa.case((bounce.c.evidence == Evidence.DIRECT, bounce.c.at), else_=delivery.c.marked_at)
    return (
        sa.select(bounce.c.at, bounce.c.category, bounce.c.permanent)
        .join(delivery, delivery.c.id == bounce.c.delivery_id)
        .where(
            bounce.c.address_id == _ADDRESS,
            bounce.c.action == Action.FAILED,
            _COUNTED,
            bounce.c.at <= _AT,
            bounce.c.at > sa.bindparam("success", type_=bounce.c.at.type),
            sa.not_(behind),
            said_of >= sa.bindparam("renewed", type_=bounce.c.at.type),
        )
        .order_by(bounce.c.at, bounce.c.id)
    )
