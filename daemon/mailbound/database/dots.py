"""What the final dots of all connections ask of the database: the last deliveries accepted, the next ones marked.

Nearly all that is written while a run sends is written here, so it is done in as few statements as possible. PostgreSQL
is asked once, and commits with that. SQLite gives up Python's lock for each row that it hands out, and to get that back
takes as long as the event loop likes: it hands out none, for as a rule all that was asked for has changed, and their
number says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from mailbound import lifecycle, tokens
from mailbound.database import audience, bulk, prepared, tables, tally, transactions
from mailbound.database.deliveries import PACED, REPLY_LIMIT
from mailbound.database.tables import activity, delivery, recipient, run
from mailbound.database.tally import Place
from mailbound.lifecycle import DeliveryEvent, DeliveryState, RunState

_SENDING = lifecycle.advance(DeliveryState.CLAIMED, DeliveryEvent.MARK)
_ACCEPTED = lifecycle.advance(_SENDING, DeliveryEvent.ACCEPT)


class Accepted(NamedTuple):
    """A marked delivery that the relay took."""

    delivery_id: int
    place: Place
    reply: str | None


class Written(NamedTuple):
    """What was written: the deliveries that were ours to settle, and those whose final dot may go out now."""

    accepted: Collection[int] = ()
    marked: Collection[int] = ()


def write(
    connection: sa.Connection,
    accepted: Sequence[Accepted],
    marks: Sequence[int],
    *,
    node_id: int,
    store_id: int,
    now: datetime,
) -> Written:
    """Settle what the relay accepted, then mark deliveries of a store `sending`.

    What is not in the answer is as it was. An acceptance is missing if a report overtook it, or another node; a mark,
    if its delivery is claimed by nobody, its run no longer sends, or its recipient changed their mind, status or
    address in the meantime: whoever asked must not send the final dot.
    """
    replies = {each.delivery_id: each.reply and each.reply[:REPLY_LIMIT] for each in accepted}
    ids = list(dict.fromkeys(marks))
    if not replies and not ids:
        return Written()
    if connection.dialect.name == "postgresql":
        return _write_at_once(connection, replies, ids, node_id=node_id, store_id=store_id, now=now)
    settled: Collection[int] = ()
    if replies:
        asked = {"replies": json.dumps(replies), "node": node_id, "now": now}
        settled = _changed(connection, _ACCEPT, _ACCEPTED_NOW, list(replies), **asked)
        places = [each.place for each in accepted if each.delivery_id in settled]
        tally.shift(connection, places, before=_SENDING, after=_ACCEPTED, node_id=node_id, now=now)
    marked: Collection[int] = ()
    if ids:
        asked = {"ids": json.dumps(ids), "node": node_id, "store": store_id, "now": now}
        marked = _changed(connection, _MARK, _MARKED_NOW, ids, **asked)
    return Written(settled, marked)


def recall(
    connection: sa.Connection,
    accepted: Sequence[Accepted],
    marks: Sequence[int],
    *,
    node_id: int,
    store_id: int,  # noqa: ARG001 - it is asked as `write` was
    now: datetime,
) -> Written | None:
    """Return what `write` did that was asked the same, to be told by the rows; None if that was nothing."""
    ids = [each.delivery_id for each in accepted]
    settled = [found for (found,) in _ACCEPTED_THEN.rows(connection, ids=ids, now=now)]
    marked = [found for (found,) in _MARKED_THEN.rows(connection, ids=list(marks), node=node_id, now=now)]
    return Written(settled, marked) if settled or marked else None


# --- SQLite ------------------------------------------------------------------------------------------------


def _changed(
    connection: sa.Connection, update: bulk.Query, changed: bulk.Query, named: Sequence[int], **asked: Any
) -> Collection[int]:
    """Return which of the `named` an update changed; `changed` finds those that look as it left them."""
    count = update.count(connection, **asked)
    if count in {0, len(named)}:
        return named if count else ()
    found: list[int] = json.loads(changed.scalar(connection, ids=json.dumps(named), now=asked["now"]))
    if len(found) != count:
        raise RuntimeError(f"{count} deliveries were changed, {len(found)} look so")
    return found


def _accept(connection: sa.Connection) -> sa.Update:
    given = bulk.mapping(connection, "replies", delivery.c.id.type, delivery.c.reply.type)
    return _accepting(given.c.key, given.c.value)


def _mark(connection: sa.Connection) -> sa.Update:
    return _marking().where(bulk.listed(connection, delivery.c.id, "ids"))


def _accepted_now(connection: sa.Connection) -> sa.Select[Any]:
    return sa.select(sa.func.json_group_array(delivery.c.id)).where(_looks_accepted(connection))


def _marked_now(connection: sa.Connection) -> sa.Select[Any]:
    return sa.select(sa.func.json_group_array(delivery.c.id)).where(_looks_marked(connection))


# --- PostgreSQL --------------------------------------------------------------------------------------------


def _write_at_once(
    connection: sa.Connection,
    replies: dict[int, str | None],
    ids: list[int],
    *,
    node_id: int,
    store_id: int,
    now: datetime,
) -> Written:
    accepted, marked, number = _WRITE.row(
        connection,
        accepted=prepared.array(replies),
        replies=prepared.array(replies.values()),
        before=tally.outcome(_SENDING),
        after=tally.outcome(_ACCEPTED),
        ids=prepared.array(ids),
        node=node_id,
        store=store_id,
        day=tokens.day_number(now),
        now=now,
    )
    connection.info[transactions.NUMBER] = number
    return Written(prepared.numbers(accepted), prepared.numbers(marked))


def _write(connection: sa.Connection) -> sa.Select[Any]:
    given = (
        sa.func.unnest(_array("accepted", sa.BigInteger()), _array("replies", sa.Text()))
        .table_valued(sa.column("id", sa.BigInteger()), sa.column("reply", sa.Text()), name="given")
        .render_derived()
    )
    accepted = (
        _accepting(given.c.id, given.c.reply)
        .returning(delivery.c.id, delivery.c.run_id, delivery.c.domain_id)
        .cte("accepted")
    )
    ways = tally.shares("before", "after")
    place = (accepted.c.run_id, accepted.c.domain_id, ways.c.outcome)
    day, node = (sa.bindparam(name, type_=tables.tally.c[column].type) for name, column in _TALLIED)
    moves = (
        sa.select(*place, day, node, sa.func.sum(ways.c.sign))
        .select_from(accepted.join(ways, sa.true()))
        .group_by(*place)
        .order_by(*place)  # so that two writers never wait for each other
    )
    tallied = tally.adding(connection, moves).cte("tallied")
    marked = (
        _marking().where(bulk.listed(connection, delivery.c.id, "ids")).returning(delivery.c.id).cte("marked")
    )
    ids = (sa.func.array(sa.select(each.c.id).scalar_subquery()) for each in (accepted, marked))
    number = sa.cast(sa.func.pg_current_xact_id(), sa.Text())
    return sa.select(*ids, number).add_cte(tallied)


_TALLIED = (("day", "day"), ("node", "node_id"))


def _array(name: str, type_: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(sa.bindparam(name, type_=sa.types.NullType()), ARRAY(type_))


def _accepted_then(connection: sa.Connection) -> sa.Select[Any]:
    return sa.select(delivery.c.id).where(_looks_accepted(connection))


def _marked_then(connection: sa.Connection) -> sa.Select[Any]:
    return sa.select(delivery.c.id).where(_looks_marked(connection), _OURS)


# --- both --------------------------------------------------------------------------------------------------

_NOW = sa.bindparam("now", type_=delivery.c.marked_at.type)
_NODE = sa.bindparam("node", type_=delivery.c.node_id.type)
_STORE: sa.BindParameter[int] = sa.bindparam("store", type_=activity.c.store_id.type)
# Not by the index on the node: each row is named.
_OURS = sa.func.coalesce(delivery.c.node_id, 0) == _NODE


def _accepting(delivery_id: sa.ColumnElement[int], reply: sa.ColumnElement[str]) -> sa.Update:
    return (
        delivery.update()
        .where(delivery.c.id == delivery_id, delivery.c.state == _SENDING, _OURS)
        .values(
            state=_ACCEPTED,
            node_id=None,
            next_attempt_at=None,
            reason=sa.func.nullif(delivery.c.reason, PACED),
            reply=sa.func.coalesce(reply, delivery.c.reply),
            settled_at=_NOW,
        )
    )


def _marking() -> sa.Update:
    sends = sa.exists().where(run.c.id == delivery.c.run_id, run.c.state == RunState.SENDING)
    same_address = sa.exists().where(
        recipient.c.id == delivery.c.recipient_id, recipient.c.address_id == delivery.c.address_id
    )
    return (
        delivery.update()
        .where(
            sa.or_(*(delivery.c.state == state for state in lifecycle.sources(DeliveryEvent.MARK))),
            _OURS,
            sends,
            audience.opted_in(delivery.c.recipient_id, _STORE),
            audience.deliverable(delivery.c.address_id, _NOW),
            sa.not_(audience.suppressed(delivery.c.address_id, delivery.c.domain_id, _NOW)),
            same_address,
        )
        .values(state=_SENDING, attempt=delivery.c.attempt + 1, marked_at=_NOW)
    )


def _looks_accepted(connection: sa.Connection) -> sa.ColumnElement[bool]:
    """Return whether a delivery is one of `ids` and as an acceptance of this moment left it."""
    return sa.and_(
        bulk.listed(connection, delivery.c.id, "ids"),
        delivery.c.state == _ACCEPTED,
        delivery.c.settled_at == _NOW,
        delivery.c.node_id.is_(None),
    )


def _looks_marked(connection: sa.Connection) -> sa.ColumnElement[bool]:
    """Return whether a delivery is one of `ids` and as a mark of this moment left it."""
    return sa.and_(
        bulk.listed(connection, delivery.c.id, "ids"),
        delivery.c.state == _SENDING,
        delivery.c.marked_at == _NOW,
    )


_ACCEPT, _ACCEPTED_NOW = bulk.Query(_accept), bulk.Query(_accepted_now)
_MARK, _MARKED_NOW = bulk.Query(_mark), bulk.Query(_marked_now)
_WRITE = prepared.Prepared("dots", _write)
_ACCEPTED_THEN, _MARKED_THEN = bulk.Query(_accepted_then), bulk.Query(_marked_then)
