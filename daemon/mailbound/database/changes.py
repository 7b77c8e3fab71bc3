"""The ledger: every change of an opt-in, a recipient status or a suppression, with its cause.

Whatever writes an opt-in or a status writes its line here in the same transaction, one at a time or, as an import
does, in bulk; so each value can be explained and taken back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mailbound.database import bulk
from mailbound.database.tables import change, opt_in, recipient, recipient_status
from mailbound.model import RecipientStatus, Source


class Cause(NamedTuple):
    """Why something changes: `kind` is bounce, complaint, unsubscribe, success, import or command."""

    kind: str
    bounce_id: int | None = None
    rule_version: str = ""
    who: str = ""
    undoes: int | None = None


def upsert(connection: sa.Connection | str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT for `table` that knows ON CONFLICT in a connection's dialect, or in the one named."""
    dialect = connection if isinstance(connection, str) else connection.dialect.name
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


class Wish(NamedTuple):
    """What a recipient wants of a store from now on."""

    recipient_id: int
    store_id: int
    receive: bool
    source: Source
    cause: Cause


class Standing(NamedTuple):
    """The status that an address shall have."""

    address_id: int
    status: RecipientStatus
    category: str
    until: datetime | None
    cause: Cause


def set_opt_in(
    connection: sa.Connection,
    *,
    recipient_id: int,
    store_id: int,
    receive: bool,
    source: Source,
    cause: Cause,
    now: datetime,
) -> bool:
    """Write a recipient's wish for a store, and the ledger; return whether it differs from before."""
    return bool(set_opt_ins(connection, [Wish(recipient_id, store_id, receive, source, cause)], now=now))


def set_opt_ins(connection: sa.Connection, wishes: Sequence[Wish], *, now: datetime) -> int:
    """Write the wishes of different recipients who are still there; return how many differ from before."""
    if not wishes:
        return 0
    people = {each.recipient_id for each in wishes}
    alive = there(connection, people)
    known = {
        (recipient_id, store_id): (bool(receive), source)
        for recipient_id, store_id, receive, source in _WISHES.get(
            connection, people=bulk.packed(connection, people)
        )
    }
    rows, lines = [], []
    for each in wishes:
        before, after = known.get((each.recipient_id, each.store_id)), (each.receive, each.source.value)
        if each.recipient_id not in alive or before == after:
            continue
        whose = (each.recipient_id, None, each.store_id)
        rows.append((each.recipient_id, each.store_id, *after, now))
        lines.append((now, "opt_in", *whose, wish(*before) if before else "", wish(*after), *each.cause))
    _OPT_IN.execute(connection, rows)
    _LINE.execute(connection, lines)
    return len(rows)


def set_status(
    connection: sa.Connection,
    *,
    address_id: int,
    status: RecipientStatus,
    category: str = "",
    until: datetime | None = None,
    cause: Cause,
    now: datetime,
) -> bool:
    """Write the status of an address, and the ledger; return whether it differs from before.

    An address without a row is deliverable.
    """
    return bool(set_statuses(connection, [Standing(address_id, status, category, until, cause)], now=now))


def set_statuses(connection: sa.Connection, standings: Sequence[Standing], *, now: datetime) -> int:
    """Write the status of different addresses; return how many differ from before."""
    if not standings:
        return 0
    addresses = bulk.packed(connection, [each.address_id for each in standings])
    known = {
        address_id: (status, category, bulk.moment(until))
        for address_id, status, category, until in _STATUSES.get(connection, addresses=addresses)
    }
    rows, lines = [], []
    for each in standings:
        before = known.get(each.address_id, _DELIVERABLE)
        after = (each.status.value, each.category, each.until)
        if (before[0], before[2]) == (after[0], after[2]):
            continue
        whose = (None, each.address_id, None)
        rows.append((each.address_id, *after, now, each.cause.bounce_id))
        lines.append((now, "status", *whose, standing(*before), standing(*after), *each.cause))
    _STATUS.execute(connection, rows)
    _LINE.execute(connection, lines)
    return len(rows)


def there(connection: sa.Connection, people: Collection[int]) -> set[int]:
    """Return which recipients are there; who was erased is not."""
    rows = _PEOPLE.get(connection, people=bulk.packed(connection, people)) if people else ()
    return {recipient_id for (recipient_id,) in rows}


_DELIVERABLE = (RecipientStatus.DELIVERABLE.value, "", None)

_PEOPLE = bulk.Rows(
    lambda connection: sa.select(recipient.c.id).where(bulk.listed(connection, recipient.c.id, "people"))
)
_WISHES = bulk.Rows(
    lambda connection: sa.select(
        opt_in.c.recipient_id, opt_in.c.store_id, opt_in.c.receive, opt_in.c.source
    ).where(bulk.listed(connection, opt_in.c.recipient_id, "people"))
)
_STATUSES = bulk.Rows(
    lambda connection: sa.select(
        recipient_status.c.address_id,
        recipient_status.c.status,
        recipient_status.c.category,
        recipient_status.c.until,
    ).where(bulk.listed(connection, recipient_status.c.address_id, "addresses"))
)


def _kept(connection: sa.Connection, table: sa.Table) -> sa.Insert:
    insert = upsert(connection, table)
    keys = table.primary_key.columns.keys()
    new = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=new)


_OPT_IN = bulk.Statement(
    lambda connection: _kept(connection, opt_in),
    ("recipient_id", "store_id", "receive", "source", "changed_at"),
)
_STATUS = bulk.Statement(
    lambda connection: _kept(connection, recipient_status),
    ("address_id", "status", "category", "until", "since", "bounce_id"),
)
_WHOSE = ("recipient_id", "address_id", "store_id")
_CAUSE = ("cause", "bounce_id", "rule_version", "who", "undoes")
_LINE = bulk.Statement(lambda _: change.insert(), ("at", "kind", *_WHOSE, "before", "after", *_CAUSE))


def record(
    connection: sa.Connection,
    *,
    kind: str,
    before: str,
    after: str,
    cause: Cause,
    now: datetime,
    recipient_id: int | None = None,
    address_id: int | None = None,
    domain_id: int | None = None,
    store_id: int | None = None,
) -> int:
    """Write one line of the ledger and return its id."""
    values = {
        "at": now,
        "kind": kind,
        "recipient_id": recipient_id,
        "address_id": address_id,
        "domain_id": domain_id,
        "store_id": store_id,
        "before": before,
        "after": after,
        **dict(zip(_CAUSE, cause, strict=True)),
    }
    return int(connection.execute(change.insert().values(values).returning(change.c.id)).scalar_one())


def wish(receive: object, source: str) -> str:
    """Return an opt-in as the ledger writes it."""
    return f"{'in' if receive else 'out'} ({source})"


def standing(status: str, category: str, until: datetime | None = None) -> str:
    """Return a recipient status as the ledger writes it."""
    text = f"{status} ({category})" if category else str(status)
    return f"{text} until {until.isoformat()}" if until else text
