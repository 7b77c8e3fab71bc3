"""The ledger: every change of an opt-in, a recipient status or a suppression, with its cause.

Whatever writes an opt-in or a status writes its line here in the same transaction, one at a time or, as an import
does, in bulk; so each value can be explained and taken back.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mailbound.database.tables import change, opt_in, recipient, recipient_status
from mailbound.model import RecipientStatus, Source


@dataclass(frozen=True, slots=True)
class Cause:
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


@dataclass(frozen=True, slots=True)
class Wish:
    """What a recipient wants of a store from now on."""

    recipient_id: int
    store_id: int
    receive: bool
    source: Source
    cause: Cause


@dataclass(frozen=True, slots=True)
class Standing:
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
    asked = {"people": [each.recipient_id for each in wishes]}
    alive = there(connection, asked["people"])
    known = {(row.recipient_id, row.store_id): row for row in connection.execute(_opt_ins(), asked)}
    rows, lines = [], []
    for each in wishes:
        before = known.get((each.recipient_id, each.store_id))
        if each.recipient_id not in alive or (
            before is not None and (before.receive, before.source) == (each.receive, each.source)
        ):
            continue
        who = {"recipient_id": each.recipient_id, "store_id": each.store_id}
        rows.append({**who, "receive": each.receive, "source": each.source, "changed_at": now})
        was = wish(before.receive, before.source) if before else ""
        lines.append(_line("opt_in", was, wish(each.receive, each.source), each.cause, now, **who))
    if rows:
        connection.execute(_kept(connection.dialect.name, opt_in), rows)
        connection.execute(change.insert(), lines)
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
    asked = {"addresses": [each.address_id for each in standings]}
    known = {row.address_id: row for row in connection.execute(_statuses(), asked)}
    rows, lines = [], []
    for each in standings:
        row = known.get(each.address_id)
        before = row.status if row else RecipientStatus.DELIVERABLE
        if before == each.status and (row is None or row.until == each.until):
            continue
        rows.append(
            {
                "address_id": each.address_id,
                "status": each.status,
                "category": each.category,
                "since": now,
                "until": each.until,
                "bounce_id": each.cause.bounce_id,
            }
        )
        was = standing(row.status, row.category, row.until) if row else str(before)
        after = standing(each.status, each.category, each.until)
        lines.append(_line("status", was, after, each.cause, now, address_id=each.address_id))
    if rows:
        connection.execute(_kept(connection.dialect.name, recipient_status), rows)
        connection.execute(change.insert(), lines)
    return len(rows)


def there(connection: sa.Connection, people: Iterable[int]) -> set[int]:
    """Return which recipients are there; who was erased is not."""
    return set(connection.execute(_people(), {"people": list(people)}).scalars())


# Building a statement takes SQLAlchemy longer than running it, so they are built once.


@functools.cache
def _people() -> sa.Select[Any]:
    wanted = sa.bindparam("people", expanding=True, type_=recipient.c.id.type)
    return sa.select(recipient.c.id).where(recipient.c.id.in_(wanted))


@functools.cache
def _opt_ins() -> sa.Select[Any]:
    wanted = sa.bindparam("people", expanding=True, type_=opt_in.c.recipient_id.type)
    return sa.select(opt_in).where(opt_in.c.recipient_id.in_(wanted))


@functools.cache
def _statuses() -> sa.Select[Any]:
    wanted = sa.bindparam("addresses", expanding=True, type_=recipient_status.c.address_id.type)
    return sa.select(recipient_status).where(recipient_status.c.address_id.in_(wanted))


@functools.cache
def _kept(dialect: str, table: sa.Table) -> sa.Insert:
    insert = upsert(dialect, table)
    keys = table.primary_key.columns.keys()
    new = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=new)


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
    values = _line(
        kind,
        before,
        after,
        cause,
        now,
        recipient_id=recipient_id,
        address_id=address_id,
        domain_id=domain_id,
        store_id=store_id,
    )
    return int(connection.execute(change.insert().values(values).returning(change.c.id)).scalar_one())


def _line(
    kind: str, before: str, after: str, cause: Cause, now: datetime, **whose: int | None
) -> dict[str, Any]:
    return {
        "at": now,
        "kind": kind,
        "recipient_id": None,
        "address_id": None,
        "domain_id": None,
        "store_id": None,
        "before": before,
        "after": after,
        "cause": cause.kind,
        "bounce_id": cause.bounce_id,
        "rule_version": cause.rule_version,
        "who": cause.who,
        "undoes": cause.undoes,
        **whose,
    }


def wish(receive: object, source: str) -> str:
    """Return an opt-in as the ledger writes it."""
    return f"{'in' if receive else 'out'} ({source})"


def standing(status: str, category: str, until: datetime | None = None) -> str:
    """Return a recipient status as the ledger writes it."""
    text = f"{status} ({category})" if category else str(status)
    return f"{text} until {until.isoformat()}" if until else text
