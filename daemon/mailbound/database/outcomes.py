"""The group commit of the delivery loop: outcomes first, then marks, in one transaction.

The order matters. A connection sends its next final dot only after this is durable, so a crash leaves at most one
delivery a connection in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailbound.config import Policy
from mailbound.database import bounces, claims, deliveries, dots, recovery
from mailbound.database.bounces import Finding, Recorded
from mailbound.database.deliveries import Settlement
from mailbound.database.dots import Accepted, Written
from mailbound.database.engine import Database
from mailbound.database.tally import Place
from mailbound.lifecycle import DeliveryEvent, DeliveryState


class Ended(NamedTuple):
    """A transaction that ended: what to write about the delivery, and what the reply said if it was a failure.

    `settlement` is None where the mark was refused: the database knows best why. `resend_at` is when a delivery in
    doubt is to be sent again, or None if it stays `unknown`. An acceptance that says its `place` is written faster.
    """

    delivery_id: int
    settlement: Settlement | None
    finding: Finding | None = None
    resend_at: datetime | None = None
    place: Place | None = None


@dataclass(slots=True)
class Committed:
    """What one group commit did."""

    states: dict[int, DeliveryState] = field(default_factory=dict)  # of those that were ours to settle
    marked: set[int] = field(default_factory=set)
    recorded: dict[int, Recorded] = field(default_factory=dict)


async def write(
    database: Database,
    ended: Sequence[Ended],
    marks: Sequence[int],
    *,
    node_id: int,
    store_id: int,
    limits: Policy,
    now: datetime,
) -> Committed:
    """Commit outcomes with their effects, then marks; what is in `marked` may send its final dot afterwards.

    As long as nothing fails this is all that a run writes, and then PostgreSQL need not be told of a transaction.
    """
    asked: dict[str, Any] = {"node_id": node_id, "store_id": store_id, "now": now}
    if not all(map(_plain, ended)):
        return await database.run(commit, ended, marks, limits=limits, **asked)
    written = await database.run_alone(dots.write, dots.recall, _accepted(ended), marks, **asked)
    done = _of(written)
    if overtaken := [item for item in ended if item.delivery_id not in done.states]:
        done.states |= (await database.run(commit, overtaken, (), limits=limits, **asked)).states
    return done


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
    """Write outcomes with their effects, then marks, in one transaction."""
    asked: dict[str, Any] = {"node_id": node_id, "store_id": store_id, "now": now}
    plain = [item for item in ended if _plain(item)]
    others = [item for item in ended if not _plain(item)]
    done = Committed()
    if others:
        _settle(connection, others, done, limits=limits, **asked)
    written = _of(dots.write(connection, _accepted(plain), marks, **asked))
    done.states |= written.states
    done.marked = written.marked
    if overtaken := [item for item in plain if item.delivery_id not in done.states]:
        _settle(connection, overtaken, done, limits=limits, **asked)
    return done


def _plain(item: Ended) -> bool:
    settlement = item.settlement
    return item.place is not None and settlement is not None and settlement.event is DeliveryEvent.ACCEPT


def _accepted(ended: Sequence[Ended]) -> list[Accepted]:
    return [
        Accepted(item.delivery_id, item.place, item.settlement.reply)
        for item in ended
        if item.place is not None and item.settlement is not None
    ]


def _of(written: Written) -> Committed:
    return Committed(dict.fromkeys(written.accepted, DeliveryState.ACCEPTED), set(written.marked))


def _settle(
    connection: sa.Connection,
    ended: Sequence[Ended],
    done: Committed,
    *,
    node_id: int,
    store_id: int,
    limits: Policy,
    now: datetime,
) -> None:
    settlements = [
        item.settlement or claims.withdrawn(connection, item.delivery_id, store_id, now=now) for item in ended
    ]
    done.states |= deliveries.settle(connection, settlements, node_id=node_id, now=now)
    for item in ended:
        if item.delivery_id not in done.states:
            continue
        if item.finding is not None:
            recorded = bounces.record(connection, item.finding, limits=limits)
            if recorded is not None:
                done.recorded[item.delivery_id] = recorded
        if item.resend_at is not None and done.states[item.delivery_id] is DeliveryState.UNKNOWN:
            recovery.resend(connection, item.delivery_id, now=item.resend_at)
