"""Who gets a run: its segment's recipients, each with a delivery, queued or skipped with a reason.

Recipients who do not get it are kept too, so that `report activity` can say why, and the audience is the sum of the
states. The conditions here are used twice: when the audience is frozen, and again by the mark of each delivery.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from mailbound.database import stores, tally
from mailbound.database.tables import (
    address,
    delivery,
    domain,
    opt_in,
    recipient,
    recipient_status,
    run,
    suppression,
)
from mailbound.lifecycle import DeliveryState
from mailbound.model import RecipientStatus

CHUNK = 20_000

NOT_OPTED_IN = "not-opted-in"
UNDELIVERABLE = "undeliverable"
SUSPENDED = "suspended"
SUPPRESSED = "suppressed"
SAME_ADDRESS = "same-address"

_Id = sa.ColumnElement[int]
_Moment = sa.ColumnElement[datetime] | datetime


@dataclass(frozen=True, slots=True)
class Frozen:
    """What one call of `freeze` did."""

    queued: int
    skipped: int
    done: bool


def freeze(
    connection: sa.Connection,
    *,
    run_id: int,
    store_id: int,
    members: sa.ColumnElement[bool],
    node_id: int,
    now: datetime,
    chunk: int = CHUNK,
) -> Frozen:
    """Give the next `chunk` recipients of a run's segment a delivery; safe to repeat after a crash."""
    through = connection.execute(
        sa.select(run.c.frozen_through).where(run.c.id == run_id).with_for_update()
    ).scalar_one()
    page = (
        sa.select(recipient.c.id)
        .select_from(_people())
        .where(recipient.c.id > through, members)
        .order_by(recipient.c.id)
        .limit(chunk)
        .subquery()
    )
    last, size = connection.execute(sa.select(sa.func.max(page.c.id), sa.func.count())).one()
    if last is None:
        connection.execute(run.update().where(run.c.id == run_id).values(frozen_at=now))
        return Frozen(0, 0, done=True)
    chosen = recipient.c.id.between(through + 1, last) & members
    counts = _insert(connection, run_id=run_id, store_id=store_id, chosen=chosen, node_id=node_id, now=now)
    done = size < chunk
    connection.execute(
        run.update().where(run.c.id == run_id).values(frozen_through=last, frozen_at=now if done else None)
    )
    return Frozen(counts[DeliveryState.QUEUED], counts[DeliveryState.SKIPPED], done)


def _insert(
    connection: sa.Connection,
    *,
    run_id: int,
    store_id: int,
    chosen: sa.ColumnElement[bool],
    node_id: int,
    now: datetime,
) -> dict[DeliveryState, int]:
    person = (
        sa.select(
            recipient.c.id,
            recipient.c.address_id,
            address.c.domain_id,
            objection(recipient.c.id, recipient.c.address_id, address.c.domain_id, store_id, now).label(
                "objection"
            ),
        )
        .select_from(_people())
        .where(chosen)
        .subquery()
    )
    among_wanted = sa.func.row_number().over(
        partition_by=(person.c.address_id, person.c.objection.is_(None)), order_by=person.c.id
    )
    ranked = sa.select(person, among_wanted.label("rank")).subquery()
    reason = sa.case(
        (ranked.c.objection.isnot(None), ranked.c.objection),
        (ranked.c.rank > 1, SAME_ADDRESS),
        (_mailed_already(run_id, ranked.c.id, ranked.c.address_id), SAME_ADDRESS),
        else_=None,
    ).label("reason")
    judged = sa.select(ranked, reason).subquery()
    state = sa.case(
        (judged.c.reason.is_(None), DeliveryState.QUEUED.value), else_=DeliveryState.SKIPPED.value
    )
    rows = sa.select(
        sa.literal(run_id), judged.c.id, judged.c.address_id, judged.c.domain_id, state, judged.c.reason,
        sa.case((judged.c.reason.is_(None), sa.literal(now, delivery.c.next_attempt_at.type)), else_=None),
    ).order_by(judged.c.id)  # fmt: skip
    names = ["run_id", "recipient_id", "address_id", "domain_id", "state", "reason", "next_attempt_at"]
    insert = delivery.insert().from_select(names, rows).returning(delivery.c.domain_id, delivery.c.state)
    moves = tally.Moves()
    counts = {DeliveryState.QUEUED: 0, DeliveryState.SKIPPED: 0}
    for domain_id, name in connection.execute(insert):
        moves.enter(run_id, domain_id, DeliveryState(name))
        counts[DeliveryState(name)] += 1
    moves.write(connection, node_id=node_id, now=now)
    return counts


def _people() -> sa.FromClause:
    return recipient.join(address, address.c.id == recipient.c.address_id).join(
        domain, domain.c.id == address.c.domain_id
    )


def objection(
    recipient_id: _Id, address_id: _Id, domain_id: _Id, store_id: _Id | int, now: _Moment
) -> sa.ColumnElement[str | None]:
    """Return why a recipient gets nothing, or NULL. A dead address comes first: its bounce took the opt-in, too."""
    return sa.case(
        (_has_status(address_id, RecipientStatus.UNDELIVERABLE), UNDELIVERABLE),
        (_has_status(address_id, RecipientStatus.SUSPENDED, now), SUSPENDED),
        (sa.not_(opted_in(recipient_id, store_id)), NOT_OPTED_IN),
        (suppressed(address_id, domain_id, now), SUPPRESSED),
        else_=None,
    )


def _mailed_already(run_id: int, recipient_id: _Id, address_id: _Id) -> sa.ColumnElement[bool]:
    """Return whether someone with the same address is in an earlier chunk of the run."""
    other = recipient.alias("other")
    return sa.exists().where(
        other.c.address_id == address_id,
        other.c.id < recipient_id,
        delivery.c.recipient_id == other.c.id,
        delivery.c.run_id == run_id,
        delivery.c.state != DeliveryState.SKIPPED,
    )


def opted_in(recipient_id: _Id, store_id: _Id | int) -> sa.ColumnElement[bool]:
    """Return whether a recipient wants mail of a store.

    Their own row for the store says so, else their row for all stores; no row means no, and a `false` for all stores
    wins over everything.
    """
    row = opt_in.alias()
    # Not IN: SQLite would build a list for each recipient, who has a row or two.
    mine = (
        row.c.recipient_id == recipient_id,
        (row.c.store_id == stores.ALL_ID) | (row.c.store_id == store_id),
    )
    # All that there is must say yes, and there must be something.
    least = sa.select(sa.func.min(sa.cast(row.c.receive, sa.Integer))).where(*mine).scalar_subquery()
    return sa.func.coalesce(least, 0) == 1


def deliverable(address_id: _Id, now: _Moment) -> sa.ColumnElement[bool]:
    """Return whether an address can be mailed."""
    row = recipient_status.alias()
    dead = row.c.status == RecipientStatus.UNDELIVERABLE
    resting = (row.c.status == RecipientStatus.SUSPENDED) & (row.c.until > now)
    return ~sa.exists().where(row.c.address_id == address_id, dead | resting)


def suppressed(address_id: _Id, domain_id: _Id, now: _Moment) -> sa.ColumnElement[bool]:
    """Return whether an operator suppressed the address or its domain."""
    standing = suppression.c.until.is_(None) | (suppression.c.until > now)
    return sa.or_(
        sa.exists().where(suppression.c.address_id == address_id, standing),
        sa.exists().where(suppression.c.domain_id == domain_id, standing),
    )


def _has_status(
    address_id: _Id, status: RecipientStatus, now: _Moment | None = None
) -> sa.ColumnElement[bool]:
    row = recipient_status.alias()
    conditions = [row.c.address_id == address_id, row.c.status == status]
    if now is not None:
        conditions.append(row.c.until > now)
    return sa.exists().where(*conditions)
