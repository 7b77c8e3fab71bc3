"""What a crash leaves, and what is in doubt.

A claim that a dead node held was never on the wire. What it had marked may have been sent: only the relay knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import lifecycle
from mailbound.database import deliveries, nodes, tally
from mailbound.database.tables import activity, delivery, run
from mailbound.lifecycle import DeliveryEvent, DeliveryState

_DIED = "the daemon died before the relay's reply was recorded"


def release(connection: sa.Connection, node_ids: Sequence[int], *, now: datetime) -> int:
    """Give back what lost nodes had claimed and not marked: none of it will be sent. Return how many."""
    rows = _held(connection, node_ids, DeliveryState.CLAIMED)
    _settle(connection, rows, DeliveryEvent.RELEASE, now=now)
    return len(rows)


def take_over(
    connection: sa.Connection, node_ids: Sequence[int], *, now: datetime
) -> dict[DeliveryState, int]:
    """Give back what dead nodes held, as `recover` does, and forget them."""
    counts = recover(connection, node_ids, now=now)
    nodes.forget(connection, node_ids)
    return counts


def recover(connection: sa.Connection, node_ids: Sequence[int], *, now: datetime) -> dict[DeliveryState, int]:
    """Give back what dead nodes held: claims return to the queue, what was marked is in doubt.

    What is in doubt goes where its activity wants it: back to the queue (`resend`), or it stays `unknown` (`hold`).
    """
    claimed = release(connection, node_ids, now=now)
    doubtful = _held(connection, node_ids, DeliveryState.SENDING)
    _settle(connection, doubtful, DeliveryEvent.LOSE, now=now, reply=_DIED)
    for delivery_id in _wanted_again(connection, [row.id for row in doubtful]):
        resend(connection, delivery_id, now=now)
    return {DeliveryState.QUEUED: claimed, DeliveryState.UNKNOWN: len(doubtful)}


def resend(connection: sa.Connection, delivery_id: int, *, now: datetime) -> None:
    """Put a delivery in doubt back into the queue; its Message-ID stays the same."""
    row = deliveries.lock(connection, [delivery_id])[delivery_id]
    before = DeliveryState(row.state)
    if DeliveryEvent.RESEND not in lifecycle.DELIVERY[before]:
        return
    after = lifecycle.advance(before, DeliveryEvent.RESEND)
    moves = tally.Moves()
    moves.move(row.run_id, row.domain_id, before, after)
    moves.write(connection, node_id=0, now=now)
    values = {"state": after, "node_id": None, "next_attempt_at": now, "settled_at": None}
    connection.execute(delivery.update().where(delivery.c.id == delivery_id).values(values))


def _held(connection: sa.Connection, node_ids: Sequence[int], state: DeliveryState) -> list[Any]:
    """Return the deliveries that nodes hold in `state`, ours until the transaction ends."""
    theirs = sa.select(delivery.c.id).where(
        delivery.c.state == state,
        delivery.c.node_id.in_(node_ids),
    )
    rows = deliveries.lock(connection, list(connection.execute(theirs).scalars()))
    return [row for row in rows.values() if row.state == state and row.node_id in node_ids]


def _settle(
    connection: sa.Connection,
    rows: Iterable[Any],
    event: DeliveryEvent,
    *,
    now: datetime,
    reply: str | None = None,
) -> None:
    by_node: defaultdict[int, list[deliveries.Settlement]] = defaultdict(list)
    for row in rows:
        by_node[row.node_id].append(deliveries.Settlement(row.id, event, reply=reply))
    for node_id, settlements in by_node.items():
        deliveries.settle(connection, settlements, node_id=node_id, now=now)


def _wanted_again(connection: sa.Connection, ids: Sequence[int]) -> list[int]:
    """Return those deliveries whose activity has what is in doubt sent again."""
    query = (
        sa.select(delivery.c.id)
        .join(run, run.c.id == delivery.c.run_id)
        .join(activity, activity.c.id == run.c.activity_id)
        .where(delivery.c.id.in_(ids), activity.c.in_doubt == "resend")
        .order_by(delivery.c.id)
    )
    return list(connection.execute(query).scalars())
