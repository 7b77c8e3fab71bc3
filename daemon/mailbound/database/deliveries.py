"""Deliveries: marked, settled, given back. Every state comes from `lifecycle.advance`.

What a crash leaves: rows in `claimed` were never on the wire and go back to `queued`; rows in `sending` are in doubt
and become `unknown`; see `recovery`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailbound import lifecycle
from mailbound.database import bulk, tally
from mailbound.database.tables import address, delivery, recipient
from mailbound.lifecycle import DeliveryEvent, DeliveryState

REPLY_LIMIT = 512

PACED = "paced"
"""The reason of a queued delivery that waits for its turn in the rate of its domain."""


class Settlement(NamedTuple):
    """What became of a delivery that this node claimed."""

    delivery_id: int
    event: DeliveryEvent
    attempt: int | None = None  # None: the attempt is not counted
    next_attempt_at: datetime | None = None
    reason: str | None = None
    status: str | None = None
    reply: str | None = None


# Building a statement takes SQLAlchemy longer than running it, so those of the hot path are built once.

_IDS = sa.bindparam("ids", expanding=True, type_=delivery.c.id.type)


def settle(
    connection: sa.Connection, settlements: Sequence[Settlement], *, node_id: int, now: datetime
) -> dict[int, DeliveryState]:
    """Write what became of deliveries that `node_id` claimed; return the state of each afterwards.

    A delivery that another node took over in the meantime is left alone and missing from what is returned.
    """
    if not settlements:
        return {}
    ids = bulk.packed(connection, [settlement.delivery_id for settlement in settlements])
    rows = {row[0]: _Held(*row) for row in _HELD.get(connection, ids=ids)}
    moves = tally.Moves()
    states: dict[int, DeliveryState] = {}
    changed = []
    for settlement in settlements:
        row = rows.get(settlement.delivery_id)
        if row is None or row.node_id != node_id:
            continue
        before = DeliveryState(row.state)
        states[row.id] = after = lifecycle.advance(before, settlement.event)
        moves.move(row.run_id, row.domain_id, before, after)
        changed.append(_settled_row(connection, row, settlement, after, now=now))
    if changed:
        _SETTLED.execute(connection, rows=json.dumps(changed))
    moves.write(connection, node_id=node_id, now=now)
    return states


class _Held(NamedTuple):
    """What a settlement needs to know of a delivery; a moment is as the engine tells it."""

    id: int
    run_id: int
    domain_id: int
    state: str
    node_id: int | None
    attempt: int
    next_attempt_at: datetime | str | None
    reason: str | None
    status: str | None
    reply: str | None


def _settled_row(
    connection: sa.Connection, row: _Held, settlement: Settlement, after: DeliveryState, *, now: datetime
) -> tuple[Any, ...]:
    queued = after is DeliveryState.QUEUED
    place = row.next_attempt_at if settlement.attempt is None else now  # what was not tried keeps its own
    return (
        row.id,
        after,
        row.attempt if settlement.attempt is None else settlement.attempt,
        bulk.told(connection, (settlement.next_attempt_at or place or now) if queued else None),
        settlement.reason or (None if row.reason == PACED else row.reason),
        settlement.status or row.status,
        (settlement.reply or row.reply or "")[:REPLY_LIMIT] or None,
        bulk.told(connection, None if queued else now),
    )


def _held(connection: sa.Connection) -> sa.Select[Any]:
    return _named(connection, *_Held._fields)


def _settled(connection: sa.Connection) -> sa.Update:
    names = ("state", "attempt", "next_attempt_at", "reason", "status", "reply", "settled_at")
    types = {name: delivery.c[name].type for name in ("id", *names)}
    given = bulk.table(connection, "rows", **types)
    values = {name: given.c[name] for name in names}
    return delivery.update().where(delivery.c.id == given.c.id).values(node_id=None, **values)


_HELD = bulk.Rows(_held)
_SETTLED = bulk.Query(_settled)


class Told(NamedTuple):
    """What a report from outside said of a delivery."""

    delivery_id: int
    event: DeliveryEvent
    reason: str
    status: str
    resend_at: datetime | None = None  # one that bounces waits until then; None: it is never sent again


def report(connection: sa.Connection, told: Sequence[Told], *, now: datetime) -> dict[int, DeliveryState]:
    """Move deliveries by what reports said of them, and return the state of each afterwards, by its id."""
    if not told:
        return {}
    ids = bulk.packed(connection, [each.delivery_id for each in told])
    rows = {delivery_id: row for delivery_id, *row in _SPOKEN_OF.get(connection, ids=ids)}
    states: dict[int, DeliveryState] = {}
    moves = tally.Moves()
    changed = []
    for each in told:
        run_id, domain_id, state, reason, status, waits_until = rows[each.delivery_id]
        before = DeliveryState(state)
        states[each.delivery_id] = after = lifecycle.advance(before, each.event)
        resend_at = each.resend_at if after is DeliveryState.BOUNCED else None
        if after is not before:
            moves.move(run_id, domain_id, before, after)
            reason, status = each.reason or reason, each.status or status
        elif bulk.moment(waits_until) == resend_at:
            continue
        changed.append((each.delivery_id, after.value, reason, status, resend_at))
    _REPORTED.execute(connection, changed)
    moves.write(connection, node_id=0, now=now)
    return states


def _spoken_of(connection: sa.Connection) -> sa.Select[Any]:
    return _named(connection, "id", "run_id", "domain_id", "state", "reason", "status", "next_attempt_at")


_SPOKEN_OF = bulk.Rows(_spoken_of)
_NEW: dict[str, sa.BindParameter[Any]] = {
    name: sa.bindparam(f"new_{name}") for name in ("state", "reason", "status", "next_attempt_at")
}
_REPORTED = bulk.Statement(
    lambda _: delivery.update().where(delivery.c.id == sa.bindparam("delivery_id")).values(_NEW),
    ("delivery_id", *(parameter.key for parameter in _NEW.values())),
)


def readdress(connection: sa.Connection, delivery_id: int, *, now: datetime) -> None:
    """Let a delivery follow its recipient to a new address."""
    fresh = (
        sa.select(recipient.c.address_id, address.c.domain_id)
        .select_from(recipient.join(address, address.c.id == recipient.c.address_id))
        .join(delivery, delivery.c.recipient_id == recipient.c.id)
        .where(delivery.c.id == delivery_id, delivery.c.address_id != recipient.c.address_id)
    )
    row = connection.execute(fresh).one_or_none()
    if row is None:
        return
    old = connection.execute(sa.select(delivery).where(delivery.c.id == delivery_id)).one()
    moves = tally.Moves()
    moves.enter(old.run_id, old.domain_id, DeliveryState(old.state), -1)
    moves.enter(old.run_id, row.domain_id, DeliveryState(old.state), 1)
    moves.write(connection, node_id=0, now=now)
    values = {"address_id": row.address_id, "domain_id": row.domain_id}
    connection.execute(delivery.update().where(delivery.c.id == delivery_id).values(values))


def _named(connection: sa.Connection, *names: str) -> sa.Select[Any]:
    """Return a query for columns of those deliveries that `ids` names; they are ours until the transaction ends."""
    return (
        sa.select(*(delivery.c[name] for name in names))
        .where(bulk.listed(connection, delivery.c.id, "ids"))
        .order_by(delivery.c.id)
        .with_for_update()
    )


def lock(connection: sa.Connection, ids: Sequence[int]) -> dict[int, Any]:
    """Return deliveries by id, theirs to this transaction until its end."""
    return {row.id: row for row in connection.execute(_locked(), {"ids": list(ids)}).all()} if ids else {}


@functools.cache
def _locked() -> sa.Select[Any]:
    return sa.select(delivery).where(delivery.c.id.in_(_IDS)).order_by(delivery.c.id).with_for_update()
