"""A database beside a mailbox: what tests of fetching and reading need, whichever protocol the mailbox speaks."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from mailbound import config, packing, reading
from mailbound.bounds import Unreadable
from mailbound.database import inbound_mail, schema, tables
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival
from mailbound.database.leases import Lease
from mailbound.inbound import Fetcher, Reader, Recorder, fetcher, recorder
from mailbound.inbound.findings import Arrived, Said
from mailbound.reading import Report
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
        "host": "mail.example.org",
        "account": "bounces",
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
        ids = connection.execute(sa.select(tables.inbound_raw.c.mail_id).order_by("mail_id")).scalars().all()
        return [inbound_mail.raw(connection, mail_id) for mail_id in ids]


def mails(database: Database) -> list[Any]:
    """Return the rows of what is kept, in order."""
    with database.look() as connection:
        return list(connection.execute(sa.select(tables.inbound_mail).order_by("id")))


def read_or_die(raw: bytes) -> Report:
    """Read a mail in a worker, unless it holds words that kill the worker or hold it up for ever."""
    if b"die!" in raw:
        os._exit(1)
    if b"hang!" in raw:
        threading.Event().wait()
    if b"burst!" in raw:
        raise MemoryError
    if b"devour!" in raw:
        bytearray(1 << 31)
    return reading.read(raw)


async def read(reader: Reader, content: bytes) -> Said:
    """Return what one mail says. Raises Unreadable if it is more than the worker can bear."""
    (outcome,) = await reader.read_all([(packing.alone(content), Arrived(None, 1, NOW))], {})
    if isinstance(outcome, Unreadable):
        raise outcome
    return outcome


@asynccontextmanager
async def recording(database: Database, *, seconds: float = 10.0) -> AsyncIterator[tuple[Recorder, Reader]]:
    """Give a recorder whose reader may take so long for a mail, and heeds the words of `read_or_die`."""
    reader = Reader(seconds=seconds, read=read_or_die)
    parts = recorder.Parts(
        database=database,
        reader=reader,
        limits=config.Policy(),
        keep_for=timedelta(days=90),
        lease=Lease(database, "reading", node_id=NODE),
        clock=lambda: NOW,
    )
    try:
        yield Recorder(parts), reader
    finally:
        reader.close()


def arrive(database: Database, *contents: bytes, prefix: str = "") -> None:
    """Keep some mails as if they had been fetched; their uids begin with `prefix`."""
    with database.begin() as connection:
        arrivals = [
            Arrival(f"{prefix}uid-{number}", content, len(content), truncated=False)
            for number, content in enumerate(contents)
        ]
        assert inbound_mail.keep(connection, 1, arrivals, now=NOW) == len(contents)


async def record_all(one: Recorder, database: Database) -> None:
    """Read until nothing is new."""
    unread = sa.select(tables.inbound_mail.c.id).where(tables.inbound_mail.c.state == "new")
    while await database.read(lambda connection: connection.execute(unread).first()):
        await one.record()
