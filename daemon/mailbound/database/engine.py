"""The database: one writer at a time, transactions as plain functions over a connection.

SQLite runs in WAL mode with `synchronous = FULL`, so that what was committed survives a power cut. Only the daemon
checkpoints (`checkpoints=True`): SQLite before 3.51.3 can corrupt a WAL that two connections reset at once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from mailbound.database import bulk, transactions
from mailbound.database.health import Health
from mailbound.database.threads import Threads
from mailbound.errors import DatabaseError, DiskFailed, InputError

P = ParamSpec("P")
T = TypeVar("T")

_BUSY_SECONDS = 10

_IDLE_SECONDS = 30
"""How long a transaction may do nothing: a daemon only waits for statements, never in between."""

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
        call = partial(_called, function, args, kwargs)
        return await self._write(partial(transactions.once, self._writer, self._held, call))

    async def run_alone(
        self,
        function: Callable[Concatenate[sa.Connection, P], T],
        recall: Callable[Concatenate[sa.Connection, P], T | None],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run as `run` does a function that says a single statement to PostgreSQL, where it commits by itself.

        That spares BEGIN and COMMIT, and two round trips. If the answer is lost, `recall` is asked the same: it returns
        what `function` did, to be told by the rows, or None if that was nothing and it is to be run again.
        """
        if self.is_sqlite:
            return await self.run(function, *args, **kwargs)
        call = partial(_called, function, args, kwargs)
        again = partial(_called, recall, args, kwargs)
        return await self._write(partial(transactions.alone, self._writer, self._held, call, again))

    async def read(
        self, function: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function` in one reading transaction on a thread, and return what it returns."""
        call = partial(_called, function, args, kwargs)
        once = partial(transactions.once, self._reader, self._held, call)
        return await self._read_threads.call(partial(self._persistently, once))

    async def _write(self, once: Callable[[float], T]) -> T:
        return await self._write_threads.call(partial(self._wrote, once))

    def _wrote(self, once: Callable[[float], T]) -> T:
        result = self._persistently(once)
        self._health.wrote()
        return result

    def _persistently(self, once: Callable[[float], T]) -> T:
        if self._failed is not None:
            raise self._failed
        try:
            return transactions.persistently(once, self._health)
        except DiskFailed as failed:
            self._failed = failed
            raise
        except DatabaseError as error:
            self._health.failed(str(error))
            raise

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


def _called(
    function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], connection: sa.Connection
) -> T:
    return function(connection, *args, **kwargs)


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


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise transactions.ours(error) from error


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
