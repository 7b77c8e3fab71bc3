"""Erasing a person: who they were goes, the counts stay.

What remains is a keyed hash of their external_id and of their addresses, by which an import knows them again
and does not bring them back.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import tokens
from mailbound.database import bulk, changes, raw_mail, token_keys
from mailbound.database.changes import Cause
from mailbound.database.tables import (
    address,
    bounce,
    change,
    delivery,
    inbound_mail,
    opt_in,
    recipient,
    segment_member,
    suppression,
)

REASON = "erased"


def key(connection: sa.Connection) -> tokens.Key | None:
    """Return the key of the hashes, or None if nobody was ever erased."""
    anybody = sa.select(suppression.c.id).where(suppression.c.address_hash.is_not(None)).limit(1)
    return token_keys.of_hashes(connection) if connection.execute(anybody).first() else None


def hash_of_id(key: tokens.Key, external_id: str) -> str:
    """Return by what an erased external_id is known again; never the same as that of an address."""
    return tokens.digest(key, f"external_id {external_id}")


def hash_of_address(key: tokens.Key, address_key: str) -> str:
    """Return by what an erased address is known again."""
    return tokens.digest(key, address_key)


def erased(connection: sa.Connection, hashes: Iterable[str]) -> set[str]:
    """Return which of `hashes` belong to what was erased."""
    query = sa.select(suppression.c.address_hash).where(
        bulk.among(connection, suppression.c.address_hash, list(hashes))
    )
    return set(connection.execute(query).scalars())


def erase(connection: sa.Connection, recipient_id: int, *, who: str, now: datetime) -> None:
    """Forget a person for ever; their deliveries and bounces are still counted, without their name."""
    person = connection.execute(sa.select(recipient).where(recipient.c.id == recipient_id)).one()
    token_keys.signing(connection, now=now)  # the first call of a database makes the key
    secret = token_keys.of_hashes(connection)
    had = _addresses(connection, person)
    _forget_mail(connection, recipient_id)
    for table in (opt_in, segment_member):
        connection.execute(table.delete().where(table.c.recipient_id == recipient_id))
    connection.execute(recipient.delete().where(recipient.c.id == recipient_id))
    hashes = [hash_of_id(secret, person.external_id)]
    for row in had:
        if not _shared(connection, row.id):
            hashes.append(hash_of_address(secret, row.key))
            _forget_address(connection, row)
    _suppress(connection, hashes, now)
    own = (change.c.recipient_id == recipient_id) & (change.c.kind == "address")
    connection.execute(change.update().where(own).values(before="", after=""))
    changes.record(
        connection,
        kind="suppression",
        before="",
        after=REASON,
        cause=Cause("command", who=who),
        now=now,
        recipient_id=recipient_id,
        address_id=person.address_id,
    )


def _addresses(connection: sa.Connection, person: Any) -> list[Any]:
    """Return the addresses that a person has and had."""
    sent_to = sa.select(delivery.c.address_id).where(delivery.c.recipient_id == person.id)
    left = sa.select(change.c.address_id).where(
        change.c.recipient_id == person.id, change.c.kind == "address"
    )
    ids = sa.union(sent_to, left.where(change.c.address_id.is_not(None)))
    query = sa.select(address).where((address.c.id == person.address_id) | address.c.id.in_(ids))
    return list(connection.execute(query.order_by(address.c.id)))


def _shared(connection: sa.Connection, address_id: int) -> bool:
    """Return whether somebody else has the address; then it is theirs and stays."""
    other = sa.select(recipient.c.id).where(recipient.c.address_id == address_id).limit(1)
    return connection.execute(other).first() is not None


def forget_late(connection: sa.Connection, bounce_id: int) -> None:
    """Clear what was said of a person only after they were erased, with the mail that said so."""
    _clear(connection, bounce.c.id == bounce_id)


def _forget_mail(connection: sa.Connection, recipient_id: int) -> None:
    """Clear what replies and reports said of a person, and drop the mail they were read from."""
    _clear(connection, bounce.c.recipient_id == recipient_id)
    spoken = delivery.update().where(delivery.c.recipient_id == recipient_id, delivery.c.reply.is_not(None))
    connection.execute(spoken.values(reply=None))


def _forget_address(connection: sa.Connection, row: Any) -> None:
    """Take away an address that nobody has any more; the row stays, for what is counted by it."""
    about = (bounce.c.address_id == row.id) | (sa.func.lower(bounce.c.address) == row.key)
    _clear(connection, about)
    connection.execute(suppression.delete().where(suppression.c.address_id == row.id))
    connection.execute(address.update().where(address.c.id == row.id).values(key=f"{REASON}:{row.id}"))


def _clear(connection: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    mails = sa.select(bounce.c.mail_id).where(which, bounce.c.mail_id.is_not(None))
    ids = list(connection.execute(mails).scalars())
    raw_mail.forget(connection, ids)
    connection.execute(inbound_mail.update().where(inbound_mail.c.id.in_(ids)).values(subject=""))
    connection.execute(bounce.update().where(which).values(address="", diagnostic="", gist=""))


def _suppress(connection: sa.Connection, hashes: Iterable[str], now: datetime) -> None:
    rows = [{"address_hash": each, "reason": REASON, "created_at": now} for each in hashes]
    connection.execute(changes.upsert(connection, suppression).on_conflict_do_nothing(), rows)
