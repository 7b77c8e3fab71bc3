"""A statement that PostgreSQL keeps ready, asked and answered by one call of its client library.

psycopg looks at each value to find its type, so that a list of small numbers is another statement than one of large
numbers; and it gives up Python's lock several times while it waits, which the event loop then keeps. Both cost more
than the statement itself. All goes as text here, each parameter cast by the statement, and the lock is given up once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.database import bulk

_FORGOTTEN = "26000"
"""No such prepared statement: psycopg lets the server forget all of them after a ROLLBACK."""


class Prepared:
    """A statement for PostgreSQL; it is compiled once."""

    def __init__(self, name: str, build: Callable[[sa.Connection], sa.Select[Any]]) -> None:
        """Take what makes the statement, and a name that no other one has."""
        self._name = b"mailbound_" + name.encode()
        self._build = build
        self._compiled: tuple[bytes, list[str]] | None = None

    def row(self, connection: sa.Connection, **values: Any) -> list[str | None]:
        """Return the one row that it gives with `values` for its parameters, each cell as PostgreSQL writes it.

        If the connection is in no transaction it is one by itself. Raises sa.exc.DBAPIError.
        """
        driver: Any = connection.connection.driver_connection
        libpq = driver.pgconn
        psycopg: Any = connection.dialect.loaded_dbapi  # whoever has SQLite need not load it
        sql, names = self._compiled = self._compiled or self._compile(connection)
        try:
            if connection.in_transaction() and libpq.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                _done(psycopg, libpq.exec_(b"BEGIN"))  # psycopg would do that with the first statement
            if self._name not in connection.info:
                _done(psycopg, libpq.prepare(self._name, sql))
                connection.info[self._name] = True
            written = [_written(values[name]) for name in names]
            result = _done(psycopg, libpq.exec_prepared(self._name, written))
        except psycopg.Error as error:
            if error.sqlstate == _FORGOTTEN:
                connection.info.pop(self._name, None)
            raise sa.exc.DBAPIError.instance(
                sql.decode(), None, error, psycopg.Error, hide_parameters=True, dialect=connection.dialect
            ) from error
        cells = (result.get_value(0, column) for column in range(result.nfields))
        return [None if cell is None else cell.decode() for cell in cells]

    def _compile(self, connection: sa.Connection) -> tuple[bytes, list[str]]:
        kind: Any = type(connection.dialect)
        dialect = kind(paramstyle="numeric_dollar")
        compiled = bulk.inlined(dialect, self._build(connection))
        return str(compiled).encode(), list(compiled.positiontup)


def array(values: Iterable[int | str | None]) -> str:
    """Return how PostgreSQL writes an array of numbers or texts."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def numbers(written: str | None) -> list[int]:
    """Return the numbers of an array that PostgreSQL wrote."""
    return [int(number) for number in written[1:-1].split(",")] if written and written != "{}" else []


def _element(value: int | str | None) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "NULL" if value is None else str(value)


def _written(value: int | str | datetime) -> bytes:
    return (value.isoformat() if isinstance(value, datetime) else str(value)).encode()


def _done(psycopg: Any, result: Any) -> Any:
    """Return a result that is none of failure."""
    if result.status in {psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK}:
        return result
    if result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) is None:  # the connection was lost
        raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
    raise psycopg.errors.error_from_result(result)
