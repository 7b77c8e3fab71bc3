"""What is known of an address before something new is said of it: what the policy decides by.

Nothing of it is stored. It is folded anew from the bounces and deliveries of the address each time, so that undoing
one undoes all that followed from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailbound.database import bulk
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
_ARRIVED = (Action.DELIVERED.value, Action.RELAYED.value, Action.EXPANDED.value)


def _one_of(column: sa.ColumnElement[str], values: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.or_(*(column == value for value in values))  # `in_` is spelt out anew for each execution


_COUNTED = _one_of(bounce.c.disposition, COUNTED)


def before(
    connection: sa.Connection, deliveries: Mapping[int, int], *, at: datetime, quiet_before: datetime
) -> dict[int, History]:
    """Return what is known of addresses at a moment, before something is said of one delivery to each; by delivery.

    `deliveries` has the address of each. What was accepted before `quiet_before`, and of which nothing was heard, has
    arrived.
    """
    if not deliveries:
        return {}
    addresses = bulk.packed(connection, deliveries.values())
    known = {
        address_id: _Known(status, *map(bulk.moment, moments))
        for address_id, status, *moments in _KNOWN.get(
            connection, addresses=addresses, at=at, quiet=quiet_before
        )
    }
    failed = defaultdict(list)
    for address_id, moment, category, permanent, said_of in _FAILURES.get(
        connection, addresses=addresses, at=at
    ):
        failed[address_id].append(_Failure(bulk.moment(moment), category, permanent, bulk.moment(said_of)))
    arrived = {
        delivery_id
        for (delivery_id,) in _ARRIVALS.get(connection, deliveries=bulk.packed(connection, deliveries))
    }
    return {
        delivery_id: _history(known[address_id], failed[address_id], at, arrived=delivery_id in arrived)
        for delivery_id, address_id in deliveries.items()
    }


class _Known(NamedTuple):
    """The status of an address, its owners' last own consent, and the last successes."""

    status: str | None
    since: datetime | None
    until: datetime | None
    reported: datetime | None
    consented: datetime | None
    quiet: datetime | None


class _Failure(NamedTuple):
    at: datetime
    category: str
    permanent: bool
    said_of: datetime  # when what it speaks of was sent


def _history(known: _Known, failed: Sequence[_Failure], at: datetime, *, arrived: bool) -> History:
    """Return the history of one address: what failed since its last success, and was sent since its last chance."""
    status = RecipientStatus(known.status) if known.status else RecipientStatus.DELIVERABLE
    if known.until is not None and known.until <= at:
        status = RecipientStatus.DELIVERABLE
    chances = (known.consented, known.since if status is RecipientStatus.PROBATION else None)
    renewed = max(filter(None, chances), default=None)
    success = max(filter(None, (known.reported, known.quiet)), default=None)
    return History(
        status=status,
        renewed_at=renewed,
        failures=[
            Past(row.at, Category(row.category), bool(row.permanent))
            for row in failed
            if (success is None or row.at > success) and (renewed is None or row.said_of >= renewed)
        ],
        arrived=arrived,
    )


_AT = sa.bindparam("at", type_=bounce.c.at.type)


def _known(connection: sa.Connection) -> sa.Select[Any]:
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
        .where(bulk.listed(connection, address.c.id, "addresses"))
    )


def _owners() -> sa.CompoundSelect[Any]:
    """Return the people who have the address, or had it before they changed it or were erased."""
    address_id = address.c.id
    now = sa.select(recipient.c.id).where(recipient.c.address_id == address_id)
    once = sa.select(change.c.recipient_id).where(
        change.c.address_id == address_id, change.c.recipient_id.is_not(None)
    )
    return sa.union(now.correlate(address), once.correlate(address))


def _failures(connection: sa.Connection) -> sa.Select[Any]:
    """Return what failed at the same addresses, oldest first.

    What failed behind an arrival of its own delivery is left out: that was somebody else's address.
    """
    arrival = bounce.alias("arrival")
    behind = sa.exists().where(
        arrival.c.delivery_id == bounce.c.delivery_id,
        _one_of(arrival.c.action, _ARRIVED),
        _one_of(arrival.c.disposition, COUNTED),
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
            bulk.listed(connection, bounce.c.address_id, "addresses"),
            bounce.c.action == Action.FAILED,
            _COUNTED,
            bounce.c.at <= _AT,
            sa.not_(behind),
        )
        .order_by(bounce.c.at, bounce.c.id)
    )


def _arrivals(connection: sa.Connection) -> sa.Select[Any]:
    """Return which deliveries arrived somewhere, as a report said."""
    among = bulk.listed(connection, bounce.c.delivery_id, "deliveries")
    return sa.select(bounce.c.delivery_id).where(among, _one_of(bounce.c.action, _ARRIVED), _COUNTED)


_KNOWN = bulk.Rows(_known)
_FAILURES = bulk.Rows(_failures)
_ARRIVALS = bulk.Rows(_arrivals)
