"""Rows added, each with the number that it got.

SQLite numbers the rows of one statement in their order. So where it added all of them, as it nearly always does, two
numbers tell all others, and none of the rows is read again.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mailbound.database import bulk


class Adding:
    """An INSERT that passes over what is there already."""

    def __init__(
        self, build: bulk.Build, names: Sequence[str], number: sa.Column[int], told_by: Sequence[str]
    ) -> None:
        """Take what makes the statement, its parameters, the column of the number, and what tells rows apart."""
        columns = [number, *(number.table.c[name] for name in told_by)]
        self._insert = bulk.Statement(build, names)
        self._telling = bulk.Insert(build, names, returning=columns)
        self._last = bulk.Query(lambda _: sa.select(sa.func.coalesce(sa.func.max(number), 0)))
        self._since = bulk.Rows(lambda _: sa.select(*columns).where(number > sa.bindparam("last")))
        self._key = operator.itemgetter(*(names.index(name) for name in told_by))

    def numbers(self, connection: sa.Connection, rows: Sequence[Sequence[Any]]) -> list[int | None]:
        """Return the number of each row, in their order; None for one that was there."""
        if not rows:
            return []
        if connection.dialect.name == "postgresql":
            return self._matched(self._telling.rows(connection, rows), rows)
        before = self._last.scalar(connection)
        self._insert.execute(connection, rows)
        after = self._last.scalar(connection)
        if after - before == len(rows):
            return list(range(before + 1, after + 1))
        return self._matched(self._since.get(connection, last=before), rows)

    def _matched(self, added: Sequence[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> list[int | None]:
        numbers: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
        for number, *told_by in added:
            numbers[tuple(told_by)].append(number)
        found = [numbers[self._key(row)] for row in rows]
        return [same.pop(0) if same else None for same in found]
