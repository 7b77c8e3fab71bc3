"""Deliveries in doubt: no reply to the final dot came, and their activity wants an operator to say what became of them.

A report may still tell: then it has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import lifecycle
from mailbound.database import deliveries, recovery, runs, tally
from mailbound.database.tables import activity, delivery, recipient, run
from mailbound.database.tables import tally as tally_table
from mailbound.errors import InputError
from mailbound.lifecycle import DeliveryEvent, DeliveryState, RunEvent, RunState

_UNDER_WAY = (RunState.SENDING, RunState.PAUSED, RunState.HALTED)


def found(connection: sa.Connection, *, activity_id: int | None = None) -> Sequence[Any]:
    """Return the deliveries in doubt, of one activity or of all, the earliest first."""
    query = (
        sa.select(
            delivery.c.id,
            delivery.c.run_id,
            activity.c.name.label("activity"),
            recipient.c.external_id,
            recipient.c.address,
            delivery.c.settled_at,
            delivery.c.attempt,
            delivery.c.reply,
            activity.c.store_id,
            run.c.key_id,
            run.c.day,
        )
        .join(run, run.c.id == delivery.c.run_id)
        .join(activity, activity.c.id == run.c.activity_id)
        .outerjoin(recipient, recipient.c.id == delivery.c.recipient_id)
        .where(delivery.c.state == DeliveryState.UNKNOWN, _exceptional())
        .order_by(delivery.c.id)
    )
    if activity_id is not None:
        query = query.where(run.c.activity_id == activity_id)
    return connection.execute(query).all()


def _exceptional() -> sa.ColumnElement[bool]:
    """Say again what `state` implies, so that the partial index is used."""
    common = ("queued", "claimed", "sending", "accepted", "delivered")
    return delivery.c.state.not_in(common)


def counts(connection: sa.Connection) -> Sequence[Any]:
    """Return how many deliveries are in doubt, by activity."""
    total = sa.func.sum(tally_table.c.count)
    query = (
        sa.select(activity.c.name, total.label("deliveries"))
        .join(run, run.c.activity_id == activity.c.id)
        .join(tally_table, tally_table.c.run_id == run.c.id)
        .where(tally_table.c.outcome == DeliveryState.UNKNOWN)
        .group_by(activity.c.name)
        .having(total > 0)
        .order_by(activity.c.name)
    )
    return connection.execute(query).all()


def was_sent(connection: sa.Connection, ids: Sequence[int], *, who: str, now: datetime) -> int:
    """Count deliveries as accepted; return how many were still in doubt."""
    rows = _in_doubt(connection, ids)
    moves = tally.Moves()
    after = lifecycle.advance(DeliveryState.UNKNOWN, DeliveryEvent.ACCEPT)
    for row in rows:
        moves.move(row.run_id, row.domain_id, DeliveryState.UNKNOWN, after)
    moves.write(connection, node_id=0, now=now)
    values = {"state": after, "settled_at": now, "reply": f"{who} says that it was sent"}
    connection.execute(delivery.update().where(delivery.c.id.in_([row.id for row in rows])).values(values))
    return len(rows)


def send_again(connection: sa.Connection, ids: Sequence[int], *, now: datetime) -> int:
    """Put deliveries back into the queue, and let their runs send again; return how many were still in doubt.

    Their Message-IDs stay the same. Raises InputError if a run cannot send any more.
    """
    rows = _in_doubt(connection, ids)
    for run_id in sorted({row.run_id for row in rows}):
        _let_send(connection, run_id, now=now)
    for row in rows:
        recovery.resend(connection, row.id, now=now)
    return len(rows)


def _let_send(connection: sa.Connection, run_id: int, *, now: datetime) -> None:
    its = runs.find(connection, run_id)
    if its.expires_at is not None and its.expires_at <= now:
        raise InputError(
            f"run {run_id} of {its.activity} expired at {its.expires_at:%Y-%m-%d %H:%M} UTC; plan another"
        )
    if its.state in _UNDER_WAY:
        return
    if its.state is not RunState.SENT:
        raise InputError(f"run {run_id} of {its.activity} is {its.state}, and sends no more")
    others = [each for each in runs.of_activity(connection, its.activity_id) if each.state in _UNDER_WAY]
    if others:
        raise InputError(f"run {others[0].id} of {its.activity} is {others[0].state}; wait for its end")
    runs.move(connection, run_id, RunEvent.REOPEN, now=now)


def _in_doubt(connection: sa.Connection, ids: Sequence[int]) -> list[Any]:
    rows = deliveries.lock(connection, ids).values()
    return [row for row in rows if row.state == DeliveryState.UNKNOWN]
