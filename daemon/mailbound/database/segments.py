"""Segments: a condition over recipients, or a fixed list of them, under a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import address as addresses
from mailbound import segment as conditions
from mailbound.database import audience, bulk, changes
from mailbound.database.tables import address, domain, recipient, segment, segment_member
from mailbound.errors import InputError

_BEING_FILLED = " (being filled)"
_PAGE = 1000
_LONGEST_NAME = 64 - len(_BEING_FILLED)


def create(connection: sa.Connection, name: str, condition: str, *, now: datetime) -> int:
    """Keep a condition under a name, and return the segment's id.

    Raises InputError if the name is taken or cannot be one, or if the condition is not allowed, with the position.
    """
    _check_name(connection, name)
    conditions.parse(condition)
    return _insert(connection, name, condition, now)


def begin_list(connection: sa.Connection, name: str, *, now: datetime) -> int:
    """Begin a fixed list and return its id; nobody sees it under its name before `end_list`.

    What a crash left half filled is begun anew. Raises InputError if the name is taken.
    """
    _check_name(connection, name)
    left = sa.select(segment.c.id).where(segment.c.name == name + _BEING_FILLED)
    for segment_id in connection.execute(left).scalars().all():
        forget(connection, segment_id)
    return _insert(connection, name + _BEING_FILLED, None, now)


def add(connection: sa.Connection, segment_id: int, names: Sequence[str]) -> set[str]:
    """Put recipients into a list by their external_id or else their address; return the names nobody has.

    Who is in it already stays in it. An address means all who share it.
    """
    by_id = _find(connection, recipient.c.external_id, names)
    keys = {name: addresses.key(name) for name in names if name not in by_id}
    by_key = _find(connection, address.c.key, set(keys.values()))
    found = {each for ids in (*by_id.values(), *by_key.values()) for each in ids}
    _ADD.execute(connection, [(segment_id, each) for each in sorted(found)])
    return {name for name, key in keys.items() if key not in by_key}


def end_list(connection: sa.Connection, segment_id: int, name: str) -> None:
    """Give a filled list its name."""
    connection.execute(segment.update().where(segment.c.id == segment_id).values(name=name))


def forget(connection: sa.Connection, segment_id: int) -> None:
    """Remove a segment and its list."""
    connection.execute(segment_member.delete().where(segment_member.c.segment_id == segment_id))
    connection.execute(segment.delete().where(segment.c.id == segment_id))


def find(connection: sa.Connection, name: str) -> Any:
    """Return the segment of that name. Raises InputError if there is none."""
    row = connection.execute(sa.select(segment).where(segment.c.name == name)).one_or_none()
    if row is None:
        raise InputError(f"there is no segment {name!r}; `mailbound segment list` shows those there are")
    return row


def everything(connection: sa.Connection) -> Sequence[Any]:
    """Return all segments, the newest first."""
    return connection.execute(sa.select(segment).order_by(segment.c.id.desc())).all()


def members(row: Any) -> sa.ColumnElement[bool]:
    """Return whether a recipient belongs to the segment of that row, for a query over `people()`.

    Raises InputError if its condition is not allowed any more.
    """
    if row.condition is not None:
        return conditions.parse(row.condition)
    listed = (segment_member.c.segment_id == row.id) & (segment_member.c.recipient_id == recipient.c.id)
    return sa.exists().where(listed)


def members_of(connection: sa.Connection, segment_id: int) -> sa.ColumnElement[bool]:
    """Return whether a recipient belongs to the segment of that id, for a query over `people()`."""
    return members(connection.execute(sa.select(segment).where(segment.c.id == segment_id)).one())


def people() -> sa.FromClause:
    """Return the tables that a condition may speak of."""
    return recipient.join(address, address.c.id == recipient.c.address_id).join(
        domain, domain.c.id == address.c.domain_id
    )


def count(connection: sa.Connection, row: Any) -> int:
    """Return how many recipients belong to a segment now."""
    query = sa.select(sa.func.count()).select_from(people()).where(members(row))
    return int(connection.execute(query).scalar_one())


def count_opted_in(connection: sa.Connection, row: Any, store_id: int) -> int:
    """Return how many of a segment want mail of a store."""
    wanted = audience.opted_in(recipient.c.id, store_id)
    query = sa.select(sa.func.count()).select_from(people()).where(members(row), wanted)
    return int(connection.execute(query).scalar_one())


def sample(connection: sa.Connection, row: Any, *, limit: int) -> Sequence[Any]:
    """Return the first recipients of a segment, with the name of their `domain`."""
    query = sa.select(recipient, domain.c.name.label("domain")).select_from(people()).where(members(row))
    return connection.execute(query.order_by(recipient.c.id).limit(limit)).all()


def each(connection: sa.Connection, row: Any, *, limit: int | None = None) -> Iterator[Any]:
    """Yield the recipients of a segment in order, at most `limit`, with never more than a page of them in memory."""
    after, left = 0, limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page = sa.select(recipient).select_from(people()).where(members(row), recipient.c.id > after)
        rows = connection.execute(page.order_by(recipient.c.id).limit(size)).all()
        yield from rows
        if len(rows) < size:
            return
        after = rows[-1].id
        left = None if left is None else left - size


def _check_name(connection: sa.Connection, name: str) -> None:
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise InputError(f"a segment's name has 1 to {_LONGEST_NAME} printable characters")
    if connection.execute(sa.select(segment.c.id).where(segment.c.name == name)).first():
        raise InputError(f"there is a segment {name!r} already; choose another name")


def _insert(connection: sa.Connection, name: str, condition: str | None, now: datetime) -> int:
    values = {"name": name, "condition": condition, "created_at": now}
    return int(connection.execute(segment.insert().values(values).returning(segment.c.id)).scalar_one())


def _find(connection: sa.Connection, column: sa.Column[str], values: Iterable[str]) -> dict[str, list[int]]:
    """Return the recipients for each of `values` that somebody has."""
    wanted = list(values)
    query = (
        sa.select(column, recipient.c.id)
        .select_from(recipient.join(address, address.c.id == recipient.c.address_id))
        .where(bulk.among(connection, column, wanted))
    )
    found: dict[str, list[int]] = {}
    for row in connection.execute(query).all():
        found.setdefault(row[0], []).append(row[1])
    return found


_ADD = bulk.Statement(
    lambda connection: changes.upsert(connection, segment_member).on_conflict_do_nothing(),
    ("segment_id", "recipient_id"),
)
