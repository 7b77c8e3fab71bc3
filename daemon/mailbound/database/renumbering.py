"""Mails that come again under a new uid, since the mailbox counts anew (RFC 3501 §2.3.1.1, UIDVALIDITY)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import sqlalchemy as sa

from mailbound.database.inbound_mail import Arrival
from mailbound.database.tables import inbound_mail


def recognise(connection: sa.Connection, store_id: int, series: str, arrivals: Iterable[Arrival]) -> int:
    """Give kept mails of another series the uids that they have in this one; return how many there were.

    The same octets make it the same mail, for each carries when and how it came. But two that lie there side by
    side, alike as they are, stay two: a kept mail is recognised once.
    """
    # No index by hash: each mail would take four times as long to keep, for what a server does once in years.
    coming = {(arrival.uid, arrival.sha256) for arrival in arrivals}
    rows = connection.execute(
        sa.select(inbound_mail.c.id, inbound_mail.c.uid, inbound_mail.c.sha256)
        .where(inbound_mail.c.store_id == store_id, inbound_mail.c.sha256.in_({sha for _, sha in coming}))
        .order_by(inbound_mail.c.id)
    )
    former: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row.uid.startswith(f"{series}/"):
            coming.discard((row.uid, row.sha256))
        else:
            former[row.sha256].append(row.id)
    found = [(uid, former[sha].pop(0)) for uid, sha in sorted(coming) if former[sha]]
    for uid, mail_id in found:
        connection.execute(inbound_mail.update().where(inbound_mail.c.id == mail_id).values(uid=uid))
    return len(found)


def is_renumbered(connection: sa.Connection, store_id: int, series: str) -> bool:
    """Return whether mails of another series are kept, so that some of this one may be the same."""
    others = sa.select(inbound_mail.c.id).where(
        inbound_mail.c.store_id == store_id,
        sa.not_(inbound_mail.c.uid.startswith(f"{series}/", autoescape=True)),
    )
    return connection.execute(others.limit(1)).first() is not None
