"""The group commit of the delivery loop: outcomes first, then marks, in one transaction.

The order matters. A connection sends its next final dot only after this is durable, so a crash leaves at most one
delivery a connection in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from mailbound.database import bounces, deliveries
from mailbound.database.bounces import Finding, Limits, Recorded
from mailbound.database.deliveries import Settlement


@dataclass(frozen=True, slots=True)
class Ended:
    """A transaction that ended: what to write about the delivery, and what the reply said if it was a failure."""

    settlement: Settlement
    finding: Finding | None = None


@dataclass(slots=True)
class Committed:
    """What one group commit did."""

    marked: set[int] = field(default_factory=set)
    recorded: dict[int, Recorded] = field(default_factory=dict)


def commit(
    connection: sa.Connection,
    ended: Sequence[Ended],
    marks: Sequence[int],
    *,
    node_id: int,
    limits: Limits,
    now: datetime,
) -> Committed:
    """Write outcomes with their effects, then marks; what is in `marked` may send its final dot afterwards."""
    done = Committed()
    settled = deliveries.settle(connection, [item.settlement for item in ended], node_id=node_id, now=now)
    for item in ended:
        if item.finding is not None and item.settlement.delivery_id in settled:
            recorded = bounces.record(connection, item.finding, limits=limits)
            if recorded is not None:
                done.recorded[item.settlement.delivery_id] = recorded
    done.marked = deliveries.mark(connection, marks, node_id=node_id, now=now)
    return done
