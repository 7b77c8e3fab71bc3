"""The ledger: every change of an opt-in, a recipient status or a suppression, with its cause.

Whatever writes an opt-in or a status writes its line here in the same transaction, one at a time or, as an import
does, in bulk; so each value can be explained and taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mailbound.database.tables import change, opt_in, recipient_status
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
    key = (opt_in.c.recipient_id == recipient_id) & (opt_in.c.store_id == store_id)
    before = connection.execute(sa.select(opt_in.c.receive, opt_in.c.source).where(key)).one_or_none()
    if before is not None and (before.receive, before.source) == (receive, source):
        return False
    values = {"receive": receive, "source": source, "changed_at": now}
    if before is None:
        connection.execute(opt_in.insert().values(recipient_id=recipient_id, store_id=store_id, **values))
    else:
        connection.execute(opt_in.update().where(key).values(values))
    was = wish(before.receive, before.source) if before else ""
    record(
        connection,
        kind="opt_in",
        before=was,
        after=wish(receive, source),
        cause=cause,
        now=now,
        recipient_id=recipient_id,
        store_id=store_id,
    )
    return True


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
    key = recipient_status.c.address_id == address_id
    row = connection.execute(sa.select(recipient_status).where(key)).one_or_none()
    before = row.status if row else RecipientStatus.DELIVERABLE
    if before == status and (row is None or row.until == until):
        return False
    values = {
        "status": status,
        "category": category,
        "since": now,
        "until": until,
        "bounce_id": cause.bounce_id,
    }
    if row is None:
        connection.execute(recipient_status.insert().values(address_id=address_id, **values))
    else:
        connection.execute(recipient_status.update().where(key).values(values))
    was = standing(row.status, row.category, row.until) if row else str(before)
    after = standing(status, category, until)
    record(connection, kind="status", before=was, after=after, cause=cause, now=now, address_id=address_id)
    return True


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
        "cause": cause.kind,
        "bounce_id": cause.bounce_id,
        "rule_version": cause.rule_version,
        "who": cause.who,
        "undoes": cause.undoes,
    }
    return int(connection.execute(change.insert().values(values).returning(change.c.id)).scalar_one())


def wish(receive: object, source: str) -> str:
    """Return an opt-in as the ledger writes it."""
    return f"{'in' if receive else 'out'} ({source})"


def standing(status: str, category: str, until: datetime | None = None) -> str:
    """Return a recipient status as the ledger writes it."""
    text = f"{status} ({category})" if category else str(status)
    return f"{text} until {until.isoformat()}" if until else text
