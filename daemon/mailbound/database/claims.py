"""Claims: which due deliveries a node takes next, and who they are for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailbound import lifecycle
from mailbound.database import audience, bulk, deliveries, nodes, tally
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
    domain_id: int = 0

    @property
    def place(self) -> tally.Place:
        """Return where it is counted."""
        return tally.Place(self.run_id, self.domain_id)


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
    people = _claim(connection, of_run=run_id, store_id=store_id, node=node_id, now=now, most=limit)
    skipped = [
        Settlement(
            person.id, DeliveryEvent.SKIP, reason=ERASED if person.external_id is None else person.objection
        )
        for person in people
        if person.external_id is None or person.objection
    ]
    if skipped:
        deliveries.settle(connection, skipped, node_id=node_id, now=now)
    return [
        Claimed(
            person.id,
            person.run_id,
            person.recipient_id,
            person.attempt + 1,
            person.domain,
            bulk.moment(person.next_attempt_at) if person.reason == PACED else None,
            person.external_id,
            person.address,
            person.name,
            person.locale,
            person.attributes,
            person.time_zone,
            person.domain_id,
        )
        for person in people
        if person.external_id is not None and not person.objection
    ]


def withdrawn(connection: sa.Connection, delivery_id: int, store_id: int, *, now: datetime) -> Settlement:
    """Return what shall become of a delivery whose mark was refused: skipped for a reason, or queued again."""
    (row,) = _ONE.get(connection, id=delivery_id, store_id=store_id, now=now)
    person = _Person(*row)
    if person.external_id is None or person.objection:
        return Settlement(delivery_id, DeliveryEvent.SKIP, reason=person.objection or ERASED)
    deliveries.readdress(connection, delivery_id, now=now)
    return Settlement(delivery_id, DeliveryEvent.RELEASE)


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
    domain_id: int
    objection: str | None


def _claim(connection: sa.Connection, **asked: Any) -> list[_Person]:
    """Claim what is due: PostgreSQL does that in one statement; on SQLite nobody comes between the two."""
    if connection.dialect.name == "postgresql":
        return [_Person(*row) for row in _CLAIM.rows(connection, **asked)]
    node = asked["node"]
    people = [_Person(*row) for row in _DUE.get(connection, **asked)]
    if people:
        _TAKE.execute(connection, ids=bulk.packed(connection, [person.id for person in people]), node=node)
    return people


def _claimed(_connection: sa.Connection) -> sa.Select[Any]:
    taken = _taking().where(delivery.c.id.in_(_due().scalar_subquery()), _STANDING)
    return _people(taken.returning(*(delivery.c[name] for name in _OF_DELIVERY)).cte("taken"))


def _due_people(_connection: sa.Connection) -> sa.Select[Any]:
    return _people(delivery).where(delivery.c.id.in_(_due().scalar_subquery()), _STANDING)


def _taken(connection: sa.Connection) -> sa.Update:
    return _taking().where(bulk.listed(connection, delivery.c.id, "ids"))


def _one(_connection: sa.Connection) -> sa.Select[Any]:
    return _people(delivery).where(delivery.c.id == sa.bindparam("id"))


_STANDING = nodes.standing(sa.bindparam("node"))


def _due() -> sa.Select[Any]:
    """Return what is due longest. Half belongs to those whose turn in their domain's rate has come, if any are.

    By their time they would come after all who wait since the run began, and so miss their turn again and again.
    """
    most: sa.BindParameter[int] = sa.bindparam("most", type_=sa.Integer())
    turn = _longest(most // 2, delivery.c.reason == PACED).cte("turn")
    left = most - sa.select(sa.func.count()).select_from(turn).scalar_subquery()
    others = _longest(left, delivery.c.id.not_in(sa.select(turn.c.id))).subquery("others")
    return sa.select(sa.union_all(sa.select(turn.c.id), sa.select(others.c.id)).subquery("due").c.id)


def _longest(limit: sa.ColumnElement[int], which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(delivery.c.id)
        .where(
            delivery.c.run_id == sa.bindparam("of_run"),
            delivery.c.state == DeliveryState.QUEUED,
            delivery.c.next_attempt_at <= _NOW,
            which,
        )
        .order_by(delivery.c.next_attempt_at, delivery.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def _taking() -> sa.Update:
    state = lifecycle.advance(DeliveryState.QUEUED, DeliveryEvent.CLAIM)
    return delivery.update().values(state=state, node_id=sa.bindparam("node"))


_OF_DELIVERY = (
    "id",
    "run_id",
    "recipient_id",
    "attempt",
    "next_attempt_at",
    "reason",
    "domain_id",
    "address_id",
)


def _people(mine: sa.FromClause) -> sa.Select[Any]:
    """Return a query for `_Person`s; `mine` are the deliveries, with the columns of _OF_DELIVERY."""
    store_id: sa.ColumnElement[int] = sa.bindparam("store_id", type_=sa.Integer())
    objection = audience.objection(mine.c.recipient_id, mine.c.address_id, mine.c.domain_id, store_id, _NOW)
    return (
        sa.select(
            mine.c.id,
            mine.c.run_id,
            mine.c.recipient_id,
            mine.c.attempt,
            mine.c.next_attempt_at,
            mine.c.reason,
            domain.c.name.label("domain"),
            recipient.c.external_id,
            recipient.c.address,
            recipient.c.name,
            recipient.c.locale,
            recipient.c.attributes,
            recipient.c.time_zone,
            mine.c.domain_id,
            objection.label("objection"),
        )
        .select_from(
            mine.join(domain, domain.c.id == mine.c.domain_id).outerjoin(
                recipient, recipient.c.id == mine.c.recipient_id
            )
        )
        .order_by(mine.c.id)
    )


_CLAIM = bulk.Query(_claimed)
_DUE = bulk.Rows(_due_people)
_TAKE = bulk.Query(_taken)
_ONE = bulk.Rows(_one)
