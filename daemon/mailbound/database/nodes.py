"""Who is alive.

A node lives while it is heard of. One that is silent for a lease, by the database's clock, is given up by whoever
notices: from then on it can claim nothing, and what it had claimed is free. What it had marked is left to it until
a final dot that was under way must have been answered. A node that comes back after it was given up is told so by
its next heartbeat, and joins again as a new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mailbound.database.tables import node

LEASE = timedelta(seconds=60)
"""How long a node may be silent: many heartbeats, and longer than a database needs to come back."""

QUIET = timedelta(seconds=15)
"""Whoever was not heard of for so long missed some heartbeats: it is dead, or cannot write."""

FINAL_DOT = timedelta(minutes=12)
"""How long a node that was given up keeps what it had marked: longer than the ten minutes that a dot may take."""


def join(connection: sa.Connection, name: str, *, now: datetime) -> int:
    """Enter a node that starts now, and return its id; a restarted daemon is a new node."""
    row = {"name": name[:255], "started_at": now, "seen_at": _clock(connection)}
    return int(connection.execute(node.insert().values(row).returning(node.c.id)).scalar_one())


def beat(connection: sa.Connection, node_id: int, *, holding: Mapping[str, str] | None = None) -> int | None:
    """Say that a node is alive; return how many are, itself included, or None if it was given up.

    `holding` is what holds back each of its stores now, in words.
    """
    now = _clock(connection)
    alive = (
        node.update()
        .where(node.c.id == node_id, node.c.lost_at.is_(None))
        .values(seen_at=now, holding=dict(holding or {}))
    )
    if not connection.execute(alive).rowcount:
        return None
    heard = sa.select(sa.func.count()).where(node.c.lost_at.is_(None), node.c.seen_at >= now - LEASE)
    return int(connection.execute(heard).scalar_one())


def leave(connection: sa.Connection, node_id: int) -> None:
    """Take leave: others need not wait for a lease to do what this node did."""
    gone = node.update().where(node.c.id == node_id, node.c.lost_at.is_(None))
    connection.execute(gone.values(lost_at=_clock(connection)))


def give_up(connection: sa.Connection, *, but: int) -> Sequence[Any]:
    """Give up the nodes that are silent for a lease, and return the id, name and `seen_at` of each."""
    now = _clock(connection)
    silent = (node.c.id != but, node.c.lost_at.is_(None), node.c.seen_at < now - LEASE)
    lost = node.update().where(*silent).values(lost_at=now).returning(node.c.id, node.c.name, node.c.seen_at)
    return connection.execute(lost).all()


def lost(connection: sa.Connection, *, answered: bool = False) -> list[int]:
    """Return the nodes that left or were given up, or those whose last final dots must be answered by now."""
    query = sa.select(node.c.id).where(node.c.lost_at.is_not(None))
    if answered:
        query = query.where(node.c.lost_at < _clock(connection) - FINAL_DOT)
    return list(connection.execute(query).scalars())


def others(connection: sa.Connection, *, but: int) -> list[int]:
    """Return all nodes but one: those that a daemon finds which is alone."""
    return list(connection.execute(sa.select(node.c.id).where(node.c.id != but)).scalars())


def live(connection: sa.Connection) -> Sequence[Any]:
    """Return the nodes that are alive: their rows, the oldest first, with the time as `asked_at`."""
    now = _clock(connection)
    asked_at = sa.literal(now, node.c.seen_at.type).label("asked_at")
    alive = (node.c.lost_at.is_(None), node.c.seen_at >= now - LEASE)
    return connection.execute(sa.select(node, asked_at).where(*alive).order_by(node.c.id)).all()


def last_seen(connection: sa.Connection) -> datetime | None:
    """Return when any node was last heard of, None if the database knows of none."""
    latest: datetime | None = connection.execute(sa.select(sa.func.max(node.c.seen_at))).scalar_one()
    return latest


def forget(connection: sa.Connection, node_ids: Sequence[int]) -> None:
    """Remove nodes whose work has been taken over."""
    connection.execute(node.delete().where(node.c.id.in_(node_ids)))


def standing(node_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return whether a node was not given up, for the WHERE of what only a live one may do."""
    return sa.exists().where(node.c.id == node_id, node.c.lost_at.is_(None))


def timeline(connection: sa.Connection) -> str:
    """Return which history of its server the database has, "" for SQLite and for a server that does not say.

    A standby of PostgreSQL that takes over begins a new one. It may lack the last of what was acknowledged.
    """
    if connection.dialect.name == "sqlite":
        return ""
    asked = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"
    try:
        with connection.begin_nested():
            return str(connection.exec_driver_sql(asked).scalar_one())
    except (
        sa.exc.ProgrammingError,
        sa.exc.NotSupportedError,
    ):  # it is not ours to ask, or it has no such thing
        return ""


def _clock(connection: sa.Connection) -> datetime:
    """Return the time of the database: no two hosts have the same."""
    moment: datetime = connection.execute(sa.select(sa.func.now(type_=node.c.seen_at.type))).scalar_one()
    return moment
