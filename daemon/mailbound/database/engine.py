"""The database: one writer at a time, transactions as plain functions over a connection.

SQLite runs in WAL mode with `synchronous = FULL`, so that what was committed survives a power cut. Only the daemon
checkpoints (`checkpoints=True`): SQLite before 3.51.3 can corrupt a WAL that two connections reset at once.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from mailbound.database import bulk
from mailbound.database.health import Health
from mailbound.database.threads import Threads
from mailbound.errors import DatabaseError, DiskFailed, InputError, MailboundError

P = ParamSpec("P")
T = TypeVar("T")

_BUSY_SECONDS = 10
_PATIENCE_SECONDS = (
    60  # how long a transaction of the daemon is tried again while the database is locked or gone
)

_UNEASY_SECONDS = 5
"""How long a transaction is tried again before anybody is told."""

NUMBER = "mailbound.transaction"
"""Under this word a function may leave in `connection.info` how PostgreSQL numbers its transaction, if it asked."""

_IDLE_SECONDS = 30
"""How long a transaction may do nothing: a daemon only waits for statements, never in between."""

_UNSYNCED = ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")
"""After a failed fsync the kernel may forget what it could not write, and the next fsync, which finds nothing to do,
succeeds. So PostgreSQL ends and recovers from what the disk holds; and so do we."""

_TCP = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
"""A server that cannot be reached any more is found out within half a minute, whatever we wait for."""


class Database:
    """A database and the threads that speak to it."""

    def __init__(self, url: str, *, checkpoints: bool = False) -> None:
        """Open the database at `url`. Raises InputError if the URL is of no use."""
        try:
            self.url = sa.make_url(url)
            self._writer = sa.create_engine(self.url, **_options(self.url))
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
            raise InputError(f"database.url: {error}") from None
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._reader = self._writer
        if self.is_sqlite:
            with contextlib.suppress(OSError):  # why not is said by whoever connects
                create(self.url.database or "")
            self._reader = sa.create_engine(self.url, **_options(self.url))
            _prepare_sqlite(self._writer, begin="BEGIN IMMEDIATE", checkpoints=checkpoints, cache_kib=16_384)
            _prepare_sqlite(
                self._reader, begin="BEGIN", checkpoints=False, cache_kib=2_048
            )  # one for each thread
        elif checkpoints:
            _prepare_postgresql(self._writer)
        self._held = (
            threading.local()
        )  # each thread keeps its connection: the pool takes as long as a statement
        self._failed: DiskFailed | None = None
        self._health = Health()
        self._write_threads = Threads(1 if self.is_sqlite else 4, name="database-write")
        self._read_threads = Threads(2, name="database-read")

    @property
    def path(self) -> Path | None:
        """Return the file of a SQLite database, or None."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Give a connection in a writing transaction. Raises DatabaseError, and then nothing was written."""
        with _translated(), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def look(self) -> Iterator[sa.Connection]:
        """Give a connection for reading: what it sees is of one moment."""
        with _translated(), self._reader.begin() as connection:
            yield connection

    async def run(
        self, function: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function` in one writing transaction on a thread, and return what it returns.

        It is run again, whole, while the database is locked or its connection was lost; so it must do nothing but
        speak to the database. What was committed is not run again, even if the answer to COMMIT was lost. Raises
        DatabaseError when patience ends, and DiskFailed, from then on for ever, if a sync failed. The log is told
        here, so that those who call need only wait.
        """
        return await self._on(
            self._write_threads, self._writer, lambda connection: function(connection, *args, **kwargs)
        )

    async def read(
        self, function: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function` in one reading transaction on a thread, and return what it returns."""
        return await self._on(
            self._read_threads, self._reader, lambda connection: function(connection, *args, **kwargs)
        )

    async def _on(self, threads: Threads, engine: sa.Engine, function: Callable[[sa.Connection], T]) -> T:
        return await threads.call(lambda: self._unless_failed(engine, function))

    def _unless_failed(self, engine: sa.Engine, function: Callable[[sa.Connection], T]) -> T:
        if self._failed is not None:
            raise self._failed
        try:
            result = _persistently(engine, self._held, function, self._health)
        except DiskFailed as failed:
            self._failed = failed
            raise
        except DatabaseError as error:
            self._health.failed(str(error))
            raise
        if engine is self._writer:
            self._health.wrote()
        return result

    def release(self) -> None:
        """Close all connections until they are needed again.

        A command that writes a great deal does so now and then, for SQLite folds the log that it wrote into the file
        only when its last connection closes, or when the daemon checkpoints.
        """
        self._reader.dispose()
        self._writer.dispose()

    def close(self) -> None:
        """Wait for the transactions under way and close all connections."""
        self._write_threads.close()
        self._read_threads.close()
        self.release()


def create(path: str) -> None:
    """Create a file, unless it is there, for the owner of its folder. Raises OSError.

    Under systemd the folder belongs to the service; what root's commands made there would lock it out.
    """
    try:
        # Exclusively: to close a file that a connection has open would drop the connection's locks.
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    try:
        if os.geteuid() == 0:
            folder = Path(path).parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    finally:
        os.close(descriptor)


def _persistently(
    engine: sa.Engine, held: threading.local, function: Callable[[sa.Connection], T], health: Health
) -> T:
    begun = time.monotonic()
    until = begun + _PATIENCE_SECONDS
    while True:
        try:
            return _once(engine, held, function, until)
        except sa.exc.DBAPIError as error:
            now = time.monotonic()
            if not _passing(error) or now > until:
                raise _ours(error) from error
            if now - begun > _UNEASY_SECONDS:
                health.failed(str(_ours(error)))
        time.sleep(random.uniform(0.05, 0.5))


def _once(
    engine: sa.Engine, held: threading.local, function: Callable[[sa.Connection], T], until: float
) -> T:
    """Run `function` in one transaction. Where the answer to COMMIT was lost, the server knows what came of it."""
    number: str | None = None
    try:
        with _held_connection(engine, held) as connection, connection.begin():
            connection.info.pop(NUMBER, None)
            result = function(connection)
            number = _number(connection)
    except sa.exc.DBAPIError as error:
        if number is None or not _passing(error) or not _committed(engine, number, until):
            raise
    return result


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
    number = connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()::text").scalar_one()
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


def _passing(error: sa.exc.DBAPIError) -> bool:
    """Return whether the same transaction may well succeed in a moment."""
    name = getattr(error.orig, "sqlite_errorname", "")
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    # 08 no connection, 40 serialization failure or deadlock, 57P0 the server is going down or coming up
    return (
        error.connection_invalidated
        or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
        or sqlstate.startswith(("08", "40", "57P0"))
        or (isinstance(error, sa.exc.OperationalError) and not name and not sqlstate)  # nobody listens
    )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _ours(error) from error


def _ours(error: sa.exc.DBAPIError) -> MailboundError:
    lines = str(error.orig).splitlines()
    why = f"database: {lines[0] if lines else repr(error.orig)}"
    if getattr(error.orig, "sqlite_errorname", "") in _UNSYNCED:
        return DiskFailed(f"{why}: what was written could not be synced")
    return DatabaseError(why)


def _options(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _BUSY_SECONDS, "check_same_thread": False}}
    return {"pool_pre_ping": True, "pool_size": 8, "connect_args": _TCP}


def _prepare_postgresql(engine: sa.Engine) -> None:
    """Let a daemon that is stopped or cut off in the middle of a transaction not keep its rows from the others."""

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
        # Of half a command that timer knows nothing; the server must find out for itself that we are gone.
        for name in ("keepalives_idle", "keepalives_interval", "keepalives_count"):
            connection.execute(f"SET tcp_{name} = {_TCP[name]}")
        connection.commit()


def _prepare_sqlite(engine: sa.Engine, *, begin: str, checkpoints: bool, cache_kib: int) -> None:
    pragmas = (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA cache_size = -{cache_kib}",
        "PRAGMA temp_store = MEMORY",
        f"PRAGMA wal_autocheckpoint = {1000 if checkpoints else 0}",
    )

    @sa.event.listens_for(engine, "do_connect")
    def _connecting(*_: object) -> None:
        _reachable(engine.url.database or "")

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = (
            None  # else sqlite3 begins transactions of its own, and not for SELECT or DDL
        )
        for pragma in pragmas:
            connection.execute(pragma).close()
        _private(engine.url.database)

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        bulk.drive(connection, begin)


def _reachable(database: str) -> None:
    """Say which file is wrong and why: SQLite says only that it is unable. Raises DatabaseError."""
    try:
        Path(database).stat()
    except OSError as error:
        raise DatabaseError(f"database: {database}: {error.strerror}") from None
    if not os.access(database, os.R_OK | os.W_OK):
        raise DatabaseError(f"database: {database}: it is not ours to read and write")


def _private(database: str | None) -> None:
    """Let nobody else read the database: it holds addresses and signing keys."""
    for suffix in ("", "-wal", "-shm"):
        path = Path(f"{database}{suffix}")
        if database and path.exists() and path.stat().st_uid == os.getuid():
            path.chmod(0o600)
