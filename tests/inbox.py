"""A database beside a mailbox: what a test of fetching needs, whichever protocol the mailbox speaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from mailbound.database import inbound_mail, schema, tables
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.inbound import Fetcher, fetcher
from world import NODE, NOW, World

MAIL = b"From: anna@example.org\r\nSubject: mail %d\r\n\r\nHello\r\n"


@contextmanager
def database_at(url: str) -> Iterator[Database]:
    """Give a new database with one store."""
    database = Database(url, checkpoints=True)
    try:
        schema.upgrade(database)
        with database.begin() as connection:
            World(connection)
        yield database
    finally:
        database.close()


def fetcher_of(database: Database, opened: Any, **more: Any) -> Fetcher:
    """Return what fetches from the mailbox that `opened` opens, and deletes what it kept."""
    parts = {
        "database": database,
        "open": opened,
        "store": "main",
        "store_id": 1,
        "poll": timedelta(hours=1),
        "delete": True,
        "budget_octets": 10**9,
        "lease": Lease(database, "fetching main", node_id=NODE),
        "arrived": lambda: None,
        "clock": lambda: NOW,
    }
    return Fetcher(fetcher.Parts(**{**parts, **more}))


def kept(database: Database) -> list[bytes]:
    """Return what is kept, in order."""
    with database.look() as connection:
        ids = connection.execute(sa.select(tables.inbound_mail.c.id).order_by("id")).scalars().all()
        return [inbound_mail.raw(connection, mail_id) for mail_id in ids]


def mails(database: Database) -> list[Any]:
    """Return the rows of what is kept, in order."""
    with database.look() as connection:
        return list(connection.execute(sa.select(tables.inbound_mail).order_by("id")))
