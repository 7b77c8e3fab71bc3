"""The group commit of the delivery loop: outcomes first, then marks, in one transaction.

The order matters. A connection sends its next final dot only after this is durable, so a crash leaves at most one
delivery a connection in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from mailbound.config import Policy
from mailbound.database import bounces, claims, deliveries, recovery
from mailbound.database.bounces import Finding, Recorded
from mailbound.database.deliveries import Settlement
from mailbound.lifecycle import DeliveryState


class Ended(NamedTuple):
    """A transaction that ended: what to write about the delivery, and what the reply said if it was a failure.

    `settlement` is None where the mark was refused: the database knows best why. `resend_at` is when a delivery in
    doubt is to be sent again, or None if it stays `unknown`.
    """

    delivery_id: int
    settlement: Settlement | None
    finding: Finding | None = None
    resend_at: datetime | None = None


@dataclass(slots=True)
class Committed:
    """What one group commit did."""

    states: dict[int, DeliveryState] = field(default_factory=dict)  # of those that were ours to settle
    marked: set[int] = field(default_factory=set)
    recorded: dict[int, Recorded] = field(default_factory=dict)


def commit(
    connection: sa.Connection,
    ended: Sequence[Ended],
    marks: Sequence[int],
    *,
    node_id: int,
    store_id: int,
    limits: Policy,
    now: datetime,
) -> Committed:
    """Write outcomes with their effects, then marks; what is in `marked` may send its final dot afterwards."""
    done = Committed()
    settlements = [
        item.settlement or claims.withdrawn(connection, item.delivery_id, store_id, now=now) for item in ended
    ]
    done.states = deliveries.settle(connection, settlements, node_id=node_id, now=now)
    for item in ended:
        if item.delivery_id not in done.states:
            continue
        if item.finding is not None:
            recorded = bounces.record(connection, item.finding, limits=limits)
            if recorded is not None:
                done.recorded[item.delivery_id] = recorded
        if item.resend_at is not None and done.states[item.delivery_id] is DeliveryState.UNKNOWN:
            recovery.resend(connection, item.delivery_id, now=item.resend_at)
    done.marked = deliveries.mark(connection, marks, node_id=node_id, now=now)
    return done
