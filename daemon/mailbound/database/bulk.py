"""One statement for many rows or values, at the driver's own speed.

SQLAlchemy writes the SQL and knows how the values of each column are converted. What its `executemany` does anew
for every row (collecting, checking and renaming parameters) costs more than the row itself, and is left out here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

Build = Callable[[sa.Connection], sa.Insert | sa.Update]
Ask = Callable[[sa.Connection], sa.Select[Any] | sa.UpdateBase]
_Converter = Callable[[Any], Any]


class Statement:
    """An INSERT or UPDATE that is executed for many rows; it is compiled once for each engine."""

    def __init__(self, build: Build, names: Sequence[str]) -> None:
        """Take what makes the statement, and the names of its parameters; a row is a tuple in this order."""
        self._build = build
        self._names = tuple(names)
        self._compiled: tuple[sa.Dialect, str, list[_Converter | None], list[int]] | None = None

    def execute(self, connection: sa.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Execute it for all rows; for none it does nothing."""
        if not rows:
            return
        sql, converters, positions = self._compile(connection)
        columns = list(map(_converted, zip(*rows, strict=True), converters))
        if positions:
            columns = [columns[position] for position in positions]
            connection.exec_driver_sql(sql, list(zip(*columns, strict=True)))
        else:
            values = [dict(zip(self._names, row, strict=True)) for row in zip(*columns, strict=True)]
            connection.exec_driver_sql(sql, values)

    def _compile(self, connection: sa.Connection) -> tuple[str, list[_Converter | None], list[int]]:
        if self._compiled is None or self._compiled[0] is not connection.dialect:
            dialect = connection.dialect
            compiled: Any = self._build(connection).compile(dialect=dialect, column_keys=list(self._names))
            types = (compiled.binds[name].type.dialect_impl(dialect) for name in self._names)
            converters = [type_.bind_processor(dialect) for type_ in types]
            positions = [self._names.index(name) for name in compiled.positiontup or ()]
            self._compiled = dialect, str(compiled), converters, positions
        return self._compiled[1:]


class Query:
    """A statement of the hot path with a few parameters; it is compiled once for each engine."""

    def __init__(self, build: Ask) -> None:
        """Take what makes the statement."""
        self._build = build
        self._compiled: tuple[sa.Dialect, str, dict[str, _Converter], list[str]] | None = None

    def rows(self, connection: sa.Connection, **values: Any) -> Sequence[tuple[Any, ...]]:
        """Return the rows that it gives with `values` for its parameters; they are as the driver has them."""
        rows: list[tuple[Any, ...]] = self._ask(connection, values).fetchall()
        return rows

    def count(self, connection: sa.Connection, **values: Any) -> int:
        """Execute it with `values` for its parameters, and return how many rows it changed."""
        return int(self._ask(connection, values).rowcount)

    def scalar(self, connection: sa.Connection, **values: Any) -> Any:
        """Return the one value that it gives with `values` for its parameters, as the driver has it."""
        return self._ask(connection, values).fetchone()[0]

    def execute(self, connection: sa.Connection, **values: Any) -> None:
        """Execute it with `values` for its parameters."""
        self._ask(connection, values)

    def _ask(self, connection: sa.Connection, values: dict[str, Any]) -> Any:
        sql, converters, positions = self._compile(connection)
        for name, convert in converters.items():
            values[name] = convert(values[name])
        return drive(connection, sql, tuple([values[name] for name in positions]) if positions else values)

    def _compile(self, connection: sa.Connection) -> tuple[str, dict[str, _Converter], list[str]]:
        if self._compiled is None or self._compiled[0] is not connection.dialect:
            dialect = connection.dialect
            compiled = inlined(dialect, self._build(connection))
            converters = {
                name: convert
                for name in compiled.bind_names.values()
                if (convert := compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
                is not None
            }
            self._compiled = dialect, str(compiled), converters, list(compiled.positiontup or ())
        return self._compiled[1:]


def inlined(dialect: sa.Dialect, statement: sa.ClauseElement) -> Any:
    """Compile a statement with what is constant in it written into its SQL.

    A constant parameter is work for each execution, and more: SQLite compiles a statement anew whenever a parameter is
    set that is compared with a column of a partial index's condition.
    """
    plain: Any = dialect.statement_compiler

    class Inlining(plain):  # type: ignore[misc]
        def visit_bindparam(self, bindparam: sa.BindParameter[Any], **given: Any) -> Any:
            constant = {} if bindparam.required else {"literal_binds": True}
            return super().visit_bindparam(bindparam, **given | constant)

    return Inlining(dialect, statement)


class Insert:
    """An INSERT that tells which rows it added; on SQLite by a second statement, for the reason that `Rows` has."""

    def __init__(self, build: Build, names: Sequence[str], returning: Sequence[sa.Column[Any]]) -> None:
        """Take what makes the statement, the names of its parameters, and what to tell; first the row's id."""
        self._build = build
        self._names = tuple(names)
        self._returning = returning
        self._insert = Statement(build, names)
        self._last = Query(lambda _: sa.select(sa.func.coalesce(sa.func.max(returning[0]), 0)))
        self._since = Rows(lambda _: sa.select(*returning).where(returning[0] > sa.bindparam("last")))

    def rows(self, connection: sa.Connection, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return what is told of each row that was added."""
        if not rows:
            return []
        if connection.dialect.name == "postgresql":
            values = [dict(zip(self._names, row, strict=True)) for row in rows]
            return connection.execute(self._build(connection).returning(*self._returning), values).all()
        last = self._last.scalar(connection)
        self._insert.execute(connection, rows)
        return self._since.get(connection, last=last)


class Rows:
    """A SELECT of the hot path. From SQLite all its rows come as one.

    There a row is fetched without Python's lock, and to get that back takes as long as the event loop likes.
    """

    def __init__(self, build: Callable[[sa.Connection], sa.Select[Any]]) -> None:
        """Take what makes the statement."""
        self._build = build
        self._apart = Query(build)
        self._together = Query(self._as_one)

    def get(self, connection: sa.Connection, **values: Any) -> Sequence[Sequence[Any]]:
        """Return the rows; SQLite has a moment as text and JSON as what it says."""
        if connection.dialect.name == "postgresql":
            return self._apart.rows(connection, **values)
        rows: list[list[Any]] = json.loads(self._together.scalar(connection, **values))
        return rows

    def _as_one(self, connection: sa.Connection) -> sa.Select[Any]:
        cells = self._build(connection).subquery("row").c
        said = (sa.func.json(cell) if isinstance(cell.type, sa.JSON) else cell for cell in cells)
        return sa.select(sa.func.json_group_array(sa.func.json_array(*said)))


def moment(told: Any) -> Any:
    """Return a moment as `Rows` gives it, or None, as an aware datetime, or None."""
    return datetime.fromisoformat(told).replace(tzinfo=UTC) if isinstance(told, str) else told


def told(connection: sa.Connection, moment: datetime | str | None) -> str | None:
    """Return an aware datetime, None, or what `Rows` told of either, as it stands in the JSON of a `table`."""
    if not isinstance(moment, datetime):
        return moment
    if connection.dialect.name == "postgresql":
        return moment.isoformat()
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def drive(connection: sa.Connection, sql: str, parameters: Any = ()) -> Any:
    """Execute `sql` by the driver itself, and return its cursor; what it raises is raised as SQLAlchemy would.

    SQLAlchemy prepares for any result that a statement may have, which costs as much as a short statement does.
    """
    driver: Any = connection.connection.driver_connection
    base = connection.dialect.loaded_dbapi.Error
    try:
        return driver.execute(sql, parameters)
    except base as error:
        raise sa.exc.DBAPIError.instance(
            sql, None, error, base, hide_parameters=True, dialect=connection.dialect
        ) from error


def packed(connection: sa.Connection, values: Collection[Any]) -> Any:
    """Return `values` as the one parameter that `listed` takes."""
    return list(values) if connection.dialect.name == "postgresql" else json.dumps(list(values))


def listed(connection: sa.Connection, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    """Return whether `column` is one of the values that the parameter `name` will hold, `packed`."""
    return _is_one(connection, column, sa.bindparam(name, type_=sa.types.NullType()))


def table(connection: sa.Connection, name: str, **columns: sa.types.TypeEngine[Any]) -> sa.FromClause:
    """Return a table whose rows the parameter `name` will hold: JSON, a list of lists in the order of `columns`."""
    parameter = sa.bindparam(name, type_=sa.Text())
    cells: list[sa.ColumnElement[Any]]
    if connection.dialect.name == "postgresql":
        rows = sa.func.json_array_elements(sa.cast(parameter, sa.JSON())).table_valued("value", name="row")
        cells = [rows.c.value.op("->>")(place).cast(type_) for place, type_ in enumerate(columns.values())]
    else:
        rows = sa.func.json_each(parameter).table_valued("value", name="row")
        cells = [sa.func.json_extract(rows.c.value, f"$[{place}]") for place in range(len(columns))]
    labelled = (cell.label(column) for cell, column in zip(cells, columns, strict=True))
    return sa.select(*labelled).subquery("given")


def mapping(
    connection: sa.Connection, name: str, key: sa.types.TypeEngine[Any], value: sa.types.TypeEngine[Any]
) -> sa.FromClause:
    """Return a table of `key` and `value` that the parameter `name` will hold: JSON, an object.

    On SQLite it is faster than `table`, which looks into each row once more for each of its columns.
    """
    parameter = sa.bindparam(name, type_=sa.Text())
    on_postgresql = connection.dialect.name == "postgresql"
    each = (
        sa.func.json_each_text(sa.cast(parameter, sa.JSON()))
        if on_postgresql
        else sa.func.json_each(parameter)
    )
    rows = each.table_valued("key", "value", name="row").c
    cells = (
        rows.key.cast(key).label("key"),
        (rows.value.cast(value) if on_postgresql else rows.value).label("value"),
    )
    return sa.select(*cells).subquery("given")


def among(
    connection: sa.Connection, column: sa.ColumnElement[Any], values: Collection[str] | Collection[int]
) -> sa.ColumnElement[bool]:
    """Return whether `column` is one of `values`, however many: they are one parameter, and one statement."""
    parameter = sa.bindparam(None, packed(connection, values), type_=sa.types.NullType(), unique=True)
    return _is_one(connection, column, parameter)


def _is_one(
    connection: sa.Connection, column: sa.ColumnElement[Any], parameter: sa.BindParameter[Any]
) -> sa.ColumnElement[bool]:
    if connection.dialect.name == "postgresql":
        return column == sa.func.any(sa.cast(parameter, ARRAY(column.type)))
    return column.in_(sa.select(sa.func.json_each(parameter).table_valued("value").c.value))


def _converted(column: Sequence[Any], converter: _Converter | None) -> Sequence[Any]:
    """Return a column as the driver wants it; a value that stands in many rows is converted once."""
    if converter is None:
        return column
    result = []
    last, after = column[0], converter(column[0])
    for value in column:
        if value is not last:
            last, after = value, converter(value)
        result.append(after)
    return result
