"""One kept mail with all that is known of it, for whoever looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.database import bounces, inbound_mail
from mailbound.database.tables import bounce
from mailbound.database.tables import inbound_mail as mail_table
from mailbound.errors import InputError


@dataclass(frozen=True, slots=True)
class Kept:
    """A mail as it was fetched, and what was made of it: its state, and its bounces, the oldest first."""

    id: int
    store_id: int
    fetched_at: datetime
    state: str
    why: str  # of a mail that was set aside
    content: bytes
    bounces: Sequence[Any]


def find(connection: sa.Connection, mail_id: int) -> Kept:
    """Return a mail with what is known of it. Raises InputError if it is not kept, or no longer."""
    content = inbound_mail.raw(connection, mail_id)
    row = connection.execute(sa.select(mail_table).where(mail_table.c.id == mail_id)).one()
    known = sa.select(bounce).where(bounce.c.mail_id == mail_id).order_by(bounce.c.id)
    found = connection.execute(known).all()
    return Kept(row.id, row.store_id, row.fetched_at, row.state, row.why or "", content, found)


def of_bounce(connection: sa.Connection, bounce_id: int) -> Kept:
    """Return the mail that a bounce came by. Raises InputError if there is no such bounce, or no such mail."""
    row = bounces.find(connection, bounce_id)
    if row.mail_id is None:
        seen = f"`mailbound bounce show {bounce_id}` says all"
        raise InputError(f"bounce {bounce_id} was a reply of our relay, so there is no mail; {seen}")
    return find(connection, row.mail_id)
