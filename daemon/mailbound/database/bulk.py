"""One statement for many rows or values, at the driver's own speed.

SQLAlchemy writes the SQL and knows how the values of each column are converted. What its `executemany` does anew
for every row (collecting, checking and renaming parameters) costs more than the row itself, and is left out here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

Build = Callable[[sa.Connection], sa.Insert | sa.Update]
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


def among(
    connection: sa.Connection, column: sa.ColumnElement[Any], values: Collection[str] | Collection[int]
) -> sa.ColumnElement[bool]:
    """Return whether `column` is one of `values`, however many: they are one parameter, and one statement."""
    if connection.dialect.name == "postgresql":
        return column == sa.func.any(sa.cast(list(values), ARRAY(column.type)))
    given = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(given.c.value))


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
