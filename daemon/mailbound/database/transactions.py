"""One transaction, tried until it succeeds or cannot, and counted once though the answer to its commit be lost."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy as sa

from mailbound.database import bulk
from mailbound.database.health import Health
from mailbound.errors import DatabaseError, DiskFailed, MailboundError

T = TypeVar("T")
Call = Callable[[sa.Connection], T]

_PATIENCE_SECONDS = (
    60  # how long a transaction of the daemon is tried again while the database is locked or gone
)

_UNEASY_SECONDS = 5
"""How long a transaction is tried again before anybody is told."""

NUMBER = "mailbound.transaction"
"""Under this word a function may leave in `connection.info` how PostgreSQL numbers its transaction, if it asked."""

_UNSYNCED = ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")
"""After a failed fsync the kernel may forget what it could not write, and the next fsync, which finds nothing to do,
succeeds. So PostgreSQL ends and recovers from what the disk holds; and so do we."""


def persistently(once: Callable[[float], T], health: Health) -> T:
    """Return what `once` returns, tried as long as it may succeed; it is told until when that is.

    Raises DatabaseError when patience ends, and DiskFailed if a sync failed.
    """
    begun = time.monotonic()
    until = begun + _PATIENCE_SECONDS
    while True:
        try:
            return once(until)
        except sa.exc.DBAPIError as error:
            now = time.monotonic()
            if not _passing(error) or now > until:
                raise ours(error) from error
            if now - begun > _UNEASY_SECONDS:
                health.failed(str(ours(error)))
        time.sleep(random.uniform(0.05, 0.5))


def once(engine: sa.Engine, held: threading.local, call: Call[T], until: float) -> T:
    """Call in one transaction. Where the answer to COMMIT was lost, the server knows what came of it."""
    number: str | None = None
    try:
        with _held_connection(engine, held) as connection, connection.begin():
            connection.info.pop(NUMBER, None)
            result = call(connection)
            number = _number(connection)
    except sa.exc.DBAPIError as error:
        if number is None or not _passing(error) or not _committed(engine, number, until):
            raise
    return result


def alone(engine: sa.Engine, held: threading.local, call: Call[T], recall: Call[T | None], until: float) -> T:
    """Call in no transaction, for PostgreSQL makes one of a single statement. Where its answer was lost, `recall`."""
    process = 0
    try:
        with _held_connection(engine, held) as connection:
            driver: Any = connection.connection.driver_connection
            process = driver.info.backend_pid
            try:
                return call(connection)
            except sa.exc.DBAPIError:
                connection.invalidate()  # so that the server ends, too
                raise
    except sa.exc.DBAPIError as error:
        if not process or not _passing(error) or (done := _recalled(engine, process, recall, until)) is None:
            raise
        return done


@contextlib.contextmanager
def _held_connection(engine: sa.Engine, held: threading.local) -> Iterator[sa.Connection]:
    """Give the connection of this thread; after any error the next one is new."""
    connection: sa.Connection | None = getattr(held, "connection", None)
    if connection is None:
        connection = held.connection = engine.connect()
    try:
        yield connection
    except BaseException:
        held.connection = None
        connection.close()
        raise


def _number(connection: sa.Connection) -> str | None:
    """Return how PostgreSQL numbers the transaction, None if it wrote nothing. SQLite loses no answer."""
    if connection.dialect.name == "sqlite":
        return None
    if NUMBER in connection.info:
        return str(connection.info[NUMBER])
    (number,) = bulk.drive(connection, "SELECT pg_current_xact_id_if_assigned()::text").fetchone()
    return None if number is None else str(number)


def _committed(engine: sa.Engine, number: str, until: float) -> bool:
    """Return whether a transaction was committed, once it has ended and the server can be asked.

    Raises sa.exc.DBAPIError if that takes too long.
    """
    asked = sa.text("SELECT pg_xact_status(CAST(:number AS xid8))")
    while True:
        try:
            with engine.connect() as connection:
                status = connection.execute(asked, {"number": number}).scalar_one()
            if status != "in progress" or time.monotonic() > until:
                return bool(status == "committed")
        except sa.exc.DBAPIError as error:
            if not _passing(error) or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.05, 0.5))


def _recalled(engine: sa.Engine, process: int, recall: Call[T | None], until: float) -> T | None:
    """Return what `recall` returns, once the server's `process` has ended that may still have been at work.

    Raises sa.exc.DBAPIError if that takes too long.
    """
    lives = sa.text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = :process)")
    while True:
        try:
            with engine.connect() as connection:
                if (
                    time.monotonic() > until
                    or not connection.execute(lives, {"process": process}).scalar_one()
                ):
                    return recall(connection)
        except sa.exc.DBAPIError as error:
            if not _passing(error) or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.05, 0.5))


def _passing(error: sa.exc.DBAPIError) -> bool:
    """Return whether the same transaction may well succeed in a moment."""
    name = getattr(error.orig, "sqlite_errorname", "")
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    # 08 no connection, 26 a statement is to be prepared again, 40 serialization failure or deadlock, 57P0 the server is
    # going down or coming up
    return (
        error.connection_invalidated
        or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
        or sqlstate.startswith(("08", "26", "40", "57P0"))
        or (isinstance(error, sa.exc.OperationalError) and not name and not sqlstate)  # nobody listens
    )


def ours(error: sa.exc.DBAPIError) -> MailboundError:
    """Return what the rest of the program is told of an error."""
    lines = str(error.orig).splitlines()
    why = f"database: {lines[0] if lines else repr(error.orig)}"
    if getattr(error.orig, "sqlite_errorname", "") in _UNSYNCED:
        return DiskFailed(f"{why}: what was written could not be synced")
    return DatabaseError(why)
