"""Claims: which due deliveries a node takes next, and who they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailbound import lifecycle
from mailbound.database import audience, bulk, deliveries, nodes
from mailbound.database.deliveries import PACED, Settlement
from mailbound.database.tables import delivery, domain, recipient
from mailbound.lifecycle import DeliveryEvent, DeliveryState

ERASED = "erased"

_NOW = sa.bindparam("now", type_=delivery.c.marked_at.type)


class Claimed(NamedTuple):
    """A delivery that this node shall send, with its recipient as they are now."""

    id: int
    run_id: int
    recipient_id: int
    attempt: int  # the number of the attempt that comes now, from 1
    domain: str
    slot_at: datetime | None  # the turn that its domain's rate gave it before
    external_id: str
    address: str
    name: str
    locale: str
    attributes: Mapping[str, Any]
    time_zone: str = ""


def claim(
    connection: sa.Connection,
    *,
    run_id: int,
    store_id: int,
    node_id: int,
    limit: int,
    now: datetime,
) -> list[Claimed]:
    """Claim up to `limit` due deliveries of a run, the longest due first.

    Those who may not get it any more are skipped here, so that no connection is spent on them. A node that was given
    up claims nothing.
    """
    rows = _CLAIM.rows(connection, of_run=run_id, node=node_id, now=now, most=limit)
    people = _people(connection, [row[0] for row in rows], store_id, now=now)
    skipped = [
        Settlement(
            person.id, DeliveryEvent.SKIP, reason=ERASED if person.external_id is None else person.objection
        )
        for person in people
        if person.external_id is None or person.objection
    ]
    deliveries.settle(connection, skipped, node_id=node_id, now=now)
    return [
        Claimed(
            person.id,
            person.run_id,
            person.recipient_id,
            person.attempt + 1,
            person.domain,
            _moment(person.next_attempt_at) if person.reason == PACED else None,
            person.external_id,
            person.address,
            person.name,
            person.locale,
            person.attributes,
            person.time_zone,
        )
        for person in people
        if person.external_id is not None and not person.objection
    ]


def withdrawn(connection: sa.Connection, delivery_id: int, store_id: int, *, now: datetime) -> Settlement:
    """Return what shall become of a delivery whose mark was refused: skipped for a reason, or queued again."""
    (person,) = _people(connection, [delivery_id], store_id, now=now)
    if person.external_id is None or person.objection:
        return Settlement(delivery_id, DeliveryEvent.SKIP, reason=person.objection or ERASED)
    deliveries.readdress(connection, delivery_id, now=now)
    return Settlement(delivery_id, DeliveryEvent.RELEASE)


def _claimed(_connection: sa.Connection) -> bulk.Parts:
    due = (
        sa.select(delivery.c.id)
        .where(
            delivery.c.run_id == sa.bindparam("of_run"),
            delivery.c.state
            == sa.literal_column(f"'{DeliveryState.QUEUED}'"),  # so that the partial index serves
            delivery.c.next_attempt_at <= _NOW,
        )
        .order_by(delivery.c.next_attempt_at, delivery.c.id)
        .limit(sa.bindparam("most"))
        .with_for_update(skip_locked=True)
    )
    return bulk.Parts(
        delivery,
        link=(),
        where=(delivery.c.id.in_(due.scalar_subquery()), nodes.standing(sa.bindparam("node"))),
        values={
            "state": lifecycle.advance(DeliveryState.QUEUED, DeliveryEvent.CLAIM),
            "node_id": sa.bindparam("node"),
        },
        returning=(delivery.c.id,),
    )


_CLAIM = bulk.Update(_claimed)


class _Person(NamedTuple):
    """A delivery with its recipient, all None where they were erased."""

    id: int
    run_id: int
    recipient_id: int
    attempt: int
    next_attempt_at: datetime | str
    reason: str | None
    domain: str
    external_id: str | None
    address: str
    name: str
    locale: str
    attributes: Mapping[str, Any]
    time_zone: str
    objection: str | None


def _people(connection: sa.Connection, ids: Sequence[int], store_id: int, *, now: datetime) -> list[_Person]:
    if not ids:
        return []
    asked = {"ids": bulk.packed(connection, ids), "store_id": store_id, "now": now}
    return [_Person(*row) for row in _PEOPLE.get(connection, **asked)]


def _moment(kept: datetime | str) -> datetime:
    moment = datetime.fromisoformat(kept) if isinstance(kept, str) else kept
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _with_people(connection: sa.Connection) -> sa.Select[Any]:
    store_id: sa.ColumnElement[int] = sa.bindparam("store_id", type_=sa.Integer())
    objection = audience.objection(
        delivery.c.recipient_id, delivery.c.address_id, delivery.c.domain_id, store_id, _NOW
    )
    return (
        sa.select(
            delivery.c.id,
            delivery.c.run_id,
            delivery.c.recipient_id,
            delivery.c.attempt,
            delivery.c.next_attempt_at,
            delivery.c.reason,
            domain.c.name.label("domain"),
            recipient.c.external_id,
            recipient.c.address,
            recipient.c.name,
            recipient.c.locale,
            recipient.c.attributes,
            recipient.c.time_zone,
            objection.label("objection"),
        )
        .select_from(
            delivery.join(domain, domain.c.id == delivery.c.domain_id).outerjoin(
                recipient, recipient.c.id == delivery.c.recipient_id
            )
        )
        .where(bulk.listed(connection, delivery.c.id, "ids"))
        .order_by(delivery.c.id)
    )


_PEOPLE = bulk.Rows(_with_people)
