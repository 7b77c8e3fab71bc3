"""What is known of an address before something new is said of it: what the policy decides by.

Nothing of it is stored. It is folded anew from the bounces and deliveries of the address each time, so that undoing
one undoes all that followed from it.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
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


def before(
    connection: sa.Connection, deliveries: Mapping[int, int], *, at: datetime, quiet_before: datetime
) -> dict[int, History]:
    """Return what is known of addresses at a moment, before something is said of one delivery to each; by delivery.

    `deliveries` has the address of each. What was accepted before `quiet_before`, and of which nothing was heard, has
    arrived.
    """
    if not deliveries:
        return {}
    asked = {"addresses": list(deliveries.values()), "at": at}
    known = {row.id: row for row in connection.execute(_known(), {**asked, "quiet": quiet_before})}
    failed = defaultdict(list)
    for row in connection.execute(_failures(), asked):
        failed[row.address_id].append(row)
    arrived = set(connection.execute(_arrivals(), {"deliveries": list(deliveries)}).scalars())
    return {
        delivery_id: _history(known[address_id], failed[address_id], at, arrived=delivery_id in arrived)
        for delivery_id, address_id in deliveries.items()
    }


def _history(known: Any, failed: Sequence[Any], at: datetime, *, arrived: bool) -> History:
    """Return the history of one address: what failed since its last success, and was sent since its last chance."""
    status = RecipientStatus(known.status or RecipientStatus.DELIVERABLE)
    if known.until is not None and known.until <= at:
        status = RecipientStatus.DELIVERABLE
    chances = (known.consented, known.since if status is RecipientStatus.PROBATION else None)
    renewed = max((moment for moment in chances if moment is not None), default=None)
    success = max((moment for moment in (known.reported, known.quiet) if moment is not None), default=None)
    return History(
        status=status,
        renewed_at=renewed,
        failures=[
            Past(row.at, Category(row.category), row.permanent)
            for row in failed
            if (success is None or row.at > success) and (renewed is None or row.said_of >= renewed)
        ],
        arrived=arrived,
    )


# Building these takes SQLAlchemy longer than running them, so that is done once.

_ADDRESSES = sa.bindparam("addresses", expanding=True, type_=address.c.id.type)
_AT = sa.bindparam("at", type_=bounce.c.at.type)


@functools.cache
def _known() -> sa.Select[Any]:
    """Return the status of addresses, their owners' last own consent, and the last successes.

    Mail arrived if a report said so, or if it was accepted before `quiet` and nothing was said of it.
    """
    address_id = address.c.id
    reported = sa.select(sa.func.max(bounce.c.at)).where(
        bounce.c.address_id == address_id, bounce.c.action == Action.DELIVERED, bounce.c.at <= _AT, _COUNTED
    )
    consented = (
        sa.select(sa.func.max(opt_in.c.changed_at))
        .join(recipient, recipient.c.id == opt_in.c.recipient_id)
        .where(recipient.c.address_id == address_id, opt_in.c.receive, opt_in.c.source == Source.USER.value)
    )
    delayed = sa.exists().where(bounce.c.delivery_id == delivery.c.id, bounce.c.action == Action.DELAYED)
    quiet = sa.select(sa.func.max(delivery.c.settled_at)).where(
        delivery.c.recipient_id.in_(_owners()),  # by whom there is an index
        delivery.c.address_id == address_id,
        delivery.c.state == DeliveryState.ACCEPTED,
        delivery.c.settled_at <= sa.bindparam("quiet", type_=delivery.c.settled_at.type),
        sa.not_(delayed),
    )
    moments = {"reported": reported, "consented": consented, "quiet": quiet}
    return (
        sa.select(
            address.c.id,
            recipient_status.c.status,
            recipient_status.c.since,
            recipient_status.c.until,
            *(query.correlate(address).scalar_subquery().label(name) for name, query in moments.items()),
        )
        .select_from(address.outerjoin(recipient_status, recipient_status.c.address_id == address_id))
        .where(address.c.id.in_(_ADDRESSES))
    )


def _owners() -> sa.CompoundSelect[Any]:
    """Return the people who have the address, or had it before they changed it or were erased."""
    address_id = address.c.id
    now = sa.select(recipient.c.id).where(recipient.c.address_id == address_id)
    once = sa.select(change.c.recipient_id).where(
        change.c.address_id == address_id, change.c.recipient_id.is_not(None)
    )
    return sa.union(now.correlate(address), once.correlate(address))


@functools.cache
def _failures() -> sa.Select[Any]:
    """Return what failed at the same addresses, oldest first.

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
        sa.select(
            bounce.c.address_id,
            bounce.c.at,
            bounce.c.category,
            bounce.c.permanent,
            said_of.label("said_of"),
        )
        .join(delivery, delivery.c.id == bounce.c.delivery_id)
        .where(
            bounce.c.address_id.in_(_ADDRESSES),
            bounce.c.action == Action.FAILED,
            _COUNTED,
            bounce.c.at <= _AT,
            sa.not_(behind),
        )
        .order_by(bounce.c.at, bounce.c.id)
    )


@functools.cache
def _arrivals() -> sa.Select[Any]:
    """Return which deliveries arrived somewhere, as a report said."""
    among = sa.bindparam("deliveries", expanding=True, type_=delivery.c.id.type)
    return sa.select(bounce.c.delivery_id).where(
        bounce.c.delivery_id.in_(among), bounce.c.action.in_(_ARRIVED), _COUNTED
    )
