"""Who is alive, and the keys that all of them sign with."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

import sqlalchemy as sa

from mailbound import tokens
from mailbound.database import changes
from mailbound.database.tables import node, token_key

LEASE = timedelta(minutes=15)
"""How long a silent node keeps what it claimed: longer than the ten minutes that a final dot may take."""


def join(connection: sa.Connection, name: str, *, now: datetime) -> int:
    """Enter a node that starts now, and return its id; a restarted daemon is a new node."""
    row = node.insert().values(name=name[:255], started_at=now, seen_at=now).returning(node.c.id)
    return int(connection.execute(row).scalar_one())


def beat(connection: sa.Connection, node_id: int) -> None:
    """Say that a node is alive, by the database's clock."""
    connection.execute(node.update().where(node.c.id == node_id).values(seen_at=_clock(connection)))


def dead(connection: sa.Connection, *, alone: bool, but: int) -> list[int]:
    """Return the nodes whose work may be taken over: all others if we are alone, else those silent for a lease."""
    query = sa.select(node.c.id).where(node.c.id != but)
    if not alone:
        query = query.where(node.c.seen_at < _clock(connection) - LEASE)
    return list(connection.execute(query).scalars())


def forget(connection: sa.Connection, node_ids: list[int]) -> None:
    """Remove nodes whose work has been taken over."""
    connection.execute(node.delete().where(node.c.id.in_(node_ids)))


def keys(connection: sa.Connection) -> dict[int, tokens.Key]:
    """Return all signing keys by id; retired ones still verify."""
    return {row.id: tokens.Key(row.id, bytes(row.secret)) for row in connection.execute(sa.select(token_key))}


def signing_key(connection: sa.Connection, *, now: datetime) -> tokens.Key:
    """Return the key that new tokens are signed with; the first call of a database makes one."""
    first = {"id": 0, "secret": secrets.token_bytes(32), "created_at": now}
    connection.execute(changes.upsert(connection, token_key).values(first).on_conflict_do_nothing())
    newest = (
        sa.select(token_key).where(token_key.c.retired_at.is_(None)).order_by(token_key.c.created_at.desc())
    )
    row = connection.execute(newest.limit(1)).one()
    return tokens.Key(row.id, bytes(row.secret))


def _clock(connection: sa.Connection) -> datetime:
    moment: datetime = connection.execute(sa.select(sa.func.now(type_=node.c.seen_at.type))).scalar_one()
    return moment
