"""What a crash leaves, and what is in doubt.

A claim that a dead node held was never on the wire. What it had marked may have been sent: only the relay knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from mailbound import lifecycle
from mailbound.database import deliveries, tally
from mailbound.database.tables import activity, delivery, run
from mailbound.lifecycle import DeliveryEvent, DeliveryState


def recover(connection: sa.Connection, node_ids: Iterable[int], *, now: datetime) -> dict[DeliveryState, int]:
    """Give back what dead nodes held: claims return to the queue, what was marked is in doubt.

    What is in doubt goes where its activity wants it: back to the queue (`resend`), or it stays `unknown` (`hold`).
    """
    held = (
        sa.select(delivery.c.id, delivery.c.state, delivery.c.node_id, activity.c.in_doubt)
        .select_from(
            delivery.join(run, run.c.id == delivery.c.run_id).join(
                activity, activity.c.id == run.c.activity_id
            )
        )
        .where(
            delivery.c.state.in_((DeliveryState.CLAIMED.value, DeliveryState.SENDING.value)),
            delivery.c.node_id.in_(tuple(node_ids)),
        )
    )
    counts = {DeliveryState.QUEUED: 0, DeliveryState.UNKNOWN: 0}
    for row in connection.execute(held).all():
        if row.state == DeliveryState.CLAIMED:
            release = deliveries.Settlement(row.id, DeliveryEvent.RELEASE)
            deliveries.settle(connection, [release], node_id=row.node_id, now=now)
            counts[DeliveryState.QUEUED] += 1
        else:
            lost = deliveries.Settlement(
                row.id, DeliveryEvent.LOSE, reply="the daemon died before the relay's reply was recorded"
            )
            deliveries.settle(connection, [lost], node_id=row.node_id, now=now)
            counts[DeliveryState.UNKNOWN] += 1
            if row.in_doubt == "resend":
                resend(connection, row.id, now=now)
    return counts


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
