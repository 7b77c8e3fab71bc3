"""The octets of kept mail: packs of what came together, and where in them each mail stands.

A pack has the number of the first mail that it was made of. It is there as long as any of its mails is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from mailbound import packing
from mailbound.database import bulk
from mailbound.database.tables import inbound_pack, inbound_raw
from mailbound.packing import Pack, Packed

JOINED = inbound_raw.join(inbound_pack, inbound_pack.c.id == inbound_raw.c.pack_id)
"""What has the octets of each mail."""


def keep(
    connection: sa.Connection,
    numbers: Sequence[int | None],
    contents: Sequence[bytes],
    packs: Iterable[Pack],
) -> None:
    """Keep mails, of each its number and its octets, as they were packed; one without a number was kept before."""
    whole, mails = [], []
    for pack in packs:
        new = [(number, contents[place]) for place in pack.mails if (number := numbers[place]) is not None]
        if not new:
            continue
        first, last = min(new)[0], max(new)[0]
        all_new = len(new) == len(pack.mails)
        whole.append((first, last, pack.octets if all_new else packing.pack(octets for _, octets in new)))
        begin = 0
        for number, octets in new:
            mails.append((number, first, begin, len(octets)))
            begin += len(octets)
    _PACK.execute(connection, whole)
    _MAIL.execute(connection, mails)


_PACK = bulk.Statement(lambda _: inbound_pack.insert(), ("id", "last_mail_id", "content"))
_MAIL = bulk.Statement(lambda _: inbound_raw.insert(), ("mail_id", "pack_id", "begin", "length"))


def find(connection: sa.Connection, mail_id: int) -> bytes | None:
    """Return the octets of a mail, or None if they are not there, or no longer."""
    query = sa.select(inbound_pack.c.content, inbound_raw.c.begin, inbound_raw.c.length).select_from(JOINED)
    row = connection.execute(query.where(inbound_raw.c.mail_id == mail_id)).one_or_none()
    return None if row is None else packing.unpack(Packed(bytes(row.content), row.begin, row.length))


def taken(connection: sa.Connection, mail_ids: Sequence[int]) -> dict[int, Packed]:
    """Return mails by their numbers; those of one pack share its octets.

    Nothing in a pack ever changes its place, so it does no harm if others of its mails are forgotten between the two
    questions.
    """
    ids = bulk.packed(connection, mail_ids)
    packs = {number: bytes(content) for number, content in _PACKS.rows(connection, ids=ids)}
    return {
        mail_id: Packed(packs[pack_id], begin, length)
        for mail_id, pack_id, begin, length in _PLACES.rows(connection, ids=ids)
        if pack_id in packs
    }


def _places(connection: sa.Connection) -> sa.Select[Any]:
    return sa.select(inbound_raw).where(bulk.listed(connection, inbound_raw.c.mail_id, "ids"))


def _packs(connection: sa.Connection) -> sa.Select[Any]:
    wanted = sa.select(inbound_raw.c.pack_id).where(bulk.listed(connection, inbound_raw.c.mail_id, "ids"))
    return sa.select(inbound_pack.c.id, inbound_pack.c.content).where(inbound_pack.c.id.in_(wanted))


_PLACES = bulk.Query(_places)
_PACKS = bulk.Query(_packs)


def forget(connection: sa.Connection, mail_ids: Collection[int]) -> int:
    """Drop the octets of mails; return of how many there were any. What is left of a pack is written anew."""
    theirs = bulk.among(connection, inbound_raw.c.mail_id, list(mail_ids))
    places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for row in connection.execute(sa.select(inbound_raw).where(theirs)):
        places[row.pack_id].append((row.begin, row.length))
    packs = bulk.among(connection, inbound_pack.c.id, list(places))
    # Whoever forgets others of the same packs waits, and sees what is left.
    connection.execute(
        sa.select(inbound_pack.c.id).where(packs).order_by(inbound_pack.c.id).with_for_update()
    )
    gone = connection.execute(inbound_raw.delete().where(theirs)).rowcount
    left = sa.exists().where(
        inbound_raw.c.mail_id.between(inbound_pack.c.id, inbound_pack.c.last_mail_id),
        inbound_raw.c.pack_id == inbound_pack.c.id,
    )
    connection.execute(inbound_pack.delete().where(packs, sa.not_(left)))
    query = sa.select(inbound_pack.c.id, inbound_pack.c.content).where(packs)
    for pack_id, content in connection.execute(query).all():
        rest = packing.blanked(bytes(content), places[pack_id])
        connection.execute(inbound_pack.update().where(inbound_pack.c.id == pack_id).values(content=rest))
    return gone
