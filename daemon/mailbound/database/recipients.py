"""Recipients: people as the host system knows them, their wishes, and what becomes of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import address as addresses
from mailbound.database import changes
from mailbound.database.changes import Cause
from mailbound.database.tables import (
    activity,
    address,
    change,
    delivery,
    opt_in,
    recipient,
    recipient_status,
    run,
    store,
)
from mailbound.errors import InputError
from mailbound.model import RecipientStatus, Source


@dataclass(frozen=True, slots=True)
class Status:
    """Whether an address can be mailed, since when, and why."""

    status: RecipientStatus = RecipientStatus.DELIVERABLE
    category: str = ""
    since: datetime | None = None
    until: datetime | None = None


def find(connection: sa.Connection, text: str) -> Any:
    """Return the recipient of that external_id or address.

    Raises InputError if there is none, or if several people share the address.
    """
    rows = matches(connection, text)
    if not rows:
        raise InputError(f"there is no recipient {text!r}: neither an external_id nor an address is so")
    if len(rows) > 1:
        names = ", ".join(row.external_id for row in rows[:10])
        raise InputError(
            f"{len(rows)} recipients share the address {text}; say which by external_id: {names}"
        )
    return rows[0]


def matches(connection: sa.Connection, text: str) -> Sequence[Any]:
    """Return the recipient whose external_id is `text`, or else all whose address it is, with its `key`."""
    people = sa.select(recipient, address.c.key).join(address, address.c.id == recipient.c.address_id)
    named = connection.execute(people.where(recipient.c.external_id == text)).all()
    if named:
        return named
    return connection.execute(
        people.where(address.c.key == addresses.key(text)).order_by(recipient.c.id)
    ).all()


def address_id(connection: sa.Connection, text: str) -> int:
    """Return the id of the address of that recipient, or of that address though nobody has it any more.

    Raises InputError if there is none, or if people of that external_id and address differ.
    """
    for row in matches(connection, text):
        return int(row.address_id)
    found = connection.execute(sa.select(address.c.id).where(address.c.key == addresses.key(text))).scalar()
    if found is None:
        raise InputError(f"there is no recipient and no address {text!r}")
    return int(found)


def status(connection: sa.Connection, address_id: int) -> Status:
    """Return the status of an address; without a row it is deliverable."""
    row = connection.execute(
        sa.select(recipient_status).where(recipient_status.c.address_id == address_id)
    ).one_or_none()
    if row is None:
        return Status()
    return Status(RecipientStatus(row.status), row.category, row.since, row.until)


def wishes(connection: sa.Connection, recipient_id: int) -> Sequence[Any]:
    """Return a recipient's wishes: the store, receive, source and changed_at of each."""
    query = (
        sa.select(store.c.name.label("store"), opt_in.c.receive, opt_in.c.source, opt_in.c.changed_at)
        .join(store, store.c.id == opt_in.c.store_id)
        .where(opt_in.c.recipient_id == recipient_id)
        .order_by(store.c.id)
    )
    return connection.execute(query).all()


def last_changes(
    connection: sa.Connection, recipient_id: int, address_id: int, *, limit: int
) -> Sequence[Any]:
    """Return the latest lines of the ledger about a recipient or their address, the last first."""
    own = sa.select(change.c.id).where(change.c.recipient_id == recipient_id)
    shared = sa.select(change.c.id).where(change.c.address_id == address_id, change.c.recipient_id.is_(None))
    query = (
        sa.select(change, store.c.name.label("store"))
        .outerjoin(store, store.c.id == change.c.store_id)
        .where(change.c.id.in_(own.union_all(shared)))
        .order_by(change.c.id.desc())
        .limit(limit)
    )
    return connection.execute(query).all()


def last_deliveries(connection: sa.Connection, recipient_id: int, *, limit: int) -> Sequence[Any]:
    """Return a recipient's latest deliveries with the name of their activity, the last first."""
    query = (
        sa.select(delivery, activity.c.name.label("activity"), run.c.occurrence_at)
        .join(run, run.c.id == delivery.c.run_id)
        .join(activity, activity.c.id == run.c.activity_id)
        .where(delivery.c.recipient_id == recipient_id)
        .order_by(delivery.c.run_id.desc())
        .limit(limit)
    )
    return connection.execute(query).all()


def reinstate(connection: sa.Connection, address_id: int, *, who: str, now: datetime) -> tuple[bool, int]:
    """Let an address be mailed again, and give back the wishes that a hard bounce took.

    Returns whether its status changed and how many opt-ins were given back; an unsubscribe or complaint stays.
    """
    cause = Cause("command", who=who)
    changed = changes.set_status(
        connection, address_id=address_id, status=RecipientStatus.DELIVERABLE, cause=cause, now=now
    )
    taken = (
        sa.select(opt_in.c.recipient_id, opt_in.c.store_id)
        .join(recipient, recipient.c.id == opt_in.c.recipient_id)
        .where(
            recipient.c.address_id == address_id,
            opt_in.c.receive.is_(False),
            opt_in.c.source == Source.HARD_BOUNCE,
        )
    )
    rows = connection.execute(taken).all()
    for row in rows:
        changes.set_opt_in(
            connection,
            recipient_id=row.recipient_id,
            store_id=row.store_id,
            receive=True,
            source=Source.OPERATOR,
            cause=cause,
            now=now,
        )
    return changed, len(rows)
